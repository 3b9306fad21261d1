"""The generators of api.php: the pages that a request is about, in MediaWiki's order and with its `continue` values.

A listing is a sorted sequence of (sort key, title). Its continue value is the sort key of the first entry of the next
request, so any client can continue a listing from any entry, as on a real wiki.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sp_data.demo.wiki.pages import WikiPage
from sp_data.demo.wiki.titles import InvalidTitle, key, namespace_of, normalised
from sp_data.demo.wiki.world import World

MAX_LIMIT = 500
Answer = dict[str, Any]
SortKey = tuple[str | int, ...]


class ApiError(Exception):
    """An error that MediaWiki answers as `{"error": {"code": ..., "info": ...}}`, with status 200."""

    def __init__(self, code: str, info: str, **more: object) -> None:
        super().__init__(info)
        self.body: dict[str, object] = {"code": code, "info": info, **more}


class BadContinue(ApiError):
    def __init__(self) -> None:
        super().__init__(
            "badcontinue",
            "Invalid continue param. You should pass the original value returned by the previous query.",
        )


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of one module: `gailimit` is `limit` under the prefix `gai`."""

    request: dict[str, str]
    prefix: str

    def get(self, name: str, default: str = "") -> str:
        return self.request.get(self.prefix + name, default)

    def choices(self, name: str, allowed: Iterable[str], default: str) -> list[str]:
        """The values of a `a|b` parameter. Raises ApiError for one that is not `allowed`."""
        chosen = self.get(name, default).split("|")
        for value in chosen:
            if value not in allowed:
                raise ApiError("badvalue", f'Unrecognized value for parameter "{self.prefix}{name}": {value}.')
        return chosen

    def limit(self, module: str, answer: Answer, default: int = 10) -> int:
        """The number of entries. As in MediaWiki, the answer states what `max` means and warns of too high numbers."""
        text = self.get("limit", str(default))
        if text == "max":
            answer.setdefault("limits", {})[module] = MAX_LIMIT
            return MAX_LIMIT
        try:
            wanted = int(text)
        except ValueError:
            raise ApiError(
                "badinteger", f'Invalid value "{text}" for integer parameter "{self.prefix}limit".'
            ) from None
        if not 1 <= wanted <= MAX_LIMIT:
            warn(answer, module, f'The value "{text}" for parameter "{self.prefix}limit" must be between 1 and 500.')
        return min(max(wanted, 1), MAX_LIMIT)


def warn(answer: Answer, module: str, text: str) -> None:
    """Adds a warning of `module` to the answer."""
    warnings = answer.setdefault("warnings", {})
    previous = warnings.get(module, {}).get("warnings")
    warnings[module] = {"warnings": text if previous is None else f"{previous}\n{text}"}


@dataclass(frozen=True, slots=True)
class Listing:
    """All entries of a listing, sorted, and how its continue value is written and read."""

    entries: list[tuple[SortKey, str]]
    write: Callable[[SortKey], str]
    read: Callable[[str], SortKey]


def list_titles(
    name: str, world: World, sources: list[str], request: dict[str, str], answer: Answer
) -> tuple[list[str], dict[str, str]]:
    """The titles that generator `name` finds for this request, and the parameters that continue it (empty at the end).

    `sources` are the requested titles, from which some generators start. Raises ApiError.
    """
    try:
        prefix, make = GENERATORS[name]
    except KeyError:
        raise ApiError("badgenerator", f'Unknown "generator={name}".') from None
    parameters = Parameters(request, prefix)
    limit = parameters.limit(name, answer)
    listing = make(world, sources, parameters)
    entries = listing.entries
    if continuation := parameters.get("continue"):
        try:
            start = listing.read(continuation)
        except (ValueError, IndexError):
            raise BadContinue from None
        entries = [entry for entry in entries if entry[0] >= start]
    following = {f"{prefix}continue": listing.write(entries[limit][0])} if len(entries) > limit else {}
    return [title for _, title in entries[:limit]], following


def _all_images(world: World, sources: list[str], parameters: Parameters) -> Listing:
    return _by_key([f"File:{name}" for name in world.files], parameters.get("from"))


def _all_pages(world: World, sources: list[str], parameters: Parameters) -> Listing:
    try:
        namespace = int(parameters.get("namespace", "0"))
    except ValueError:
        value = parameters.get("namespace")
        raise ApiError("badvalue", f'Unrecognized value for parameter "gapnamespace": {value}.') from None
    (kind,) = parameters.choices("filterredir", ("all", "redirects", "nonredirects"), "all")

    def fits(page: WikiPage) -> bool:
        return page.namespace == namespace and kind in ("all", "redirects" if page.redirect else "nonredirects")

    return _by_key([page.title for page in world.pages.values() if fits(page)], parameters.get("from"))


def _by_key(titles: list[str], start: str) -> Listing:
    first = key(start[:1].upper() + start[1:])
    entries: list[tuple[SortKey, str]] = [((key(title),), title) for title in titles]
    return Listing(sorted(entry for entry in entries if entry[0] >= (first,)), lambda at: str(at[0]), lambda at: (at,))


def _images(world: World, sources: list[str], parameters: Parameters) -> Listing:
    entries: list[tuple[SortKey, str]] = [
        ((world.pages[source].page_id, key(image)), image)
        for source in sources
        if source in world.pages
        for image in world.pages[source].images
    ]
    return Listing(sorted(entries), lambda at: f"{at[0]}|{at[1]}", _read_numbered)


def _category_members(world: World, sources: list[str], parameters: Parameters) -> Listing:
    if not parameters.get("title"):
        raise ApiError("missingparam", 'One of the parameters "gcmtitle" and "gcmpageid" is required.')
    try:
        category = normalised(parameters.get("title"))
    except InvalidTitle:
        category = ""
    if namespace_of(category) != 14:
        raise ApiError("invalidcategory", "The category name you entered is not valid.")
    kinds = ("page", "subcat", "file")
    chosen = parameters.choices("type", kinds, "page|subcat|file")
    entries: list[tuple[SortKey, str]] = []
    for page in world.pages.values():
        kind = {6: "file", 14: "subcat"}.get(page.namespace, "page")
        if category in page.categories and kind in chosen:
            name = key(page.title).replace("_", " ").upper()
            entries.append(((kinds.index(kind), name, page.page_id), page.title))

    def write(at: SortKey) -> str:
        return f"{kinds[int(at[0])]}|{str(at[1]).encode().hex()}|{at[2]}"

    def read(continuation: str) -> SortKey:
        kind, name, page_id = continuation.split("|")
        return kinds.index(kind), bytes.fromhex(name).decode(), int(page_id)

    return Listing(sorted(entries), write, read)


def _transcluded_in(world: World, sources: list[str], parameters: Parameters) -> Listing:
    spaces = {int(number) for number in parameters.get("namespace").split("|") if number}
    entries: list[tuple[SortKey, str]] = [
        ((page.page_id, ""), page.title)
        for page in world.pages.values()
        if set(page.templates) & set(sources) and (not spaces or page.namespace in spaces)
    ]
    return Listing(sorted(entries), lambda at: str(at[0]), lambda at: (int(at), ""))


def _read_numbered(continuation: str) -> SortKey:
    number, name = continuation.split("|", 1)
    return int(number), name


GENERATORS: dict[str, tuple[str, Callable[[World, list[str], Parameters], Listing]]] = {
    "allimages": ("gai", _all_images),
    "allpages": ("gap", _all_pages),
    "images": ("gim", _images),
    "categorymembers": ("gcm", _category_members),
    "transcludedin": ("gti", _transcluded_in),
}
