"""Changes to the made-up wiki: each function returns the wiki after the change, with an entry in its list of changes.

    world = upload(edit(world, "Ada Birch", "'''Ada''' moved."), "Ada Birch.png", png)
    world = after_weeks(world, 2, seed)    # some pictures were added, some replaced, deleted or renamed

A week's changes are drawn from its number and the seed, so a wiki after two weeks is the same in every process.
"""

import io
import random
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from PIL import Image

from sp_data.demo.kids.artist import draw
from sp_data.demo.kids.kid import Kid, kids
from sp_data.demo.wiki import awkward, wikitext
from sp_data.demo.wiki.pages import Draft, WikiPage, pages_of, with_page
from sp_data.demo.wiki.titles import normalised
from sp_data.demo.wiki.world import NUM_ODD, TIMESTAMP, Change, Content, File, World

BETWEEN_CHANGES = timedelta(minutes=11)
SHARE_NEW, SHARE_CHANGED = 0.01, 0.004


def edit(world: World, title: str, text: str) -> World:
    """Give a page a new text, or add a new page."""
    title = normalised(title)
    before = world.pages.get(title)
    page_id = before.page_id if before else _next_page(world)
    return _changed(world, title, text, page_id, "edit" if before else "new")


def upload(world: World, name: str, data: bytes, text: str = "", uploader: str = "Cutter") -> World:
    """Add a picture, or replace the one of that name; `text` is the page of a new one."""
    with Image.open(io.BytesIO(data)) as picture:
        (width, height), mime = picture.size, str(Image.MIME[str(picture.format)])
    title = normalised(f"File:{name}")
    name = title.removeprefix("File:")
    before, page = world.files.get(name), world.pages.get(title)
    page_id = page.page_id if page else _next_page(world)
    body = page.wikitext if page and page.redirect is None else text
    world = _changed(world, title, body, page_id, "upload/overwrite" if before else "upload/upload")
    file = File(name, Content(lambda: data), mime, width, height, uploader, world.clock)
    return replace(world, files=world.files | {name: file})


def delete(world: World, title: str) -> World:
    """Delete a page, and its file if it is a file's page. Raises KeyError if there is no such page."""
    page = world.pages[title]
    name = title.removeprefix("File:")
    file = world.files.get(name) if title.startswith("File:") else None
    world = _logged(world, "delete/delete", title, page.page_id)
    return replace(
        world,
        pages=pages_of({other: kept.draft for other, kept in world.pages.items() if other != title}),
        files={other: kept for other, kept in world.files.items() if file is None or other != name},
        deleted=world.deleted | {title: (page, file)},
    )


def restore(world: World, title: str) -> World:
    """Restore a deleted page, with its file. Raises KeyError if there is none, or if the title is taken again."""
    page, file = world.deleted[title]
    if title in world.pages:
        raise KeyError(title)
    world = _logged(world, "delete/restore", title, page.page_id)
    pages = pages_of({other: kept.draft for other, kept in world.pages.items()} | {title: page.draft})
    return replace(
        world,
        pages=_by_id(pages),
        files=world.files | ({file.name: file} if file else {}),
        deleted={other: kept for other, kept in world.deleted.items() if other != title},
    )


def move(world: World, old: str, new: str, *, redirect: bool = True) -> World:
    """Rename a page, with its file. Raises KeyError if there is none, or if the new title is taken."""
    new = normalised(new)
    page = world.pages[old]
    if new in world.pages:
        raise KeyError(new)
    world = _logged(world, "move/move", old, page.page_id, target=new)
    revision = _next_revision(world)
    drafts = {title: kept.draft for title, kept in world.pages.items() if title != old}
    drafts[new] = replace(page.draft, revision_id=revision, timestamp=world.clock)
    if redirect:
        drafts[old] = Draft(_next_page(world), revision + 1, world.clock, f"#REDIRECT [[{new}]]")
    files = dict(world.files)
    if old.startswith("File:") and (file := files.pop(old.removeprefix("File:"), None)) is not None:
        files[new.removeprefix("File:")] = replace(file, name=new.removeprefix("File:"))
    return replace(world, pages=_by_id(pages_of(drafts)), files=files)


