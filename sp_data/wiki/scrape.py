"""The scrape stage: wiki -> catalogue and originals; every time after the first, only what changed.

1. The facts: gathered (gather.py) the first time, after a month, or when the wiki's lists of changes do not reach back;
   else the wiki is asked what changed (changes.py), and for those pages (update.py). Nothing changed: one request.
2. The originals that are not there yet (originals.py).
3. The catalogue (rows.py), named by what it says, with tombstones for what is gone; a wiki as it was publishes nothing.
4. What is remembered for the next run (memory.py), last: whatever ends a run, the next one goes on from its answers
   (journal.py) and asks for no page and no picture twice.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sp_data.lake import Lake
from sp_data.manifest import latest
from sp_data.recipe import Source
from sp_data.runtime.progress import SILENT, Progress
from sp_data.stage import StageResult, StageRun
from sp_data.wiki import state as memories
from sp_data.wiki.catalogue import OK
from sp_data.wiki.facts import Facts
from sp_data.wiki.http.client import WikiClient
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.politeness import Pace
from sp_data.wiki.incremental import Look, Looker
from sp_data.wiki.originals import Originals, usual_host
from sp_data.wiki.parse.titles import file_title
from sp_data.wiki.publish import STAGE, publish_catalogue
from sp_data.wiki.rows import caption_sources, make_rows
from sp_data.wiki.state import Memory

log = logging.getLogger(__name__)

PICTURES_A_LINE = 500


def scrape(run: StageRun, *, reconcile: bool = False, proxy: str | None = None) -> StageResult:
    """Bring the lake's originals and catalogue up to what the wiki has now.

    `reconcile`: gather everything again, whatever the wiki says has changed. `proxy`: as in Transport.
    Raises RecipeError (manners), WikiError, LakeError. What was fetched until then stays.
    """
    source, lake = run.recipe.source, run.lake
    source.check_manners()
    # The lake first: a busy one must not cost the wiki a request.
    with lake.writer(), _served(source, proxy) as via:
        if source.addresses:
            from sp_data.wiki.scrape_addresses import scrape_addresses

            robots = memories.recall_robots(lake)
            result = scrape_addresses(run, proxy=via, robots=robots)
            memories.remember_robots(lake, robots)
            return result
        while True:
            look = _Run(source, lake, via, reconcile=reconcile, progress=run.progress)
            result = look.work(run)
            # A listing that went on after a long interruption is old; what changed meanwhile costs one request to know.
            if not look.looker.listed_long_ago:
                return result
            reconcile = False


@dataclass(frozen=True, slots=True)
class ScrapePlan:
    """What a scrape would do. `num_requests` were made to know it."""

    num_files: int
    num_pictures: int
    num_bytes: int | None
    """None where nobody says beforehand."""
    num_requests: int
    seconds: float
    """That fetching takes at the source's polite rate, waiting included."""


def plan(
    source: Source, lake: Lake, *, reconcile: bool = False, proxy: str | None = None, progress: Progress = SILENT
) -> ScrapePlan:
    """What `scrape` would fetch now. The wiki is listed and its answers are kept, so the scrape itself does not list
    it again; no picture is fetched and no catalogue published. Raises as `scrape` does."""
    source.check_manners()
    with lake.writer(), _served(source, proxy) as via:
        if source.addresses:
            return _plan_of_addresses(source, lake)
        while True:
            run = _Run(source, lake, via, reconcile=reconcile, progress=progress)
            made = run.plan()
            if not run.looker.listed_long_ago:
                return made
            run.journal.clear()


def _plan_of_addresses(source: Source, lake: Lake) -> ScrapePlan:
    from sp_data.wiki.scrape_addresses import addresses_to_fetch

    waiting, listed = addresses_to_fetch(source, lake)
    seconds = len(waiting) * Pace(source.requests_per_second).mean_gap_s
    return ScrapePlan(listed, len(waiting), None, 0, seconds)


@contextlib.contextmanager
def _served(source: Source, proxy: str | None) -> Iterator[str | None]:
    """The proxy by which the source's wiki is reached; the demo's is served meanwhile."""
    if source.demo is None or proxy is not None:
        yield proxy
        return
    from sp_data.demo.wiki.history import after_weeks
    from sp_data.demo.wiki.server import DemoWikiServer
    from sp_data.demo.wiki.world import build_world

    demo = source.demo
    with DemoWikiServer(after_weeks(build_world(demo.num_kids, demo.seed), demo.weeks, demo.seed)) as wiki:
        yield wiki.url


