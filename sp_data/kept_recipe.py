"""Which recipe a name means: the one kept beside a dataset, a file of your own, or a stock recipe.

lake/southpark/recipe.json     kept by what was made with it, so that the dataset's name is enough from then on
recipes/mywiki.yaml            a file beside the lake, which is found by its name `mywiki.yaml` from anywhere
./mywiki.yaml                  a file of your own, by its path

A recipe that is kept with a dataset is never replaced in silence by a stock recipe of the same name, and `--set` on top
of it says what it changes.
"""

from __future__ import annotations

import contextlib
import difflib
import filecmp
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sp_data.canonical import parse_json
from sp_data.errors import CorruptFile, LakeFull, RecipeError, SpDataError, UsageError
from sp_data.lake import Lake, datasets, is_dataset_name
from sp_data.recipe import NAMED, Recipe, build, load_recipe
from sp_data.recipe.load import changed, named_in_file

RECIPE_FILE = "recipe.json"
RECIPE_FOLDER = "recipes"
MAX_BYTES = 16 << 20
FIELDS_NAMED = 4
"""Fields that a difference names."""

log = logging.getLogger(__name__)


def remember_recipe(recipe: Recipe, lake: Lake) -> None:
    """Keep the recipe beside its dataset, so that later commands need not be given it again."""
    data = _as_kept(recipe)
    kept = _kept(lake)
    if kept == data:
        return
    if kept is not None and not lake.is_writable:
        log.warning("%s cannot be written: its recipe stays as it is", lake.root)
        return
    # One that cannot be read is replaced.
    with contextlib.suppress(CorruptFile, RecipeError):
        if (before := recall_recipe(lake)) and (fields := differences(before, recipe, "was")):
            log.info("%s: the dataset's recipe changes: %s", lake.dataset, fields)
    with lake.writer("recipe"):
        lake.write_bytes(RECIPE_FILE, data)


@contextlib.contextmanager
def remembered(recipe: Recipe, lake: Lake) -> Iterator[None]:
    """Keep the recipe beside its dataset while something is made with it.

    Where what follows fails before anything was begun with it, the recipe is again as it was: else a slip of `--set`
    would be refused each time from then on. A run that was begun can go on, with its recipe. Runs that wait for each
    other enter this when it is their turn.
    """
    before, after = _kept(lake), _as_kept(recipe)
    remember_recipe(recipe, lake)
    begun = _begun(lake) if before != after else {}
    try:
        yield
    except LakeFull:
        raise
    except SpDataError:
        if before != after and _begun(lake) == begun:
            with lake.writer("recipe"):
                # Another command may have changed it since, or it could not be written.
                if _kept(lake) == after:
                    _put_back(before, lake)
        raise


def _put_back(before: bytes | None, lake: Lake) -> None:
    if before is None:
        lake.remove(RECIPE_FILE)
    else:
        lake.write_bytes(RECIPE_FILE, before)
        log.warning("%s: the dataset's recipe is again as it was", lake.dataset)


def _begun(lake: Lake) -> dict[str, bytes]:
    """What tells that something was made, or begun: the newest manifests, answers of a wiki, runs of trainings."""
    newest = [path for path in lake.list("manifests") if path.endswith("/latest.json")]
    paths = [*lake.list("wiki/journal"), *lake.subfolders("runs")]
    return {**dict(zip(newest, lake.read_all(newest), strict=True)), **dict.fromkeys(paths, b"")}


def _kept(lake: Lake) -> bytes | None:
    return lake.read_bytes(RECIPE_FILE) if lake.exists(RECIPE_FILE) else None


def _as_kept(recipe: Recipe) -> bytes:
    return recipe.model_dump_json(indent=1).encode() + b"\n"


def recall_recipe(lake: Lake) -> Recipe | None:
    """The recipe that a dataset was last made with; None if none is kept. Raises CorruptFile, RecipeError."""
    if not lake.exists(RECIPE_FILE):
        return None
    cure = "delete it and give the recipe again: its stock name or a .yaml file"
    try:
        fields = parse_json(lake.read_bytes(RECIPE_FILE, MAX_BYTES))
        if isinstance(fields, dict):
            # A dataset is called as its folder is, which may have been copied.
            fields["name"] = lake.dataset
        return build(fields, lake.full(RECIPE_FILE))
    except ValueError as error:
        raise CorruptFile(f"{lake.full(RECIPE_FILE)} is not a valid recipe ({error}); {cure}") from error
    except RecipeError as error:
        raise RecipeError(f"{error}; {cure}") from error


def differences(before: Recipe, after: Recipe, word: str) -> str:
    """'curate.min_side_px = 32 (was 64), …': the fields in which two recipes differ, empty if there are none."""
    old, new = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    fields = [field for field in {**old, **new} if old.get(field) != new.get(field)]
    named = [f"{field} = {new.get(field)!r} ({word} {old.get(field)!r})" for field in fields[:FIELDS_NAMED]]
    more = len(fields) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _flat(fields: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat.update(_flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value})
    return flat


