"""What the forms of the flows ask for: a recipe by its name, the fields that one really changes, lines for the rest.

recipe    a stock recipe, a dataset in the lake, or a file of the folder `recipes` beside the lake
changes   a dozen fields; what is left empty is as the recipe says
set       `a.b=c` lines for all other fields

The Prefect server checks names, bounds and the form of the lines before a run starts. What only the recipe can tell
(fields that do not fit together, a wiki beside the demo's) ends the run in its first second, in one sentence.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
from collections.abc import Callable
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from prefect import State, runtime
from prefect.context import TagsContext
from prefect.states import Failed
from pydantic import BaseModel, ConfigDict, Field

from sp_data.errors import RecipeError, SpDataError
from sp_data.kept_recipe import find_recipe
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from tasks.plain_log import keep_log_plain, sentence_of

log = logging.getLogger("sp_data.flows")

P = ParamSpec("P")
R = TypeVar("R")

RecipeName = Annotated[str, Field(min_length=1, max_length=200)]
SetLine = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*=.*$", description="For example curate.min_side_px=32")]


class Changes(BaseModel):
    """The fields of a recipe that one really changes. What is left empty, or 0, is as the recipe says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wiki: str = Field(
        "",
        title="Wiki",
        pattern=r"^(https?://[^\s\\@]+)?$",
        description="Address of another wiki, such as https://southpark.fandom.com",
    )
    select: Literal["as the recipe says", "pages", "categories", "all"] = Field(
        "as the recipe says", title="Which files", description="Those shown on pages, those in categories, or all"
    )
    pages: list[str] = Field([], title="Pages", description="Pages whose files are taken, such as Portal:Characters")
    contact: str = Field("", title="Contact", description="Your mail address or page; the wiki sees it")
    acknowledge_terms: bool = Field(
        False, title="Terms read", description="You read the wiki's terms of use, and they allow you this"
    )
    requests_per_second: float = Field(0, ge=0, le=50, title="Requests a second", description="To the wiki")
    min_side_px: int = Field(0, ge=0, le=4096, title="Smallest side", description="Smaller pictures are left out (px)")
    prior_steps: int = Field(0, ge=0, le=10_000_000, title="Steps of the prior")
    decoder_steps: int = Field(0, ge=0, le=10_000_000, title="Steps of the decoder", description="Of each unet")
    batch_size: int = Field(
        0, ge=0, le=65_536, title="Batch size", description="Of the decoder; smaller fits a smaller GPU"
    )
    prompts: list[str] = Field([], title="Prompts", description="Drawn before and after each fine-tuning")
    ask_first: Literal["as the recipe says", "yes", "no"] = Field(
        "as the recipe says", title="Ask before fine-tuning", description="Wait for an approval in this UI"
    )

    def lines(self) -> list[str]:
        """The changes as `a.b=c` lines."""
        fields: dict[str, Any] = {}
        for name, path in _PLACES.items():
            value = getattr(self, name)
            if value and value != "as the recipe says":
                fields[path] = value == "yes" if name == "ask_first" else value
        # JSON is YAML of one line, and quotes every word: `no` stays a word.
        return [f"{path}={json.dumps(_on_one_line(value), ensure_ascii=False)}" for path, value in fields.items()]


def _on_one_line(value: Any) -> Any:
    """A text without the line ends that a form's box takes."""
    if isinstance(value, list):
        return [_on_one_line(item) for item in value]
    return " ".join(value.split()) if isinstance(value, str) else value


NO_CHANGES = Changes()
_PLACES = {
    "wiki": "source.wiki",
    "select": "source.select",
    "pages": "source.pages",
    "contact": "source.contact",
    "acknowledge_terms": "source.acknowledge_terms",
    "requests_per_second": "source.requests_per_second",
    "min_side_px": "curate.min_side_px",
    "prior_steps": "prior.steps",
    "decoder_steps": "decoder.steps",
    "batch_size": "decoder.batch_size",
    "prompts": "follow_up.prompts",
    "ask_first": "follow_up.ask_first",
}


def chosen_recipe(recipe: str, lake: str, changes: Changes, set_lines: list[str]) -> Recipe:
    """The recipe of a run, which is not kept here: what makes something keeps it. Raises SpDataError."""
    if changes.wiki and find_recipe(recipe, [], lake)[0].source.demo is not None:
        raise RecipeError(
            f"recipe {recipe} serves a made-up wiki of its own, so it cannot scrape {changes.wiki}; choose southpark, "
            "or a file in recipes/ with a name of its own"
        )
    found, _ = find_recipe(recipe, [*changes.lines(), *set_lines], lake, say=log.info, keeps=True)
    if changes.wiki:
        # Before anything asks for the old wiki.
        found.source.check_politeness()
    return found


def dataset_lake(recipe: Recipe, lake: str) -> Lake:
    """The dataset's place in the lake."""
    return Lake(lake, recipe.name)


def run_name() -> str:
    """The name of a run until its end tells more: its dataset's."""
    given = str(runtime.flow_run.parameters.get("recipe") or runtime.flow_run.flow_name)
    return given.removesuffix(".yaml").removesuffix(".yml")


def in_one_sentence(flow: Callable[P, State[R]]) -> Callable[P, R]:
    """A flow that ends in a state of its own making, of which Prefect gives a caller the result.

    A failure of our own kind, or a full disk, is the state's message, without a traceback; a caller gets the error.
    """

    @functools.wraps(flow)
    def run(*args: P.args, **kwargs: P.kwargs) -> Any:
        keep_log_plain()
        try:
            # Its tags are the run's. Of each tag of a task Prefect asks the server for a limit, which may take seconds.
            with TagsContext(current_tags=set()):
                return flow(*args, **kwargs)
        except (SpDataError, OSError) as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            log.error("%s", sentence)
            return Failed(message=sentence, data=error)

    # Prefect reads the types where this function was defined, not where the flow was.
    run.__signature__ = inspect.signature(flow, eval_str=True)  # type: ignore[attr-defined]
    run.__annotations__ = inspect.get_annotations(flow, eval_str=True)
    return run
