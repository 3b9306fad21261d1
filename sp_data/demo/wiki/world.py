"""The made-up wiki as data: its pages, its files, and their kids. server.py serves it; nothing here does I/O.

    world.pages["Ada Birch"]     -> Page(page_id=41, namespace=0, wikitext="{{Infobox kid\\n|name = Ada Birch ...")
    world.files["Ada Birch.png"] -> File(content=Content(9f3c...), mime="image/png", ...)

One article and one picture a kid, a portal that lists them all, classes that reuse their pictures, and the awkward
files of awkward.py, each on a page of its own. Equal arguments give equal bytes, in every process.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial

from PIL import Image

from sp_data.demo.kids.artist import draw
from sp_data.demo.kids.kid import Kid, kids
from sp_data.demo.wiki import awkward, wikitext
from sp_data.demo.wiki.pages import Draft, WikiPage, pages_of

SEED = 1997
UPLOADERS = ("Cutter", "Scissors", "Señor Glue", "Paper Cut")
FOUNDED = datetime(2016, 1, 1, tzinfo=UTC)
BETWEEN_EDITS = timedelta(minutes=97)
TIMESTAMP = "%Y-%m-%dT%H:%M:%SZ"
CLASS_SIZE = 12
NUM_ODD = 8


class Content:
    """The bytes of a file, made at their first use: a client that only asks for changes does not wait for a drawing."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make

    @cached_property
    def data(self) -> bytes:
        return self._make()

    @cached_property
    def sha1(self) -> str:
        """Hex."""
        return hashlib.sha1(self.data, usedforsecurity=False).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Content) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"Content({self.sha1})"


@dataclass(frozen=True, slots=True)
class File:
    """One file, in its only version. Its page is `File:` + `name`.

    A file whose size MediaWiki cannot tell (a sound, a truncated picture) is 0 x 0 px, as MediaWiki states.
    """

    name: str
    content: Content
    mime: str
    width: int
    height: int
    uploader: str
    timestamp: str
    duration_s: float | None = None  # of animations

    @property
    def data(self) -> bytes:
        return self.content.data

    @property
    def sha1(self) -> str:
        """Hex."""
        return self.content.sha1


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the list of changes. `kind` is 'new', 'edit', or a log's type and action: 'upload/overwrite'."""

    number: int
    kind: str
    title: str
    page_id: int
    revision_id: int
    timestamp: str
    target: str = ""
    """The new title of a moved page."""


@dataclass(frozen=True, slots=True)
class World:
    """Pages by title, in the order of their ids; files by name, in the order of upload; kids in order of number.

    `clock` is the time of the wiki's last change; `deleted` has the pages and files that can be restored, by title.
    """

    name: str
    pages: dict[str, WikiPage]
    files: dict[str, File]
    kids: tuple[Kid, ...]
    clock: str = ""
    changes: tuple[Change, ...] = ()
    deleted: dict[str, tuple[WikiPage, File | None]] = field(default_factory=dict)

    def file(self, name: str) -> File | None:
        """The file of this name, or the one that its page redirects to."""
        page = self.pages.get(f"File:{name}")
        if page is not None and page.redirect is not None:
            return self.files.get(page.redirect.removeprefix("File:"))
        return self.files.get(name)


@dataclass(frozen=True, slots=True)
class _Picture:
    """A file to upload, of a kid or of nobody."""

    name: str
    content: Content
    mime: str = "image/png"
    size: tuple[int, int] = (256, 256)
    summary: str = ""
    licence: str = "CC-BY-SA"
    category: str = "Pictures of kids"
    duration_s: float | None = None


