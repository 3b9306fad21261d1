"""MediaWiki's rules for titles and addresses, as far as the made-up wiki needs them."""

import hashlib
import re
from urllib.parse import quote

# RFC 6761 sends .localhost names to loopback. It has no port, so that the wiki states the same addresses in every run;
# clients reach it by using the server as an HTTP proxy.
ORIGIN = "http://paper-kids.localhost"

NAMESPACES = {
    -2: "Media",
    -1: "Special",
    0: "",
    1: "Talk",
    2: "User",
    3: "User talk",
    4: "Paper Kids Wiki",
    5: "Paper Kids Wiki talk",
    6: "File",
    7: "File talk",
    8: "MediaWiki",
    9: "MediaWiki talk",
    10: "Template",
    11: "Template talk",
    12: "Help",
    13: "Help talk",
    14: "Category",
    15: "Category talk",
    100: "Portal",
    101: "Portal talk",
}
CANONICAL = {4: "Project", 5: "Project talk"}
CONTENT_NAMESPACES = (0, 100)
_NUMBER_OF = (
    {name.lower(): number for number, name in (NAMESPACES | CANONICAL).items()}
    | {name.lower(): number for number, name in NAMESPACES.items()}
    | {"image": 6}
)
_INVALID = re.compile(r"[<>\[\]{}|#\x00-\x1f\x7f]")


class InvalidTitle(ValueError):
    """A title that is empty, or has a character that is not allowed in titles."""


def namespace_of(title: str) -> int:
    """The number of a normalised title's namespace."""
    return _NUMBER_OF.get(title.partition(":")[0].lower(), 0) if ":" in title else 0


def normalised(title: str) -> str:
    """`portal:ada_birch` -> `Portal:Ada birch`. Raises InvalidTitle."""
    title = " ".join(title.replace("_", " ").split()).removeprefix(":").strip()
    if (bad := _INVALID.search(title)) is not None:
        raise InvalidTitle(f'The requested page title contains invalid characters: "{bad[0]}".')
    prefix, colon, rest = title.partition(":")
    number = _NUMBER_OF.get(prefix.strip().lower(), 0) if colon else 0
    name = rest.strip() if number else title
    if not name:
        raise InvalidTitle("The requested page title is empty or contains only the name of a namespace.")
    name = name[0].upper() + name[1:]
    return f"{NAMESPACES[number]}:{name}" if number else name


def key(title: str) -> str:
    """A title without its namespace, as in MediaWiki's database: `File:Ada Birch.png` -> `Ada_Birch.png`."""
    name = title.partition(":")[2] if namespace_of(title) else title
    return name.replace(" ", "_")


def article_path(title: str) -> str:
    """`/wiki/Ada_Birch`."""
    return "/wiki/" + quote(title.replace(" ", "_"), safe="/:,()!@$*;~")


def hash_path(name: str) -> str:
    """`a/ab/Ada_Birch.png`: where MediaWiki keeps the file `name`, unencoded."""
    digest = hashlib.md5(name.replace(" ", "_").encode(), usedforsecurity=False).hexdigest()
    return f"{digest[0]}/{digest[:2]}/{name.replace(' ', '_')}"


def image_url(name: str, timestamp: str, origin: str, width_px: int | None = None) -> str:
    """The address of a file's original bytes, or of a copy at most `width_px` wide, in Fandom's form."""
    folder, _, file_key = hash_path(name).rpartition("/")
    scaled = "" if width_px is None else f"/scale-to-width-down/{width_px}"
    stamp = re.sub(r"\D", "", timestamp)
    return f"{origin}/images/{folder}/{quote(file_key, safe='')}/revision/latest{scaled}?cb={stamp}"
