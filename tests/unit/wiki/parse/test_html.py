"""What is read from HTML, in the shapes that Fandom and MediaWiki give it."""

from sp_data.wiki.parse import html as rendered
from sp_data.wiki.parse.page import Use

BLANK = "data:image/gif;base64,R0lGODlhAQABAIABAAAAAP///yH5BAEAAAEALAAAAAABAAEAQAICTAEAOw%3D%3D"
CDN = "https://static.wikia.nocookie.net/x/images/a/ab"


def read(html: str):
    return rendered.read(f'<div class="mw-parser-output">{html}</div>', "Ada Birch", 1, 2)


def test_a_portable_infobox():
    page = read(
        '<aside class="portable-infobox"><h2 class="pi-title" data-source="name">Ada</h2>'
        f'<figure class="pi-image" data-source="image"><a><img src="{CDN}/Ada.png/revision/latest?cb=1" alt="Ada.png" '
        'data-image-key="Ada.png"></a><figcaption class="pi-caption">At the <a>lake</a></figcaption></figure>'
        '<section><h2 class="pi-header">Looks</h2><div class="pi-data" data-source="hat_kind">'
        '<h3 class="pi-data-label">Hat</h3><div class="pi-data-value">bobble <b>hat</b><sup class="reference">[1]</sup>'
        "</div></div></section></aside>"
        "<p><b>Ada</b> is a kid. She swims.</p>"
    )
    (box,) = page.infoboxes
    assert box.fields == {"name": "Ada", "hat kind": "bobble hat"}
    assert box.pictures == (Use("Ada.png", "infobox", "At the lake", ""),)
    assert (page.lead, page.uses) == ("Ada is a kid.", ())


def test_two_trees_of_one_infobox_show_one_picture():
    figure = '<figure class="pi-image"><img data-image-key="A.png"></figure>'
    (box,) = read(f'<aside class="portable-infobox">{figure}{figure}</aside>').infoboxes
    assert len(box.pictures) == 1


def test_lazy_pictures_of_a_wikia_gallery_are_known_by_their_key_and_counted_once():
    page = read(
        '<h2><span class="mw-headline">Main</span><span class="mw-editsection">[edit]</span></h2>'
        '<div class="wikia-gallery"><div class="wikia-gallery-item"><div class="thumb"><a>'
        f'<img src="{BLANK}" data-src="{CDN}/x" data-image-key="Chef%27s_Balls.png" alt="Chef">'
        f'<noscript><img src="{CDN}/Chef%27s_Balls.png" data-image-key="Chef%27s_Balls.png"></noscript></a></div>'
        '<div class="lightbox-caption">The <a>chef</a></div></div>'
        '<div class="wikia-gallery-item"><a class="new">Gone.png</a><div class="lightbox-caption">no</div></div></div>'
    )
    assert page.uses == (Use("Chef's Balls.png", "gallery", "The chef", "Chef", "Main"),)


def test_mediawikis_own_thumbs_and_galleries_are_known_by_their_addresses():
    page = read(
        '<div class="thumb"><div class="thumbinner">'
        '<img src="/images/thumb/a/ab/Ada_B.png/120px-Ada_B.png" alt="a kid">'
        '<div class="thumbcaption"><div class="magnify">+</div>At the lake</div></div></div>'
        '<figure typeof="mw:File/Thumb"><img src="/images/a/ab/New.png"><figcaption>New style</figcaption></figure>'
        '<ul class="gallery"><li class="gallerybox"><img src="/images/a/ab/In.png">'
        '<div class="gallerytext"><p>In it</p></div></li></ul>'
        '<p><img src="/images/a/ab/Line.png" alt="Line.png"> <img src="https://x.invalid/other.png"></p>'
    )
    assert [(use.name, use.kind, use.caption, use.alt) for use in page.uses] == [
        ("Ada B.png", "thumb", "At the lake", "a kid"),
        ("New.png", "thumb", "New style", ""),
        ("In.png", "gallery", "In it", ""),
        ("Line.png", "inline", "", ""),
    ]


def test_a_page_that_starts_with_a_heading_has_no_lead():
    assert read("<h2>Main</h2><p>No.</p>").lead == ""
    assert read("").lead == ""


def test_script_and_style_say_nothing():
    page = read("<p><script>alert(1)</script><style>p {}</style></p><p>Ada is a kid.</p>")
    assert page.lead == "Ada is a kid."


def test_an_address_that_is_none_costs_the_page_nothing():
    page = read('<img src="//[/a/ab/x.png"><img src="/images/a/ab/Line.png">')
    assert [use.name for use in page.uses] == ["Line.png"]
