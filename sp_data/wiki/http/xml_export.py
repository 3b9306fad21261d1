"""MediaWiki's XML export -> the wikitext of each page: 500 pages in one answer instead of 50 with `prop=revisions`.

<mediawiki><page><id>8</id><revision><id>171</id><model>wikitext</model><text>'''Ada'''...</text></revision></page>...
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

from lxml import etree


@dataclass(frozen=True, slots=True)
class ExportedPage:
    """The newest revision of a page. `text` is None if the wiki hides it."""

    revision: int
    model: str
    text: str | None

    def as_revision(self) -> dict[str, Any]:
        """The revision as `prop=revisions` would give it."""
        main: dict[str, Any] = {"contentmodel": self.model}
        if self.text is not None:
            main["content"] = self.text
        return {"revid": self.revision, "slots": {"main": main}}


def read_export(xml: str) -> dict[int, ExportedPage]:
    """Page id -> its newest revision. If the export breaks off or is none, only the pages that came whole."""
    revisions: dict[int, ExportedPage] = {}
    # A wiki is not trusted: no entities are expanded and nothing is loaded from elsewhere.
    stream = io.BytesIO(xml.encode("utf-8", "replace"))
    pages = etree.iterparse(
        stream, tag="{*}page", resolve_entities=False, no_network=True, huge_tree=True, recover=True
    )
    # lxml recovers from all but an export without any element.
    with contextlib.suppress(etree.XMLSyntaxError):
        for _, page in pages:
            revision = page.find("{*}revision")
            page_id, revision_id = (_id(page), None) if revision is None else (_id(page), _id(revision))
            if page_id is not None and revision_id is not None:
                text = revision.find("{*}text")
                hidden = text is None or text.get("deleted") is not None
                revisions[page_id] = ExportedPage(
                    revision_id,
                    revision.findtext("{*}model") or "wikitext",
                    None if hidden else text.text or "",
                )
            page.clear()
    return revisions


def _id(element: Any) -> int | None:
    digits = element.findtext("{*}id") or ""
    return int(digits) if digits.isdecimal() and len(digits) < 16 else None
