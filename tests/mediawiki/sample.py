"""A sample wiki with every awkward case: draws its pictures and gives the operations that build it.

N kids, each with an article, an infobox and a picture `Kid-007.png`; and files with quotes, accents, percent signs and
other scripts in their names; GIF, WebP, SVG, PDF, Ogg; the same bytes under two names; a revised one, a deleted one, a
moved one (with its redirect); a huge one and a single pixel; redirects, red links, a subpage, a portal's gallery.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from mediawiki.wiki import Op

NUM_OTHER_FILES = 15
"""Files that the wiki has in the end, besides the kids' own."""
USERS = ("Alice", "Bob", "Señor Wences")
HAIR = ("Brown", "Black", "Blond", "Red")
CHEF = 'Chef\'s "Salty" Balls (song)'
PDF = (
    b"%PDF-1.1\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)
SVG = (
    b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="120" height="60">'
    b'<circle cx="30" cy="30" r="25" fill="#f80"/></svg>'
)
OGG = b"OggS\0\x02" + bytes(8) + b"\1\0\0\0\0\0\0\0\0\0\0\0\1\x1e\1vorbis" + bytes(23)

INFOBOX = """<includeonly><infobox>
<title source="name"><default>{{PAGENAME}}</default></title>
<image source="image"><caption source="caption"/><alt source="alt"/></image>
<group><header>Information</header>
<data source="gender"><label>Gender</label></data><data source="hair"><label>Hair</label></data>
<data source="age"><label>Age</label></data><data source="occupation"><label>Occupation</label></data>
</group>
<group><header>Appearances</header><data source="first"><label>First Appearance</label></data></group>
</infobox>[[Category:Characters]]</includeonly><noinclude>Infobox</noinclude>"""
BASE_PAGES = {
    "Template:Infobox character": INFOBOX.replace("\n", ""),
    "Template:Fairuse": '<includeonly>{| class="licence"\n| This file is copyrighted. It is used under '
    "[[w:fair use|fair use]].\n|}\n[[Category:Fair use images]]</includeonly>",
    "Template:CC-BY-SA": "<includeonly>This file is licensed under the [[Creative Commons Attribution-Share Alike "
    "License]].[[Category:CC-BY-SA images]]</includeonly>",
    "Template:Self": "<includeonly>Made by the uploader.[[Category:Self-made images]]</includeonly>",
    "Category:Characters": "All the characters.",
    "Category:Images": "All the images.\n[[Category:Maintenance]]",
    "Main Page": "Welcome. See [[Portal:Characters]].",
}
FILE_PAGES = (
    "== Summary ==\n{} as seen in the show.\n\n== Licensing ==\n{{{{Fairuse}}}}\n[[Category:Images]]",
    "{{{{Self}}}}\n{{{{CC-BY-SA}}}}\nFan art of {}.\n[[Category:Fan art]]",
    "[[Category:Images]]",
)
KID = """{{{{Infobox character
|name = {kid}
|image = {file}
|caption = {kid} in "[[Pilot]]"
|gender = {gender}
|hair = {hair}
|occupation = [[Student]]
|first = "[[Pilot]]"
}}}}
'''{kid}''' is a {noun} with {hair_colour} hair in the fourth grade.<ref>Pilot</ref>

== Appearance ==
{kid} wears a coat.
[[File:{file}|thumb|left|100px|{kid} in a coat|alt=a drawn child]]

== Gallery ==
<gallery>
{file}|{kid} at school
{friend_file}|With a [[{friend}|friend]]
</gallery>
[[Category:{gender} characters]]
{{{{DEFAULTSORT:{number:03d}}}}}"""
OTHER_PAGES = {
    "Señor Dóminguez": "{{Infobox character|name=Señor Dóminguez|image=Señor-Dóminguez.png|gender=Male}}\n"
    "'''Señor Dóminguez''' is a man with a moustache.",
    CHEF: f"[[File:{CHEF}.png|thumb|The ''single'' cover, {{{{PAGENAME}}}}]]\nA song.",
    "AC/DC (band)": "[[File:Class photo, 1997 (season 1).jpg|thumb|300px|right|alt=a class|The '''class''' of "
    "<small>1997</small>, with [[Kid 001|a kid]]]]\nA band/page with a slash.",
    "C.C. & Co": "[[Image:New name.png|frame|Moved file]] [[File:Old name.png|50px]] "
    "[[File:Does not exist.png|thumb|missing]] [[Media:Theme.ogg]] [[File:Logo.svg|60px]] [[File:Dancing.gif]] "
    "[[File:Webp-kid.webp|100px]] [[File:Huge-poster.jpg|400px]] [[File:Pixel.png]]\nNo infobox here.",
    "Reuser": "[[File:Kid-000.png|thumb|Reused once]]\n[[File:Kid-000.png|thumb|Reused twice]]\n"
    "[[File:Revised.png|thumb|revised]]\n[[File:Kid-000-copy.png|thumb|same bytes]] "
    "[[File:50% & more+plus.png|80px]] [[File:日本語のキャラ.png|80px]]",
    "By the old name": "[[File:Old name.png|thumb|Under the name it had]]",
    "The Kid": "#REDIRECT [[Kid 001]]",
    "Double redirect": "#REDIRECT [[The Kid]]",
    "Pilot": "The ''first'' episode.",
    "Empty": "",
    "Kid 001/Gallery": '<gallery mode="packed" caption="Sub page">\n'
    "File:Kid-001.png|a caption with '''markup''' and {{PAGENAME}}\nDoes not exist.png|missing\nScript.pdf|a pdf\n"
    "https://example.invalid/x.png|not a file\n</gallery>",
}


def sample_ops(folder: Path, num_kids: int) -> list[Op]:
    """Draw the pictures into `folder` and give the operations, in order. The wiki then has num_kids + 15 files."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_files(folder, num_kids)
    base = [_edit(title, text, "20120101000000") for title, text in BASE_PAGES.items()]
    kids = [op for number in range(num_kids) for op in _kid(folder, number, num_kids)]
    pages = {**OTHER_PAGES, "Portal:Characters": _portal(num_kids)}
    return [
        *base,
        *kids,
        *_other_files(folder),
        *(_edit(title, text, "20170101000000") for title, text in pages.items()),
    ]


def draw_files(folder: Path, num_kids: int) -> None:
    """Draw every file of the sample into `folder`, and the older revision of one."""
    for number in range(num_kids):
        _figure(120 + number % 50, 200 + number % 70, 100 + number).save(folder / f"Kid-{number:03d}.png")
    names = ("Señor-Dóminguez", CHEF, "Revised", "Doomed", "日本語のキャラ", "50% & more+plus")
    for seed, name in enumerate(names, start=1):
        _figure(200, 300, seed).save(folder / f"{name}.png")
    _figure(260, 390, 11).save(folder / "Revised-v2.png")
    _figure(400, 500, 12).convert("RGB").save(folder / "Class photo, 1997 (season 1).jpg", quality=90)
    _figure(300, 400, 13).save(folder / "Webp-kid.webp")
    _figure(6000, 4000, 14).convert("RGB").save(folder / "Huge-poster.jpg", quality=80)
    _figure(1, 1, 15).save(folder / "Pixel.png")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(folder / "Dancing.gif", save_all=True, append_images=frames[1:], duration=200, loop=0)
    shutil.copyfile(folder / "Kid-000.png", folder / "Kid-000-copy.png")
    for name, body in (("Logo.svg", SVG), ("Script.pdf", PDF), ("Theme.ogg", OGG)):
        (folder / name).write_bytes(body)


def _figure(width: int, height: int, seed: int) -> Image.Image:
    """A head on a body on a transparent ground, in colours that depend on the seed."""
    dice = random.Random(seed)
    picture = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    brush = ImageDraw.Draw(picture)

    def colour() -> tuple[int, int, int]:
        return dice.randrange(256), dice.randrange(256), dice.randrange(256)

    def box(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        return left * width, top * height, right * width, bottom * height

    brush.rectangle(box(0.25, 0.5, 0.75, 0.9), fill=colour())
    brush.ellipse(box(0.15, 0.1, 0.85, 0.55), fill=(250, 224, 190))
    brush.pieslice(box(0.14, 0.08, 0.86, 0.43), 180, 360, fill=colour())
    for x in (0.4, 0.6):
        brush.ellipse(box(x - 0.09, 0.27, x + 0.09, 0.39), fill="white")
        brush.ellipse(box(x - 0.02, 0.31, x + 0.02, 0.35), fill="black")
    return picture


def _edit(title: str, text: str, ts: str, user: str = "Fixture") -> Op:
    return {"op": "edit", "title": title, "text": text, "ts": ts, "user": user}


def _upload(source: Path, name: str = "", text: str = "", *, day: int = 1, year: int = 2015, comment: str = "") -> Op:
    ts = f"{year}01{day % 28 + 1:02d}{day % 24:02d}{day % 60:02d}00"
    user = USERS[day % len(USERS)]
    name = name or source.name
    return {"op": "upload", "name": name, "src": str(source), "text": text, "ts": ts, "user": user, "comment": comment}


def _kid(folder: Path, number: int, num_kids: int) -> Iterator[Op]:
    kid, file, friend = f"Kid {number:03d}", f"Kid-{number:03d}.png", (number + 1) % num_kids
    hair, is_boy = HAIR[number % 4], number % 2 == 1
    yield _upload(folder / file, text=FILE_PAGES[number % 3].format(kid), day=number)
    text = KID.format(
        kid=kid,
        file=file,
        number=number,
        friend=f"Kid {friend:03d}",
        friend_file=f"Kid-{friend:03d}.png",
        gender="Male" if is_boy else "Female",
        noun="boy" if is_boy else "girl",
        hair=hair,
        hair_colour=hair.lower(),
    )
    yield _edit(kid, text, f"2016{number % 12 + 1:02d}01000000", "Bob")


def _other_files(folder: Path) -> Iterator[Op]:
    yield _upload(folder / "Señor-Dóminguez.png", text="{{Fairuse}}[[Category:Images]]")
    yield _upload(folder / f"{CHEF}.png", text="{{Fairuse}}")
    yield _upload(folder / "Class photo, 1997 (season 1).jpg", text="Many characters together.\n{{Fairuse}}")
    for name in ("Webp-kid.webp", "Dancing.gif", "Logo.svg", "Script.pdf", "Theme.ogg", "日本語のキャラ.png"):
        yield _upload(folder / name)
    for name in ("50% & more+plus.png", "Kid-000-copy.png", "Huge-poster.jpg", "Pixel.png"):
        yield _upload(folder / name)
    yield _upload(folder / "Revised.png", text="[[Category:Images]]", year=2013, comment="first version")
    yield _upload(folder / "Revised-v2.png", "Revised.png", year=2018, comment="better scan")
    yield _upload(folder / "Doomed.png", year=2014)
    yield {"op": "delete", "title": "File:Doomed.png", "ts": "20190101000000"}
    yield _upload(folder / "Kid-001.png", "Old name.png", year=2014)
    yield {"op": "move", "from": "File:Old name.png", "to": "File:New name.png", "ts": "20190201000000"}


def _portal(num_kids: int) -> str:
    entries = [f"Kid-{number:03d}.png|[[Kid {number:03d}]]|link=Kid {number:03d}" for number in range(num_kids)]
    main, other = "\n".join(entries[: num_kids // 2]), "\n".join(entries[num_kids // 2 :])
    return (
        f'== Main ==\n<gallery widths="185" hideaddbutton="true">\n{main}\n</gallery>\n'
        f"== Other ==\n<gallery>\n{other}\n"
        "Señor-Dóminguez.png|[[Señor Dóminguez]]|link=Señor Dóminguez\nDoomed.png|gone\nKid-000.png|a second time\n"
        "</gallery>\n__NOTOC__"
    )
