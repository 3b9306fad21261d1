"""What changed on the wiki since the last run, in one request: recentchanges and the logs, by the wiki's own clock.

    ask_changes(client, mark) -> Changes(mark=Mark(...), touched={Title(6, 'File:Ada Birch.png')}, ...)

recentchanges forgets entries after some weeks, the logs never. Both are requested from ten minutes before the last run
on, because entries may appear late; entries that were seen before are left out by their numbers. recentchanges is also
requested from its newest entries of the last run on: if they come again, it still reaches back that far.

Imports with old dates appear in neither list; only gathering everything again finds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sp_data.canonical import digest_of
from sp_data.wiki.http.answers import Json
from sp_data.wiki.http.api import Params
from sp_data.wiki.http.client import Greeting, WikiClient

OVERLAP = timedelta(minutes=10)
REACH = timedelta(days=30)
"""How far back recentchanges is trusted; MediaWiki's default is 90 days, and some wikis keep fewer."""
SILENT_LOGS = frozenset({"patrol", "thanks", "newusers", "block", "rights", "tag", "gblblock"})
"""Log entries that do not change a page's files or text."""
RENAMES = frozenset({"renameuser", "usermerge"})
"""Log entries that change the uploaders of files without naming the files."""
TRUSTED_GAP = timedelta(days=8)
"""How long ago the last run may be if there is no anchor: enough for a quiet wiki that is scraped every week."""
ANCHORS = 5
_STAMP = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True, order=True)
class Title:
    namespace: int
    text: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """An entry of recentchanges that must come again in the next run."""

    number: int
    at: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a run's list of changes ended.

    `clock`: the wiki's time at the run's first request. `changes_seen`, `log_seen`: the numbers of the entries that the
    run saw from `clock` minus OVERLAP on.
    """

    clock: str
    anchors: tuple[Anchor, ...] = ()
    changes_seen: tuple[int, ...] = ()
    log_seen: tuple[int, ...] = ()

    @classmethod
    def of(cls, greeting: Greeting) -> Mark:
        """The mark of a run that gathers everything, which includes all earlier changes."""
        return cls.after(greeting.clock, greeting.changes, greeting.events)

    @classmethod
    def after(cls, clock: str, changes: Iterable[Json], events: Iterable[Json], before: Mark | None = None) -> Mark:
        """The mark of a run at `clock` that saw these entries."""
        changes = list(changes)
        since = _before(clock, OVERLAP)
        return cls(
            clock,
            _anchors(changes) or (before.anchors if before else ()),
            tuple(sorted(int(change["rcid"]) for change in changes if change["timestamp"] >= since)),
            tuple(sorted(int(event["logid"]) for event in events if event["timestamp"] >= since)),
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed. Equal changes have equal names."""

    mark: Mark
    touched: frozenset[Title]
    kinds: Mapping[str, int]
    """Kind of change -> how many there were, e.g. {'upload/overwrite': 2}."""
    name: str
    doubt: str
    """Why `touched` may be incomplete; empty if it is complete."""


def ask_changes(client: WikiClient, mark: Mark) -> Changes:
    """What changed since `mark`. Raises WikiApiError, WikiBlocked, WikiUnreachable."""
    since = _before(mark.clock, OVERLAP)
    oldest = _before(mark.clock, REACH)
    anchors = [anchor for anchor in mark.anchors if anchor.at >= oldest]
    params: Params = {
        "list": "recentchanges|logevents",
        "rcdir": "newer",
        "rcstart": min([since, *(anchor.at for anchor in anchors)]),
        "rctype": "edit|new|log",
        "rcprop": "ids|title|timestamp|loginfo",
        "rclimit": "max",
        "ledir": "newer",
        "lestart": since,
        "leprop": "ids|title|type|timestamp|details",
        "lelimit": "max",
    }
    answer = client.lists(params)
    changes, events = answer.get("recentchanges", []), answer.get("logevents", [])
    change_numbers = {int(change["rcid"]) for change in changes}
    changes_seen, log_seen = set(mark.changes_seen), set(mark.log_seen)
    new_changes = [
        change for change in changes if change["timestamp"] >= since and int(change["rcid"]) not in changes_seen
    ]
    new_events = [event for event in events if int(event["logid"]) not in log_seen]
    clock = str(answer.get("curtimestamp") or mark.clock)
    listed_events = {int(change["logid"]) for change in new_changes if change.get("logid")}
    kinds = Counter(_kind(entry) for entry in new_changes)
    kinds.update(_kind(event) for event in new_events if int(event["logid"]) not in listed_events)
    return Changes(
        mark=Mark.after(clock, changes, events, mark),
        touched=frozenset(title for entry in (*new_changes, *new_events) for title in _titles(entry)),
        kinds=dict(sorted(kinds.items())),
        name=digest_of([sorted(int(change["rcid"]) for change in new_changes), sorted(_log_numbers(new_events))]),
        doubt=_doubt(mark, clock, anchors, change_numbers, new_events),
    )


def _doubt(mark: Mark, clock: str, anchors: list[Anchor], change_numbers: set[int], events: list[Json]) -> str:
    gap = at(clock) - at(mark.clock)
    if gap > REACH:
        return f"the last run was on {mark.clock[:10]}"
    if anchors and not any(anchor.number in change_numbers for anchor in anchors):
        return "the wiki's list of recent changes does not reach back to the last run"
    if not anchors and gap > TRUSTED_GAP:
        return f"nothing shows that the wiki's list of recent changes reaches back to {mark.clock[:10]}"
    if any(_log_type(event) in RENAMES for event in events):
        return "a user was renamed"
    return ""


def _log_numbers(events: Iterable[Json]) -> Iterable[int]:
    return (int(event["logid"]) for event in events)


def _titles(entry: Json) -> Iterable[Title]:
    """The pages that an entry names: its own, and its new title if it was moved. Hidden entries name none."""
    if _log_type(entry) in SILENT_LOGS | RENAMES:
        return
    if entry.get("title"):
        yield Title(int(entry["ns"]), str(entry["title"]))
    details = entry.get("params") or entry.get("logparams") or {}
    if "target_title" in details:
        yield Title(int(details["target_ns"]), str(details["target_title"]))


def _log_type(entry: Json) -> str:
    return str(entry.get("logtype") or (entry.get("type") if "rcid" not in entry else "") or "")


def _kind(entry: Json) -> str:
    """'edit', 'new', 'upload/overwrite', 'move/move', ..."""
    action = entry.get("logaction") or entry.get("action")
    kind = _log_type(entry)
    return f"{kind}/{action}" if kind and action else kind or str(entry.get("type", "other"))


def _anchors(changes: Iterable[Json]) -> tuple[Anchor, ...]:
    newest = sorted(changes, key=lambda change: (change["timestamp"], change["rcid"]))[-ANCHORS:]
    return tuple(Anchor(int(change["rcid"]), str(change["timestamp"])) for change in newest)


def _before(clock: str, interval: timedelta) -> str:
    return (at(clock) - interval).strftime(_STAMP)


def at(clock: str) -> datetime:
    """The time that a wiki's clock shows. Raises ValueError."""
    return datetime.strptime(clock, _STAMP).replace(tzinfo=UTC)
