"""What changed on the made-up wiki, as api.php lists it: recentchanges of the last 90 days, and the logs."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from sp_data.demo.wiki.listings import Answer, BadContinue, Parameters
from sp_data.demo.wiki.titles import namespace_of
from sp_data.demo.wiki.world import TIMESTAMP, Change, World

KEPT = timedelta(days=90)


def recent_changes(world: World, given: dict[str, str], said: Answer) -> tuple[list[Answer], dict[str, str]]:
    """Entries and what continues them. A page that is deleted takes its edits out of the list."""
    parameters = Parameters(given, "rc")
    wanted = parameters.get("prop", "title|timestamp|ids").split("|")
    kinds = parameters.choices("type", ("edit", "new", "log", "categorize", "external"), "edit|new|log|categorize")
    oldest = (datetime.strptime(world.clock, TIMESTAMP) - KEPT).strftime(TIMESTAMP)
    ids = {page.page_id for page in world.pages.values()}
    found = [
        change
        for change in world.changes
        if change.timestamp >= oldest and ("/" in change.kind or change.page_id in ids) and _type(change) in kinds
    ]
    return _listed(found, parameters, "recentchanges", said, lambda change: _recent(change, wanted))


def log_events(world: World, given: dict[str, str], said: Answer) -> tuple[list[Answer], dict[str, str]]:
    parameters = Parameters(given, "le")
    wanted = parameters.get("prop", "ids|title|type|user|timestamp|comment|details").split("|")
    found = [change for change in world.changes if "/" in change.kind]
    return _listed(found, parameters, "logevents", said, lambda change: _event(change, wanted))


LISTS = {"recentchanges": recent_changes, "logevents": log_events}


def _listed(
    found: Iterable[Change], parameters: Parameters, module: str, said: Answer, entry: Callable[[Change], Answer]
) -> tuple[list[Answer], dict[str, str]]:
    (direction,) = parameters.choices("dir", ("newer", "older"), "older")
    start, limit = parameters.get("start"), parameters.limit(module, said)

    def place(change: Change) -> tuple[str, int]:
        return change.timestamp, change.number

    listed = sorted(found, key=place, reverse=direction == "older")
    if start:
        listed = [one for one in listed if (one.timestamp >= start) is (direction == "newer") or one.timestamp == start]
    if where := parameters.get("continue"):
        stamp, bar, number = where.partition("|")
        if not bar or not number.isdigit():
            raise BadContinue
        first = (stamp, int(number))
        listed = [one for one in listed if (place(one) >= first) is (direction == "newer") or place(one) == first]
    more = {f"{parameters.prefix}continue": "|".join(map(str, place(listed[limit])))} if len(listed) > limit else {}
    return [entry(change) for change in listed[:limit]], more


def _type(change: Change) -> str:
    return "log" if "/" in change.kind else change.kind


def _recent(change: Change, wanted: list[str]) -> Answer:
    kind, _, action = change.kind.partition("/")
    said: Answer = {"type": _type(change)}
    if "title" in wanted:
        said |= {"ns": namespace_of(change.title), "title": change.title}
    if "ids" in wanted:
        said |= {"pageid": change.page_id, "revid": change.revision_id, "old_revid": 0, "rcid": change.number}
    if "timestamp" in wanted:
        said["timestamp"] = change.timestamp
    if "loginfo" in wanted and action:
        said |= {"logid": change.number, "logtype": kind, "logaction": action, "logparams": _details(change)}
    return said


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
