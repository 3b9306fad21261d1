"""Answers of the made-up wiki's api.php, in the shapes of MediaWiki 1.39 with formatversion=2.

It answers the requests that a polite scraper makes: siteinfo, messages, changes, generators, props, export, and parse.
Any other request gets MediaWiki's own error or warning, never an empty success.
"""

from collections.abc import Iterable

from sp_data.demo.wiki.changes import LISTS
from sp_data.demo.wiki.listings import Answer, ApiError, BadContinue, Parameters, list_titles, warn
from sp_data.demo.wiki.magic_words import messages
from sp_data.demo.wiki.properties import PROPS, Batch
from sp_data.demo.wiki.render import html
from sp_data.demo.wiki.siteinfo import siteinfo
from sp_data.demo.wiki.titles import InvalidTitle, key, namespace_of, normalised
from sp_data.demo.wiki.world import World
from sp_data.demo.wiki.xml_export import export

MAX_TITLES = 50


def answer(world: World, origin: str, request: dict[str, str]) -> Answer:
    """The answer of api.php to a request's parameters; its addresses start with `origin`. Errors are answers too."""
    try:
        body = _act(world, origin, request)
    except ApiError as error:
        body = {"error": {**error.body, "docref": f"See {origin}/api.php for API usage."}}
    if "curtimestamp" in request:
        body["curtimestamp"] = world.clock
    return body


def _act(world: World, origin: str, request: dict[str, str]) -> Answer:
    for name, value in (("format", "json"), ("formatversion", "2")):
        if request.get(name) != value:
            raise ApiError("badvalue", f'Unrecognized value for parameter "{name}": {request.get(name, "")}.')
    match request.get("action", "help"):
        case "query":
            return _Query(world, origin, request).run()
        case "parse":
            return _parse(world, origin, request)
        case action:
            raise ApiError("badvalue", f'Unrecognized value for parameter "action": {action}.')


def _parse(world: World, origin: str, request: dict[str, str]) -> Answer:
    title = _title(request.get("page", ""))
    page = world.pages.get(title)
    if page is None:
        raise ApiError("missingtitle", "The page you specified doesn't exist.")
    redirects = []
    if page.redirect is not None and "redirects" in request:
        redirects.append({"from": page.title, "to": page.redirect})
        page = world.pages[page.redirect]
    parsed: Answer = {"title": page.title, "pageid": page.page_id}
    wanted = Parameters(request, "").get("prop", "text|revid").split("|")
    if "redirects" in request:
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
    """One action=query: its pages, the modules asked for, and what continues it."""

    def __init__(self, world: World, origin: str, request: dict[str, str]) -> None:
        self.world, self.origin, self.request = world, origin, request
        self.batch = Batch(world, origin, request)
        self.answer, self.query = self.batch.answer, Answer()
        # MediaWiki's `continue` is 'generator parameters || modules that are done with this batch'.
        generator, separator, finished = request.get("continue", "").partition("||")
        if request.get("continue") and not separator:
            raise BadContinue
        self.generator_continue = {name: request[name] for name in generator.split("|") if name in request}
        self.finished = set(finished.split("|"))

    def run(self) -> Answer:
        about = self.known("meta", ("siteinfo", "allmessages"))
        if "siteinfo" in about:
            wanted = Parameters(self.request, "si").get("prop", "general").split("|")
            self.query |= siteinfo(self.world, self.origin, wanted)
        if "allmessages" in about:
            self.query["allmessages"] = messages(Parameters(self.request, "am").get("messages").split("|"))
        unfinished: dict[str, str] = {}
        for name in self.known("list", LISTS):
            if name not in self.finished:
                entries, continuation = LISTS[name](self.world, self.request, self.answer)
                self.query[name] = entries
                unfinished |= continuation
                self.finished |= set() if continuation else {name}
        more = self.find_pages()
        modules = self.known("prop", PROPS)
        for module in modules:
            if module not in self.finished and (continuation := PROPS[module](self.batch)):
                unfinished |= continuation
            else:
                self.finished.add(module)
        if unfinished:
            finished_modules = "|".join(module for module in (*LISTS, *modules) if module in self.finished)
            self.answer["continue"] = (
                unfinished
                | self.generator_continue
                | {"continue": f"{'|'.join(self.generator_continue)}||{finished_modules}"}
            )
        else:
            self.answer["batchcomplete"] = True
            if more:
                self.answer["continue"] = more | {"continue": f"{'|'.join(more)}||"}
        if self.batch.heads:
            self.query["pages"] = self.batch.heads
        if "export" in self.request:
            titles = [head["title"] for head in self.batch.heads if "pageid" in head]
            self.query["export"] = export(self.world.pages[title] for title in titles)
        if self.query:
            self.answer["query"] = self.query
        return self.answer

    def known(self, parameter: str, allowed: Iterable[str]) -> list[str]:
        """The values of a parameter that this wiki knows; it warns of others, by which scrapers detect features."""
        chosen = [value for value in self.request.get(parameter, "").split("|") if value]
        if unknown := [value for value in chosen if value not in allowed]:
            plural = "s" if len(unknown) > 1 else ""
            warn(self.answer, "query", f'Unrecognized value{plural} for parameter "{parameter}": {", ".join(unknown)}')
        return [value for value in chosen if value in allowed]

    def find_pages(self) -> dict[str, str]:
        """Adds the heads of all requested pages to the batch; returns what continues the generator."""
        titles = self.requested_titles()
        more: dict[str, str] = {}
        if "generator" in self.request:
            titles, more = list_titles(self.request["generator"], self.world, titles, self.request, self.answer)
        self.batch.heads += [self.head(title) for title in dict.fromkeys(titles)]
        # Missing pages come first: MediaWiki counts them with negative ids.
        self.batch.heads.sort(key=lambda head: head.get("pageid", -1))
        return more

    def requested_titles(self) -> list[str]:
        texts = [text for text in self.request.get("titles", "").split("|") if text]
        ids = [text for text in self.request.get("pageids", "").split("|") if text.isdigit()]
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
            if page is not None and page.redirect is not None and "redirects" in self.request:
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
