"""What training a recipe's prior and unets takes of a GPU's memory, by fake tensors: no GPU is needed.

    python benchmarks/memory.py [RECIPE] [--gpu-gb 70] [--crops 128,64] [--json]

For each network: without and with gradient checkpointing, an upsampler also on random crops; with AdamW in float32 and
in 8 bits; the GB of a step with micro-batches of 1 to 32 pictures, and the largest that fits. One network is in memory
at a time. A GPU of 80 GB has some 76 GB left for it after the margins of sp_data/training/memory/free.py.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sp_data.recipe import Recipe, load_recipe
from sp_data.training.job import TrainingJob
from sp_data.training.memory.estimate import ADAM_8BIT_BYTES, ADAM_BYTES, GB, Memory, largest_micro_batch
from sp_data.training.memory.micro_batch import memory_of

MICRO_BATCHES = (1, 2, 4, 8, 16, 32)
JOB = {"lake": "", "dataset": "", "run": "", "resume": None, "forget_after": None, "ancestor": ""}


@dataclass(frozen=True, slots=True)
class Row:
    """A network and how it is trained. `memory` is with AdamW in float32 and a micro-batch of 1."""

    network: str
    picture_px: int | None
    is_checkpointed: bool
    memory: Memory
    batch_size: int
    cpu_s: float

    def total(self, micro_batch_size: int, use_8bit_adam: bool) -> int:
        return self.memory.at(micro_batch_size).total - self.saved(use_8bit_adam)

    def largest(self, available: int, use_8bit_adam: bool) -> int:
        return largest_micro_batch(self.memory, available + self.saved(use_8bit_adam), self.batch_size)

    def saved(self, use_8bit_adam: bool) -> int:
        return int(self.memory.optimizer * (1 - ADAM_8BIT_BYTES / ADAM_BYTES)) if use_8bit_adam else 0


def rows(recipe: Recipe, crops_px: tuple[int, ...]) -> Iterator[Row]:
    """The prior, then each unet in its variants."""
    yield _row("prior", None, False, recipe, None)
    for number, unet in enumerate(recipe.decoder.unets, start=1):
        crops = [crop for crop in crops_px if number > 1 and crop < unet.image_size_px]
        for crop in (None, *crops):
            for is_checkpointed in (False, True):
                changed = unet.model_copy(
                    update={"random_crop_px": crop, "gradient_checkpointing": is_checkpointed, "use_8bit_adam": False}
                )
                unets = (*recipe.decoder.unets[: number - 1], changed, *recipe.decoder.unets[number:])
                decoder = recipe.decoder.model_copy(update={"unets": unets})
                variant = recipe.model_copy(update={"decoder": decoder})
                yield _row(f"unet {number}", crop or unet.image_size_px, is_checkpointed, variant, number)


def _row(network: str, picture_px: int | None, is_checkpointed: bool, recipe: Recipe, unet: int | None) -> Row:
    job = TrainingJob(kind="decoder" if unet else "prior", unet=unet, recipe=recipe, **JOB)
    begun = time.process_time()
    memory = memory_of(job, None, "cuda")
    return Row(network, picture_px, is_checkpointed, memory, job.settings.batch_size, time.process_time() - begun)


def as_json(row: Row, available: int) -> dict[str, Any]:
    return {
        "network": row.network,
        "picture_px": row.picture_px,
        "gradient_checkpointing": row.is_checkpointed,
        "parameters": row.memory.num_trained,
        "batch_size": row.batch_size,
        "estimate_cpu_s": round(row.cpu_s, 2),
        **{f"{name}_gb": round(getattr(row.memory, name) / GB, 2) for name in ("weights", "gradients", "ema")},
        **{
            adam: {
                "optimizer_gb": round((row.memory.optimizer - row.saved(is_8bit)) / GB, 2),
                "total_gb": {size: round(row.total(size, is_8bit) / GB, 1) for size in MICRO_BATCHES},
                "largest_micro_batch": row.largest(available, is_8bit),
            }
            for adam, is_8bit in (("adam", False), ("adam_8bit", True))
        },
    }


def as_lines(row: Row, available: int) -> Iterator[str]:
    for adam, is_8bit in (("float32", False), ("8 bits", True)):
        totals = " ".join(f"{row.total(size, is_8bit) / GB:7.1f}" for size in MICRO_BATCHES)
        checkpointing = "yes" if row.is_checkpointed else "no"
        yield (
            f"{row.network:8} {row.picture_px or '':>4} {checkpointing:>13} {adam:>8} {totals}   "
            f"{row.largest(available, is_8bit):>3} of {row.batch_size}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("--quick", action="store_true", help="The demo's networks instead of southpark's")
    parser.add_argument("--gpu-gb", type=float, default=70.0, help="GB that a training may take")
    parser.add_argument("--crops", default="128,64", help="Sizes in pixels of an upsampler's random crops")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    available = int(arguments.gpu_gb * GB)
    crops = () if arguments.quick else tuple(int(size) for size in arguments.crops.split(",") if size)
    made = []
    if not arguments.json:
        sizes = " ".join(f"{size:>7}" for size in MICRO_BATCHES)
        print(f"{'network':8} {'px':>4} {'checkpointing':>13} {'AdamW':>8} {sizes}   fits")
    for row in rows(load_recipe(arguments.recipe or ("demo" if arguments.quick else "southpark")), crops):
        made.append(as_json(row, available))
        if not arguments.json:
            print("\n".join(as_lines(row, available)), flush=True)
    if arguments.json:
        print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
