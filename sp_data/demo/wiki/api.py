"""Answers of the made-up wiki's api.php, in the shapes of MediaWiki 1.39 with formatversion=2.

It knows the requests that a polite scraper makes: siteinfo, what changed, generators, props, export, and parse. A
request beyond that gets MediaWiki's own error or warning, never an empty success.
"""

from collections.abc import Iterable

from sp_data.demo.wiki.changes import LISTS
from sp_data.demo.wiki.listings import Answer, ApiError, BadContinue, Parameters, list_titles, warn
from sp_data.demo.wiki.properties import PROPS, Batch
from sp_data.demo.wiki.render import html
from sp_data.demo.wiki.siteinfo import siteinfo
from sp_data.demo.wiki.titles import InvalidTitle, key, namespace_of, normalised
from sp_data.demo.wiki.world import World
from sp_data.demo.wiki.xml_export import export

MAX_TITLES = 50


def answer(world: World, origin: str, given: dict[str, str]) -> Answer:
    """What api.php says to the parameters `given`; addresses in it start with `origin`. Errors are answers too."""
    try:
        said = _act(world, origin, given)
    except ApiError as error:
        said = {"error": {**error.body, "docref": f"See {origin}/api.php for API usage."}}
    if "curtimestamp" in given:
        said["curtimestamp"] = world.clock
    return said


def _act(world: World, origin: str, given: dict[str, str]) -> Answer:
    for name, value in (("format", "json"), ("formatversion", "2")):
        if given.get(name) != value:
            raise ApiError("badvalue", f'Unrecognized value for parameter "{name}": {given.get(name, "")}.')
    match given.get("action", "help"):
        case "query":
            return _Query(world, origin, given).run()
        case "parse":
            return _parse(world, origin, given)
        case action:
            raise ApiError("badvalue", f'Unrecognized value for parameter "action": {action}.')


def _parse(world: World, origin: str, given: dict[str, str]) -> Answer:
    title = _title(given.get("page", ""))
    page = world.pages.get(title)
    if page is None:
        raise ApiError("missingtitle", "The page you specified doesn't exist.")
    redirects = []
    if page.redirect is not None and "redirects" in given:
        redirects.append({"from": page.title, "to": page.redirect})
        page = world.pages[page.redirect]
    parsed: Answer = {"title": page.title, "pageid": page.page_id}
    wanted = Parameters(given, "").get("prop", "text|revid").split("|")
    if "redirects" in given:
        parsed["redirects"] = redirects
    if "revid" in wanted:
        parsed["revid"] = page.revision_id
    if "images" in wanted:
        parsed["images"] = [key(title) for title in page.images]
    if "templates" in wanted:
        parsed["templates"] = [{"ns": 10, "title": title, "exists": title in world.pages} for title in page.templates]
    if "text" in wanted:
        parsed["text"] = html(world, page, origin)
    return {"parse": parsed}


def _title(text: str) -> str:
    try:
        return normalised(text)
    except InvalidTitle as error:
        raise ApiError("invalidtitle", f'Bad title "{text}". {error}') from None


