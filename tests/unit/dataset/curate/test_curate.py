"""Curate: an opted-out picture stays out, under every name and spelling; a lost file is not called a bad picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sp_data.dataset.curate.stage import sort_out
from sp_data.lake import Lake
from sp_data.recipe import Curate
from sp_data.runtime.progress import SILENT
from sp_data.wiki.catalogue import CatalogueRow

SETTINGS = Curate.model_validate({})


def row(title: str, *, templates: tuple[str, ...] = (), categories: tuple[str, ...] = ()) -> CatalogueRow:
    """A row whose original is the one picture of `lake`."""
    return CatalogueRow(
        title=title,
        name=title.removeprefix("File:"),
        page_id=1,
        url="http://127.0.0.1/a.png",
        sha1="a" * 40,
        bytes=1,
        mime="image/png",
        width=90,
        height=90,
        uploaded_at="2020-01-01T00:00:00Z",
        uploader=None,
        licence=None,
        categories=categories,
        templates=templates,
        owner_title=None,
        owner_page_id=None,
        owner_revision=None,
        subject="a kid",
        attributes=(),
        captions=(),
        caption="a kid",
        variants=(),
        status="ok",
        original="originals/a.png",
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path), "kids")
    Path(lake.full("originals")).mkdir(parents=True)
    Image.effect_noise((90, 90), 80).convert("RGB").save(lake.full("originals/a.png"))
    return lake


def test_a_picture_that_nobody_opted_out_is_kept(lake: Lake) -> None:
    kept, dropped = sort_out([row("File:A.png")], SETTINGS, lake, SILENT, {})
    assert ([kept_row.title for kept_row in kept], dropped) == (["File:A.png"], [])


@pytest.mark.parametrize("name", ["Opt-out", "opt out", "Opt_out", "OPT-OUT", "No AI", "no_ai"])
def test_an_opt_out_counts_in_every_spelling(lake: Lake, name: str) -> None:
    kept, dropped = sort_out([row("File:A.png", templates=(name,))], SETTINGS, lake, SILENT, {})
    assert (kept, [drop.reason for drop in dropped]) == ([], ["opted-out"])


def test_a_category_opts_out_too(lake: Lake) -> None:
    kept, dropped = sort_out([row("File:A.png", categories=("Opted out",))], SETTINGS, lake, SILENT, {})
    assert (kept, [drop.reason for drop in dropped]) == ([], ["opted-out"])


def test_the_same_bytes_under_another_name_are_opted_out_with_it(lake: Lake) -> None:
    rows = [row("File:A.png"), row("File:B.png", templates=("Opt-out",)), row("File:C.png")]
    kept, dropped = sort_out(rows, SETTINGS, lake, SILENT, {})
    assert kept == []
    assert {drop.title: drop.reason for drop in dropped} == dict.fromkeys(
        ("File:A.png", "File:B.png", "File:C.png"), "opted-out"
    )


def test_an_original_that_is_gone_is_not_called_a_bad_picture(lake: Lake) -> None:
    lake.remove("originals/a.png")
    with pytest.raises(FileNotFoundError):
        sort_out([row("File:A.png")], SETTINGS, lake, SILENT, {})
