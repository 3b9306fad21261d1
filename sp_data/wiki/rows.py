"""Facts -> rows of the catalogue. A pure function: equal facts make equal rows, whatever way they were gathered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from sp_data.recipe import Source
from sp_data.wiki.captions.candidates import Index
from sp_data.wiki.captions.choose import Words, chosen, variants
from sp_data.wiki.captions.clip_length import shortened
from sp_data.wiki.catalogue import OK, Attribute, Caption, CatalogueRow
from sp_data.wiki.facts import Facts, WikiFile
from sp_data.wiki.forgotten import FORGOTTEN, Forgotten
from sp_data.wiki.originals import original_path
from sp_data.wiki.pages import complete
from sp_data.wiki.parse.file_page import NO_PAGE, FilePage


def make_rows(facts: Facts, source: Source, statuses: Mapping[str, str]) -> list[CatalogueRow]:
    """One row a file, sorted by title. `statuses`: name -> what became of its original."""
    index = Index(facts.files, facts.aliases)
    html = {page.page.title: page.page for page in facts.rendered.values()}
    for title in sorted(facts.articles.keys() | html.keys()):
        article = facts.articles.get(title)
        index.add(complete(article, html[title]) if title in html else facts.articles[title])
    files = sorted(facts.files.values(), key=lambda file: file.title)
    return [_row(file, facts.file_pages.get(file.name, NO_PAGE), index, source, statuses[file.name]) for file in files]


def without_forgotten(rows: Iterable[CatalogueRow], forgotten: Forgotten) -> list[CatalogueRow]:
    """The rows that a scrape would make with this list of forgotten pictures."""
    return [
        row.model_copy(update={"status": FORGOTTEN, "original": None}) if forgotten.covers(row.title, row.sha1) else row
        for row in rows
    ]


def caption_sources(rows: Iterable[CatalogueRow]) -> dict[str, int]:
    """Kind of the chosen caption, or 'template' -> how many rows have it, most frequent first."""
    counts = Counter(
        next((caption.source for caption in row.captions if shortened(caption.text) == row.caption), "template")
        for row in rows
    )
    return dict(counts.most_common())


def _row(file: WikiFile, page: FilePage, index: Index, source: Source, status: str) -> CatalogueRow:
    owner = index.owner(file.name)
    words = Words(file.name, index.candidates(file.name, page.summary), owner)
    templates = source.caption_templates
    return CatalogueRow(
        title=file.title,
        name=file.name,
        page_id=file.page_id,
        url=file.url,
        sha1=file.sha1,
        bytes=file.bytes,
        mime=file.mime,
        width=file.width,
        height=file.height,
        uploaded_at=file.uploaded_at,
        uploader=file.uploader,
        licence=page.licence,
        categories=file.categories,
        templates=page.templates,
        owner_title=owner.page.title if owner else None,
        owner_page_id=owner.page.page_id if owner else None,
        owner_revision=owner.page.revision if owner else None,
        subject=words.subject,
        attributes=tuple(Attribute(field=field, value=value) for field, value in words.attributes),
        captions=tuple(Caption(text=c.text, source=c.source, page=c.page) for c in words.candidates),
        caption=chosen(words, templates),
        variants=variants(
            words,
            templates,
            source.caption_variants,
            dropout=source.caption_dropout,
            seed=f"{source.caption_seed} {file.title}",
        ),
        status=status,
        original=original_path(file) if status == OK else None,
    )
