"""One look at the wiki: everything the first time, then what changed; or nothing, after a single request.

    look = Looker(...).look()       # Look(kept=Kept(facts=...), mark=..., ...), or None

What an interrupted run was told counts as long as it can (journal.py): the answers of a listing until a later one is
remembered, the answers about changes while no other change came to them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from sp_data.canonical import digest_of
from sp_data.errors import WikiApiError
from sp_data.lake import Lake
from sp_data.manifest import is_done, latest
from sp_data.recipe import Source
from sp_data.runtime.progress import TOLD, Progress
from sp_data.wiki import state as memories
from sp_data.wiki.changes import OVERLAP, REACH, Mark, Poll, Title, at, poll
from sp_data.wiki.gather import gather
from sp_data.wiki.http.client import WikiClient
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.originals import follows_forgotten, originals_missing
from sp_data.wiki.publish import STAGE
from sp_data.wiki.state import KnownFacts, Memory
from sp_data.wiki.update import TEMPLATE_NAMESPACES, requests_to_gather, requests_to_update, update

log = logging.getLogger(__name__)

A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Look:
    """Facts as they are now, and what the next run needs to know of this one (as in Memory)."""

    mark: Mark
    kept: KnownFacts
    reconciled_at: str
    runs: int
    unsettled: tuple[Title, ...]


class Looker:
    """Looks once. `memory`: of the run before, None if there was none; brought up to date where nothing changed."""

    def __init__(
        self,
        client: WikiClient,
        lake: Lake,
        journal: Journal,
        memory: Memory | None,
        progress: Progress,
        reconcile: bool,
    ) -> None:
        self.memory = memory
        self.listed_long_ago = False
        """Whether the whole wiki was listed by a run that was interrupted a while ago, and this one went on with it."""
        self.source: Source = client.source
        self.client, self.lake, self.journal = client, lake, journal
        self.progress, self.reconcile = progress, reconcile

    def look(self) -> Look | None:
        """The facts as they are now; None if they are known and all that follows from them is done.

        Raises WikiApiError, WikiBlocked, WikiUnreachable, WikiError if nothing is left to scrape.
        """
        try:
            return self._look()
        except WikiApiError:
            self.journal.clear()
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.journal.clear()
            # A wiki may say anything; who runs this wants a sentence, whoever looks into it has the cause.
            raise WikiApiError(
                f"{self.source.wiki} gave an answer that is not MediaWiki's ({type(error).__name__}: {error}); "
                "is source.wiki right?",
                "odd-answer",
            ) from error

    def _look(self) -> Look | None:
        memory = self.memory
        if memory is None or self.reconcile:
            return self._gather("asked for" if self.reconcile else "first run")
        if memory.runs >= self.source.reconcile_every:
            return self._gather(f"{memory.runs} runs asked for changes only")
        found = poll(self.client, memory.mark)
        if found.doubt:
            return self._gather(found.doubt)
        if at(found.mark.clock) - at(memory.reconciled_at) > REACH:
            return self._gather(f"it was listed on {memory.reconciled_at[:10]}")
        # What a template changes is worked off by the wiki in its own time: such a look is taken twice.
        settled = at(found.mark.clock) - at(memory.mark.clock) > OVERLAP
        touched = found.touched | (frozenset(memory.unsettled) if settled else frozenset())
        if not touched and memory.num_failed == 0 and self._is_published(memory):
            # A later look may begin at the same mark: a run that finds nothing writes nothing, but once a day.
            later = at(found.mark.clock) - at(memory.mark.clock) > A_DAY
            self.memory = memory.model_copy(update={"mark": found.mark}) if later else memory
            return None
        kept = memories.recall_facts(self.lake, memory)
        if kept is None:
            return self._gather("what was known cannot be read")
        if requests_to_update(touched) > requests_to_gather(kept.facts):
            return self._gather(f"{len(touched):,} pages changed")
        return self._apply(found, touched, kept, memory)

    def _gather(self, why: str) -> Look:
        # The answers of an interrupted listing count as long as nothing was made of a later one.
        self.journal.begin(
            digest_of(
                ["everything", memories.source_digest(self.source), self.memory.mark.clock if self.memory else None]
            )
        )
        self.listed_long_ago = self.journal.age_s > OVERLAP.total_seconds()
        goes_on = " (goes on where it was interrupted)" if self.journal.age_s else ""
        log.info("listing all of %s: %s%s", self.source.wiki, why, goes_on)
        # How many pages there are is not known yet; at one request a second thousands of them take minutes.
        self.progress.begin("list", None, "requests")
        self.client.api.on_answer = self.progress.advance
        mark = Mark.of(self.client.greet())
        facts = gather(self.client)
        return Look(mark, KnownFacts(facts, {}), reconciled_at=mark.clock, runs=0, unsettled=())

    def _apply(self, found: Poll, touched: frozenset[Title], kept: KnownFacts, memory: Memory) -> Look:
        # The same changes again: what was asked about them holds.
        self.journal.begin(digest_of(["changes", memories.source_digest(self.source), memory.mark.clock, found.name]))
        if found.kinds:
            kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds.items())
            log.info("since %s: %s", memory.mark.clock, kinds, extra=TOLD)
        facts = update(self.client, kept.facts, touched) if touched else kept.facts
        return Look(
            found.mark,
            KnownFacts(facts, dict(kept.refused)),
            reconciled_at=memory.reconciled_at,
            runs=memory.runs + 1,
            unsettled=tuple(sorted(title for title in found.touched if title.namespace in TEMPLATE_NAMESPACES)),
        )

    def _is_published(self, memory: Memory) -> bool:
        """Whether the newest catalogue is the one that was made of the facts, and all it names is there."""
        newest = latest(self.lake, STAGE)
        if newest is None or newest.identity != memory.published or newest.recipe != self.source.identity_fields():
            return False
        whole = is_done(self.lake, STAGE, newest.identity) is not None and not originals_missing(self.lake, newest)
        return whole and follows_forgotten(self.lake, newest)
