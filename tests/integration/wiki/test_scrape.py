"""The scrape stage on a real MediaWiki: one row a file, every original checked, and the effect of faults and kills."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mediawiki.fixture import NUM_KIDS
from mediawiki.sample import NUM_OTHER_FILES
from mediawiki.wiki import MediaWiki
from stages import scrape

from sp_data.errors import WikiApiError, WikiBlocked, WikiError, WikiUnreachable
from sp_data.lake import Lake
from sp_data.manifest import Manifest, latest
from sp_data.wiki.catalogue import CatalogueRow, catalogue_rows, read_catalogue
from sp_data.wiki.originals import originals_missing
from sp_data.wiki.scrape import plan

from .conftest import source_of

pytestmark = pytest.mark.mediawiki

NUM_FILES = NUM_KIDS + NUM_OTHER_FILES
NOT_WANTED = {"Logo.svg": "image/svg+xml", "Script.pdf": "application/pdf", "Theme.ogg": "application/ogg"}


class Watcher:
    """A progress that does something after so many pictures."""

    def __init__(self, after: int, action) -> None:
        self.remaining, self.action, self.unit = after, action, ""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        assert (stage, unit) == (("list", "requests") if not self.unit else ("scrape", "pictures"))
        self.unit = unit

    def advance(self, count: int = 1) -> None:
        if self.unit != "pictures":
            return
        self.remaining -= count
        if self.remaining == 0:
            self.action()


def rows_of(lake: Lake, manifest: Manifest) -> dict[str, CatalogueRow]:
    return {row.name: row for row in catalogue_rows(read_catalogue(lake, manifest))}


def pictures(wiki: MediaWiki) -> list[str]:
    """Paths of the pictures that were sent whole, without the wiki's time stamps."""
    return [urlsplit(access.uri).path for access in wiki.log() if access.kind == "image" and access.status == 200]


def modification_times(lake: Lake) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(lake.root).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(session_mediawiki: MediaWiki, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Manifest]:
    """A whole scrape of the sample wiki, shared by the tests of this module: they must not change it."""
    session_mediawiki.clear_log()
    lake = Lake(str(tmp_path_factory.mktemp("undisturbed")), "kids")
    result = scrape(source_of(session_mediawiki.url), lake)
    assert result.state == "done"
    return lake, result.manifest


def test_every_file_has_one_row_and_every_original_its_sha1(undisturbed, session_mediawiki):
    lake, manifest = undisturbed
    rows = rows_of(lake, manifest)
    assert len(rows) == NUM_FILES == manifest.counts.in_
    assert manifest.counts.out == NUM_FILES - 3
    assert list(rows) == [row.name for row in sorted(rows.values(), key=lambda row: row.title)]
    for row in rows.values():
        if row.status == "ok":
            body = lake.read_bytes(row.original)
            assert (len(body), hashlib.sha1(body).hexdigest()) == (row.bytes, row.sha1)
            assert row.original == f"originals/{row.sha1[:2]}/{row.sha1}" + Path(row.original).suffix
    assert len(lake.list("originals")) == len({row.sha1 for row in rows.values() if row.status == "ok"})
    assert originals_missing(lake, manifest) == []
    assert manifest.details["num_pictures_bytes"] == sum(lake.size(path) for path in lake.list("originals"))


def test_the_awkward_files_and_what_became_of_them(undisturbed):
    rows = rows_of(*undisturbed)
    assert {name: rows[name].status for name in NOT_WANTED} == {
        name: f"mime-not-wanted ({mime})" for name, mime in NOT_WANTED.items()
    }
    assert undisturbed[1].counts.dropped == {f"mime-not-wanted ({mime})": 1 for mime in NOT_WANTED.values()}
    # A deleted file, a redirect and a red link are no files.
    assert not {"Doomed.png", "Old name.png", "Does not exist.png"} & set(rows)
    assert rows["New name.png"].sha1 == rows["Kid-001.png"].sha1
    assert rows["New name.png"].original == rows["Kid-001.png"].original
    assert rows["Kid-000-copy.png"].sha1 == rows["Kid-000.png"].sha1
    assert (rows["Revised.png"].width, rows["Revised.png"].height) == (260, 390)
    assert (rows["Huge-poster.jpg"].width, rows["Huge-poster.jpg"].original[-4:]) == (6000, ".jpg")
    assert (rows["Pixel.png"].width, rows["Dancing.gif"].original[-4:]) == (1, ".gif")
    assert rows["Señor-Dóminguez.png"].owner_title == "Señor Dóminguez"
    assert rows["日本語のキャラ.png"].caption == "日本語のキャラ"
    assert rows["50% & more+plus.png"].caption == "50% & more+plus"
    assert rows['Chef\'s "Salty" Balls (song).png'].caption == 'The single cover, Chef\'s "Salty" Balls (song)'
    assert rows["Class photo, 1997 (season 1).jpg"].caption == "The class of 1997, with a kid"


