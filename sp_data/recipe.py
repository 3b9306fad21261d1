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
        fields = type(self).model_fields
        kept = {name: getattr(self, name) for name, field in fields.items() if field.json_schema_extra is not HOW}
        inner = {name: value.what() for name, value in kept.items() if isinstance(value, Part)}
        return self.model_dump(mode="json", include=kept.keys() - inner.keys()) | inner


class DemoWiki(Part):
    """The made-up wiki of paper-cutout kids, served by the run itself."""

    num_kids: int = Field(1600, ge=24, le=5000)
    seed: int = 0
    weeks: int = Field(
        0,
        ge=0,
        le=52,
        description="How many weeks ago it was founded; each week some pictures come, change, go and are renamed",
        json_schema_extra=HOW,
    )


class Imported(Part):
    """Shards that someone else made; written by `sp-data import`, not by hand."""

    shards: str = Field(description="Where they lay", json_schema_extra=HOW)
    embeddings: str = Field(description="Where their embeddings lay", json_schema_extra=HOW)
    digest: str = Field("", description="sha256 over the shards")


class Source(Part):
    """Which wiki, and what of it."""

    wiki: str = Field("", description="Address of the wiki, e.g. https://southpark.fandom.com")
    addresses: str = Field(
        "",
        description="Instead of a wiki: a list of pictures' addresses, as .txt (one a line), .csv or .parquet (columns "
        "`url`, and `caption` and `licence` where there are any)",
    )
    demo: DemoWiki | None = Field(None, description="Serve the made-up wiki and scrape it")
    imported: Imported | None = Field(None, description="Instead of a wiki: what `sp-data import` took in")
    select: Literal["pages", "categories", "all"] = Field(
        "pages", description="Files shown on `pages`, files in `categories`, or every file of the wiki"
    )
    pages: tuple[str, ...] = ("Portal:Characters",)
    categories: tuple[str, ...] = ()
    article_namespaces: tuple[int, ...] = Field((0,), description="Where captions and infoboxes are read")
    mime_types: tuple[str, ...] = ("image/png", "image/jpeg", "image/gif", "image/webp")
    caption_templates: tuple[str, ...] = Field(
        (),
        description="Captions made of infobox fields and of found captions by their kind, such as "
        "'{subject}[ in a {coat} coat][, {lead}]': parts in brackets are left out where a field is missing. The first "
        "that can be filled is chosen; without one, the best caption found on the wiki",
    )
    caption_variants: int = Field(
        0, ge=0, le=16, description="Other captions of each picture, for training: parts in brackets dropped at random"
    )
    caption_dropout: float = Field(0.3, ge=0, lt=1, description="How often a part in brackets is left out of a variant")
    caption_seed: int = Field(0, ge=0, description="Of the variants")
    max_html_pages: int = Field(
        100,
        ge=0,
        description="Read as HTML because their wikitext does not name the pictures they show; one request each",
    )
    reconcile_every: int = Field(
        13,
        ge=1,
        description="Runs that find changes between two that list the whole wiki; a month after the last it is listed "
        "in any case. What is changed behind its lists of changes, such as imports with old dates, is found then",
        json_schema_extra=HOW,
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
        if not value:
            return value
        address = urlsplit(value)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("expected an address such as https://southpark.fandom.com")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _has_manners(self) -> Self:
        if sum(map(bool, (self.wiki, self.addresses, self.imported))) != 1:
            raise ValueError("expected `wiki`, or `addresses` instead of one")
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
                f"read the terms of use and the licence of {self.place} first (Fandom's terms are stricter than its "
                "robots.txt; text is CC-BY-SA, most pictures are fair use); if you may do this, "
                "say so: --set source.acknowledge_terms=true"
            )

    @property
    def place(self) -> str:
        """Where the pictures come from, in words."""
        if self.imported:
            return f"the shards in {self.imported.shards}"
        return self.wiki or f"the addresses in {self.addresses}"

    @property
    def portals(self) -> tuple[str, ...]:
        """The pages that select files; they are read as their readers see them."""
        return self.pages if self.select == "pages" else ()

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
    boilerplate_words: tuple[str, ...] = Field(
        (
            *("img", "image", "images", "pic", "picture", "photo", "screenshot", "screencap"),
            *(
                "dsc",
                "dscn",
                "dscf",
                "pxl",
                "vlcsnap",
                "untitled",
                "unnamed",
                "thumbnail",
                "maxresdefault",
                "hqdefault",
            ),
            *("wa", "at", "am", "pm", "png", "jpg", "jpeg", "gif", "webp"),
        ),
        description="A caption of nothing but these, numbers and signs says nothing, such as 'IMG 1234': dropped",
    )
    boilerplate_captions: tuple[str, ...] = Field(
        (
            *("screen shot", "screen shot at", "screen shot at am", "screen shot at pm"),
            *("click to enlarge", "click to view", "no description", "no description available", "no caption"),
            *("add a caption", "add a caption here", "image not available", "no image available", "image not found"),
        ),
        description="Whole captions that say nothing, case and signs aside",
    )
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
    distributor: Literal["multiprocessing", "pyspark", "ray"] = Field(
        "multiprocessing",
        description="img2dataset's own, which says who makes the shards. Ray and Spark on other machines read and "
        "write the lake's folder, so it lies on a disk that they share",
        json_schema_extra=HOW,
    )


