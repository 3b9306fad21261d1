"""A recipe from its name, a YAML file or plain fields, with `a.b=c` overrides; errors name the wrong field."""

from __future__ import annotations

import difflib
import itertools
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from sp_data.errors import RecipeError, reason_of
from sp_data.recipe.dalle2_json import expanded
from sp_data.recipe.named import NAMED
from sp_data.recipe.recipe import Recipe
from sp_data.recipe.training import OF_THE_DECODER
from sp_data.web_address import without_login

log = logging.getLogger(__name__)

MAX_BYTES = 1_000_000
MAX_PARTS, MAX_DEPTH = 100_000, 50
"""Of a recipe: values in it, and fields within fields."""
MAX_OPEN = 200
BRACKETS = re.compile(r"[\[\]{}]")


def load_recipe(name: str, sets: Iterable[str] = ()) -> Recipe:
    """A named recipe or a YAML file, with `a.b=c` overrides (values are YAML). Raises RecipeError naming the field."""
    if name in NAMED:
        fields = _copy(NAMED[name])
    elif named_in_file(name):
        fields = _read(Path(name))
    else:
        raise RecipeError(f"no recipe {name!r}: expected {', '.join(NAMED)} or a .yaml file")
    folder = Path(name).parent if named_in_file(name) else Path()
    fields = _with_config_files(fields, folder)
    for setting in sets:
        _override(fields, setting)
    return build(_with_config_files(fields, Path()), name)


def _with_config_files(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The fields with dalle2-pytorch's configuration files read in; says what of those is not used."""
    whole, unused = expanded(fields, folder)
    if unused:
        log.warning("not used: %s", ", ".join(unused))
    return whole


def named_in_file(name: str) -> bool:
    """Whether this name is the path of a recipe file, by its suffix."""
    return Path(name).suffix in (".yaml", ".yml")


def changed(recipe: Recipe, sets: Iterable[str], label: str) -> Recipe:
    """A recipe with `a.b=c` overrides. Raises RecipeError naming the field of recipe `label`."""
    fields = recipe.model_dump(mode="json")
    for setting in sets:
        _override(fields, setting)
    return build(_with_config_files(fields, Path()), label)


def build(fields: Mapping[str, Any], label: str) -> Recipe:
    """A recipe from plain fields. Raises RecipeError naming the first wrong field of recipe `label`."""
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"recipe {label}: {_first_error(error)}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise RecipeError(f"recipe {path} is not a file")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise RecipeError(f"recipe {path} has more than {MAX_BYTES:,} bytes: it is no recipe")
        fields = _parsed(data.decode("utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecipeError(f"recipe {path} is not YAML: {reason_of(error)}") from error
    if not isinstance(fields, dict):
        raise RecipeError(f"recipe {path}: expected fields such as `name:` and `source:`")
    return fields


def _parsed(text: str) -> Any:
    """The plain value of a YAML text. Raises ValueError, also for one that is too deep or whose aliases repeat it into
    something huge."""
    # Asked first: its scanner takes the square of the time of brackets within brackets.
    if _open_brackets(text) > MAX_OPEN:
        raise ValueError("it is nested too deeply")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except Exception as error:
        # Its constructors of numbers and times raise what Python's own raise.
        raise ValueError(reason_of(error)) from error
    _check_size(value)
    return value


def _open_brackets(text: str) -> int:
    """The largest number of brackets that are open at a time, those in quotes counted too."""
    steps = (1 if bracket in "[{" else -1 for bracket in BRACKETS.findall(text))
    return max(itertools.accumulate(steps), default=0)


def _check_size(value: Any) -> None:
    """Raises ValueError for a value of too many parts, each counted as often as an alias repeats it."""
    waiting: list[tuple[Any, int]] = [(value, 0)]
    num_parts = 0
    while waiting:
        part, depth = waiting.pop()
        num_parts += 1
        if depth > MAX_DEPTH or num_parts > MAX_PARTS:
            raise ValueError("it repeats itself by its aliases, or is nested too deeply")
        if isinstance(part, dict):
            waiting += [(inner, depth + 1) for inner in part.values()]
        elif isinstance(part, list | set | tuple):
            waiting += [(inner, depth + 1) for inner in part]


def _copy(fields: Any) -> Any:
    if isinstance(fields, dict):
        return {key: _copy(value) for key, value in fields.items()}
    return [_copy(value) for value in fields] if isinstance(fields, list) else fields


def _override(fields: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    if not (path and equals):
        raise RecipeError(f"--set {setting}: expected a.b=value, such as curate.min_side_px=32")
    try:
        value = _parsed(text)
    except ValueError as error:
        shown = reason_of(ValueError(setting))
        raise RecipeError(f"--set {shown}: the value is not YAML: {reason_of(error)}") from error
    *parents, last = path.split(".")
    inner: Any = fields
    for parent in parents:
        if isinstance(inner, dict) and inner.get(parent) is None:
            inner[parent] = {}
        inner = inner[_step(inner, parent, setting)]
        if not isinstance(inner, dict | list):
            raise RecipeError(f"--set {setting}: `{parent}` is a single value, not a group of fields")
    inner[_step(inner, last, setting)] = value
    if parents == ["decoder"] and last in OF_THE_DECODER:
        # For every unet, as it says, though a unet may have had a value of its own before.
        for unet in fields["decoder"].get("unets", ()):
            if isinstance(unet, dict):
                unet.pop(last, None)


def _step(inner: dict[str, Any] | list[Any], name: str, setting: str) -> Any:
    """The key of a group of fields, or the index in a list: `decoder.unets.0.steps=100`."""
    if isinstance(inner, dict):
        return name
    if not (name.isascii() and name.isdigit() and int(name) < len(inner)):
        raise RecipeError(f"--set {setting}: expected a number from 0 to {len(inner) - 1} in place of `{name}`")
    return int(name)


def _first_error(error: ValidationError) -> str:
    details = error.errors(include_url=False)[0]
    # A recipe may be a stranger's: what it calls a field is quoted without its control characters.
    path = "".join(char if char.isprintable() else "?" for char in ".".join(str(step) for step in details["loc"]))
    if details["type"] == "extra_forbidden":
        known = _field_names(details["loc"][:-1])
        close = difflib.get_close_matches(str(details["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"there is no field {path!r}; {hint}"
    message = details["msg"].removeprefix("Value error, ")
    given = details["input"]
    # An address that is refused for its login must not show the login.
    shown = f" (got {without_login(repr(given))})" if isinstance(given, str | int | float | bool) else ""
    return f"{path}: {message}{shown}" if path else message


def _field_names(path: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Recipe
    for step in path:
        if isinstance(step, int):
            continue
        inner = model.model_fields[step].annotation
        options = [inner, *getattr(inner, "__args__", ())]
        model = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return sorted(model.model_fields)
