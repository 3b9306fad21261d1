"""What api.php answers about pages, for each prop of action=query.

A prop adds fields to the pages of a batch and returns the parameters that continue it, empty at the end of the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from sp_data.demo.wiki.listings import Answer, BadContinue, Parameters
from sp_data.demo.wiki.pages import WikiPage
from sp_data.demo.wiki.titles import article_path, image_url, key
from sp_data.demo.wiki.world import File, World

MAX_CONTENTS = 50  # pages whose wikitext one answer carries


@dataclass(slots=True)
class Batch:
    """The pages of one answer, existing ones in the order of their ids, and the request that it answers."""

    world: World
    origin: str
    request: dict[str, str]
    answer: Answer = field(default_factory=dict)
    heads: list[Answer] = field(default_factory=list)

    def existing(self) -> list[tuple[Answer, WikiPage]]:
        return [(head, self.world.pages[head["title"]]) for head in self.heads if {"pageid", "title"} <= head.keys()]


def imageinfo(batch: Batch) -> dict[str, str]:
    wanted = Parameters(batch.request, "ii").get("prop", "timestamp|user").split("|")
    for head in batch.heads:
        if head.get("ns") == 6:
            file = batch.world.file(head["title"].removeprefix("File:"))
            head["imagerepository"] = "" if file is None else "local"
            if file is not None:
                head["imageinfo"] = [_imageinfo(file, wanted, batch.origin, str(head.get("pageid", "")))]
    return {}


def _imageinfo(file: File, wanted: list[str], origin: str, page_id: str) -> Answer:
    fields: dict[str, Answer] = {
        "timestamp": {"timestamp": file.timestamp},
        "user": {"user": file.uploader},
        "size": {"size": len(file.data), "width": file.width, "height": file.height}
        | ({} if file.duration_s is None else {"duration": file.duration_s}),
        "canonicaltitle": {"canonicaltitle": f"File:{file.name}"},
        "url": {
            "url": image_url(file.name, file.timestamp, origin),
            "descriptionurl": origin + article_path(f"File:{file.name}"),
            "descriptionshorturl": f"{origin}/index.php?curid={page_id}",
        },
        "sha1": {"sha1": file.sha1},
        "mime": {"mime": file.mime},
    }
    return {name: value for field_, values in fields.items() if field_ in wanted for name, value in values.items()}


def categories(batch: Batch) -> dict[str, str]:
    """The limit applies to all pages of the batch together, as in MediaWiki."""
    parameters = Parameters(batch.request, "cl")
    limit = parameters.limit("categories", batch.answer)
    rows = [(page.page_id, key(name), name, head) for head, page in batch.existing() for name in page.categories]
    if continuation := parameters.get("continue"):
        number, name = _numbered(continuation)
        rows = [row for row in rows if row[:2] >= (number, name)]
    for _, _, title, head in rows[:limit]:
        head.setdefault("categories", []).append({"ns": 14, "title": title})
    return {"clcontinue": f"{rows[limit][0]}|{rows[limit][1]}"} if len(rows) > limit else {}


def revisions(batch: Batch) -> dict[str, str]:
    """The newest revision of every page; after 50 pages with content the answer has to be continued."""
    parameters = Parameters(batch.request, "rv")
    wanted = parameters.get("prop", "ids|timestamp|flags|comment|user").split("|")
    rows = batch.existing()
    if continuation := parameters.get("continue"):
        first, _ = _numbered(continuation)
        rows = [row for row in rows if row[1].page_id >= first]
    limit = MAX_CONTENTS if "content" in wanted else len(rows)
    for head, page in rows[:limit]:
        head["revisions"] = [_revision(page, wanted, slots=parameters.get("slots") in ("main", "*"))]
    if len(rows) <= limit:
        return {}
    return {"rvcontinue": f"{rows[limit][1].page_id}|{rows[limit][1].revision_id}"}


def _revision(page: WikiPage, wanted: list[str], slots: bool) -> Answer:
    content = {"contentmodel": "wikitext", "contentformat": "text/x-wiki", "content": page.wikitext}
    fields: dict[str, Answer] = {
        "ids": {"revid": page.revision_id, "parentid": 0},
        "flags": {"minor": False},
        "user": {"user": "Cutter"},
        "timestamp": {"timestamp": page.timestamp},
        "comment": {"comment": ""},
        "content": {"slots": {"main": content}} if slots else dict(content),
    }
    return {name: value for field_, values in fields.items() if field_ in wanted for name, value in values.items()}


def redirects(batch: Batch) -> dict[str, str]:
    """Redirects to each page; the limit applies to all pages of the batch together."""
    parameters = Parameters(batch.request, "rd")
    wanted = parameters.get("prop", "pageid|title").split("|")
    limit = parameters.limit("redirects", batch.answer)
    heads = {page.title: head for head, page in batch.existing()}
    pages = (page for page in batch.world.pages.values() if page.redirect in heads)
    rows = sorted((key(str(page.redirect)), page.page_id, page.title) for page in pages)
    if continuation := parameters.get("continue"):
        target, separator, number = continuation.rpartition("|")
        if not separator or not number.isdigit():
            raise BadContinue
        rows = [row for row in rows if row[:2] >= (target, int(number))]
    for _, page_id, title in rows[:limit]:
        page = batch.world.pages[title]
        listed = heads[str(page.redirect)].setdefault("redirects", [])
        assert isinstance(listed, list)
        fields: dict[str, Answer] = {"pageid": {"pageid": page_id}, "title": {"ns": page.namespace, "title": title}}
        listed.append({name: value for field_ in wanted for name, value in fields.get(field_, {}).items()})
    return {"rdcontinue": f"{rows[limit][0]}|{rows[limit][1]}"} if len(rows) > limit else {}


def images(batch: Batch) -> dict[str, str]:
    """The files that each page shows, missing ones too."""
    parameters = Parameters(batch.request, "im")
    limit = parameters.limit("images", batch.answer)
    rows = [(page.page_id, key(name), name, head) for head, page in batch.existing() for name in page.images]
    if continuation := parameters.get("continue"):
        number, name = _numbered(continuation)
        rows = [row for row in rows if row[:2] >= (number, name)]
    for _, _, title, head in rows[:limit]:
        head.setdefault("images", []).append({"ns": 6, "title": title})
    return {"imcontinue": f"{rows[limit][0]}|{rows[limit][1]}"} if len(rows) > limit else {}


def fileusage(batch: Batch) -> dict[str, str]:
    """The pages that show each file."""
    parameters = Parameters(batch.request, "fu")
    spaces = {int(number) for number in parameters.get("namespace").split("|") if number}
    limit = parameters.limit("fileusage", batch.answer)
    heads = {head["title"]: head for head in batch.heads if "title" in head}
    rows = sorted(
        (key(title), page.page_id, title, page)
        for page in batch.world.pages.values()
        for title in page.images
        if title in heads and (not spaces or page.namespace in spaces)
    )
    if continuation := parameters.get("continue"):
        target, _, number = continuation.rpartition("|")
        rows = [row for row in rows if row[:2] >= (target, int(number))]
    for _, _, title, page in rows[:limit]:
        user = {"pageid": page.page_id, "ns": page.namespace, "title": page.title}
        heads[title].setdefault("fileusage", []).append(user | {"redirect": page.redirect is not None})
    return {"fucontinue": f"{rows[limit][0]}|{rows[limit][1]}"} if len(rows) > limit else {}


def info(batch: Batch) -> dict[str, str]:
    language = {"pagelanguage": "en", "pagelanguagehtmlcode": "en", "pagelanguagedir": "ltr"}
    for head in batch.heads:
        if "ns" in head:  # a missing page has a language too, an invalid title has none
            head |= {"contentmodel": "wikitext", **language}
    for head, page in batch.existing():
        head |= {"touched": page.timestamp, "lastrevid": page.revision_id, "length": len(page.wikitext.encode())}
        if page.redirect is not None:
            head["redirect"] = True
        head["new"] = True
    return {}


def _numbered(continuation: str) -> tuple[int, str]:
    """Reads `41|Pictures_of_kids`. Raises BadContinue."""
    number, separator, rest = continuation.partition("|")
    if not separator or not number.isdigit():
        raise BadContinue
    return int(number), rest


PROPS: dict[str, Callable[[Batch], dict[str, str]]] = {
    "imageinfo": imageinfo,
    "categories": categories,
    "revisions": revisions,
    "redirects": redirects,
    "images": images,
    "fileusage": fileusage,
    "info": info,
}
