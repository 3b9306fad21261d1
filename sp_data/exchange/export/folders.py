"""The exports that are plain folders of pictures.

imagefolder    train/00007/000070042.jpg   train/metadata.jsonl     as `datasets.load_dataset("imagefolder")` reads it
kohya          train/1_southpark/000070042.jpg  000070042.txt       as sd-scripts reads `--train_data_dir DIR/train`
               attribution.jsonl                                    who made each picture, and its licence
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from sp_data.exchange.export.base import Written
from sp_data.exchange.export.live_shard import LiveShard

LINES = "lines.jsonl"
REPEATS = 1
"""How often kohya shows a picture in one epoch: the number with which the name of its folder begins."""


class ImageFolder:
    """One folder a shard within each split: file systems do not like a million files in one folder."""

    @property
    def writer(self) -> Self:
        return self

    def write(self, shard: LiveShard, folder: Path, work: Path) -> None:
        pictures = folder / shard.split / shard.name
        pictures.mkdir(parents=True, exist_ok=True)
        with (work / LINES).open("w", encoding="utf-8") as lines:
            for key, parts in shard.samples():
                (pictures / f"{key}.jpg").write_bytes(parts["jpg"])
                line = {
                    "file_name": f"{shard.name}/{key}.jpg",
                    "text": shard.rows[key]["caption"],
                    "key": key,
                    **shard.attribution(key),
                }
                lines.write(_line(line))

    def finish(self, written: list[Written], folder: Path, work: Path, target: Path) -> dict[str, Any]:
        for split, names in _by_split(written):
            _join([work / name / LINES for name in names], folder / split / "metadata.jsonl")
        return {}


class Kohya:
    """One folder a split, `<repeats>_<dataset>`; sd-scripts does not look into folders below it."""

    def __init__(self, dataset: str) -> None:
        self.name = f"{REPEATS}_{dataset}"

    @property
    def writer(self) -> Self:
        return self

    def write(self, shard: LiveShard, folder: Path, work: Path) -> None:
        pictures = folder / shard.split / self.name
        pictures.mkdir(parents=True, exist_ok=True)
        with (work / LINES).open("w", encoding="utf-8") as lines:
            for key, parts in shard.samples():
                (pictures / f"{key}.jpg").write_bytes(parts["jpg"])
                # sd-scripts reads only the first line of a caption file.
                (pictures / f"{key}.txt").write_text(" ".join(shard.rows[key]["caption"].split()), encoding="utf-8")
                lines.write(_line({"file_name": f"{shard.split}/{self.name}/{key}.jpg", **shard.attribution(key)}))

    def finish(self, written: list[Written], folder: Path, work: Path, target: Path) -> dict[str, Any]:
        _join([work / shard.name / LINES for shard in written], folder / "attribution.jsonl")
        return {}


def _line(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _by_split(written: list[Written]) -> Iterator[tuple[str, list[str]]]:
    for split in dict.fromkeys(shard.split for shard in written):
        yield split, [shard.name for shard in written if shard.split == split]


def _join(parts: list[Path], target: Path) -> None:
    with target.open("wb") as output:
        for part in parts:
            with part.open("rb") as lines:
                shutil.copyfileobj(lines, output)