class Embed(Part):
    """Which CLIP (clip-retrieval)."""

    clip_model: str = Field("ViT-L/14", description="As clip-retrieval names it; `demo` is the project's own tiny one")
    name: str = Field(
        "ViT-L-14", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Begins the name of its folder in the lake"
    )
    dim: int = Field(768, ge=1, description="Width of its embeddings, checked before anything long")
    batch_size: int = Field(64, ge=1, description="Never crosses a shard")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Computed in; `auto` is bf16 where the processor has it. Recorded, and checked on a few pictures",
        json_schema_extra=HOW,
    )
    distributor: Literal["here", "sequential", "pyspark", "slurm"] = Field(
        "here",
        description="`here`: in this process, in the precision above. Else clip-retrieval's own command with this "
        "strategy, in float32, on a lake that lies on a disk the machines share",
        json_schema_extra=HOW,
    )
    distributor_options: dict[str, str | int] = Field(
        {}, description="Of clip-retrieval, such as slurm_partition and slurm_nodes", json_schema_extra=HOW
    )


class Reorder(Part):
    """Where each embedding goes."""

    threads: int = Field(0, ge=0, description="0 = one a core", json_schema_extra=HOW)


class Verify(Part):
    """How hard to look."""

    reembed: int = Field(8, ge=0, description="Pictures that are embedded again and compared")
    min_cosine: float = Field(0.999, gt=0, le=1)
    close_cosine: float = Field(
        0.98,
        ge=0,
        le=1,
        description="Pictures that the CLIP finds this near are listed in a report; 0: not compared",
        json_schema_extra=HOW,
    )


class Machines(Part):
    """Who does the work of curate, reorder, verify and export, which falls into jobs; in flow runs."""

    runner: Literal["threads", "ray"] = Field(
        "threads", description="Of this machine, or Prefect's Ray task runner", json_schema_extra=HOW
    )
    ray_address: str = Field(
        "",
        description="Such as ray://head:10001; empty: a Ray on this machine, for as long as the run takes",
        json_schema_extra=HOW,
    )
    jobs_a_task: int = Field(
        16, ge=1, description="Shards (of curate: 16 pictures each) that make one task run", json_schema_extra=HOW
    )