def test_captions_come_with_their_places_and_only_the_owner_lends_its_words(undisturbed):
    rows = rows_of(*undisturbed)
    kid = rows["Kid-004.png"]
    assert (kid.owner_title, kid.licence, kid.templates) == ("Kid 004", "CC-BY-SA", ("CC-BY-SA", "Self"))
    assert kid.owner_revision and kid.owner_page_id
    assert [(c.source, c.text, c.page) for c in kid.captions] == [
        ("thumb", "Kid 004 in a coat", "Kid 004"),
        ("gallery", "Kid 004 at school", "Kid 004"),
        ("gallery", "With a friend", "Kid 003"),
        ("infobox-caption", 'Kid 004 in "Pilot"', "Kid 004"),
        ("infobox", 'Kid 004: gender Female, hair Brown, occupation Student, first "Pilot"', "Kid 004"),
        ("alt", "a drawn child", "Kid 004"),
        ("summary", "Fan art of Kid 004.", "File:Kid-004.png"),
        ("title", "Kid 004", "Kid 004"),
        ("lead", "Kid 004 is a girl with brown hair in the fourth grade.", "Kid 004"),
        ("section", "Appearance", "Kid 004"),
        ("categories", "Female characters", "Kid 004"),
        ("name", "Kid 004", "File:Kid-004.png"),
    ]
    # Pages about somebody else show these pictures, and no page owns them.
    assert rows["Kid-000-copy.png"].owner_title is None
    assert {caption.source for caption in rows["Revised.png"].captions} == {"thumb", "name"}


def test_each_original_is_asked_for_once_as_an_honest_guest(mediawiki, lake):
    scrape(source_of(mediawiki.url, contact="me@example.org"), lake)
    accesses = mediawiki.log()
    fetched = [access for access in accesses if access.kind == "image"]
    assert len(fetched) == len({access.uri for access in fetched}) == len(lake.list("originals"))
    assert all(access.uri.endswith("&format=original") and access.accept == "*/*" for access in fetched)
    assert {access.agent for access in accesses} == {
        "sp-data/0.1.0 (pictures and captions for a dataset; me@example.org)"
    }
    assert sum(access.kind == "robots" for access in accesses) == 1
    assert sum(access.kind == "api" for access in accesses) == 3  # siteinfo, files, articles


def test_a_second_run_asks_for_no_picture_and_writes_nothing(mediawiki, lake):
    source = source_of(mediawiki.url)
    first = scrape(source, lake)
    before = modification_times(lake)
    mediawiki.clear_log()
    second = scrape(source, lake)
    assert (first.state, second.state) == ("done", "unchanged")
    assert second.manifest == first.manifest
    assert pictures(mediawiki) == []
    assert modification_times(lake) == before
    assert [access.kind for access in mediawiki.log()] == ["api"]


def test_two_lakes_of_one_wiki_are_equal_byte_for_byte(undisturbed, mediawiki, lake):
    manifest = scrape(source_of(mediawiki.url), lake).manifest
    assert (manifest.identity, manifest.digest) == (undisturbed[1].identity, undisturbed[1].digest)
    assert manifest.files == undisturbed[1].files


def test_an_original_that_got_lost_is_fetched_again_and_only_that(mediawiki, lake):
    source = source_of(mediawiki.url)
    manifest = scrape(source, lake).manifest
    lost, short = lake.list("originals")[3], lake.list("originals")[5]
    lake.remove(lost)
    Path(lake.full(short)).write_bytes(b"short")
    assert originals_missing(lake, manifest) == sorted([lost, short])
    mediawiki.clear_log()
    again = scrape(source, lake)
    assert (again.state, again.manifest.digest) == ("done", manifest.digest)
    assert len(pictures(mediawiki)) == 2
    assert originals_missing(lake, manifest) == []