class _Query:
    """One action=query: its pages, what is asked of them, and where to go on."""

    def __init__(self, world: World, origin: str, given: dict[str, str]) -> None:
        self.world, self.origin, self.given = world, origin, given
        self.batch = Batch(world, origin, given)
        self.said, self.query = self.batch.said, Answer()
        # MediaWiki's `continue` is 'generator parameters || modules that are done with this batch'.
        generator, bars, done = given.get("continue", "").partition("||")
        if given.get("continue") and not bars:
            raise BadContinue
        self.place = {name: given[name] for name in generator.split("|") if name in given}
        self.done = set(done.split("|"))

    def run(self) -> Answer:
        if "siteinfo" in self.known("meta", ("siteinfo",)):
            wanted = Parameters(self.given, "si").get("prop", "general").split("|")
            self.query |= siteinfo(self.world, self.origin, wanted)
        unfinished: dict[str, str] = {}
        for name in self.known("list", LISTS):
            if name not in self.done:
                entries, where = LISTS[name](self.world, self.given, self.said)
                self.query[name] = entries
                unfinished |= where
                self.done |= set() if where else {name}
        more = self.find_pages()
        modules = self.known("prop", PROPS)
        for module in modules:
            if module not in self.done and (where := PROPS[module](self.batch)):
                unfinished |= where
            else:
                self.done.add(module)
        if unfinished:
            finished = "|".join(module for module in (*LISTS, *modules) if module in self.done)
            self.said["continue"] = unfinished | self.place | {"continue": f"{'|'.join(self.place)}||{finished}"}
        else:
            self.said["batchcomplete"] = True
            if more:
                self.said["continue"] = more | {"continue": f"{'|'.join(more)}||"}
        if self.batch.heads:
            self.query["pages"] = self.batch.heads
        if "export" in self.given:
            titles = [head["title"] for head in self.batch.heads if "pageid" in head]
            self.query["export"] = export(self.world.pages[title] for title in titles)
        if self.query:
            self.said["query"] = self.query
        return self.said

    def known(self, parameter: str, allowed: Iterable[str]) -> list[str]:
        """The values of a parameter that this wiki knows. Others are warned of: scrapers detect features by that."""
        chosen = [value for value in self.given.get(parameter, "").split("|") if value]
        if unknown := [value for value in chosen if value not in allowed]:
            plural = "s" if len(unknown) > 1 else ""
            warn(self.said, "query", f'Unrecognized value{plural} for parameter "{parameter}": {", ".join(unknown)}')
        return [value for value in chosen if value in allowed]

    def find_pages(self) -> dict[str, str]:
        """Fills the batch with the heads of all pages asked for; returns what continues the generator."""
        titles = self.given_titles()
        more: dict[str, str] = {}
        if "generator" in self.given:
            titles, more = list_titles(self.given["generator"], self.world, titles, self.given, self.said)
        self.batch.heads += [self.head(title) for title in dict.fromkeys(titles)]
        # Missing pages come first: MediaWiki counts them with negative ids.
        self.batch.heads.sort(key=lambda head: head.get("pageid", -1))
        return more

    def given_titles(self) -> list[str]:
        texts = [text for text in self.given.get("titles", "").split("|") if text]
        ids = [text for text in self.given.get("pageids", "").split("|") if text.isdigit()]
        for name, values in (("titles", texts), ("pageids", ids)):
            if len(values) > MAX_TITLES:
                raise ApiError(
                    "toomanyvalues",
                    f'Too many values supplied for parameter "{name}". The limit is {MAX_TITLES}.',
                    limit=MAX_TITLES,
                    lowlimit=MAX_TITLES,
                    highlimit=500,
                )
        title_of = {str(page.page_id): page.title for page in self.world.pages.values()} if ids else {}
        titles = [title_of[page_id] for page_id in ids if page_id in title_of]
        self.batch.heads += [{"pageid": int(number), "missing": True} for number in ids if number not in title_of]
        renamed: list[Answer] = []
        redirects: list[Answer] = []
        for text in texts:
            try:
                title = normalised(text)
            except InvalidTitle as error:
                self.batch.heads.append({"title": text, "invalidreason": str(error), "invalid": True})
                continue
            if title != text:
                renamed.append({"fromencoded": False, "from": text, "to": title})
            page = self.world.pages.get(title)
            if page is not None and page.redirect is not None and "redirects" in self.given:
                redirects.append({"from": title, "to": page.redirect})
                title = page.redirect
            titles.append(title)
        if renamed:
            self.query["normalized"] = renamed
        if redirects:
            self.query["redirects"] = redirects
        return titles

    def head(self, title: str) -> Answer:
        page = self.world.pages.get(title)
        if page is None:
            return {"ns": namespace_of(title), "title": title, "missing": True}
        return {"pageid": page.page_id, "ns": page.namespace, "title": title}