def find_recipe(
    name: str | None,
    sets: Iterable[str],
    url: str,
    *,
    say: Callable[[str], None] | None = None,
    keeps: bool = False,
    default: str | None = None,
) -> tuple[Recipe, Lake]:
    """The recipe that a name means, and its dataset's place in the lake `url`.

    `name`: a dataset in the lake, a stock recipe, a YAML file, or the name of one in the folder `recipes` beside the
    lake; None: the only dataset, or `default` in an empty lake. `sets`: `a.b=c` overrides. `say` gets a sentence for
    each thing that may surprise. `keeps`: the caller keeps the recipe beside the dataset, with what `sets` changed.

    Raises UsageError, RecipeError, CorruptFile.
    """
    sets = list(sets)
    say = say or (lambda _: None)
    wanted = name or _only_dataset(url, default)
    if named_in_file(wanted):
        recipe = load_recipe(str(recipe_file(wanted, url)), sets)
        return recipe, Lake(url, recipe.name)
    kept = recall_recipe(Lake(url, wanted)) if is_dataset_name(wanted) else None
    if kept is None:
        recipe = _stock(wanted, sets, url, say)
        if recipe.name != wanted and recall_recipe(Lake(url, recipe.name)):
            raise UsageError(f"dataset {recipe.name!r} has a recipe of its own: name it instead of {wanted}")
        return recipe, Lake(url, recipe.name)
    recipe = changed(kept, sets, f"of dataset {wanted!r}")
    if recipe.name != wanted:
        raise UsageError(f"--set name={recipe.name}: a dataset keeps its name; a .yaml file can give another one")
    if name in NAMED and (fields := differences(load_recipe(name, sets), recipe, "stock")):
        say(f"{name}: the dataset's own recipe is taken, not the stock one: {fields}")
    if fields := differences(kept, recipe, "was"):
        say(f"{wanted}: {fields}, {'from now on' if keeps else 'for this command'}")
    return recipe, Lake(url, wanted)


def recipe_folder(url: str) -> Path:
    """The folder of recipe files that belongs to a lake: beside a local one, else in the current folder."""
    return Path(RECIPE_FOLDER) if "://" in url else Path(url).absolute().parent / RECIPE_FOLDER


def recipe_files(url: str) -> list[str]:
    """Names of the files in the folder of recipes of a lake, sorted: `mywiki.yaml`."""
    folder = recipe_folder(url)
    return sorted(path.name for path in folder.iterdir() if named_in_file(path.name)) if folder.is_dir() else []


def recipe_file(name: str, url: str) -> Path:
    """The recipe file that a name means: a path, or for a bare name the file in the folder of recipes, if it is there.

    Raises UsageError if the current folder has another file of that bare name.
    """
    path, beside = Path(name), recipe_folder(url) / name
    if path.name != name or not beside.is_file():
        return path
    # A worker and a person may stand in different folders: one name must not mean two recipes.
    if path.is_file() and not _are_the_same(path, beside):
        raise UsageError(
            f"{name} may mean {path.absolute()} or {beside.absolute()}, which differ: rename or remove one of "
            "them, or name it with its folder"
        )
    return beside


def file_of_runs(name: str, url: str) -> str:
    """The bare name by which the runs of a deployment find the recipe file `name`.

    Raises UsageError if they would find none by it, or another one.
    """
    path = recipe_file(name, url)
    of_runs = recipe_file(path.name, url)
    if not of_runs.exists() or not of_runs.samefile(path):
        what = f"take {of_runs.absolute()}" if of_runs.exists() else "find none"
        raise UsageError(
            f"{name}: runs of a deployment look for {path.name} in {recipe_folder(url).absolute()}, and would {what}; "
            "put it there, and deploy it from there"
        )
    return path.name


def _are_the_same(one: Path, other: Path) -> bool:
    """Whether two files have the same content; not if one of them cannot be read."""
    with contextlib.suppress(OSError):
        return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
    return False


def _stock(name: str, sets: list[str], url: str, say: Callable[[str], None]) -> Recipe:
    """The stock recipe of this name, for a dataset that keeps no recipe. Raises RecipeError."""
    names = datasets(url)
    if name in NAMED:
        if name in names:
            say(f"{name}: no recipe is kept with the dataset; the stock recipe is taken")
        return load_recipe(name, sets)
    if name in names:
        raise RecipeError(f"dataset {name!r} in {url} keeps no recipe; give the .yaml file that it was made with")
    known = list(dict.fromkeys([*names, *NAMED]))
    similar = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {similar[0]}?" if similar else ""
    raise RecipeError(f"no recipe {name!r}: expected {', '.join(known)}, or a .yaml file{hint}")


def _only_dataset(url: str, default: str | None) -> str:
    names = datasets(url)
    if len(names) == 1:
        return names[0]
    if not names and default:
        return default
    content = f"datasets {', '.join(names)}" if names else "no dataset"
    raise UsageError(f"lake {url} holds {content}: say which by its name")
