"""The catalogue: equal rows make equal bytes, and every row comes back as it was."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sp_data.errors import CorruptFile
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.wiki.catalogue import (
    Attribute,
    Caption,
    CatalogueRow,
    catalogue_rows,
    read_catalogue,
    rows_digest,
    write_catalogue,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
CAPTIONS = st.builds(Caption, text=TEXT, source=st.sampled_from(["gallery", "thumb", "lead", "name"]), page=TEXT)
NUMBER = st.integers(0, 2**40)
MAYBE = st.none() | TEXT
ROWS = st.builds(
    CatalogueRow,
    **dict.fromkeys(["title", "name", "url", "sha1", "mime", "uploaded_at", "subject", "caption", "status"], TEXT),
    **dict.fromkeys(["uploader", "licence", "owner_title", "original"], MAYBE),
    **dict.fromkeys(["page_id", "owner_page_id", "owner_revision"], st.none() | NUMBER),
    **dict.fromkeys(["width", "height"], st.integers(0, 2**31 - 1)),
    bytes=NUMBER,
    categories=st.lists(TEXT, max_size=3).map(tuple),
    templates=st.lists(TEXT, max_size=3).map(tuple),
    captions=st.lists(CAPTIONS, max_size=3).map(tuple),
    attributes=st.lists(st.builds(Attribute, field=TEXT, value=TEXT), max_size=3).map(tuple),
    variants=st.lists(TEXT, max_size=3).map(tuple),
)


def published(lake: Lake, rows: list[CatalogueRow]) -> Manifest:
    digest = rows_digest(rows)
    return Manifest.make(
        stage="scrape",
        version=1,
        recipe={},
        inputs={"wiki": digest},
        counts=Counts.model_validate({"in": len(rows), "out": len(rows)}),
        files=[write_catalogue(lake, rows, digest)],
        details={},
    )


@settings(deadline=None, max_examples=30)
@given(st.lists(ROWS, max_size=4))
def test_rows_come_back_and_their_bytes_are_always_the_same(rows):
    lake, other = Lake("memory://one", "kids"), Lake("memory://two", "kids")
    manifest, again = published(lake, rows), published(other, rows)
    assert manifest.files == again.files
    assert manifest.files[0].path == f"catalogue/{manifest.inputs['wiki'][:16]}.parquet"
    assert list(catalogue_rows(read_catalogue(lake, manifest))) == rows


@settings(deadline=None)
@given(ROWS, TEXT)
def test_the_digest_changes_with_any_field_and_with_the_order(row, text):
    changed = row.model_copy(update={"caption": row.caption + "!"})
    assert rows_digest([row]) != rows_digest([changed])
    assert rows_digest([row, changed]) != rows_digest([changed, row])
    assert rows_digest([row]) == rows_digest([CatalogueRow.model_validate(row.model_dump())])


def test_a_file_that_is_not_a_catalogue_is_named(tmp_path):
    lake = Lake(str(tmp_path), "kids")
    manifest = published(lake, [])
    path = manifest.files[0].path
    lake.write_bytes(path, b"nothing")
    with pytest.raises(CorruptFile, match=f"{path} is not a complete parquet file.*delete it and run its stage again"):
        read_catalogue(lake, manifest)