def test_a_lost_catalogue_is_made_again(mediawiki, lake):
    source = source_of(mediawiki.url)
    manifest = scrape(source, lake).manifest
    lake.remove(manifest.files[0].path)
    again = scrape(source, lake)
    assert again.state == "done"
    assert again.manifest.digest == manifest.digest
    assert again.manifest.previous is None


def test_a_challenge_ends_the_run_and_the_next_one_goes_on(undisturbed, mediawiki, lake):
    watcher = Watcher(40, lambda: mediawiki.faults(agents_403=["sp-data"]))
    with pytest.raises(WikiBlocked, match=r"challenge.*What was fetched is kept.*run the same command again"):
        scrape(source_of(mediawiki.url), lake, progress=watcher)
    assert latest(lake, "scrape") is None
    num_fetched = len(lake.list("originals"))
    assert num_fetched == 39  # 40 files, two of them with the same bytes
    mediawiki.faults()
    mediawiki.clear_log()
    assert scrape(source_of(mediawiki.url), lake).manifest.digest == undisturbed[1].digest
    assert len(pictures(mediawiki)) == len(undisturbed[0].list("originals")) - num_fetched


@pytest.mark.parametrize(
    "faults",
    [
        {"fail_every": 10, "retry_after_s": 0, "latency_ms": 5},
        {"truncate_every": 10, "truncate_api_every": 3},
        {"requests_per_second": 70},
        {"webp": "always"},
    ],
    ids=["503", "cut off", "429", "webp"],
)
def test_passing_faults_do_not_show_in_the_catalogue(undisturbed, mediawiki, lake, faults):
    mediawiki.faults(**faults)
    assert scrape(source_of(mediawiki.url), lake).manifest.digest == undisturbed[1].digest


def test_lasting_faults_of_pictures_are_rows_with_a_reason(undisturbed, mediawiki, lake):
    mediawiki.faults(corrupt=["Kid-010.png"], missing=["Kid-011.png"])
    source = source_of(mediawiki.url, max_file_bytes=100_000)
    manifest = scrape(source, lake).manifest
    rows = rows_of(lake, manifest)
    assert (rows["Kid-010.png"].status, rows["Kid-010.png"].original) == ("sha1-mismatch", None)
    assert rows["Kid-011.png"].status == "not-found"
    assert rows["Huge-poster.jpg"].status == "too-large"
    assert lake.list("quarantine") == [f"quarantine/sha1-mismatch-{rows['Kid-010.png'].sha1}.png"]
    assert manifest.counts.dropped["sha1-mismatch"] == manifest.counts.dropped["not-found"] == 1

    mediawiki.faults()
    healed = scrape(source, lake)
    assert healed.state == "done"
    assert healed.manifest.previous == manifest.identity
    assert rows_of(lake, healed.manifest)["Kid-010.png"].status == "ok"

    # The wiki is as it was before: the first snapshot is the newest again, with its old history.
    for name in ("Kid-010.png", "Kid-011.png"):
        lake.remove(rows_of(lake, healed.manifest)[name].original)
    mediawiki.faults(corrupt=["Kid-010.png"], missing=["Kid-011.png"])
    assert scrape(source, lake).manifest == manifest == latest(lake, "scrape")


def test_a_body_that_is_always_cut_off_is_a_reason(mediawiki, lake):
    mediawiki.faults(truncate_every=1)
    source = source_of(mediawiki.url, select="pages", pages=("C.C. & Co",))
    manifest = scrape(source, lake).manifest
    assert manifest.counts.dropped["cut-off"] == 5
    assert lake.list("originals") == []


def test_a_web_page_instead_of_json_is_an_error_that_says_so(mediawiki, lake):
    mediawiki.faults(html_api=True)
    with pytest.raises(WikiBlocked, match="HTTP 200 with a web page instead of JSON"):
        scrape(source_of(mediawiki.url), lake)


def test_robots_txt_is_obeyed(mediawiki, lake):
    mediawiki.robots("User-agent: sp-data\nDisallow: /images/\n\nUser-agent: *\nDisallow:\n")
    with pytest.raises(WikiBlocked, match=r"robots\.txt does not allow sp-data to fetch /images/"):
        scrape(source_of(mediawiki.url), lake)
    assert pictures(mediawiki) == []
    mediawiki.robots("User-agent: *\nDisallow: /api.php\n")
    with pytest.raises(WikiBlocked, match="does not allow"):
        scrape(source_of(mediawiki.url), lake)


