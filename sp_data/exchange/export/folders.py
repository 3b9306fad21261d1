"""Exports as plain folders of pictures.

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
"""How often kohya shows a picture of the folder in one epoch: the number its name begins with."""


class ImageFolder:
    """A folder a shard within each split: file systems do not like a million files in one folder."""

    @property
    def writer(self) -> Self:
        return self

    def write(self, shard: LiveShard, folder: Path, work: Path) -> None:
        into = folder / shard.split / shard.name
        into.mkdir(parents=True, exist_ok=True)
        with (work / LINES).open("w", encoding="utf-8") as lines:
            for key, parts in shard.samples():
                (into / f"{key}.jpg").write_bytes(parts["jpg"])
                line = {
                    "file_name": f"{shard.name}/{key}.jpg",
                    "text": shard.said[key]["caption"],
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
        into = folder / shard.split / self.name
        into.mkdir(parents=True, exist_ok=True)
        with (work / LINES).open("w", encoding="utf-8") as lines:
            for key, parts in shard.samples():
                (into / f"{key}.jpg").write_bytes(parts["jpg"])
                # sd-scripts takes the first line of a caption's file for the whole of it.
                (into / f"{key}.txt").write_text(" ".join(shard.said[key]["caption"].split()), encoding="utf-8")
                lines.write(_line({"file_name": f"{shard.split}/{self.name}/{key}.jpg", **shard.attribution(key)}))

    def finish(self, written: list[Written], folder: Path, work: Path, target: Path) -> dict[str, Any]:
        _join([work / one.name / LINES for one in written], folder / "attribution.jsonl")
        return {}


def _line(said: dict[str, Any]) -> str:
    return json.dumps(said, ensure_ascii=False) + "\n"


def _by_split(written: list[Written]) -> Iterator[tuple[str, list[str]]]:
    for split in dict.fromkeys(one.split for one in written):
        yield split, [one.name for one in written if one.split == split]


def _join(pieces: list[Path], whole: Path) -> None:
    with whole.open("wb") as into:
        for piece in pieces:
            with piece.open("rb") as lines:
                shutil.copyfileobj(lines, into)
