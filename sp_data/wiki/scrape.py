"""The scrape stage: wiki -> catalogue and originals; every time after the first, only what changed.

1. The facts: gathered (gather.py) the first time, after a month, or when the wiki's lists of changes do not reach back;
   else the wiki is asked what changed (changes.py) and for those pages (update.py). If nothing changed, that is one
   request.
2. The originals that are not in the lake yet (originals.py).
3. The catalogue (rows.py, publish.py), named by its content, with tombstones for files that are gone; if it did not
   change, nothing is published.
4. The state for the next run (state.py), last. However a run ends, the next one goes on from its answers
   (http/journal.py) and requests no page and no picture twice.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sp_data.errors import ListShrank
from sp_data.lake import Lake
from sp_data.manifest import latest
from sp_data.recipe import Source
from sp_data.runtime.progress import SILENT, Progress
from sp_data.stage import StageResult, StageRun
from sp_data.wiki import state
from sp_data.wiki.catalogue import OK
from sp_data.wiki.facts import Facts
from sp_data.wiki.http.answers import objects_in, text_of
from sp_data.wiki.http.client import WikiClient
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.politeness import Pace
from sp_data.wiki.incremental import Poll, Poller
from sp_data.wiki.originals import Originals, usual_host
from sp_data.wiki.parse.titles import file_title, name_of
from sp_data.wiki.publish import STAGE, check_size, publish_catalogue
from sp_data.wiki.refusals import next_due
from sp_data.wiki.rows import caption_sources, make_rows
from sp_data.wiki.state import ScrapeState

log = logging.getLogger(__name__)

PICTURES_A_LINE = 500


def scrape(
    run: StageRun, *, reconcile: bool = False, allow_shrink: bool = False, proxy: str | None = None
) -> StageResult:
    """Bring the lake's originals and catalogue up to date with the wiki.

    `reconcile`: gather everything again, whatever the wiki says has changed, and ask again for every picture that did
    not come. `allow_shrink`: publish a catalogue that lost most of its pictures. `proxy`: as in Transport.
    Raises RecipeError (politeness), WikiError, ListShrank, LakeError. What was fetched until then stays in the lake.
    """
    source, lake = run.recipe.source, run.lake
    source.check_politeness()
    # The lock first: a busy lake must not cost the wiki a request.
    with lake.writer(), _served(source, proxy) as proxy_url:
        if source.addresses:
            from sp_data.wiki.scrape_addresses import scrape_addresses

            robots = state.load_robots(lake)
            try:
                return scrape_addresses(
                    run, reconcile=reconcile, allow_shrink=allow_shrink, proxy=proxy_url, robots=robots
                )
            finally:
                state.save_robots(lake, robots)
        while True:
            attempt = _Run(source, lake, proxy_url, reconcile=reconcile, progress=run.progress)
            result = attempt.work(run, allow_shrink=allow_shrink)
            # A listing that was continued after a long interruption is old; another poll finds what changed meanwhile.
            if not attempt.poller.listed_long_ago:
                return result
            reconcile = False


def found_unchanged(run: StageRun) -> StageResult | None:
    """The newest catalogue if the source has nothing new, after one request to a wiki; else None.

    What a wiki said is kept for the scrape, which then does not ask again. Raises as `scrape` does.
    """
    source, lake = run.recipe.source, run.lake
    source.check_politeness()
    if source.addresses:
        from sp_data.wiki.scrape_addresses import addresses_to_fetch

        # Nothing to fetch: the scrape makes no request, and finds whether captions of the list changed.
        return scrape(run) if not addresses_to_fetch(source, lake)[0] else None
    with lake.writer(), _served(source, None) as proxy_url:
        attempt = _Run(source, lake, proxy_url, reconcile=False, progress=run.progress)
        return attempt.look()


@dataclass(frozen=True, slots=True)
class ScrapePlan:
    """What a scrape would do. `num_requests`: how many requests it took to find out."""

    num_files: int
    num_hopeful: int
    """Files that are there or may come: not those that were asked for in vain and are not due again."""
    num_pictures: int
    num_bytes: int | None
    """None if it is not known beforehand."""
    num_requests: int
    seconds: float
    """How long fetching takes at the source's polite rate, including the waits."""


