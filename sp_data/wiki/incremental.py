"""One poll of the wiki: everything the first time, later what changed, or nothing after a single request.

    poll = Poller(...).poll()       # Poll(known=KnownFacts(facts=...), mark=..., ...), or None

The answers to an interrupted run are used again (http/journal.py): those of a listing until the state of a later one is
saved, those about changes until there are further changes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from sp_data.canonical import digest_of
from sp_data.errors import WikiApiError, WikiBlocked, WikiError, WikiUnreachable
from sp_data.lake import Lake
from sp_data.manifest import is_done, latest
from sp_data.recipe import Source
from sp_data.runtime.progress import SHOWN, Progress
from sp_data.wiki import state
from sp_data.wiki.changes import OVERLAP, REACH, Changes, Mark, Title, ask_changes, at
from sp_data.wiki.facts import Facts
from sp_data.wiki.gather import gather
from sp_data.wiki.http.client import WikiClient
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.originals import follows_forgotten, originals_missing
from sp_data.wiki.publish import STAGE
from sp_data.wiki.state import KnownFacts, ScrapeState
from sp_data.wiki.update import TEMPLATE_NAMESPACES, requests_to_gather, requests_to_update, update

log = logging.getLogger(__name__)

A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Poll:
    """The facts as they are now, and what the next run needs to know of this one (the fields of ScrapeState)."""

    mark: Mark
    known: KnownFacts
    reconciled_at: str
    runs: int
    unsettled: tuple[Title, ...]


class Poller:
    """Polls the wiki once.

    `saved_state`: what the run before saved, None if there is nothing. `state`: the same, brought up to date if
    nothing changed.
    """

    def __init__(
        self,
        client: WikiClient,
        lake: Lake,
        journal: Journal,
        saved_state: ScrapeState | None,
        progress: Progress,
        reconcile: bool,
    ) -> None:
        self.state = saved_state
        self.listed_long_ago = False
        """Whether this run continued a listing that an interrupted run began more than OVERLAP ago."""
        self.source: Source = client.source
        self.client, self.lake, self.journal = client, lake, journal
        self.progress, self.reconcile = progress, reconcile

    def poll(self) -> Poll | None:
        """The facts as they are now; None if nothing changed and the newest catalogue and its files are there.

        Raises WikiApiError, WikiBlocked, WikiUnreachable, WikiError if nothing is left to scrape.
        """
        try:
            return self._poll()
        except (WikiBlocked, WikiUnreachable):
            raise
        except WikiError:
            # The next run shall see what the wiki says then, such as a portal that is whole again.
            self.journal.clear()
            raise
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            self.journal.clear()
            # A wiki may answer anything. The user gets one sentence; the cause is chained for debugging.
            raise WikiApiError(
                f"{self.source.wiki} gave an answer that is not MediaWiki's ({type(error).__name__}: {error}); "
                "is source.wiki right?",
                "odd-answer",
            ) from error

    def _poll(self) -> Poll | None:
        last = self.state
        if last is None or self.reconcile:
            return self._gather("asked for" if self.reconcile else "first run")
        if last.runs >= self.source.reconcile_every:
            return self._gather(f"{last.runs} runs asked for changes only")
        changes = ask_changes(self.client, last.mark)
        if changes.doubt:
            return self._gather(changes.doubt)
        if at(changes.mark.clock) - at(last.reconciled_at) > REACH:
            return self._gather(f"it was listed on {last.reconciled_at[:10]}")
        # A wiki updates the pages that include a template in its own time: they are requested once more a run later.
        settled = at(changes.mark.clock) - at(last.mark.clock) > OVERLAP
        touched = changes.touched | (frozenset(last.unsettled) if settled else frozenset())
        if not touched and not last.has_due and self._is_published(last):
            # A run that finds nothing keeps the old mark, and so writes nothing, except once a day.
            later = at(changes.mark.clock) - at(last.mark.clock) > A_DAY
            self.state = last.model_copy(update={"mark": changes.mark, "looked_at": state.utc_now()}) if later else last
            return None
        known = state.load_facts(self.lake, last)
        if known is None:
            return self._gather("the saved facts cannot be read")
        if requests_to_update(touched) > requests_to_gather(known.facts):
            return self._gather(f"{len(touched):,} pages changed")
        return self._apply(changes, touched, known, last)

    def _gather(self, reason: str) -> Poll:
        # The answers of an interrupted listing are used again until the state of a later one is saved.
        self.journal.begin(
            digest_of(["everything", state.source_digest(self.source), self.state.mark.clock if self.state else None])
        )
        self.listed_long_ago = self.journal.age_s > OVERLAP.total_seconds()
        continued = " (goes on where it was interrupted)" if self.journal.age_s else ""
        log.info("listing all of %s: %s%s", self.source.wiki, reason, continued)
        # The number of pages is not known yet; at one request a second, thousands of them take minutes.
        self.progress.begin("list", None, "requests")
        self.client.api.on_answer = self.progress.advance
        mark = Mark.of(self.client.greet())
        facts = gather(self.client, self._saved_facts)
        # Listing everything again is no reason to ask for what does not come; being asked to is.
        known = state.load_facts(self.lake, self.state) if self.state and not self.reconcile else None
        refused = dict(known.refused) if known else {}
        return Poll(mark, KnownFacts(facts, refused), reconciled_at=mark.clock, runs=0, unsettled=())

    def _saved_facts(self) -> Facts | None:
        known = state.load_facts(self.lake, self.state) if self.state else None
        return known.facts if known else None

    def _apply(self, changes: Changes, touched: frozenset[Title], known: KnownFacts, last: ScrapeState) -> Poll:
        # If an interrupted run found the same changes, its answers about them still hold.
        self.journal.begin(digest_of(["changes", state.source_digest(self.source), last.mark.clock, changes.name]))
        if changes.kinds:
            kinds = ", ".join(f"{count} {kind}" for kind, count in changes.kinds.items())
            log.info("since %s: %s", last.mark.clock, kinds, extra=SHOWN)
        facts = update(self.client, known.facts, touched) if touched else known.facts
        return Poll(
            changes.mark,
            KnownFacts(facts, dict(known.refused)),
            reconciled_at=last.reconciled_at,
            runs=last.runs + 1,
            unsettled=tuple(sorted(title for title in changes.touched if title.namespace in TEMPLATE_NAMESPACES)),
        )

    def _is_published(self, last: ScrapeState) -> bool:
        """Whether the newest catalogue was made of the saved facts, and all files that it names exist."""
        newest = latest(self.lake, STAGE)
        if newest is None or newest.identity != last.published or newest.recipe != self.source.identity_fields():
            return False
        is_whole = is_done(self.lake, STAGE, newest.identity) is not None and not originals_missing(self.lake, newest)
        return is_whole and follows_forgotten(self.lake, newest)
