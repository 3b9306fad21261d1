"""A re-scrape reads the pictures that changed and no others, and publishes what a fresh lake would."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stages import curate

from sp_data.dataset.curate import readings
from sp_data.dataset.curate.boilerplate import Boilerplate
from sp_data.dataset.curate.pictures import Picture, read_picture
from sp_data.dataset.curate.tables import copies_missing, read_dropped
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.recipe import Curate
from sp_data.wiki.catalogue import CatalogueRow, rows_digest, write_catalogue

SETTINGS = Curate.model_validate({})


def encoded(number: int) -> bytes:
    """A PNG of noise; every third has alpha, every fifth is cut; 7 is 6 a little brighter, 8 has the pixels of 6."""
    drawn = 6 if number in (7, 8) else number
    noise = np.random.default_rng(drawn).integers(40, 200, (8, 8, 3), np.uint8).repeat(9, 0).repeat(9, 1)
    image = Image.fromarray(noise + np.uint8(number == 7))
    out = BytesIO()
    (image.convert("RGBA") if number % 3 == 0 else image).save(out, "PNG", compress_level=number % 9)
    return out.getvalue()[: 150 if number % 5 == 4 else None]


def row(number: int, lake: Lake, caption: str = "a kid") -> CatalogueRow:
    sha1, data = f"{number:040x}", encoded(number)
    original = f"originals/{sha1[:2]}/{sha1}.png"
    lake.write_bytes(original, data)
    return CatalogueRow.model_validate(
        {
            **dict.fromkeys(("page_id", "uploader", "licence", "owner_title", "owner_page_id", "owner_revision")),
            **dict.fromkeys(("categories", "templates", "attributes", "captions", "variants"), ()),
            "title": f"File:{number}.png",
            "name": f"{number}.png",
            "url": f"http://127.0.0.1/{number}.png",
            "sha1": sha1,
            "bytes": len(data),
            "mime": "image/png",
            "width": 72,
            "height": 72,
            "uploaded_at": f"2020-01-01T00:00:{number:02}Z",
            "subject": "a kid",
            "caption": caption,
            "status": "ok",
            "original": original,
        }
    )


def scraped(numbers: range, lake: Lake) -> Manifest:
    rows = sorted((row(number, lake) for number in numbers), key=lambda row: row.title)
    entry = write_catalogue(lake, rows, rows_digest(rows))
    counts = Counts.model_validate({"in": len(rows), "out": len(rows)})
    return Manifest.make(stage="scrape", version=1, recipe={}, inputs={}, counts=counts, files=[entry], details={})


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were opened."""
    names: list[str] = []

    def noted(path: Path, limits: Curate) -> Picture:
        names.append(path.name)
        return read_picture(path, limits)

    monkeypatch.setattr(readings, "read_picture", noted)
    return names


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "kids")


def tables(lake: Lake, manifest: Manifest) -> dict[str, bytes]:
    return {entry.path: lake.read_bytes(entry.path) for entry in manifest.files}


def test_only_what_is_new_is_read_and_the_tables_are_those_of_a_fresh_lake(
    lake: Lake, read: list[str], tmp_path: Path
) -> None:
    first = curate(scraped(range(20), lake), SETTINGS, lake).manifest
    assert len(read) == 20
    reasons = {entry["reason"] for entry in read_dropped(lake, first).to_pylist()}
    assert reasons == {"cut-off", "duplicate", "near-duplicate"}
    read.clear()
    later = curate(scraped(range(2, 23), lake), SETTINGS, lake).manifest
    assert sorted(read) == [f"{number:040x}.png" for number in (20, 21, 22)]
    fresh_lake = Lake(str(tmp_path / "fresh"), "kids")
    fresh = curate(scraped(range(2, 23), fresh_lake), SETTINGS, fresh_lake).manifest
    assert tables(lake, later) == tables(fresh_lake, fresh)
    assert later.digest == fresh.digest
    assert not copies_missing(lake, later)


def test_other_limits_read_everything_again(lake: Lake, read: list[str]) -> None:
    curate(scraped(range(4), lake), SETTINGS, lake)
    read.clear()
    curate(scraped(range(4), lake), Curate.model_validate({"max_aspect": 3}), lake)
    assert len(read) == 4


def test_another_split_reads_nothing_again(lake: Lake, read: list[str]) -> None:
    curate(scraped(range(4), lake), SETTINGS, lake)
    read.clear()
    curate(scraped(range(4), lake), Curate.model_validate({"val_share": 0.3}), lake)
    assert read == []


def lose(lake: Lake, path: str) -> None:
    lake.remove(path)


def shorten(lake: Lake, path: str) -> None:
    lake.write_bytes(path, lake.read_bytes(path)[:-1])


@pytest.mark.parametrize("damage", [lose, shorten])
def test_a_copy_that_is_gone_or_cut_is_made_again(
    lake: Lake, read: list[str], damage: Callable[[Lake, str], None]
) -> None:
    manifest = curate(scraped(range(4), lake), SETTINGS, lake).manifest
    (first, *_) = lake.list("normalised")
    before = lake.read_bytes(first)
    damage(lake, first)
    read.clear()
    assert curate(scraped(range(4), lake), SETTINGS, lake).manifest.digest == manifest.digest
    assert (len(read), lake.read_bytes(first)) == (1, before)


def test_an_original_that_is_gone_is_not_taken_for_read(lake: Lake) -> None:
    curate(scraped(range(4), lake), SETTINGS, lake)
    after = scraped(range(5, 8), lake)
    both = scraped(range(8), lake)
    shutil.rmtree(lake.full("originals"))
    assert after.digest != both.digest
    with pytest.raises(FileNotFoundError):
        curate(both, SETTINGS, lake)


BOILERPLATE = Boilerplate.of(SETTINGS.boilerplate_words, SETTINGS.boilerplate_captions)


@pytest.mark.parametrize(
    "caption",
    [
        "IMG 1234",
        "image",
        "Screenshot 2021-03-04",
        "Screen Shot 2021-03-04 at 12.30.15 PM",
        "1234",
        "DSC01234",
        "...",
        "IMG-20210304-WA0001",
        "Click to enlarge!",
        "5f0c1ea9b2d34c778899aabbccddeeff",
        "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
    ],
)
def test_a_caption_that_says_nothing_is_boilerplate(caption: str) -> None:
    assert BOILERPLATE.covers(caption)


@pytest.mark.parametrize(
    "caption",
    ["Ada Birch", "Kenny 12", "A", "picture of Ada", "4th graders leslie", "Élodie", "猫", "🐱", "deadbeefdeadbeef"],
)
def test_a_name_is_a_caption(caption: str) -> None:
    assert not BOILERPLATE.covers(caption)


def test_a_picture_without_a_telling_caption_is_dropped_for_that(lake: Lake) -> None:
    rows = [row(1, lake, "IMG 1234"), row(2, lake, "Ada")]
    entry = write_catalogue(lake, rows, rows_digest(rows))
    counts = Counts.model_validate({"in": 2, "out": 2})
    catalogue = Manifest.make(stage="scrape", version=1, recipe={}, inputs={}, counts=counts, files=[entry], details={})
    assert curate(catalogue, SETTINGS, lake).manifest.counts.dropped == {"boilerplate-caption": 1}
