"""A scrape that is killed at any write, or continued late: the next scrapes end with the result of a fresh one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stages import scrape

from sp_data.demo.wiki import history
from sp_data.demo.wiki.server import DemoWikiServer
from sp_data.demo.wiki.world import World
from sp_data.errors import ListShrank, WikiError
from sp_data.lake import Lake
from sp_data.wiki import originals, state
from sp_data.wiki.http import journal
from sp_data.wiki.scrape import plan
from sp_data.wiki.tombstones import read_tombstones

from .small_wiki import PORTAL, TEMPLATE_TEXTS, founded, later, png, source

KILLED = 9


@pytest.fixture(scope="module")
def wiki():
    with DemoWikiServer(founded()) as running:
        yield running


def digest(wiki: DemoWikiServer, lake: Lake, select: str = "all", **options: bool) -> str:
    return scrape(source(select), lake, proxy=wiki.url, **options).manifest.digest


def fresh(wiki: DemoWikiServer, tmp_path: Path, select: str = "all") -> str:
    place = tmp_path / "fresh"
    shutil.rmtree(place, ignore_errors=True)
    return digest(wiki, Lake(str(place), "kids"), select)


def a_week(world: World) -> World:
    world = history.upload(later(world, days=7), "A.png", png("b"))
    world = history.upload(world, "New.png", png("g"), "[[Category:Wanted]]")
    world = history.delete(world, "File:C.png")
    world = history.move(world, "File:Kid one.png", "File:Kid.png")
    return later(history.edit(world, "Template:Mark", TEMPLATE_TEXTS[1]), hours=1)


def killed_at_write(number: int, work: Callable[[], object]) -> bool:
    """Do the work in another process and kill it at write `number`. Returns whether it got that far."""
    child = os.fork()
    if child == 0:
        remaining = [number]

        def count_calls(name: str) -> None:
            method = getattr(Lake, name)

            def counting(*args: object, **options: object) -> object:
                remaining[0] -= 1
                if remaining[0] == 0:
                    os._exit(KILLED)
                return method(*args, **options)

            setattr(Lake, name, counting)

        for name in ("publish", "remove"):  # every write goes through `publish`
            count_calls(name)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == KILLED


@pytest.mark.parametrize("select", ["all", "pages"])
def test_a_scrape_of_changes_that_is_killed_at_any_write_loses_nothing(wiki, tmp_path, select):
    wiki.world = founded()
    base = tmp_path / "base"
    digest(wiki, Lake(str(base), "kids"), select)
    week = a_week(wiki.world)
    number = 1
    while True:
        wiki.world = week
        place = tmp_path / "lake"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(base, place)
        lake = Lake(str(place), "kids")
        was_killed = killed_at_write(number, lambda lake=lake: digest(wiki, lake, select))
        # Meanwhile the wiki changes the very pictures that the killed run asked for.
        wiki.world = history.edit(history.upload(week, "A.png", png("r")), "Kid one", "A page.")
        assert digest(wiki, lake, select) == fresh(wiki, tmp_path, select), f"after a kill at write {number}"
        assert scrape(source(select), lake, proxy=wiki.url).state == "unchanged"
        assert lake.list("wiki/journal") == []
        if not was_killed:
            break
        number += 1
    assert number > 10


def test_a_first_scrape_that_is_killed_at_any_write_loses_nothing(wiki, tmp_path):
    number, was_killed = 1, True
    while was_killed:
        wiki.world = founded()
        place = tmp_path / "lake"
        shutil.rmtree(place, ignore_errors=True)
        lake = Lake(str(place), "kids")
        was_killed = killed_at_write(number, lambda lake=lake: digest(wiki, lake))
        wiki.world = a_week(wiki.world)
        # The listing is not made again, so the run after this one finds what has changed since.
        digest(wiki, lake)
        assert digest(wiki, lake) == fresh(wiki, tmp_path), f"after a kill at write {number}"
        number += 1
    assert number > 15


def interrupted(wiki: DemoWikiServer, lake: Lake, **options: bool) -> None:
    """A scrape that listed the wiki and was interrupted at its first picture."""

    class Ends:
        def begin(self, stage: str, total: int | None, unit: str) -> None:
            if unit == "pictures":
                raise KeyboardInterrupt

        def advance(self, count: int = 1) -> None:
            pass

    with pytest.raises(KeyboardInterrupt):
        scrape(source("all"), lake, proxy=wiki.url, progress=Ends(), **options)


@pytest.fixture
def clock(monkeypatch) -> Callable[[float], None]:
    """A function that moves this machine's clock forward by so many hours."""
    ahead = [0.0]
    real = time.time
    monkeypatch.setattr(journal.time, "time", lambda: real() + ahead[0])

    def move(hours: float) -> None:
        ahead[0] += hours * 3600

    return move


def test_a_listing_that_was_interrupted_hours_ago_is_used_and_brought_up_to_date(wiki, tmp_path, lake, clock):
    wiki.world = founded()
    interrupted(wiki, lake)
    wiki.world = a_week(wiki.world)
    clock(3)
    wiki.requests.clear()
    assert digest(wiki, lake) == fresh(wiki, tmp_path)