class Training(Part):
    """How long and how a model is trained; the same for prior and decoder."""

    steps: int = Field(100_000, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(1e-4, gt=0, le=1)
    schedule: Literal["constant", "linear"] = Field("constant", description="`linear` falls to zero at the last step")
    warmup_steps: int = Field(1000, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(0.5, gt=0)
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="Of the averaged weights, which are the ones used")
    seed: int = Field(0, ge=0)
    log_every: int = Field(50, ge=1, description="Steps between lines of metrics.jsonl", json_schema_extra=HOW)
    save_every: int = Field(1000, ge=1, description="Steps between checkpoints; each is evaluated first")
    keep_checkpoints: int = Field(
        2, ge=2, description="The best stays beside them; one alone may be the one being written", json_schema_extra=HOW
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", json_schema_extra=HOW)
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Of the forward pass", json_schema_extra=HOW)
    loader_processes: int = Field(0, ge=0, description="That read pictures ahead", json_schema_extra=HOW)


class Prior(Training):
    """Text embedding -> image embedding (dalle2-pytorch's DiffusionPrior); its width is the CLIP's."""

    depth: int = Field(12, ge=1)
    heads: int = Field(12, ge=1)
    dim_head: int = Field(64, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1, description="In attention and feed-forward layers")
    normformer: bool = True
    text_encodings: bool = Field(
        True, description="Also look at each word: needs a CLIP whose text tower is as wide as its embeddings"
    )
    max_text_len: int = Field(77, ge=1, description="1 without text encodings: a step costs as many words")
    timesteps: int = Field(1000, ge=2)
    sample_timesteps: int = Field(64, ge=1, description="May be changed later", json_schema_extra=HOW)
    cond_drop_prob: float = Field(0.1, ge=0, lt=1, description="Of captions left out while training")


class Unet(Part):
    """One step of the cascade; the names are dalle2-pytorch's."""

    image_size_px: int = Field(64, ge=8)
    dim: int = Field(320, ge=8)
    dim_mults: tuple[int, ...] = (1, 2, 3, 4)
    cond_dim: int = Field(512, ge=8)
    num_resnet_blocks: int = Field(4, ge=1)
    attn_heads: int = Field(8, ge=1)
    attn_dim_head: int = Field(64, ge=8)
    self_attn: tuple[bool, ...] = Field((False, True, True, True), description="By resolution")
    sparse_attn: bool = True
    memory_efficient: bool = Field(True, description="Halve the resolution before each block, not after it")
    init_cross_embed: bool = Field(True, description="First layer with kernels of 3, 7 and 15 pixels, not one of 7")
    text_encodings: bool = False


class Decoder(Training):
    """Image embedding -> picture (dalle2-pytorch's Decoder): the first unet draws, each later one enlarges."""

    unets: tuple[Unet, ...] = Field((Unet.model_validate({}),), min_length=1)
    objective: Literal["noise", "v", "x_start"] = Field("noise", description="What a unet predicts")
    learned_variance: bool = Field(True, description="Of the first unet")
    timesteps: int = Field(1000, ge=2)
    sample_timesteps: int = Field(
        64, ge=1, description="Fewer than `timesteps`: DDIM. May be changed later", json_schema_extra=HOW
    )
    image_cond_drop_prob: float = Field(0.1, ge=0, lt=1, description="0: no guidance can be asked for")
    text_cond_drop_prob: float = Field(0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.sample_timesteps > self.timesteps:
            raise ValueError(f"sample_timesteps {self.sample_timesteps} is more than timesteps {self.timesteps}")
        sizes = [unet.image_size_px for unet in self.unets]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"unets must grow: their image_size_px are {sizes}")
        if self.objective == "v" and self.learned_variance:
            raise ValueError("objective 'v' has no learned variance; set learned_variance to false")
        for unet in self.unets:
            if len(unet.self_attn) != len(unet.dim_mults):
                raise ValueError(f"self_attn has {len(unet.self_attn)} entries, dim_mults has {len(unet.dim_mults)}")
        return self

    @property
    def image_size_px(self) -> int:
        """Of the finished picture."""
        return self.unets[-1].image_size_px


class Judge(Part):
    """How the demo looks at its own pictures: coats and hats against the words that asked for them."""

    num_prompts: int = Field(64, ge=2, description="Half of them of pairs that no picture shows")
    seed: int = Field(0, ge=0)


class Recipe(Part):
    """A dataset, how it is made, and what is trained on it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The dataset's folder in the lake")
    source: Source
    curate: Curate = Curate.model_validate({})
    shard: Shard = Shard.model_validate({})
    embed: Embed = Embed.model_validate({})
    reorder: Reorder = Reorder.model_validate({})
    verify: Verify = Verify.model_validate({})
    machines: Machines = Machines.model_validate({})
    prior: Prior = Prior.model_validate({})
    decoder: Decoder = Decoder.model_validate({})
    judge: Judge | None = Field(None, description="Only the demo's pictures can be measured")

    @model_validator(mode="after")
    def _pictures_are_large_enough(self) -> Self:
        if self.decoder.image_size_px > self.shard.image_size_px:
            raise ValueError(
                f"decoder.unets make pictures of {self.decoder.image_size_px} px from shards of "
                f"{self.shard.image_size_px} px; raise shard.image_size_px or train smaller unets"
            )
        return self


def southpark() -> Recipe:
    """South Park's characters, with models of LAION's sizes: ViT-L/14, a prior of 102 million parameters, a decoder of
    957 million that draws 64 pixels and one of 616 million that makes them 256. For a GPU with 80 GB.

    `contact` and `acknowledge_terms` are yours to say.
    """
    return Recipe.model_validate(_SOUTHPARK)


def demo() -> Recipe:
    """Paper-cutout kids from a wiki that the run serves itself: no network, no GPU.

    The models are toys that learn to draw 32 pixels in some five minutes on two cores.
    """
    return Recipe.model_validate(_DEMO)


_SOUTHPARK: dict[str, Any] = {
    "name": "southpark",
    "source": {
        "wiki": "https://southpark.fandom.com",
        "pages": ["Portal:Characters"],
        "caption_templates": ["{name}[, {gender}][, {hair} hair][, {occupation}]"],
    },
    "prior": {"batch_size": 256, "weight_decay": 0.06, "loader_processes": 4},
    "decoder": {
        "batch_size": 32,
        "loader_processes": 8,
        "unets": [
            {"image_size_px": 64, "dim": 320, "text_encodings": True},
            {"image_size_px": 256, "dim": 256, "self_attn": [False] * 4, "sparse_attn": False},
        ],
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
    "prior": {
        "steps": 800,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "schedule": "linear",
        "warmup_steps": 50,
        "max_grad_norm": 1.0,
        "ema_decay": 0.99,
        "save_every": 200,
        "depth": 4,
        "heads": 4,
        "dim_head": 32,
        "dropout": 0.0,
        "normformer": False,
        "text_encodings": False,
        "max_text_len": 1,
        "sample_timesteps": 32,
        "cond_drop_prob": 0.0,
        "precision": "fp32",
    },
    "decoder": {
        "steps": 1400,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "schedule": "linear",
        "warmup_steps": 50,
        "max_grad_norm": 1.0,
        "ema_decay": 0.99,
        "save_every": 200,
        "unets": [
            {
                "image_size_px": 32,
                "dim": 32,
                "dim_mults": [1, 2, 4],
                "cond_dim": 32,
                "num_resnet_blocks": 1,
                "attn_heads": 4,
                "attn_dim_head": 32,
                "self_attn": [False] * 3,
                "sparse_attn": False,
                "init_cross_embed": False,
            }
        ],
        "objective": "v",
        "learned_variance": False,
        "sample_timesteps": 32,
        "image_cond_drop_prob": 0.0,
        "text_cond_drop_prob": 0.0,
    },
    "judge": {},
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