class _Run:
    """One look at the wiki and what follows from it."""

    def __init__(self, source: Source, lake: Lake, proxy: str | None, *, reconcile: bool, progress: Progress) -> None:
        self.source, self.lake, self.progress = source, lake, progress
        self.journal = Journal(lake)
        self.robots = memories.recall_robots(lake)
        memory = memories.recall(lake, source)
        site = memory.site if memory and not reconcile else None
        self.client = WikiClient(source, proxy, site=site, journal=self.journal, robots=self.robots)
        self.looker = Looker(self.client, lake, self.journal, memory, progress, reconcile)

    def work(self, run: StageRun) -> StageResult:
        started = time.monotonic()
        with self.client, contextlib.ExitStack() as at_the_end:
            at_the_end.callback(lambda: memories.remember_robots(self.lake, self.robots))
            look = self.looker.look()
            result = self._nothing_new() if look is None else self._bring_up_to_date(look, run)
        log.info(
            "%d requests to the API, %d to others, %.1f s",
            self.client.api.num_asked,
            self.client.transport.num_requests - self.client.api.num_asked,
            time.monotonic() - started,
        )
        return result

    def plan(self) -> ScrapePlan:
        with self.client, contextlib.ExitStack() as at_the_end:
            at_the_end.callback(lambda: memories.remember_robots(self.lake, self.robots))
            look = self.looker.look()
            if look is None:
                assert self.looker.memory is not None
                known = memories.recall_facts(self.lake, self.looker.memory)
                files = list(known.facts.files.values()) if known else []
                refused = known.refused if known else {}
            else:
                files, refused = list(look.kept.facts.files.values()), look.kept.refused
            originals = Originals(self.client, self.lake, self.journal, dict(refused))
            wanted = {file.sha1: file for file in files if originals.outcome(file) is None}
            num_bytes = sum(file.bytes for file in wanted.values())
            seconds = len(wanted) * self.client.transport.seconds_a_request
            return ScrapePlan(len(files), len(wanted), num_bytes, self.client.transport.num_requests, seconds)

    # 2. to 4.

    def _nothing_new(self) -> StageResult:
        memory = self.looker.memory
        assert memory is not None
        newest = latest(self.lake, STAGE)
        assert newest is not None
        if memory != memories.recall(self.lake, self.source):
            memories.remember(self.lake, memory)
        log.info("%s: nothing changed", self.source.wiki)
        return StageResult(newest, "unchanged")

    def _bring_up_to_date(self, look: Look, run: StageRun) -> StageResult:
        facts = look.kept.facts
        host = usual_host(facts.files.values())
        originals = Originals(self.client, self.lake, self.journal, look.kept.refused, host)
        statuses = self._fetch(originals, facts)
        rows = make_rows(facts, self.source, statuses)
        log.info(
            "%d of %d pictures are there, %d new (%.1f MB)",
            sum(status == OK for status in statuses.values()),
            len(rows),
            originals.num_fetched,
            originals.num_bytes / 1e6,
        )
        sources = ", ".join(f"{source} {count}" for source, count in caption_sources(rows).items())
        log.info("captions come from: %s", sources)
        result = publish_catalogue(
            run,
            rows,
            clock=look.mark.clock,
            whereabouts=lambda titles: self._whereabouts(titles, facts),
            fetched=originals.num_fetched > 0,
        )
        memories.remember(
            self.lake,
            Memory(
                version=memories.VERSION,
                source=memories.source_digest(self.source),
                site=self.client.site,
                mark=look.mark,
                reconciled_at=look.reconciled_at,
                runs=look.runs,
                unsettled=look.unsettled,
                facts=memories.write_facts(self.lake, look.kept),
                published=result.manifest.identity,
                num_failed=sum(not refusal.is_final for refusal in look.kept.refused.values()),
            ),
        )
        self.journal.clear()
        return result

    def _fetch(self, originals: Originals, facts: Facts) -> dict[str, str]:
        """Name -> what became of its original."""
        statuses = {name: status for name, file in facts.files.items() if (status := originals.outcome(file))}
        waiting = [file for name, file in sorted(facts.files.items()) if name not in statuses]
        self.client.api.on_answer = None
        self.progress.begin(STAGE, len(waiting), "pictures")
        for number, file in enumerate(waiting, start=1):
            statuses[file.name] = originals.ensure(file)
            self.progress.advance()
            if number % PICTURES_A_LINE == 0:
                log.info("%d of %d pictures, %.1f MB fetched", number, len(waiting), originals.num_bytes / 1e6)
        return statuses

    def _whereabouts(self, titles: list[str], facts: Facts) -> dict[str, str]:
        """Title -> the title under which the wiki has that file now, left out if it has none."""
        now = {file_title(alias): file_title(name) for alias, name in facts.aliases.items()}
        if self.source.select == "all":  # any other file would have been listed
            return now
        asked = self.client.pages_named(titles, {"prop": "imageinfo", "iiprop": "canonicaltitle"})
        return now | {
            str(page["title"]): str(page["imageinfo"][0].get("canonicaltitle") or page["title"])
            for page in asked
            if page.get("imageinfo")
        }
