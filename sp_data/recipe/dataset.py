"""How a dataset is made, stage by stage (curate, shard, embed, reorder, verify), and on which machines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sp_data.recipe.part import EXECUTION_ONLY, RecipePart


class Curate(RecipePart):
    """Which pictures are kept, and in which split."""

    min_side_px: int = Field(64, ge=1)
    max_pixels: int = Field(50_000_000, ge=1, description="A larger picture is dropped before it is decoded")
    max_aspect: float = Field(4.0, ge=1, description="Longer side divided by the shorter")
    near_duplicates: Literal["drop", "keep"] = Field("drop", description="`keep` puts them into the same split")
    near_duplicate_bits: int = Field(
        4, ge=0, le=32, description="How many of the 256 bits of the perceptual hash may differ"
    )
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
        description="A caption of only these words, numbers and punctuation, such as 'IMG 1234', is dropped",
    )
    boilerplate_captions: tuple[str, ...] = Field(
        (
            *("screen shot", "screen shot at", "screen shot at am", "screen shot at pm"),
            *("click to enlarge", "click to view", "no description", "no description available", "no caption"),
            *("add a caption", "add a caption here", "image not available", "no image available", "image not found"),
        ),
        description="Whole captions that are dropped; case and punctuation do not matter",
    )
    opt_out_templates: tuple[str, ...] = ("Opt-out", "No AI")
    opt_out_categories: tuple[str, ...] = ("Opted out",)
    val_share: float = Field(0.05, ge=0, lt=0.5)
    test_share: float = Field(0.05, ge=0, lt=0.5)
    threads: int = Field(0, ge=0, description="0 = one per core", json_schema_extra=EXECUTION_ONLY)


class Shard(RecipePart):
    """How pictures are stored in shards (img2dataset)."""

    image_size_px: int = Field(256, ge=8)
    resize_mode: Literal["border", "center_crop", "keep_ratio"] = "border"
    jpeg_quality: int = Field(95, ge=1, le=100)
    samples_per_shard: int | None = Field(
        None, ge=2, le=10_000, description="None: chosen from the dataset's first size, then never changed"
    )
    processes: int = Field(0, ge=0, description="0 = one per core", json_schema_extra=EXECUTION_ONLY)
    distributor: Literal["multiprocessing", "pyspark", "ray"] = Field(
        "multiprocessing",
        description="img2dataset's distributor. With Ray or Spark on other machines, the lake must be on a disk that "
        "they share. `pyspark` is experimental: no test has run it",
        json_schema_extra=EXECUTION_ONLY,
    )


class Embed(RecipePart):
    """Which CLIP (clip-retrieval)."""

    clip_model: str = Field("ViT-L/14", description="As clip-retrieval names it; `demo` is the project's own tiny CLIP")
    name: str = Field(
        "ViT-L-14",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="The first part of the name of its folder in the lake",
    )
    dim: int = Field(768, ge=1, description="Width of its embeddings; checked before the long work")
    batch_size: int = Field(64, ge=1, description="A batch never spans two shards")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="For the computation; `auto` is bf16 if the processor has it. Recorded; checked on a few pictures",
        json_schema_extra=EXECUTION_ONLY,
    )
    distributor: Literal["here", "sequential", "pyspark", "slurm"] = Field(
        "here",
        description="`here`: in this process, in the precision above. Otherwise clip-retrieval's own command with this "
        "strategy, in float32; the lake must be on a disk that the machines share. `pyspark` and `slurm` are "
        "experimental: no test has run them",
        json_schema_extra=EXECUTION_ONLY,
    )
    distributor_options: dict[str, str | int] = Field(
        {},
        description="Options of clip-retrieval, such as slurm_partition and slurm_nodes",
        json_schema_extra=EXECUTION_ONLY,
    )


class Reorder(RecipePart):
    """How embeddings are put in the order of the pictures."""

    threads: int = Field(0, ge=0, description="0 = one per core", json_schema_extra=EXECUTION_ONLY)


class Verify(RecipePart):
    """What verification checks, and its thresholds."""

    reembed: int = Field(8, ge=0, description="How many pictures are embedded again and compared")
    min_cosine: float = Field(0.999, gt=0, le=1)
    close_cosine: float = Field(
        0.98,
        ge=0,
        le=1,
        description="Pairs of pictures with at least this CLIP cosine are listed in a report; 0: not compared",
        json_schema_extra=EXECUTION_ONLY,
    )


class Machines(RecipePart):
    """Where flow runs do the work of curate, reorder, verify and export, which is divided into jobs."""

    runner: Literal["threads", "ray"] = Field(
        "threads", description="Threads of this machine, or Prefect's Ray task runner", json_schema_extra=EXECUTION_ONLY
    )
    ray_address: str = Field(
        "",
        description="For example ray://head:10001; empty: a Ray on this machine, which ends with the run",
        json_schema_extra=EXECUTION_ONLY,
    )
    jobs_a_task: int = Field(
        16,
        ge=1,
        description="Jobs per task run: shards, or for curate 16 pictures each",
        json_schema_extra=EXECUTION_ONLY,
    )
