"""Which columns of a list hold addresses, captions and licences, by their names in any case.

    choose_columns(["URL", "TEXT", "width"], path)      # Columns(address=0, captions=(1,), licences=())

`url` is taken before its synonyms; two synonyms are refused, as nothing says which of them is meant. Captions and
licences are taken from the first of their columns that has one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sp_data.wiki.lists.text import refusal

log = logging.getLogger(__name__)

ADDRESSES = (
    "url",
    "imageurl",
    "imgurl",
    "pictureurl",
    "photourl",
    "photoimageurl",
    "fileurl",
    "mediaurl",
    "downloadurl",
    "originalurl",
    "contenturl",
    "link",
    "imagelink",
    "uri",
    "imageuri",
    "href",
    "src",
    "imagesrc",
    "image",
)
CAPTIONS = ("caption", "text", "txt", "captions", "alt", "alttext", "imagealt", "description", "imagedescription")
LICENCES = ("licence", "license", "licencename", "licensename", "rights")
"""Names without spaces, `_` and `-`, in small letters; the first that a list has comes first."""
NAMED = 20
LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Columns:
    """Places of the columns, from 0; those of captions and licences in the order in which they are taken."""

    address: int
    captions: tuple[int, ...]
    licences: tuple[int, ...]

    @property
    def used(self) -> tuple[int, ...]:
        return (self.address, *self.captions, *self.licences)


def choose_columns(names: Sequence[str], path: Path) -> Columns:
    """The columns of a list by their names. Raises RecipeError if none holds addresses, or several may."""
    by_key: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        by_key.setdefault(_key(name), []).append(place)
    for key in (*ADDRESSES, *CAPTIONS, *LICENCES):
        if len(by_key.get(key, ())) > 1:
            first, second = (named([names[place]]) for place in by_key[key][:2])
            raise refusal(path, f"has two columns of one name, {first} and {second}: rename one of them")
    addresses = [by_key[key][0] for key in ADDRESSES if key in by_key]
    if not addresses:
        raise refusal(
            path,
            f"has no column `url`, it has {named(names)}: the first row must name the columns, and one of them must be "
            "`url` (or `image_url`, `link`, …)",
        )
    if len(addresses) > 1 and "url" not in by_key:
        both = " and ".join(f"`{names[place]}`" for place in addresses[:2])
        raise refusal(path, f"has two columns that may hold the addresses, {both}: name the right one `url`")
    captions, licences = ([by_key[key][0] for key in keys if key in by_key] for keys in (CAPTIONS, LICENCES))
    return Columns(addresses[0], tuple(captions), tuple(licences))


def describe(columns: Columns, names: Sequence[str]) -> str:
    """'addresses from `URL`, captions from `TEXT`, no licences; not used: `width`', for the log."""

    def of(kind: str, places: Sequence[int]) -> str:
        return f"{kind} from {' or else '.join(f'`{names[place]}`' for place in places)}" if places else f"no {kind}"

    unused = [name for place, name in enumerate(names) if place not in columns.used]
    parts = [of("addresses", (columns.address,)), of("captions", columns.captions), of("licences", columns.licences)]
    return ", ".join(parts) + (f"; not used: {named(unused)}" if unused else "")


def named(names: Sequence[str]) -> str:
    """Some names in backticks, none too long."""
    short = [f"`{name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + '…'}`" for name in names[:NAMED]]
    return ", ".join(short) + (f" and {len(names) - NAMED} more" if names[NAMED:] else "")


def _key(name: str) -> str:
    return "".join(name.casefold().replace("_", " ").replace("-", " ").split()).strip("\ufeff")