def test_a_listing_that_is_a_day_old_is_made_again(wiki, tmp_path, lake, clock):
    wiki.world = founded()
    interrupted(wiki, lake)
    wiki.world = later(history.upload(wiki.world, "A.png", png("b")), days=40)
    clock(25)
    assert digest(wiki, lake) == fresh(wiki, tmp_path)


def test_answers_to_a_dry_run_or_an_interrupted_reconcile_are_not_reused_later(wiki, tmp_path, lake):
    wiki.world = founded()
    digest(wiki, lake)
    plan(source("all"), lake, reconcile=True, proxy=wiki.url)
    planned_world = wiki.world
    wiki.world = a_week(planned_world)
    assert digest(wiki, lake) == fresh(wiki, tmp_path)
    plan(source("all"), lake, reconcile=True, proxy=wiki.url)
    wiki.world = later(history.upload(wiki.world, "A.png", png("r")), days=1)
    assert digest(wiki, lake) == fresh(wiki, tmp_path)
    assert digest(wiki, lake, reconcile=True) == fresh(wiki, tmp_path)


def test_a_page_deleted_before_its_html_is_requested_does_not_end_the_run(wiki, lake, caplog):
    wiki.world = founded()
    wiki.fault = lambda path: (
        (200, {"Content-Type": "application/json"}, b'{"error": {"code": "missingtitle", "info": "gone"}}')
        if "action=parse" in path
        else None
    )
    try:
        manifest = scrape(source("all"), lake, proxy=wiki.url).manifest
    finally:
        wiki.fault = lambda path: None
    assert manifest.counts.out == len(wiki.world.files)
    assert "is not read as HTML" in caplog.text


def test_an_api_that_moved_is_found_again(wiki, tmp_path, lake):
    wiki.world = founded()
    digest(wiki, lake)
    saved_state = lake.read_bytes("wiki/memory.json")
    lake.write_bytes("wiki/memory.json", saved_state.replace(b"/api.php", b"/old/api.php"))
    wiki.world = a_week(wiki.world)
    assert digest(wiki, lake) == fresh(wiki, tmp_path)


def test_pages_of_an_edited_template_are_requested_again_once_the_wiki_had_time_to_update_them(wiki, tmp_path, lake):
    """MediaWiki updates the pages that include an edited template by jobs, minutes or hours later."""
    wiki.world = founded()
    digest(wiki, lake, "categories")
    edited = later(history.edit(wiki.world, "Template:Mark", TEMPLATE_TEXTS[1]), minutes=1)
    outdated = {title: page for title, page in founded().pages.items() if title.startswith("File:")}
    from dataclasses import replace

    wiki.world = replace(edited, pages=edited.pages | outdated)
    first = digest(wiki, lake, "categories")
    wiki.world = later(edited, hours=2)
    second = digest(wiki, lake, "categories")
    assert second != first
    assert second == fresh(wiki, tmp_path, "categories")
    wiki.requests.clear()
    assert digest(wiki, lake, "categories") == second
    assert wiki.requests["api"] == 1


def test_tombstones_outlive_a_catalogue_that_cannot_be_read(wiki, lake):
    wiki.world = founded()
    digest(wiki, lake)
    wiki.world = a_week(wiki.world)
    manifest = scrape(source("all"), lake, proxy=wiki.url).manifest
    graves = read_tombstones(lake, manifest)
    assert {grave.title for grave in graves} == {"File:C.png", "File:Kid one.png"}
    (path,) = (entry.path for entry in manifest.files if "tombstones" not in entry.path)
    Path(lake.full(path)).write_bytes(b"nothing")
    wiki.world = later(history.delete(wiki.world, "File:B.png"), hours=1)
    kept = read_tombstones(lake, scrape(source("all"), lake, proxy=wiki.url).manifest)
    assert {grave.title for grave in kept} >= {grave.title for grave in graves}


def test_an_answer_that_is_not_mediawikis_is_one_sentence_and_is_not_reused(wiki, lake):
    from sp_data.errors import WikiApiError

    wiki.world = founded()
    wiki.fault = lambda path: (
        (200, {"Content-Type": "application/json"}, b'{"query": {"pages": [{"pageid": 1}], "export": 7}}')
        if "generator=" in path
        else None
    )
    with pytest.raises(WikiApiError, match="an answer that is not MediaWiki's"):
        digest(wiki, lake)
    wiki.fault = lambda path: None
    assert scrape(source("all"), lake, proxy=wiki.url).state == "done"


def test_many_changes_are_listed_rather_than_asked_for_one_by_one(wiki, tmp_path, lake, caplog):
    caplog.set_level("INFO")
    wiki.world = founded()
    digest(wiki, lake)
    world = later(wiki.world, days=1)
    for number in range(300):
        world = history.edit(world, f"Page {number}", "A page.")
    wiki.world = world
    wiki.requests.clear()
    assert digest(wiki, lake) == fresh(wiki, tmp_path)
    assert "300 pages changed" in caplog.text


