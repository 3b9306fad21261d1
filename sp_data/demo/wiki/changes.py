"""Changes on the made-up wiki as api.php lists them: recentchanges of the last 90 days, and the logs."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from sp_data.demo.wiki.listings import Answer, BadContinue, Parameters
from sp_data.demo.wiki.titles import namespace_of
from sp_data.demo.wiki.world import TIMESTAMP, Change, World

KEPT = timedelta(days=90)


def recent_changes(world: World, request: dict[str, str], answer: Answer) -> tuple[list[Answer], dict[str, str]]:
    """Entries and what continues them. The edits of a deleted page are not in the list."""
    parameters = Parameters(request, "rc")
    wanted = parameters.get("prop", "title|timestamp|ids").split("|")
    kinds = parameters.choices("type", ("edit", "new", "log", "categorize", "external"), "edit|new|log|categorize")
    oldest = (datetime.strptime(world.clock, TIMESTAMP) - KEPT).strftime(TIMESTAMP)
    ids = {page.page_id for page in world.pages.values()}
    changes = [
        change
        for change in world.changes
        if change.timestamp >= oldest and ("/" in change.kind or change.page_id in ids) and _type(change) in kinds
    ]
    return _listed(changes, parameters, "recentchanges", answer, lambda change: _recent(change, wanted))


def log_events(world: World, request: dict[str, str], answer: Answer) -> tuple[list[Answer], dict[str, str]]:
    parameters = Parameters(request, "le")
    wanted = parameters.get("prop", "ids|title|type|user|timestamp|comment|details").split("|")
    changes = [change for change in world.changes if "/" in change.kind]
    return _listed(changes, parameters, "logevents", answer, lambda change: _event(change, wanted))


LISTS = {"recentchanges": recent_changes, "logevents": log_events}


def _listed(
    changes: Iterable[Change], parameters: Parameters, module: str, answer: Answer, entry: Callable[[Change], Answer]
) -> tuple[list[Answer], dict[str, str]]:
    (direction,) = parameters.choices("dir", ("newer", "older"), "older")
    start, limit = parameters.get("start"), parameters.limit(module, answer)

    def sort_key(change: Change) -> tuple[str, int]:
        return change.timestamp, change.number

    listed = sorted(changes, key=sort_key, reverse=direction == "older")
    if start:
        listed = [
            change
            for change in listed
            if (change.timestamp >= start) is (direction == "newer") or change.timestamp == start
        ]
    if continuation := parameters.get("continue"):
        stamp, separator, number = continuation.partition("|")
        if not separator or not number.isdigit():
            raise BadContinue
        first = (stamp, int(number))
        listed = [
            change
            for change in listed
            if (sort_key(change) >= first) is (direction == "newer") or sort_key(change) == first
        ]
    more = {f"{parameters.prefix}continue": "|".join(map(str, sort_key(listed[limit])))} if len(listed) > limit else {}
    return [entry(change) for change in listed[:limit]], more


def _type(change: Change) -> str:
    return "log" if "/" in change.kind else change.kind


def _recent(change: Change, wanted: list[str]) -> Answer:
    kind, _, action = change.kind.partition("/")
    entry: Answer = {"type": _type(change)}
    if "title" in wanted:
        entry |= {"ns": namespace_of(change.title), "title": change.title}
    if "ids" in wanted:
        entry |= {"pageid": change.page_id, "revid": change.revision_id, "old_revid": 0, "rcid": change.number}
    if "timestamp" in wanted:
        entry["timestamp"] = change.timestamp
    if "loginfo" in wanted and action:
        entry |= {"logid": change.number, "logtype": kind, "logaction": action, "logparams": _details(change)}
    return entry


def _event(change: Change, wanted: list[str]) -> Answer:
    kind, _, action = change.kind.partition("/")
    fields: dict[str, Answer] = {
        "ids": {"logid": change.number, "pageid": change.page_id, "logpage": change.page_id},
        "title": {"ns": namespace_of(change.title), "title": change.title},
        "type": {"type": kind, "action": action},
        "timestamp": {"timestamp": change.timestamp},
        "details": {"params": _details(change)},
    }
    return {name: value for field, values in fields.items() if field in wanted for name, value in values.items()}


def _details(change: Change) -> Answer:
    return {"target_ns": namespace_of(change.target), "target_title": change.target} if change.target else {}
