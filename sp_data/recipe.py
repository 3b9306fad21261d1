"""The recipe: everything a run can be told, in one typed model; and the named recipes `southpark` and `demo`.

Each stage reads one part of it (`recipe.curate`, ...). What such a part says names the stage's result, except for the
fields marked `HOW`, which change how the work is done but not what comes out.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from sp_data.errors import RecipeError

HOW: dict[str, JsonValue] = {"sp_data": "how"}
"""Marks a field that says how to work, not what to make: it is left out of every identity."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def what(self) -> dict[str, Any]:
        """The fields that name a result, as plain JSON values."""
        left_out = {name for name, field in type(self).model_fields.items() if field.json_schema_extra is HOW}
        return self.model_dump(mode="json", exclude=left_out)


class DemoWiki(Part):
    """The made-up wiki of paper-cutout kids, served by the run itself."""

    num_kids: int = Field(1600, ge=24, le=5000)
    seed: int = 0


class Source(Part):
    """Which wiki, and what of it."""

    wiki: str = Field(description="Address of the wiki, e.g. https://southpark.fandom.com")
    demo: DemoWiki | None = Field(None, description="Serve the made-up wiki and scrape it")
    select: Literal["pages", "categories", "all"] = Field(
        "pages", description="Files shown on `pages`, files in `categories`, or every file of the wiki"
    )
    pages: tuple[str, ...] = ("Portal:Characters",)
    categories: tuple[str, ...] = ()
    article_namespaces: tuple[int, ...] = Field((0,), description="Where captions and infoboxes are read")
    mime_types: tuple[str, ...] = ("image/png", "image/jpeg", "image/gif", "image/webp")
    caption_templates: tuple[str, ...] = Field(
        (),
        description="Captions made of infobox fields, such as 'a kid in a {coat} coat'; the first whose fields the "
        "infobox of the owning page has is chosen. Without one, the best caption found on the wiki",
    )
    contact: str = Field("", description="Who runs this: an address for the User-Agent", json_schema_extra=HOW)
    acknowledge_terms: bool = Field(
        False, description="You have read the wiki's terms of use and may do this", json_schema_extra=HOW
    )
    requests_per_second: float = Field(
        1.0, ge=0, le=50, description="0 = as fast as it answers, on this machine only", json_schema_extra=HOW
    )
    timeout_s: float = Field(30.0, gt=0, json_schema_extra=HOW)
    max_file_bytes: int = Field(100_000_000, gt=0, description="A larger picture is refused")

    @field_validator("wiki")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        address = urlsplit(value)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("expected an address such as https://southpark.fandom.com")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _has_manners(self) -> Self:
        if self.select == "pages" and not self.pages:
            raise ValueError("select is 'pages', so `pages` must name at least one")
        if self.select == "categories" and not self.categories:
            raise ValueError("select is 'categories', so `categories` must name at least one")
        if self.requests_per_second == 0 and not self.is_loopback:
            raise ValueError("`requests_per_second` may be 0 only for a wiki on this machine")
        return self

    def check_manners(self) -> None:
        """Refuse to scrape a wiki elsewhere without saying who one is and that its terms were read.

        Raises RecipeError.
        """
        if self.is_loopback:
            return
        if not self.contact.strip():
            raise RecipeError(
                "source.contact is empty: say who runs this (a mail address or a page; it goes into the User-Agent), "
                "e.g. --set source.contact=me@example.org"
            )
        if not self.acknowledge_terms:
            raise RecipeError(
                f"read the terms of use and the licence of {self.wiki} first (Fandom's terms are stricter than its "
                "robots.txt; text is CC-BY-SA, most pictures are fair use); if you may do this, "
                "say so: --set source.acknowledge_terms=true"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether the wiki runs on this machine (names below .localhost always do: RFC 6761)."""
        host = (urlsplit(self.wiki).hostname or "").lower()
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


class Curate(Part):
    """What is kept."""

    min_side_px: int = Field(64, ge=1)
    max_pixels: int = Field(50_000_000, ge=1, description="A larger picture is refused before it is decoded")
    max_aspect: float = Field(4.0, ge=1, description="Longer side over shorter")
    near_duplicates: Literal["drop", "keep"] = Field("drop", description="`keep` puts them into one split")
    near_duplicate_bits: int = Field(4, ge=0, le=32, description="Of 256 bits of perceptual hash that may differ")
    opt_out_templates: tuple[str, ...] = ("Opt-out", "No AI")
    opt_out_categories: tuple[str, ...] = ("Opted out",)
    val_share: float = Field(0.05, ge=0, lt=0.5)
    test_share: float = Field(0.05, ge=0, lt=0.5)
    threads: int = Field(0, ge=0, description="0 = one a core", json_schema_extra=HOW)


class Shard(Part):
    """How pictures lie in shards (img2dataset)."""

    image_size_px: int = Field(256, ge=8)
    resize_mode: Literal["border", "center_crop", "keep_ratio"] = "border"
    jpeg_quality: int = Field(95, ge=1, le=100)
    samples_per_shard: int | None = Field(
        None, ge=2, le=10_000, description="None: chosen from the dataset's size, then kept for its life"
    )
    processes: int = Field(0, ge=0, description="0 = one a core", json_schema_extra=HOW)


class Embed(Part):
    """Which CLIP (clip-retrieval)."""

    clip_model: str = Field("ViT-L/14", description="As clip-retrieval names it; `demo` is the project's own tiny one")
    name: str = Field(
        "ViT-L-14", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Begins the name of its folder in the lake"
    )
    dim: int = Field(768, ge=1, description="Width of its embeddings, checked before anything long")
    batch_size: int = Field(64, ge=1, description="Never crosses a shard")


class Reorder(Part):
    """Where each embedding goes."""

    threads: int = Field(0, ge=0, description="0 = one a core", json_schema_extra=HOW)


class Verify(Part):
    """How hard to look."""

    reembed: int = Field(8, ge=0, description="Pictures that are embedded again and compared")
    min_cosine: float = Field(0.999, gt=0, le=1)


class Recipe(Part):
    """A dataset and how it is made."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The dataset's folder in the lake")
    source: Source
    curate: Curate = Curate.model_validate({})
    shard: Shard = Shard.model_validate({})
    embed: Embed = Embed.model_validate({})
    reorder: Reorder = Reorder.model_validate({})
    verify: Verify = Verify.model_validate({})