def test_a_missing_picture_is_requested_in_some_runs_and_then_only_when_everything_is_listed(wiki, lake):
    wiki.world = founded()
    wiki.fault = lambda path: (404, {}, b"gone") if "/C.png" in path else None
    try:
        for _ in range(originals.RUNS_A_PICTURE):
            digest(wiki, lake)
        wiki.requests.clear()
        digest(wiki, lake)
        assert dict(wiki.requests) == {"api": 1}
    finally:
        wiki.fault = lambda path: None
    digest(wiki, lake, reconcile=True)
    assert scrape(source("all"), lake, proxy=wiki.url).manifest.counts.dropped == {}


def test_listing_everything_again_by_itself_asks_for_no_picture_that_never_comes(wiki, lake, clock):
    wiki.world = founded()
    wiki.fault = lambda path: (404, {}, b"gone") if "/C.png" in path else None
    try:
        for _ in range(originals.RUNS_A_PICTURE):
            digest(wiki, lake)
        wiki.world = later(wiki.world, days=40)
        wiki.requests.clear()
        digest(wiki, lake)
        assert wiki.requests["api"] > 1 and wiki.requests["fault"] == 0
        # A day later it is asked for, and its waiting is over as soon as it comes.
        clock(25)
        digest(wiki, lake)
        assert wiki.requests["fault"] == 1
    finally:
        wiki.fault = lambda path: None
    clock(49)
    assert scrape(source("all"), lake, proxy=wiki.url).manifest.counts.dropped == {}
    wiki.requests.clear()
    assert scrape(source("all"), lake, proxy=wiki.url).state == "unchanged"
    assert dict(wiki.requests) == {"api": 1}


def test_a_picture_that_left_the_wiki_is_waited_for_no_more(wiki, lake):
    wiki.world = founded()
    wiki.fault = lambda path: (404, {}, b"gone") if "/C.png" in path else None
    try:
        digest(wiki, lake)
        wiki.world = later(history.delete(wiki.world, "File:C.png"), hours=1)
        digest(wiki, lake)
        before = lake.read_bytes("wiki/memory.json")
        assert scrape(source("all"), lake, proxy=wiki.url).state == "unchanged"
        assert lake.read_bytes("wiki/memory.json") == before
    finally:
        wiki.fault = lambda path: None


def test_a_wiki_that_suddenly_shrinks_is_refused_until_it_is_whole_or_it_is_meant(wiki, tmp_path, lake):
    world = founded()
    for number in range(45):
        world = history.upload(world, f"Many {number}.png", png("rgb"[number % 3]))
    wiki.world = later(world, hours=1)
    whole = digest(wiki, lake)
    emptied = wiki.world
    for number in range(45):
        emptied = history.delete(emptied, f"File:Many {number}.png")
    wiki.world = later(emptied, hours=1)
    for options in ({}, {"reconcile": True}):
        with pytest.raises(ListShrank, match=r"has 50 pictures, and 5 are left in .*--allow-shrink"):
            digest(wiki, lake, **options)
    assert lake.list("wiki/journal") == []
    restored = later(world, hours=3)
    wiki.world = restored
    assert digest(wiki, lake, reconcile=True) == whole
    wiki.world = later(emptied, hours=5)
    shrunk = scrape(source("all"), lake, proxy=wiki.url, allow_shrink=True, reconcile=True).manifest
    assert shrunk.counts.out == 5 and len(read_tombstones(lake, shrunk)) == 45


def test_a_portal_that_was_emptied_and_is_restored_is_read_again(wiki, lake):
    wiki.world = founded()
    whole = digest(wiki, lake, "pages")
    title, text = PORTAL
    wiki.world = later(history.edit(wiki.world, title, "Nothing."), hours=1)
    for options in ({}, {"reconcile": True}):
        with pytest.raises(WikiError, match="no files to scrape"):
            digest(wiki, lake, "pages", **options)
    wiki.world = later(history.edit(wiki.world, title, text), hours=1)
    assert digest(wiki, lake, "pages", reconcile=True) == whole


def test_a_look_that_finds_nothing_is_noted_once_a_day(wiki, lake, monkeypatch):
    wiki.world = founded()
    monkeypatch.setattr(state, "utc_now", lambda: "2020-01-01T00:00:00+00:00")
    digest(wiki, lake)
    monkeypatch.setattr(state, "utc_now", lambda: "2020-01-03T00:00:00+00:00")
    assert scrape(source("all"), lake, proxy=wiki.url).state == "unchanged"
    assert state.last_look(lake) == "2020-01-01T00:00:00+00:00", "within a day nothing is written"
    wiki.world = later(wiki.world, days=2)
    assert scrape(source("all"), lake, proxy=wiki.url).state == "unchanged"
    assert state.last_look(lake) == "2020-01-03T00:00:00+00:00"
