"""Pages of the made-up wiki as MediaWiki exports them: XML with the newest revision of each."""

from collections.abc import Iterable
from xml.sax.saxutils import escape

from sp_data.demo.wiki.pages import WikiPage

VERSION = "0.11"


def export(pages: Iterable[WikiPage]) -> str:
    """The XML of these pages."""
    body = "".join(_page(page) for page in pages)
    return (
        f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-{VERSION}/" version="{VERSION}" xml:lang="en">\n'
        f"{body}</mediawiki>\n"
    )


def _page(page: WikiPage) -> str:
    redirect = f'    <redirect title="{escape(page.redirect, {chr(34): "&quot;"})}" />\n' if page.redirect else ""
    return (
        f"  <page>\n    <title>{escape(page.title)}</title>\n    <ns>{page.namespace}</ns>\n"
        f"    <id>{page.page_id}</id>\n"
        f"{redirect}    <revision>\n      <id>{page.revision_id}</id>\n      <timestamp>{page.timestamp}</timestamp>\n"
        "      <model>wikitext</model>\n      <format>text/x-wiki</format>\n"
        f'      <text bytes="{len(page.wikitext.encode())}" xml:space="preserve">{escape(page.wikitext)}</text>\n'
        "    </revision>\n  </page>\n"
    )
