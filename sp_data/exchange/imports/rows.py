"""Make rows of the dataset's own tables from the rows of someone else's img2dataset parquet.

The columns that img2dataset carried along (title, page, licence, uploader, sha1) are taken over under sp-data's names;
a picture without a title is called by its key.
"""

from __future__ import annotations

import contextlib
from typing import Any

from sp_data.canonical import digest_of, parse_json
from sp_data.dataset.shards.tars import SUCCESS
from sp_data.lake import FileEntry
from sp_data.wiki.catalogue import OK, Caption, CatalogueRow

Row = dict[str, Any]


def shard_columns(rows: list[Row], split: str, tar: str) -> dict[str, list[Any]]:
    """The columns of a shard's parquet that sp-data's stages read, with a value for each row."""
    titles = [_text(row, "title") or row["key"] for row in rows]
    captions = [_text(row, "caption") for row in rows]
    return {
        "caption": captions,
        "title": titles,
        "sha1": [_text(row, "sha1") for row in rows],
        "split": [split] * len(rows),
        "page": [_text(row, "page") or None for row in rows],
        "revision": [row.get("revision") for row in rows],
        "licence": [_text(row, "licence", "license") or None for row in rows],
        "uploader": [_text(row, "uploader") or None for row in rows],
        "variants": [_variants(row) for row in rows],
        "path": [tar] * len(rows),
        "sample": [
            digest_of([row["key"], title, caption])[:32]
            for row, title, caption in zip(rows, titles, captions, strict=True)
        ],
    }


def catalogue_row(row: Row) -> CatalogueRow:
    """The catalogue's row for a shard's row that has the columns above. It has no original, as the shard has it."""
    captions = (Caption(text=row["caption"], source="given", page=row["url"]),) if row["caption"] else ()
    return CatalogueRow(
        title=row["title"],
        name=row["title"],
        page_id=None,
        url=row["url"],
        sha1=row["sha1"],
        bytes=0,
        mime="image/jpeg",
        width=_number(row, "original_width", "width"),
        height=_number(row, "original_height", "height"),
        uploaded_at="",
        uploader=row["uploader"],
        licence=row["licence"],
        categories=(),
        templates=(),
        owner_title=row["page"],
        owner_page_id=None,
        owner_revision=row["revision"],
        subject="",
        attributes=(),
        captions=captions,
        caption=row["caption"],
        variants=(),
        status=OK if row["status"] == SUCCESS else f"img2dataset: {row['error_message'] or row['status']}"[:80],
        original=None,
    )


def kept_row(row: Row, tar: FileEntry) -> Row:
    """The curated table's row. The picture's normal form is in the tar, so path and size are the tar's."""
    copied = ("title", "sha1", "split", "caption", "variants", "url", "page", "revision", "licence", "uploader")
    return {name: row[name] for name in copied} | {
        "path": tar.path,
        "num_bytes": tar.bytes,
        "width": _number(row, "width"),
        "height": _number(row, "height"),
        "uploaded_at": "",
        "phash": None,
        "thumb": None,
    }


def dropped_row(row: Row, reason: str, detail: str) -> Row:
    return {"title": row["title"], "sha1": row["sha1"], "reason": reason, "detail": detail, "original": ""}


def _variants(row: Row) -> str:
    """Other captions as a JSON list; none where a foreign column of this name holds something else."""
    with contextlib.suppress(ValueError):
        variants = parse_json(_text(row, "variants"))
        if isinstance(variants, list) and all(isinstance(variant, str) for variant in variants):
            return _text(row, "variants")
    return "[]"


def _text(row: Row, *names: str) -> str:
    return next((str(row[name]) for name in names if row.get(name) is not None), "")


def _number(row: Row, *names: str) -> int:
    return next((int(row[name]) for name in names if row.get(name)), 0)
