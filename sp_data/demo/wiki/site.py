"""The made-up wiki's pages for a browser, below /wiki/: an article in a plain frame."""

from html import escape

from sp_data.demo.wiki.pages import WikiPage
from sp_data.demo.wiki.render import eager, html
from sp_data.demo.wiki.titles import article_path, image_url
from sp_data.demo.wiki.world import World

STYLE = """
body { font: 16px/1.5 Georgia, serif; background: #ded8cc; color: #322e34; margin: 0 }
main { background: #faf6ec; max-width: 58rem; margin: 2rem auto; padding: 1.5rem 2.5rem; box-shadow: 5px 6px 0 #0003 }
a { color: #244ac4; text-decoration: none } a.new { color: #ce202c } h1 { border-bottom: 2px solid; margin-top: 0 }
aside { float: right; width: 18rem; margin: 0 0 1rem 1.5rem; background: #eeeade; padding: .7rem; font-size: 14px }
aside h2 { margin: .3rem 0; font-size: 1.05rem } aside img { width: 100%; height: auto } figure { margin: 0 }
.pi-data { display: flex } .pi-data-label { width: 6rem; margin: 0; font-size: 14px }
.wikia-gallery { display: flex; flex-wrap: wrap; gap: .8rem } .wikia-gallery-item { font-size: 14px }
.wikia-gallery-item img { width: 185px; height: 185px; object-fit: contain }
"""
ROBOTS = """User-agent: *
Disallow: /wiki/Special:
Disallow: /*?*action=edit
Disallow: /*?*diff=
Disallow: /*?*oldid=
Allow: /api.php?
Allow: /wiki/

User-agent: GPTBot
Disallow: /

User-agent: CCBot
Disallow: /
"""


def article(world: World, page: WikiPage, origin: str) -> str:
    """The HTML document of `page`."""
    body = eager(html(world, page, ""))
    if page.namespace == 6 and (file := world.files.get(page.title.removeprefix("File:"))) is not None:
        address = image_url(file.name, file.timestamp, "")
        size = f"{file.width} × {file.height} px, {len(file.data):,} bytes"
        facts = f"{size}, {escape(file.mime)}, by {escape(file.uploader)}"
        body = f'<p><a href="{escape(address)}"><img src="{escape(address)}" alt=""></a><br>{facts}</p>{body}'
    if page.namespace == 14:
        members = [other.title for other in world.pages.values() if page.title in other.categories]
        body += "<ul>" + "".join(f"<li>{_link(title)}</li>" for title in members) + "</ul>"
    categories = " · ".join(_link(category) for category in page.categories)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(page.title)} | {escape(world.name)}'
        f'</title><link rel="canonical" href="{origin}{escape(article_path(page.title))}"><style>{STYLE}</style></head>'
        f"<body><main><p>{_link('Main WikiPage')} · {_link('Portal:Characters')}</p><h1>{escape(page.title)}</h1>{body}"
        f'<p style="clear:both">{categories}</p></main></body></html>'
    )


def _link(title: str) -> str:
    return f'<a href="{escape(article_path(title))}">{escape(title)}</a>'
