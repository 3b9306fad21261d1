"""A stage, an export or generated pictures as markdown: what a Prefect artifact shows.

Titles, captions, reasons, prompts and paths go through `markdown` or `markdown_code`, so that no link, picture or HTML
is of a wiki's making.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from PIL import Image

from sp_data import manifest as manifests
from sp_data.dataset.verify.close_pairs import close_pairs_path
from sp_data.exchange.export.run import ExportResult
from sp_data.foreign_text import markdown, markdown_code, web_address
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.report import samples
from sp_data.report.samples import Shown, pictures_of
from sp_data.runtime.contact_sheet import contact_sheet, data_uri, jpeg
from sp_data.training.grid import grid_path
from sp_data.training.loop.metrics import read_metrics

if TYPE_CHECKING:
    from sp_data.generation.picture import GeneratedPicture

NUM_SHOWN = 32
NUM_PAIRS_SHOWN = 10


def stage_markdown(lake: Lake, manifest: Manifest, state: str) -> str:
    """Counts, drop reasons, a contact sheet where the stage has pictures, and lineage. At most some 200 kB."""
    counts = manifest.counts
    lines = [
        f"## {markdown(manifest.stage)}: {markdown(state)}",
        "",
        "| in | out | dropped | files | bytes |",
        "|---:|---:|---:|---:|---:|",
        f"| {counts.in_:,} | {counts.out:,} | {counts.num_dropped:,} | "
        f"{len(manifest.files):,} | {manifest.num_bytes:,} |",
    ]
    if counts.dropped:
        lines += ["", "| dropped because | pictures |", "|---|---:|"]
        lines += [f"| {markdown(reason)} | {count:,} |" for reason, count in sorted(counts.dropped.items())]
    if manifest.stage in ("prior", "decoder"):
        lines += _training(lake, manifest)
    if manifest.stage == "judge":
        lines += _judge(lake, manifest)
    if manifest.stage == "verify":
        lines += _close_pairs(lake, manifest)
    for title, shown in _pictures(lake, manifest):
        pictures = list(pictures_of(shown))
        if pictures:
            lines += ["", f"### {title}", "", f"![{title}]({data_uri(contact_sheet(pictures))})"]
            lines += ["", *[f"- {markdown(sample.title)}: {markdown(sample.line)}" for sample in shown[:8]]]
    lines += ["", "### Lineage", "", f"- identity {markdown_code(manifest.identity)}"]
    lines += [f"- digest {markdown_code(manifest.digest)}"]
    lines += [f"- from {markdown(stage)} {markdown_code(digest)}" for stage, digest in sorted(manifest.inputs.items())]
    lines += [f"- {markdown(name)} {markdown(version)}" for name, version in sorted(manifest.versions.items())]
    return "\n".join(lines) + "\n"


def export_markdown(result: ExportResult, digest: str) -> str:
    """What an export wrote, and what it left out."""
    lines = [f"## Export for {markdown(result.to)}", ""]
    lines += [f"{markdown_code(result.folder)}, {result.num_shards:,} shards", ""]
    lines += ["| split | samples |", "|---|---:|"]
    lines += [f"| {markdown(split)} | {count:,} |" for split, count in result.splits.items()]
    if result.dropped:
        lines += ["", "| left out because | samples |", "|---|---:|"]
        lines += [f"| {markdown(reason)} | {count:,} |" for reason, count in sorted(result.dropped.items())]
    return "\n".join([*lines, "", f"- of dataset {markdown_code(digest)}"]) + "\n"


def _close_pairs(lake: Lake, manifest: Manifest) -> list[str]:
    """The pairs of pictures that the CLIP finds most alike."""
    path = close_pairs_path(manifest.inputs["reorder"])
    if not lake.exists(path):
        return []
    pairs = list(csv.DictReader(io.StringIO(lake.read_bytes(path).decode())))
    if not pairs:
        return []
    lines = ["", "### Alike to the CLIP", "", f"The nearest pairs of pictures; the whole list is in `{path}`", ""]
    lines += ["| cosine | picture | split | other picture | split |", "|---:|---|---|---|---|"]
    columns = ("cosine", "title", "split", "other_title", "other_split")
    return lines + [
        "| " + " | ".join(markdown(pair[name]) for name in columns) + " |" for pair in pairs[:NUM_PAIRS_SHOWN]
    ]


def _training(lake: Lake, manifest: Manifest) -> list[str]:
    """For each network the checkpoint that generates, the losses by step, and the pictures of its checkpoints."""
    lines = [line for network in manifest.details.get("networks", ()) for line in _network(lake, network)]
    evaluation = manifest.details.get("evaluation", {})
    if evaluation:
        lines += [
            "",
            "### Measured",
            "",
            *[f"- {markdown(verdict)}" for verdict in evaluation["verdicts"]],
            "",
            "| | |",
            "|---|---:|",
        ]
        lines += [f"| {markdown(name)} | {value:.4g} |" for name, value in evaluation["figures"].items()]
    return lines


def _network(lake: Lake, network: dict[str, Any]) -> list[str]:
    run = network["run"]
    lines = [
        "",
        f"### Checkpoints of the {markdown(network['name'])}",
        "",
        "| | step | validation loss | weights | folder |",
        "|---|---:|---:|---|---|",
    ]
    for name in ("best", "last"):
        checkpoint = network[name]
        val_loss = "" if checkpoint["val_loss"] is None else f"{checkpoint['val_loss']:.4f}"
        lines.append(
            f"| {name} | {checkpoint['step']:,} | {val_loss} | {markdown(checkpoint['digest'][:12])} | "
            f"{markdown(checkpoint['folder'])} |"
        )
    if network["over_fitting"]:
        lines += ["", f"**{markdown(network['over_fitting'])}**"]
    evaluated = [row for row in read_metrics(lake, run) if "val_loss" in row]
    if evaluated:
        lines += ["", "| step | loss | validation loss |", "|---:|---:|---:|"]
        chosen = evaluated[:: max(1, len(evaluated) // 10)]
        lines += [f"| {row['step']:,} | {row['loss']:.4f} | {row['val_loss']:.4f} |" for row in chosen]
    pictures = grid_path(run)
    if lake.exists(pictures):
        lines += [
            "",
            "Real pictures of the val split; below them, what each checkpoint draws from their embeddings",
            "",
        ]
        lines += [f"![pictures of the checkpoints]({data_uri(_small(lake.read_bytes(pictures)))})"]
    return lines


def _small(png: bytes) -> bytes:
    """A picture as a JPEG that an artifact can hold."""
    return jpeg(_open(png), 80)


def _judge(lake: Lake, manifest: Manifest) -> list[str]:
    lines = ["", "| pairs | pictures | coat | hat | coat, by CLIP | hat, by CLIP |", "|---|---:|---:|---:|---:|---:|"]
    for name, line in manifest.details["table"].items():
        shares = " | ".join(f"{line[part]:.1%}" for part in ("coat", "hat", "clip_coat", "clip_hat"))
        lines.append(f"| {markdown(name)} | {markdown(line['n'])} | {shares} |")
    verdicts = manifest.details["verdicts"][:NUM_SHOWN]
    lines += [
        "",
        f"By chance {manifest.details['chance']:.1%}.",
        "",
        *_sheet(lake, [verdict["picture"] for verdict in verdicts]),
    ]
    for verdict in verdicts[:8]:
        coat, hat = verdict["read"]
        lines.append(f"- {markdown(verdict['prompt'])}: coat {markdown(coat)}, hat {markdown(hat)}")
    return lines


def _sheet(lake: Lake, paths: list[str]) -> list[str]:
    pictures = [_open(lake.read_bytes(path)) for path in paths]
    return [f"![pictures]({data_uri(contact_sheet(pictures))})", ""] if pictures else []


def _open(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as opened:
        return opened.convert("RGB")


def pictures_markdown(lake: Lake, pictures: list[tuple[str, dict[str, Any]]], page: str = "") -> str:
    """Generated pictures as one sheet and a list.

    `pictures` has each PNG's path, by the filesystem's own name, and what its metadata says. `page`: the address of
    `sp-data ui`, to which the list links.
    """
    paths = [path.removeprefix(f"{lake.root}/") for path, _ in pictures[:NUM_SHOWN]]
    images = [_open(lake.read_bytes(path)) for path in paths if lake.exists(path)]
    lines = ["## Pictures", ""]
    if images:
        lines += [f"![pictures]({data_uri(contact_sheet(images))})", ""]
    page = web_address(page)
    if page:
        lines += [f"The page: [{page}]({page}) (start it with `{lake.command('ui')}`)", ""]
    lines += [
        f"- {markdown(metadata['prompt'] or metadata['kind'])}, seed {markdown(metadata['seed'])}: "
        f"{_linked(lake, path, page)}"
        for path, metadata in pictures
    ]
    return "\n".join(lines) + "\n"


def before_after_markdown(
    lake: Lake,
    prompts: Sequence[str],
    before: Sequence[GeneratedPicture],
    after: Sequence[GeneratedPicture],
    path: str,
    page: str = "",
) -> str:
    """Two sheets of the same prompts and seeds, drawn before and after a fine-tuning, and the page that pairs them."""
    lines = [f"## {markdown(lake.dataset)}: before and after the fine-tuning", ""]
    for word, pictures in (("Before", before), ("After", after)):
        if pictures:
            shown = [made.picture for made in pictures[:NUM_SHOWN]]
            lines += [f"### {word}", "", f"![{word.lower()}]({data_uri(contact_sheet(shown))})", ""]
    lines += [f"- {markdown(prompt)}" for prompt in prompts]
    lines += ["", f"Side by side: {_linked(lake, path, page)} (start the page with `{lake.command('ui')}`)"]
    return "\n".join(lines) + "\n"


def _linked(lake: Lake, path: str, page: str) -> str:
    inside = path.removeprefix(f"{lake.root}/")
    # The name is of our own making (a slug), and has no mark that means anything within brackets.
    return f"[{Path(path).name}]({page}/lake/{quote(inside)})" if page and inside != path else markdown_code(path)


def _pictures(lake: Lake, manifest: Manifest) -> list[tuple[str, list[Shown]]]:
    if manifest.stage == "scrape":
        return [("Originals", samples.originals(lake, manifest, NUM_SHOWN))]
    if manifest.stage == "curate":
        return [
            ("Kept", samples.kept(lake, manifest, NUM_SHOWN)),
            ("Dropped", samples.dropped(lake, manifest, limit_a_reason=4)),
        ]
    if manifest.stage == "shard":
        return [("In the shards", samples.from_shards(lake, manifest, NUM_SHOWN))]
    # Later stages make numbers; the pictures shown for them are those of the shards that they were made from.
    sharded = manifests.latest(lake, "shard")
    if sharded is not None and manifest.inputs.get("shard") == sharded.digest:
        return [("Of these pictures", samples.from_shards(lake, sharded, NUM_SHOWN // 2))]
    return []