def after_weeks(world: World, weeks: int, seed: int) -> World:
    """The wiki `weeks` weeks later. `seed` is the one that it was built with."""
    start = datetime.strptime(world.clock, TIMESTAMP)
    for number in range(1, weeks + 1):
        world = _week(world, number, seed)
        world = replace(world, clock=(start + timedelta(weeks=number)).strftime(TIMESTAMP))
    return world


def after_changes(
    world: World, seed: int, *, new: int, replaced: int, deleted: int, renamed: int, week: int = 1
) -> World:
    """The wiki after this many kids were `new` or had their picture `replaced`, `deleted` or `renamed`, each of another
    kid. `seed` is the one that it was built with; `week` decides which kids."""
    dice = random.Random(f"week {seed} {week}")
    num_founders = len(world.kids)
    first = num_founders + (week - 1) * new
    for kid in kids(first + new, seed)[first:]:
        world = _newcomer(world, kid, dice)
    ordinary = [kid for kid in world.kids[: num_founders - NUM_ODD] if f"{kid.name}.png" in world.files]
    chosen = iter(dice.sample(ordinary, replaced + deleted + renamed))
    for kid in islice(chosen, replaced):
        drawn = draw(replace(kid, x=round(1 - kid.x, 3), gaze=-kid.gaze, mouth="gasp"))
        world = upload(world, f"{kid.name}.png", awkward.png(drawn), uploader="Scissors")
    for kid in islice(chosen, deleted):
        world = delete(world, f"File:{kid.name}.png")
    for kid in chosen:
        page, new_name = world.pages[kid.name], f"{kid.name} (kid).png"
        world = move(world, f"File:{kid.name}.png", f"File:{new_name}")
        world = edit(world, kid.name, page.wikitext.replace(f"{kid.name}.png", new_name))
    return world


def _week(world: World, number: int, seed: int) -> World:
    num_founders = len(world.kids)
    num_new, num_changed = max(2, round(num_founders * SHARE_NEW)), max(1, round(num_founders * SHARE_CHANGED))
    return after_changes(
        world, seed, new=num_new, replaced=num_changed, deleted=num_changed, renamed=num_changed, week=number
    )


def _newcomer(world: World, kid: Kid, dice: random.Random) -> World:
    image = f"{kid.name}.png"
    text = wikitext.file_page(f"{kid.name}, as seen at the {kid.place}.", "CC-BY-SA", "Pictures of kids")
    world = upload(world, image, awkward.png(draw(kid)), text)
    world = edit(world, kid.name, wikitext.kid_page(kid, image, dice.choice(world.kids), dice))
    portal = world.pages["Portal:Characters"].wikitext
    line = f"{image}|[[{kid.name}]]|link={kid.name}\n</gallery>"
    return edit(world, "Portal:Characters", portal.replace("</gallery>", line, 1))


def _changed(world: World, title: str, text: str, page_id: int, kind: str) -> World:
    revision = _next_revision(world)
    world = _logged(world, kind, title, page_id, revision=revision)
    pages = with_page(world.pages, title, Draft(page_id, revision, world.clock, text.strip()))
    return replace(world, pages=_by_id(pages))


def _logged(world: World, kind: str, title: str, page_id: int, *, revision: int = 0, target: str = "") -> World:
    clock = (datetime.strptime(world.clock, TIMESTAMP) + BETWEEN_CHANGES).strftime(TIMESTAMP)
    number = world.changes[-1].number + 1 if world.changes else 1
    change = Change(number, kind, title, page_id, revision, clock, target)
    return replace(world, clock=clock, changes=(*world.changes, change))


def _by_id(pages: dict[str, WikiPage]) -> dict[str, WikiPage]:
    return dict(sorted(pages.items(), key=lambda item: item[1].page_id))


def _next_page(world: World) -> int:
    deleted = (page.page_id for page, _ in world.deleted.values())
    return 1 + max((*(page.page_id for page in world.pages.values()), *deleted), default=0)


def _next_revision(world: World) -> int:
    deleted = (page.revision_id for page, _ in world.deleted.values())
    return 1 + max((*(page.revision_id for page in world.pages.values()), *deleted), default=1000)
