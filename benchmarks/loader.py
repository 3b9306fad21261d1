"""Pictures a second of the loader, compared with dalle2-pytorch's own loader on the same pictures.

    python benchmarks/loader.py [--quick] [--json]

2,000 made-up pictures of 256 px in 10 shards with embeddings of ViT-L/14's width, in batches of 32, with 0, 1 and 2
processes that read ahead, one thread each. Ours reads the dataset in its lake; theirs reads the same tars and the same
.npy files by folder. Both deliver key, picture (float32 in 0..1) and image embedding; ours also delivers caption and
text embedding. The time is that of an epoch from its start (opening files and starting processes included), the median
of three. Ours finds the places of its samples in a first epoch, which does not count.

Theirs does not split the samples over processes: each process delivers every sample. So the rate is in distinct
samples, and the number of delivered samples is given beside it. The limit is the bare decoder: Pillow's, on the same
bytes, in one thread, which theirs uses too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sp_data.canonical import digest_of
from sp_data.dataset.loader.samples import Samples
from sp_data.dataset.shards.tars import write_tar
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.training.loop.sampler import Batches
from sp_data.training.task import collate, to_device

SIZE_PX = 256
DIM = 768
SAMPLES_PER_SHARD = 200
BATCH_SIZE = 32
PROCESSES = (0, 1, 2)
THEIRS = (
    'create_image_embedding_dataloader(".../shards/{{00000..{last:05d}}}.tar", num_workers={processes}, '
    f'batch_size={BATCH_SIZE}, img_embeddings_url=".../reordered/img_emb", index_width={{width}}, '
    'img_preproc=torchvision.transforms.ToTensor(), extra_keys=["__key__"])'
)


@dataclass
class Measured:
    """One loader with one number of processes: seconds of each epoch, and the number of samples in the last."""

    seconds: list[float] = field(default_factory=list)
    num_delivered: int = 0
    num_distinct: int = 0

    @property
    def rate(self) -> float:
        """Distinct samples a second."""
        return self.num_distinct / statistics.median(self.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 pictures instead of 2,000")
    parser.add_argument("--json", action="store_true", help="one object of figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Theirs always asks for pin_memory, also without a GPU, and imports a package that warns.
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(prefix="sp-data-benchmark-") as folder:
        figures = measure(Lake(folder, "pictures"), 1000 if arguments.quick else 2000, quiet=arguments.json)
    if arguments.json:
        print(json.dumps(figures))


def measure(lake: Lake, num_pictures: int, *, quiet: bool) -> dict[str, float]:
    def say(text: str) -> None:
        if not quiet:
            print(text, flush=True)

    verified, pictures = make_dataset(lake, num_pictures)
    size = sum(map(len, pictures)) / len(pictures) / 1e3
    say(f"{num_pictures} pictures of {SIZE_PX} px, {size:.0f} kB each; an epoch each, median of three\n")
    theirs_of = load_theirs(lake, verified)
    loaders: dict[str, Callable[[int], list[str]]] = {
        "sp-data": lambda processes: ours(lake, verified, processes),
        "dalle2-pytorch": lambda processes: theirs(theirs_of, processes),
    }
    measured = {(name, processes): Measured() for processes in PROCESSES for name in loaders}
    bare = Measured(num_distinct=num_pictures)
    for name in loaders:
        loaders[name](0)
    for _ in range(3):
        bare.seconds.append(timed(lambda: decode(pictures))[0])
        # Alternately, so that a machine that slows down slows both.
        for (name, processes), case in measured.items():
            seconds, keys = timed(lambda name=name, processes=processes: loaders[name](processes))
            case.seconds.append(seconds)
            case.num_delivered, case.num_distinct = len(keys), len(set(keys))
    say(f"{'':24}{'processes':>10}{'seconds':>9}{'delivered':>11}{'distinct':>10}{'distinct/s':>12}")
    for (name, processes), case in measured.items():
        seconds = statistics.median(case.seconds)
        say(f"{name:24}{processes:>10}{seconds:>9.2f}{case.num_delivered:>11}{case.num_distinct:>10}{case.rate:>12.0f}")
    say(f"{'bare decoder':24}{'':>10}{statistics.median(bare.seconds):>9.2f}{'':>11}{'':>10}{bare.rate:>12.0f}")
    ratios = {
        f"over_dalle2_pytorch_{processes}": measured["sp-data", processes].rate
        / measured["dalle2-pytorch", processes].rate
        for processes in PROCESSES
    }
    rates = {f"pictures_per_second_{processes}": measured["sp-data", processes].rate for processes in PROCESSES}
    figures = {
        "pictures": num_pictures,
        **{name: round(ratio, 3) for name, ratio in ratios.items()},
        "over_decode": round(measured["sp-data", 0].rate / bare.rate, 3),
        **{name: round(rate, 1) for name, rate in rates.items()},
    }
    for processes in PROCESSES:
        figures[f"delivered_{processes}"] = measured["sp-data", processes].num_delivered
        figures[f"delivered_dalle2_pytorch_{processes}"] = measured["dalle2-pytorch", processes].num_delivered
    say("\ndalle2-pytorch's call: " + THEIRS.format(last=num_pictures // SAMPLES_PER_SHARD - 1, processes="N", width=3))
    say("distinct samples a second over dalle2-pytorch's: " + ", ".join(f"{ratio:.2f}" for ratio in ratios.values()))
    say(f"over the bare decoder, without processes: {figures['over_decode']:.2f}")
    return figures


def make_dataset(lake: Lake, num_pictures: int) -> tuple[Manifest, list[bytes]]:
    """A dataset manifest with shards as `shard` and `reorder` write them, and the pictures' bytes."""
    layout = KeyLayout.of_shards(SAMPLES_PER_SHARD)
    random = np.random.default_rng(0)
    pictures: list[bytes] = []
    listed = []
    for number in range(num_pictures // SAMPLES_PER_SHARD):
        drawn = [draw(random) for _ in range(SAMPLES_PER_SHARD)]
        pictures += drawn
        name = layout.shard_name(number)
        paths = {"tar": f"shards/{name}.tar"}
        Path(lake.full("shards")).mkdir(parents=True, exist_ok=True)
        samples = [
            (key, {"jpg": picture, "txt": f"picture {key}".encode(), "json": b"{}"})
            for key, picture in ((layout.key(number, row), picture) for row, picture in enumerate(drawn))
        ]
        write_tar(samples, Path(lake.full(paths["tar"])))
        for kind in ("img_emb", "text_emb"):
            paths[kind] = f"reordered/{kind}/{kind}_{name}.npy"
            rows = random.standard_normal((SAMPLES_PER_SHARD, DIM), np.float32)
            Path(lake.full(f"reordered/{kind}")).mkdir(parents=True, exist_ok=True)
            np.save(lake.full(paths[kind]), (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))
        files = {name: {"path": path, "sha256": digest_of(path)} for name, path in paths.items()}
        counts = {"num_rows": SAMPLES_PER_SHARD, "num_samples": SAMPLES_PER_SHARD}
        listed.append({"number": number, "split": "train", **counts, **files})
    details = {"layout": str(layout), "dim": DIM, "tombstones": [], "shards": listed}
    num_all = Counts(in_=num_pictures, out=num_pictures)
    manifest = Manifest.make(stage="verify", version=1, recipe={}, inputs={}, counts=num_all, files=[], details=details)
    return manifest, pictures


def draw(random: np.random.Generator) -> bytes:
    """Soft shapes with some grain: a JPEG of about as many bytes as a drawing's or a photograph's."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
    smooth = np.array(coarse.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC), np.int16)
    grain = random.integers(-6, 7, (SIZE_PX, SIZE_PX, 3), np.int16)
    stream = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def ours(lake: Lake, verified: Manifest, processes: int) -> list[str]:
    """The keys of an epoch."""
    keys: list[str] = []
    with Samples(verified, lake, "train", SIZE_PX) as samples:
        order = Batches(0, len(samples), num_samples=len(samples), batch_size=BATCH_SIZE, seed=0)
        loader = DataLoader(samples, batch_sampler=order, collate_fn=collate, num_workers=processes)
        for moved in loader:
            batch = to_device(moved, torch.device("cpu"))
            check(batch["image"], batch["image_embed"])
            keys += batch["key"]
    return keys


def theirs(make: Callable[[int], DataLoader], processes: int) -> list[str]:
    keys: list[str] = []
    for images, embeddings, batch_keys in make(processes):
        check(images, embeddings["img"])
        keys += batch_keys
    return keys


def check(images: torch.Tensor, embeddings: torch.Tensor) -> None:
    if images.shape[1:] != (3, SIZE_PX, SIZE_PX) or images.dtype != torch.float32 or embeddings.shape[1:] != (DIM,):
        sys.exit(f"pictures came as {images.shape} {images.dtype}, embeddings as {embeddings.shape}")


def load_theirs(lake: Lake, verified: Manifest) -> Callable[[int], DataLoader]:
    # Their package prints when it is imported.
    with contextlib.redirect_stdout(io.StringIO()):
        from dalle2_pytorch.dataloaders import create_image_embedding_dataloader
        from dalle2_pytorch.dataloaders.decoder_loader import ImageEmbeddingDataset
        from torchvision.transforms import ToTensor

    tars = lake.full(f"shards/{{00000..{len(verified.details['shards']) - 1:05d}}}.tar")
    embeddings = lake.full("reordered/img_emb")
    options = {
        "index_width": KeyLayout.parse(verified.details["layout"]).index_width,
        "img_preproc": ToTensor(),
        "extra_keys": ["__key__"],
    }

    def make(processes: int) -> DataLoader:
        if processes:
            return create_image_embedding_dataloader(
                tars, num_workers=processes, batch_size=BATCH_SIZE, img_embeddings_url=embeddings, **options
            )
        # Their function always passes prefetch_factor, which torch refuses without processes. This does the rest of it.
        data = ImageEmbeddingDataset(tars, img_embedding_folder_url=embeddings, shuffle_shards=True, **options)
        return DataLoader(data, batch_size=BATCH_SIZE, pin_memory=torch.cuda.is_available())

    return make


def decode(pictures: list[bytes]) -> None:
    for picture in pictures:
        Image.open(io.BytesIO(picture)).load()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


main()