def build_world(num_kids: int = 1600, seed: int = SEED) -> World:
    """A wiki of `num_kids` ordinary kids, and eight odd ones, seven of them with pictures that need care. 0.1 ms a kid,
    and 3 ms more when its picture is first used.

    Raises ValueError for fewer than 24 kids: the galleries need some to choose from.
    """
    if num_kids < 2 * CLASS_SIZE:
        raise ValueError(f"a wiki needs at least {2 * CLASS_SIZE} kids, not {num_kids}")
    everybody = kids(num_kids + NUM_ODD, seed)
    ordinary, odd = everybody[:num_kids], everybody[num_kids:]
    dice = random.Random(f"wiki {seed}")
    editor = _Editor()
    editor.add_basics()
    owners = [(kid, _picture_of(kid, ".png", partial(_png_of, kid))) for kid in ordinary] + _odd_pictures(odd[:-1])
    for kid, picture in owners:
        editor.upload(picture)
        editor.edit(kid.name, wikitext.kid_page(kid, picture.name, dice.choice(ordinary), dice))
    newcomer = odd[-1]
    editor.upload(_picture_of(newcomer, ".png", partial(_png_of, newcomer)))
    editor.edit(newcomer.name, wikitext.thumb_page(newcomer, f"{newcomer.name}.png"))
    editor.add_copies(ordinary[1:4])
    for year in range(1990, 1990 + max(2, num_kids // 100)):
        editor.edit(f"Class of {year}", wikitext.class_page(year, dice.sample(ordinary, CLASS_SIZE), dice))
    for nickname, kid in zip(("The late kid", "Kid from the logo"), ordinary, strict=False):
        editor.edit(nickname, f"#REDIRECT [[{kid.name}]]")
    editor.edit("Portal:Characters", wikitext.portal_page([(picture.name, kid.name) for kid, picture in owners]))
    return World("Paper Kids Wiki", editor.pages(), editor.files, tuple(everybody), editor.clock, tuple(editor.changes))


def _png_of(kid: Kid) -> bytes:
    return awkward.png(draw(kid))


def _picture_of(
    kid: Kid,
    ending: str,
    make: Callable[[], bytes],
    mime: str = "image/png",
    size: tuple[int, int] = (256, 256),
    licence: str = "",
) -> _Picture:
    """A picture of `kid`, named by the kid's name and `ending`."""
    licence = licence or ("CC-BY-SA", "Fairuse", "Fairuse")[kid.number % 3]
    return _Picture(kid.name + ending, Content(make), mime, size, f"{kid.name}, as seen at the {kid.place}.", licence)


def _odd_pictures(odd: list[Kid]) -> list[tuple[Kid, _Picture]]:
    """Pictures that need care: truncated, animated, rotated, 16 bits deep, opted out, mislabelled, transparent."""
    truncated, animated, rotated, deep, private, mislabelled, round_ = odd

    def jumping() -> bytes:
        return awkward.animated_gif(
            [draw(animated, 128), draw(animated, 128).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
        )

    def lying() -> bytes:
        return awkward.rotated_jpeg(draw(rotated, 320).crop((32, 0, 288, 320)))

    return [
        (truncated, _picture_of(truncated, ".png", lambda: awkward.truncated_png(draw(truncated)), size=(0, 0))),
        (animated, replace(_picture_of(animated, ".gif", jumping, "image/gif", (128, 128)), duration_s=0.4)),
        (rotated, _picture_of(rotated, ".jpg", lying, "image/jpeg", (256, 320))),
        (deep, _picture_of(deep, ".png", lambda: awkward.deep_png(draw(deep)))),
        (private, _picture_of(private, ".png", partial(_png_of, private), licence="Opt-out")),
        (mislabelled, _picture_of(mislabelled, ".png", lambda: awkward.jpeg(draw(mislabelled)), "image/jpeg")),
        (round_, _picture_of(round_, ".png", lambda: awkward.transparent_png(draw(round_)))),
    ]


class _Editor:
    """Writes the wiki page by page; each gets the next id and the next time."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.changes: list[Change] = []
        self._drafts: dict[str, Draft] = {}

    def edit(self, title: str, text: str) -> str:
        """Creates a page; returns its timestamp."""
        number = len(self._drafts) + 1
        draft = Draft(number, 1000 + number, self.clock, text.strip())
        self._drafts[title] = draft
        kind = "upload/upload" if title.startswith("File:") else "new"
        self.changes.append(Change(number, kind, title, number, draft.revision_id, draft.timestamp))
        return draft.timestamp

    @property
    def clock(self) -> str:
        """The time of the next edit."""
        return (FOUNDED + len(self._drafts) * BETWEEN_EDITS).strftime(TIMESTAMP)

    def upload(self, picture: _Picture) -> None:
        text = wikitext.file_page(picture.summary, picture.licence, picture.category)
        timestamp = self.edit(f"File:{picture.name}", text)
        uploader = UPLOADERS[len(self.files) % len(UPLOADERS)]
        self.files[picture.name] = File(
            picture.name, picture.content, picture.mime, *picture.size, uploader, timestamp, picture.duration_s
        )

    def add_basics(self) -> None:
        """The pages that every wiki has, and the files that show no kid."""
        for title, text in (wikitext.TEMPLATES | wikitext.CATEGORIES | wikitext.PLACES).items():
            self.edit(title, text)
        self.edit("Main Page", wikitext.MAIN_PAGE)
        logo = _Picture(
            "Paper Kids logo.svg",
            Content(lambda: awkward.SVG),
            "image/svg+xml",
            (120, 60),
            "The logo.",
            category="Pictures",
        )
        self.upload(logo)
        self.upload(
            _Picture(
                "Theme song.ogg", Content(awkward.ogg), "application/ogg", (0, 0), "La la la.", category="Pictures"
            )
        )
        self.edit("Theme song", "[[File:Theme song.ogg]]\nThe '''theme song''' is mostly rustling.")

    def add_copies(self, originals: list[Kid]) -> None:
        """Uploads copies of pictures, byte for byte, re-encoded and resized; and one of nobody: a single pixel."""
        twin, scanned, small = originals
        copies = {
            "Twins?": _picture_of(twin, " copy.png", partial(_png_of, twin)),
            "Scanned": _picture_of(scanned, " scan.jpg", lambda: awkward.jpeg(draw(scanned)), "image/jpeg"),
            "Smaller": _picture_of(
                small, " small.png", lambda: awkward.png(draw(small).resize((240, 240))), size=(240, 240)
            ),
            "A spacer": _Picture(
                "Pixel.png", Content(awkward.pixel_png), size=(1, 1), summary="A spacer.", category="Pictures"
            ),
        }
        for picture in copies.values():
            self.upload(picture)
        lines = "\n".join(f"{picture.name}|{caption}" for caption, picture in copies.items())
        self.edit("Seen twice", f"Some pictures came in more than once.\n<gallery>\n{lines}\n</gallery>")

    def pages(self) -> dict[str, WikiPage]:
        """Everything written so far; page ids count from 1."""
        return pages_of(self._drafts)
