"""After any sequence of changes, an update from the wiki's lists of changes ends with the facts of a fresh gathering.

These tests run on the demo's wiki, over HTTP: it can be changed thousands of times a minute, and test_contract.py
checks that it answers like a real MediaWiki. test_changes_mediawiki.py makes one long list of changes on a real one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sp_data.demo.wiki import history
from sp_data.demo.wiki.server import DemoWikiServer
from sp_data.demo.wiki.world import World
from sp_data.errors import WikiError
from sp_data.wiki.changes import Mark, ask_changes
from sp_data.wiki.facts import Facts
from sp_data.wiki.gather import gather
from sp_data.wiki.http.client import WikiClient
from sp_data.wiki.update import update

from .small_wiki import FILE_TEXTS, FILES, PAGE_TEXTS, PAGES, SOURCES, TEMPLATE_TEXTS, founded, later, png, source

Step = tuple[str, ...]
files, pages = st.sampled_from(FILES), st.sampled_from(PAGES)
file_titles = files.map("File:{}".format)
titles = file_titles | pages
templates = st.sampled_from(["Template:Mark", "Template:Cast"])
STEPS = st.one_of(
    st.tuples(st.just("upload"), files, st.sampled_from("rgb"), st.sampled_from(FILE_TEXTS)),
    st.tuples(st.just("edit"), pages | st.just("Portal:Characters"), st.sampled_from(PAGE_TEXTS)),
    st.tuples(st.just("edit"), file_titles, st.sampled_from(FILE_TEXTS)),
    st.tuples(st.just("edit"), templates, st.sampled_from(TEMPLATE_TEXTS)),
    st.tuples(st.just("delete"), titles | templates),
    st.tuples(st.just("restore"), titles | templates),
    st.tuples(
        st.just("move"),
        file_titles,
        file_titles | st.sampled_from(["File:Y.png", "File:Z.png"]),
        st.sampled_from(["", "redirect"]),
    ),
    st.tuples(st.just("move"), pages, pages, st.sampled_from(["", "redirect"])),
)


def changed(world: World, step: Step) -> World:
    """The world after a step; the same where the wiki would refuse it."""
    action, *args = step
    try:
        match action:
            case "upload":
                return history.upload(world, args[0], png(args[1]), args[2])
            case "edit":
                # On this wiki a file's page cannot be written without its file, and an edit cannot make it a redirect.
                if args[0].startswith("File:") and args[0].removeprefix("File:") not in world.files:
                    return world
                return history.edit(world, args[0], args[1])
            case "delete":
                return history.delete(world, args[0])
            case "restore":
                return history.restore(world, args[0])
            case "move":
                return history.move(world, args[0], args[1], redirect=bool(args[2]))
    except KeyError:
        return world
    raise ValueError(step)


@pytest.fixture(scope="module")
def wiki():
    with DemoWikiServer(founded()) as running:
        yield running


def gathered(wiki: DemoWikiServer, select: str) -> Facts:
    with WikiClient(source(select), wiki.url) as client:
        return gather(client)


@pytest.mark.parametrize("select", SOURCES)
@settings(max_examples=30, deadline=None)
@given(weeks=st.lists(st.lists(STEPS, min_size=1, max_size=6), min_size=1, max_size=3))
@example(weeks=[[("delete", "File:Kid one.png")], [("restore", "File:Kid one.png")]])
@example(weeks=[[("move", "File:Kid one.png", "File:Z.png", "redirect")], [("delete", "File:Kid one.png")]])
@example(weeks=[[("move", "File:Kid one.png", "File:Z.png", "redirect")], [("move", "File:Z.png", "File:Y.png", "")]])
@example(
    weeks=[
        [("move", "File:Kid one.png", "File:Z.png", "redirect")],
        [("delete", "File:Z.png")],
        [("restore", "File:Z.png")],
    ]
)
@example(weeks=[[("edit", "Kid one", PAGE_TEXTS[3])], [("edit", "Kid two", PAGE_TEXTS[0])]])
@example(weeks=[[("delete", "File:A.png"), ("move", "File:B.png", "File:A.png", "redirect")]])
@example(weeks=[[("edit", "Template:Cast", TEMPLATE_TEXTS[3])], [("edit", "Kid one", "nothing more")]])
def test_an_update_ends_with_the_facts_of_a_fresh_gathering(wiki, select, weeks):
    wiki.world = founded()
    with WikiClient(source(select), wiki.url) as client:
        mark = Mark.of(client.greet())
        facts = gather(client)
        for steps in weeks:
            for step in steps:
                wiki.world = changed(wiki.world, step)
            # Some weeks are shorter than the overlap of two polls.
            wiki.world = later(wiki.world, minutes=len(steps) * 3)
            changes = ask_changes(client, mark)
            try:
                fresh = gathered(wiki, select)
            except WikiError as error:
                with pytest.raises(WikiError, match=re.escape(str(error))):
                    update(client, facts, changes.touched)
                return
            facts, mark = update(client, facts, changes.touched), changes.mark
            assert facts == fresh
            assert ask_changes(client, mark).touched == frozenset()


def test_a_change_that_came_late_into_the_lists_is_seen(wiki):
    """An entry may be dated before the last poll and appear after it: within the overlap, nothing is missed."""
    wiki.world = founded()
    with WikiClient(source("all"), wiki.url) as client:
        mark = Mark.of(client.greet())
        world = history.upload(wiki.world, "A.png", png("b"))
        number = world.changes[-1].number
        late = replace(world.changes[-1], timestamp=wiki.world.clock)
        wiki.world = replace(world, changes=(*world.changes[:-1], late))
        assert [title.text for title in ask_changes(client, mark).touched] == ["File:A.png"]
        assert number not in mark.changes_seen


def test_a_list_that_does_not_reach_back_says_so(wiki):
    wiki.world = founded()
    with WikiClient(source("all"), wiki.url) as client:
        mark = Mark.of(client.greet())
        assert ask_changes(client, mark).doubt == ""
        # The wiki keeps its list for fewer days than have passed since the last poll.
        wiki.world = history.upload(later(wiki.world, days=8), "A.png", png("b"))
        assert ask_changes(client, mark).doubt == ""
        recent = [change for change in wiki.world.changes if change.timestamp > later(founded(), days=1).clock]
        wiki.world = replace(wiki.world, changes=tuple(recent))
        assert "does not reach back" in ask_changes(client, mark).doubt


def test_an_edit_that_went_with_its_deleted_page_does_not_look_like_a_purge(wiki):
    wiki.world = founded()
    with WikiClient(source("all"), wiki.url) as client:
        mark = Mark.of(client.greet())
        wiki.world = history.delete(wiki.world, "Portal:Characters")
        assert ask_changes(client, mark).doubt == ""


@pytest.mark.parametrize(
    ("change", "at_most"),
    [
        (lambda world: world, 1),
        (lambda world: history.upload(world, "A.png", png("b")), 2),
        (lambda world: history.move(world, "File:A.png", "File:Z.png"), 2),
        (lambda world: history.edit(world, "Kid one", "Another text."), 4),
        (lambda world: history.edit(world, "Kid one/Talk", "New."), 3),
        (lambda world: history.edit(world, "Template:Mark", TEMPLATE_TEXTS[1]), 3),
    ],
    ids=["nothing", "re-upload", "move", "edit of an owner", "new page", "template"],
)
def test_a_change_costs_few_requests(wiki, change: Callable[[World], World], at_most):
    wiki.world = founded()
    with WikiClient(source("all"), wiki.url) as client:
        mark = Mark.of(client.greet())
        facts = gather(client)
        before = client.api.num_asked
        wiki.world = change(wiki.world)
        update(client, facts, ask_changes(client, mark).touched)
        assert client.api.num_asked - before <= at_most