def test_a_file_shown_by_its_old_name_is_found_under_its_new_one(mediawiki, lake):
    source = source_of(mediawiki.url, select="pages", pages=("By the old name",))
    (row,) = rows_of(lake, scrape(source, lake).manifest).values()
    assert (row.title, row.status) == ("File:New name.png", "ok")
    assert row.page_id
    assert ("thumb", "Under the name it had", "By the old name") in [(c.source, c.text, c.page) for c in row.captions]


def test_a_portals_captions_are_candidates_but_not_its_lead(mediawiki, lake):
    source = source_of(mediawiki.url, select="pages", caption_templates=("{name}, {hair} hair", "{gender}"))
    rows = rows_of(lake, scrape(source, lake).manifest)
    assert len(rows) == NUM_KIDS + 1
    assert rows["Kid-002.png"].caption == "Kid 002, Blond hair"
    assert rows["Señor-Dóminguez.png"].caption == "Male"
    from_portal = [(c.source, c.text) for c in rows["Kid-002.png"].captions if c.page == "Portal:Characters"]
    assert ("gallery", "Kid 002") in from_portal
    assert not {"lead", "title", "infobox"} & {source for source, _ in from_portal}


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"select": "pages", "pages": ("Empty",)}, WikiError, "no files to scrape.*Empty"),
        ({"select": "pages", "pages": ("Kid 001", "Nobody")}, WikiApiError, r"no page 'Nobody'.*source\.pages"),
        ({"select": "categories", "categories": ("Nothing",)}, WikiError, "no files to scrape.*Nothing"),
    ],
    ids=["no page", "one page missing", "no category"],
)
def test_a_selection_that_finds_nothing_is_named(mediawiki, lake, fields, error, message):
    with pytest.raises(error, match=message):
        scrape(source_of(mediawiki.url, **fields), lake)


def test_an_address_without_a_wiki_is_named(mediawiki, lake):
    with pytest.raises(WikiUnreachable, match=r"neither /api\.php nor /w/api\.php"):
        scrape(source_of(f"{mediawiki.url}/nowhere"), lake)
    with pytest.raises(WikiUnreachable, match="cannot be reached"):
        scrape(source_of("http://127.0.0.1:9"), lake)


KILLED = """
import logging, sys
from sp_data.lake import Lake
from sp_data.pipeline import run_stage
from sp_data.recipe import Recipe, Source
source = Source.model_validate({"wiki": sys.argv[1], "select": "pages", "requests_per_second": 0})
run_stage("scrape", Recipe(name="kids", source=source), Lake(sys.argv[2], "kids"))
"""


@pytest.fixture(scope="module")
def portal(session_mediawiki, tmp_path_factory) -> Manifest:
    """The catalogue of the portal's pictures, scraped without a fault."""
    lake = Lake(str(tmp_path_factory.mktemp("portal")), "kids")
    return scrape(source_of(session_mediawiki.url, select="pages"), lake).manifest


def killed_after(wiki: MediaWiki, lake: Lake, num_requests: int) -> None:
    """Start a scrape and kill it as soon as the wiki has received `num_requests` requests."""
    wiki.faults(latency_ms=20)
    process = subprocess.Popen([sys.executable, "-c", KILLED, wiki.url, lake.url])
    while len(wiki.log()) < num_requests and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    wiki.faults()


def goes_on_after_a_kill(wiki: MediaWiki, lake: Lake, portal: Manifest, num_requests: int) -> None:
    killed_after(wiki, lake, num_requests)
    assert latest(lake, "scrape") is None
    assert scrape(source_of(wiki.url, select="pages"), lake).manifest.digest == portal.digest
    requested = [access.uri for access in wiki.log() if access.kind != "robots"]
    # At most the request under way is made again: no page is listed twice, no picture is fetched twice.
    assert len(requested) <= len(set(requested)) + 1
    assert not list(Path(lake.full(".scratch")).glob("*"))


