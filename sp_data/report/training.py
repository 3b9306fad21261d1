"""The part of the page that shows training and its results: loss curves, and generated pictures with their prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sp_data.dataset.curate.decoding import Refused, decode_rgb
from sp_data.dataset.shards.tars import read_tar
from sp_data.errors import CorruptFile
from sp_data.generation.gallery import Piece
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.report.chart import line_chart
from sp_data.runtime.contact_sheet import data_uri, jpeg
from sp_data.training.grid import grid_path
from sp_data.training.loop.metrics import read_metrics

TRAININGS = ("prior", "decoder")


@dataclass(frozen=True, slots=True)
class TrainingSection:
    """One network's section."""

    name: str
    run: str
    num_parameters: int
    best_step: int
    best_val_loss: float | None
    digest: str
    chart: str
    """SVG."""
    figures: dict[str, float]
    enlarges: bool
    """It is an upsampler."""
    over_fitting: str
    """A sentence, if it over-fits."""
    grid: str
    """Data URI of the pictures of its checkpoints; empty if it draws none."""


def trainings(lake: Lake, by_stage: dict[str, Manifest]) -> list[TrainingSection]:
    """The sections of the prior and of each unet, for those that were trained."""
    return [
        _training(lake, network)
        for kind in TRAININGS
        if kind in by_stage
        for network in by_stage[kind].details.get("networks", ())
    ]


def verdicts(by_stage: dict[str, Manifest]) -> list[str]:
    """What the measures of the finished decoder say; empty if it was not measured."""
    evaluation = by_stage["decoder"].details.get("evaluation", {}) if "decoder" in by_stage else {}
    figures = [f"{name} {value:.4g}" for name, value in evaluation.get("figures", {}).items()]
    return [*evaluation.get("verdicts", []), *(["Figures: " + ", ".join(figures)] if figures else [])]


def _training(lake: Lake, network: dict[str, Any]) -> TrainingSection:
    rows = read_metrics(lake, network["run"])
    curves = {
        name: [(row["step"], row[name]) for row in rows if row.get(name) is not None] for name in ("loss", "val_loss")
    }
    best = network["best"]
    pictures = grid_path(network["run"])
    return TrainingSection(
        name=network["name"],
        run=network["run"],
        num_parameters=network["num_parameters"],
        best_step=best["step"],
        best_val_loss=best["val_loss"],
        digest=best["digest"],
        chart=line_chart({"training": curves["loss"], "validation": curves["val_loss"]}),
        figures=network["measured"],
        over_fitting=network["over_fitting"],
        enlarges=(network["unet"] or 1) > 1,
        grid=data_uri(lake.read_bytes(pictures), "image/png") if lake.exists(pictures) else "",
    )


def cards(lake: Lake, pieces: list[Piece], judged: Manifest | None) -> list[dict[str, Any]]:
    """What the template shows of each piece: both pictures as data URIs, the prompt, and what the judge read."""
    verdicts = {row["picture"]: row for row in judged.details["verdicts"]} if judged else {}
    return [
        {
            "prompt": piece.made["prompt"],
            "seed": piece.made["seed"],
            "picture": data_uri(lake.read_bytes(piece.picture), "image/png"),
            "nearest": _training_picture(lake, piece),
            "near": piece.nearest,
            "verdict": verdicts.get(piece.picture),
        }
        for piece in pieces
    ]


def _training_picture(lake: Lake, piece: Piece) -> str:
    with lake.local(piece.nearest.tar) as tar:
        data = next(parts["jpg"] for key, parts in read_tar(tar) if key == piece.nearest.key)
    try:
        picture = decode_rgb(data)
    except Refused as refusal:
        shown = f"{lake.full(piece.nearest.tar)}: {piece.nearest.key}.jpg"
        raise CorruptFile(f"{shown} cannot be decoded ({refusal})") from refusal
    picture.thumbnail((256, 256))
    return data_uri(jpeg(picture, 85))


def lineage(pieces: list[Piece], by_stage: dict[str, Manifest]) -> list[tuple[str, str, str]]:
    """(item, digest, where that is recorded) from the gallery's first picture back to a page of the wiki."""
    if not pieces:
        return []
    first = pieces[0]
    nearest = first.nearest
    shard = next(shard for shard in by_stage["verify"].details["shards"] if shard["tar"]["path"] == nearest.tar)
    steps = [("picture", first.picture, f"seed {first.made['seed']}; the PNG names the checkpoints")]
    made_by = [("decoder", unet) for unet in first.made["decoder"]] + [("prior", first.made["prior"])]
    for kind, checkpoint in made_by:
        name = f"{checkpoint['run']}, step {checkpoint['step']:,}"
        steps.append((kind, checkpoint["weights"], f"{name}; its record names the dataset"))
    return [
        *steps,
        ("dataset", first.made["decoder"][0]["dataset"], "verify's manifest names every shard"),
        ("shard", shard["tar"]["sha256"], f"{nearest.tar} holds the nearest picture as {nearest.key}"),
        ("catalogue", by_stage["verify"].details["catalogue"], f"says where {nearest.title} came from"),
        ("page", nearest.page, f"revision {nearest.revision}; {nearest.url}"),
    ]