def plan(
    source: Source, lake: Lake, *, reconcile: bool = False, proxy: str | None = None, progress: Progress = SILENT
) -> ScrapePlan:
    """What `scrape` would fetch now.

    The wiki is listed and its answers are kept, so that the scrape itself does not list it again. No picture is fetched
    and no catalogue is published. Raises as `scrape` does.
    """
    source.check_politeness()
    with lake.writer(), _served(source, proxy) as proxy_url:
        if source.addresses:
            return _plan_of_addresses(source, lake, reconcile=reconcile)
        while True:
            run = _Run(source, lake, proxy_url, reconcile=reconcile, progress=progress)
            scrape_plan = run.plan()
            if not run.poller.listed_long_ago:
                return scrape_plan
            run.journal.clear()


def _plan_of_addresses(source: Source, lake: Lake, *, reconcile: bool) -> ScrapePlan:
    from sp_data.wiki.scrape_addresses import addresses_to_fetch

    addresses, num_listed, num_hopeful = addresses_to_fetch(source, lake, reconcile=reconcile)
    seconds = len(addresses) * Pace(source.requests_per_second).mean_gap_s
    return ScrapePlan(num_listed, num_hopeful, len(addresses), None, 0, seconds)


@contextlib.contextmanager
def _served(source: Source, proxy: str | None) -> Iterator[str | None]:
    """The proxy for the source's wiki. A demo wiki is served as long as the context lasts."""
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
    """One poll of the wiki and what follows from it."""

    def __init__(self, source: Source, lake: Lake, proxy: str | None, *, reconcile: bool, progress: Progress) -> None:
        self.source, self.lake, self.progress = source, lake, progress
        self.journal = Journal(lake)
        self.robots = state.load_robots(lake)
        saved_state = state.load_state(lake, source)
        site = saved_state.site if saved_state and not reconcile else None
        self.client = WikiClient(source, proxy, site=site, journal=self.journal, robots=self.robots)
        self.poller = Poller(self.client, lake, self.journal, saved_state, progress, reconcile)

    def work(self, run: StageRun, *, allow_shrink: bool) -> StageResult:
        started = time.monotonic()
        with self.client, contextlib.ExitStack() as at_the_end:
            at_the_end.callback(lambda: state.save_robots(self.lake, self.robots))
            poll = self.poller.poll()
            result = (
                self._nothing_new() if poll is None else self._bring_up_to_date(poll, run, allow_shrink=allow_shrink)
            )
        log.info(
            "%d requests to the API, %d to others, %.1f s",
            self.client.api.num_asked,
            self.client.transport.num_requests - self.client.api.num_asked,
            time.monotonic() - started,
        )
        return result

    def look(self) -> StageResult | None:
        """The newest catalogue if nothing changed since; None: there is something to do, and the answers are kept."""
        with self.client, contextlib.ExitStack() as at_the_end:
            at_the_end.callback(lambda: state.save_robots(self.lake, self.robots))
            return self._nothing_new() if self.poller.poll() is None else None

    def plan(self) -> ScrapePlan:
        with self.client, contextlib.ExitStack() as at_the_end:
            at_the_end.callback(lambda: state.save_robots(self.lake, self.robots))
            poll = self.poller.poll()
            if poll is None:
                assert self.poller.state is not None
                known = state.load_facts(self.lake, self.poller.state)
                files = list(known.facts.files.values()) if known else []
                refused = known.refused if known else {}
            else:
                files, refused = list(poll.known.facts.files.values()), poll.known.refused
            originals = Originals(self.client, self.lake, self.journal, dict(refused))
            to_fetch = {file.sha1: file for file in files if originals.outcome(file) is None}
            num_bytes = sum(file.bytes for file in to_fetch.values())
            seconds = len(to_fetch) * self.client.transport.seconds_a_request
            num_requests = self.client.transport.num_requests
            return ScrapePlan(len(files), len(files), len(to_fetch), num_bytes, num_requests, seconds)

    # Steps 2 to 4

    def _nothing_new(self) -> StageResult:
        current = self.poller.state
        assert current is not None
        newest = latest(self.lake, STAGE)
        assert newest is not None
        if current != state.load_state(self.lake, self.source):
            state.save_state(self.lake, current)
        log.info("%s: nothing changed", self.source.wiki)
        return StageResult(newest, "unchanged")

    def _bring_up_to_date(self, poll: Poll, run: StageRun, *, allow_shrink: bool) -> StageResult:
        facts = poll.known.facts
        host = usual_host(facts.files.values())
        originals = Originals(self.client, self.lake, self.journal, poll.known.refused, host)
        newest = run.newest()
        with self._refusing_to_shrink():
            check_size(run, newest, len(facts.files), allow_shrink=allow_shrink)
        statuses = self._fetch(originals, facts)
        num_ok = sum(status == OK for status in statuses.values())
        if originals.first_error and not num_ok and not (newest and newest.counts.out):
            # The next run asks again for all of them.
            self.journal.clear()
            raise originals.first_error
        with self._refusing_to_shrink():
            check_size(run, newest, num_ok, allow_shrink=allow_shrink)
        originals.forget_others(facts.files.values())
        refusals = poll.known.refused.values()
        rows = make_rows(facts, self.source, statuses)
        log.info(
            "%d of %d pictures are there, %d new (%.1f MB)",
            num_ok,
            len(rows),
            originals.num_fetched,
            originals.num_bytes / 1e6,
        )
        sources = ", ".join(f"{source} {count}" for source, count in caption_sources(rows).items())
        log.info("captions come from: %s", sources)
        if facts.num_unread:
            log.warning("%d pages could not be read; what earlier runs read of them is kept", facts.num_unread)
        result = publish_catalogue(
            run,
            rows,
            num_unread=facts.num_unread,
            clock=poll.mark.clock,
            current_titles=lambda titles: self._current_titles(titles, facts),
            fetched=originals.num_fetched > 0,
        )
        state.save_state(
            self.lake,
            ScrapeState(
                version=state.VERSION,
                source=state.source_digest(self.source),
                site=self.client.site,
                mark=poll.mark,
                reconciled_at=poll.reconciled_at,
                runs=poll.runs,
                unsettled=poll.unsettled,
                facts=state.save_facts(self.lake, poll.known),
                published=result.manifest.identity,
                num_failed=sum(not refusal.is_settled for refusal in refusals),
                retry_at=next_due(refusals),
                looked_at=state.utc_now(),
            ),
        )
        self.journal.clear()
        return result

    @contextlib.contextmanager
    def _refusing_to_shrink(self) -> Iterator[None]:
        try:
            yield
        except ListShrank:
            # The next run shall see what the wiki says then.
            self.journal.clear()
            raise

    def _fetch(self, originals: Originals, facts: Facts) -> dict[str, str]:
        """File name -> what became of its original."""
        statuses = {name: status for name, file in facts.files.items() if (status := originals.outcome(file))}
        to_fetch = originals.in_order(file for name, file in facts.files.items() if name not in statuses)
        self.client.api.on_answer = None
        self.progress.begin(STAGE, len(to_fetch), "pictures")
        for number, file in enumerate(to_fetch, start=1):
            statuses[file.name] = originals.ensure(file)
            self.progress.advance()
            if number % PICTURES_A_LINE == 0:
                log.info("%d of %d pictures, %.1f MB fetched", number, len(to_fetch), originals.num_bytes / 1e6)
        return statuses

    def _current_titles(self, titles: list[str], facts: Facts) -> dict[str, str]:
        """Title -> the title under which the wiki has that file now; titles without a file are left out."""
        by_alias = {file_title(alias): file_title(name) for alias, name in facts.aliases.items()}
        if self.source.select == "all":  # any other file would have been listed
            return by_alias
        pages = self.client.pages_named(titles, {"prop": "imageinfo", "iiprop": "canonicaltitle"})
        return by_alias | {
            file_title(name_of(page["title"])): file_title(
                name_of(text_of(infos[0].get("canonicaltitle")) or page["title"])
            )
            for page in pages
            if (infos := objects_in(page.get("imageinfo")))
        }