# A kill in the listing, at the first picture and among the others: 4 requests to the API and 81 pictures.
@pytest.mark.parametrize("num_requests", [3, 6, 60])
def test_after_kill_9_the_next_run_asks_for_nothing_twice(mediawiki, lake, portal, num_requests):
    goes_on_after_a_kill(mediawiki, lake, portal, num_requests)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(20))
def test_after_kill_9_at_any_moment(mediawiki, lake, portal, seed):
    goes_on_after_a_kill(mediawiki, lake, portal, random.Random(seed).randrange(2, 86))


def test_a_saved_state_that_cannot_be_read_costs_a_listing_and_nothing_else(mediawiki, lake):
    source = source_of(mediawiki.url)
    first = scrape(source, lake).manifest
    for damaged in ("wiki/memory.json", next(path for path in lake.list("wiki") if "facts-" in path)):
        Path(lake.full(damaged)).write_bytes(b"{damaged")
        if "facts" in damaged:
            # A run that finds no changes does not read the facts.
            mediawiki.edit("Sandbox", f"A page, changed at {time.time()}")
        mediawiki.clear_log()
        again = scrape(source, lake)
        assert again.manifest.digest == first.digest
        assert pictures(mediawiki) == []
        assert scrape(source, lake).state == "unchanged"
    mediawiki.delete("Sandbox")


def test_a_month_later_or_after_so_many_runs_everything_is_listed_again(mediawiki, lake, caplog):
    caplog.set_level("INFO")
    source = source_of(mediawiki.url, reconcile_every=3)
    first = scrape(source, lake).manifest
    saved_state = json.loads(lake.read_bytes("wiki/memory.json"))

    def later(**changed) -> str:
        """The log of a run after these fields of the saved state were changed."""
        lake.write_bytes("wiki/memory.json", json.dumps(saved_state | changed).encode())
        caplog.clear()
        assert scrape(source, lake).manifest.digest == first.digest
        return caplog.text

    clock = saved_state["mark"]["clock"]
    assert "listing all" not in later()
    assert "3 runs asked for changes only" in later(runs=3)
    assert "the last run was on 2020-01-01" in later(mark={"clock": "2020-01-01T00:00:00Z"})
    assert "it was listed on 2020-01-01" in later(reconciled_at="2020-01-01T00:00:00Z")
    mark = {"clock": clock, "anchors": [{"number": 10**9, "at": clock}]}
    assert "does not reach back to the last run" in later(mark=mark)


def test_a_dry_run_says_what_would_be_fetched_and_the_run_lists_nothing_again(undisturbed, mediawiki, lake):
    source = source_of(mediawiki.url, requests_per_second=50)
    planned = plan(source, lake)
    assert (planned.num_files, planned.num_pictures) == (NUM_FILES, len(undisturbed[0].list("originals")))
    assert planned.num_bytes == sum(undisturbed[0].sizes("originals").values())
    assert planned.seconds == pytest.approx(planned.num_pictures * 1.1 / 50)
    assert pictures(mediawiki) == []
    assert lake.list("originals") == lake.list("manifests") == []
    mediawiki.clear_log()
    assert scrape(source_of(mediawiki.url), lake).manifest.digest == undisturbed[1].digest
    assert {access.kind for access in mediawiki.log()} == {"image"}
    assert plan(source, lake).num_pictures == 0


def test_a_new_revision_makes_a_new_snapshot(fresh_mediawiki, lake, tmp_path):
    from PIL import Image

    for name, colour in (("one", "red"), ("two", "blue")):
        Image.new("RGB", (70, 70), colour).save(tmp_path / f"{name}.png")
    fresh_mediawiki.upload(tmp_path / "one.png", "Kid.png", "{{Opt-out}}", ts="20200101000000")
    fresh_mediawiki.edit("Kid", "'''Kid''' stands here.\n[[File:Kid.png|thumb|Hello]]")
    source = source_of(fresh_mediawiki.url)
    first = scrape(source, lake).manifest
    fresh_mediawiki.upload(tmp_path / "two.png", "Kid.png")
    second = scrape(source, lake).manifest
    assert second.previous == first.identity != second.identity
    (old,), (new,) = rows_of(lake, first).values(), rows_of(lake, second).values()
    assert old.sha1 != new.sha1
    assert old.templates == new.templates == ("Opt-out",)
    assert old.caption == new.caption == "Hello"
    assert len(lake.list("originals")) == len(lake.list("catalogue")) == 2