def southpark() -> Recipe:
    """South Park's characters. `contact` and `acknowledge_terms` are yours to say."""
    return Recipe.model_validate(_SOUTHPARK)


def demo() -> Recipe:
    """Paper-cutout kids from a wiki that the run serves itself: no network, no GPU."""
    return Recipe.model_validate(_DEMO)


_SOUTHPARK: dict[str, Any] = {
    "name": "southpark",
    "source": {
        "wiki": "https://southpark.fandom.com",
        "pages": ["Portal:Characters"],
        "caption_templates": ["{name}, {gender}, {hair} hair, {occupation}", "{name}, {gender}, {hair} hair"],
    },
}
_DEMO: dict[str, Any] = {
    "name": "demo",
    "source": {
        "wiki": "http://paper-kids.localhost",
        "demo": {},
        "select": "all",
        "requests_per_second": 0,
        "caption_templates": ["a kid in a {coat} coat and a {hat} {hat kind} at the {place}"],
    },
    "shard": {"image_size_px": 64, "samples_per_shard": 100},
    "embed": {"clip_model": "demo", "name": "tiny", "dim": 128},
}
NAMED: dict[str, dict[str, Any]] = {"southpark": _SOUTHPARK, "demo": _DEMO}


def load_recipe(name: str, sets: Iterable[str] = ()) -> Recipe:
    """A named recipe or a YAML file, with `a.b=c` overrides (values are YAML). Raises RecipeError naming the field."""
    if name in NAMED:
        fields = _copy(NAMED[name])
    elif Path(name).suffix in (".yaml", ".yml"):
        fields = _read(Path(name))
    else:
        raise RecipeError(f"no recipe {name!r}: expected {', '.join(NAMED)} or a .yaml file")
    for setting in sets:
        _override(fields, setting)
    return build(fields, name)


def build(fields: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from plain fields. Raises RecipeError naming the first wrong field of `where`."""
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"recipe {where}: {_first_fault(error, fields)}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(fields, dict):
        raise RecipeError(f"recipe {path}: expected fields such as `name:` and `source:`")
    return fields


def _copy(fields: Any) -> Any:
    return {key: _copy(value) for key, value in fields.items()} if isinstance(fields, dict) else fields


def _override(fields: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    if not (path and equals):
        raise RecipeError(f"--set {setting}: expected a.b=value, such as curate.min_side_px=32")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {setting}: the value is not YAML: {str(error).splitlines()[0]}") from error
    *parents, last = path.split(".")
    inner = fields
    for parent in parents:
        inner = inner.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {setting}: `{parent}` is a single value, not a group of fields")
    inner[last] = value


def _first_fault(error: ValidationError, fields: Mapping[str, Any]) -> str:
    fault = error.errors(include_url=False)[0]
    path = ".".join(str(step) for step in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _field_names(fault["loc"][:-1])
        close = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"there is no field {path!r}; {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    given = fault["input"]
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{path}: {message}{shown}" if path else message


def _field_names(path: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Recipe
    for step in path:
        inner = model.model_fields[str(step)].annotation
        options = [inner, *getattr(inner, "__args__", ())]
        model = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return sorted(model.model_fields)
