"""The loader: each sample once, with its own embeddings; missing samples are left out, wrong files are named."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sp_data.dataset.loader import samples as loader
from sp_data.dataset.loader.samples import Samples
from sp_data.dataset.shards.tars import write_tar
from sp_data.errors import CorruptFile, DuplicateKey, KeyOutsideShard, LakeError, StageNotDone
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.training.loop.sampler import Batches
from sp_data.training.task import Batch, collate, to_device

LAYOUT = KeyLayout(5, 2)
DIM = 4
SIZE_PX = 8
SHARDS = (("train", 7), ("train", 5), ("val", 4), ("train", 6))
"""Split and rows of shards 0 to 3."""
LOST = "0000003"
"""img2dataset could not read this sample: it is not in the tar, and its row is zero."""
NOT_EMBEDDED = "0000102"
"""This sample is in the tar, but its row is zero."""
TOMBSTONES = ("0000005", "0000300")
TRAIN = [LAYOUT.key(shard, row) for shard, rows in ((0, 7), (1, 5), (3, 6)) for row in range(rows)]
LIVE = [key for key in TRAIN if key not in (LOST, NOT_EMBEDDED, *TOMBSTONES)]


def embedding(key: str, sign: int) -> list[float]:
    """A row that says whose it is."""
    number, row = LAYOUT.split(key)
    return [sign, number, row, 0.5]


def jpeg(grey: int, size: tuple[int, int] = (SIZE_PX, SIZE_PX)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (grey, grey, grey)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def sample(key: str) -> tuple[str, dict[str, bytes]]:
    """A picture as bright as its shard and row say, and a caption that names it."""
    number, row = LAYOUT.split(key)
    fields = {"variants": json.dumps([f"{key} again", "ünd"])} if row % 2 else {"variants": "[]"}
    return key, {
        "jpg": jpeg(60 * number + 8 * row),
        "txt": f"kid {key}".encode(),
        "json": json.dumps(fields).encode(),
    }


def write_shard(lake: Lake, number: int, keys: list[str], num_rows: int) -> None:
    tar = Path(lake.full(f"shards/{number:05d}.tar"))
    tar.parent.mkdir(parents=True, exist_ok=True)
    write_tar([sample(key) for key in keys], tar)
    for kind, sign in (("img_emb", 1), ("text_emb", -1)):
        rows = np.zeros((num_rows, DIM), np.float16)
        for key in keys:
            if key != NOT_EMBEDDED:
                rows[LAYOUT.split(key)[1]] = embedding(key, sign)
        path = Path(lake.full(f"reordered/{kind}/{kind}_{number:05d}.npy"))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rows)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"), "kids")
    for number, (_, num_rows) in enumerate(SHARDS):
        keys = [key for key in (LAYOUT.key(number, row) for row in range(num_rows)) if key != LOST]
        write_shard(lake, number, keys, num_rows)
    return lake


@pytest.fixture
def verified(lake: Lake) -> Manifest:
    shards = []
    for number, (split, num_rows) in enumerate(SHARDS):
        paths = {
            "tar": f"shards/{number:05d}.tar",
            "img_emb": f"reordered/img_emb/img_emb_{number:05d}.npy",
            "text_emb": f"reordered/text_emb/text_emb_{number:05d}.npy",
        }
        files = {name: {"path": path, "sha256": lake.sha256(path)} for name, path in paths.items()}
        num_samples = num_rows - (number == 0)
        shards.append({"number": number, "split": split, "num_rows": num_rows, "num_samples": num_samples, **files})
    return Manifest.make(
        stage="verify",
        version=1,
        recipe={},
        inputs={},
        counts=Counts(in_=22, out=22),
        files=[],
        details={"layout": str(LAYOUT), "dim": DIM, "tombstones": list(TOMBSTONES), "shards": shards},
    )


def keys_of(samples: Samples) -> list[str]:
    return [item["key"] for item in samples]


def check(item: dict[str, Any]) -> None:
    """Picture, caption and both embeddings are those of the key."""
    number, row = LAYOUT.split(item["key"])
    assert item["caption"] == f"kid {item['key']}"
    assert item["image_embed"].tolist() == embedding(item["key"], 1)
    assert item["text_embed"].tolist() == embedding(item["key"], -1)
    assert item["image"].shape == (3, SIZE_PX, SIZE_PX)
    assert item["image"].dtype == torch.uint8
    assert abs(float(item["image"].float().mean()) - (60 * number + 8 * row)) < 2


def batches(
    samples: Samples, start: int, stop: int, processes: int = 0, start_method: str | None = None, **options: Any
) -> list[Batch]:
    order = Batches(start, stop, num_samples=len(samples), batch_size=4, seed=3, **options)
    data_loader = DataLoader(
        samples,  # type: ignore[arg-type]
        batch_sampler=order,
        collate_fn=collate,
        num_workers=processes,
        multiprocessing_context=start_method,
    )
    return list(data_loader)


def keys_in(batches_read: list[Batch]) -> list[str]:
    return [str(key) for batch in batches_read for key in batch["key"]]


def test_each_sample_comes_with_its_own_picture_caption_and_embeddings(lake: Lake, verified: Manifest) -> None:
    with Samples(verified, lake, "train", SIZE_PX) as samples:
        items = list(samples)
    assert [item["key"] for item in items] == LIVE
    for item in items:
        check(dict(item))


def test_a_split_is_its_own_shards_and_tombstones_lost_and_zero_rows_are_left_out(
    lake: Lake, verified: Manifest
) -> None:
    with Samples(verified, lake, "train") as train, Samples(verified, lake, "val") as val:
        assert len(train) == len(LIVE) == 14
        assert keys_of(train) == LIVE
        assert keys_of(val) == ["0000200", "0000201", "0000202", "0000203"]
        assert "image" not in val[0]
        with pytest.raises(IndexError, match="sample 4 of 4"):
            val[4]
    with Samples(verified, lake, "test") as test:
        assert len(test) == 0


@pytest.mark.parametrize(
    ("processes", "start_method", "size_px"),
    [(0, None, SIZE_PX), (1, "fork", SIZE_PX), (2, "fork", SIZE_PX), (1, "spawn", None)],
)
def test_an_epoch_is_every_sample_once_whatever_the_number_of_processes(
    lake: Lake, verified: Manifest, processes: int, start_method: str | None, size_px: int | None
) -> None:
    with Samples(verified, lake, "train", size_px) as samples:
        count = len(samples)
        alone = batches(samples, 0, count)
        together = batches(samples, 0, count, processes, start_method)
    assert sorted(keys_in(together)) == LIVE
    assert keys_in(together) == keys_in(alone)
    for batch, same in zip(together, alone, strict=True):
        for name in batch.keys() - {"key", "caption"}:
            assert torch.equal(batch[name], same[name])  # type: ignore[arg-type]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_that_train_together_share_an_epoch(lake: Lake, verified: Manifest, world_size: int) -> None:
    with Samples(verified, lake, "train") as samples:
        shares = [
            keys_in(batches(samples, 0, len(samples), rank=rank, world_size=world_size)) for rank in range(world_size)
        ]
    assert sorted(key for share in shares for key in share) == LIVE
    assert max(map(len, shares)) - min(map(len, shares)) <= 4


def test_a_resumed_stream_goes_on_at_the_very_next_sample(lake: Lake, verified: Manifest) -> None:
    with Samples(verified, lake, "train") as samples:
        whole = keys_in(batches(samples, 0, 40))
    for position in (0, 1, 13, 14, 15, 39, 40):
        with Samples(verified, lake, "train") as again:
            assert keys_in(batches(again, position, 40)) == whole[position:]
    assert whole[:14] != whole[14:28]
    assert sorted(whole[:14]) == sorted(whole[14:28]) == LIVE


def test_pictures_become_floats_between_0_and_1_on_the_device(lake: Lake, verified: Manifest) -> None:
    with Samples(verified, lake, "train", SIZE_PX) as samples:
        batch = to_device(collate([samples[0], samples[13]]), torch.device("cpu"))
        images = batch["image"]
        assert isinstance(images, torch.Tensor)
        assert images.dtype == torch.float32
        assert torch.equal(images[1] * 255, samples[13]["image"].float())


def test_pictures_of_another_size_or_shape_are_scaled_on_white(lake: Lake, verified: Manifest) -> None:
    path = Path(lake.full("shards/00002.tar"))
    wide = sample("0000200")[1] | {"jpg": jpeg(0, (32, 16))}
    write_tar([("0000200", wide), *[sample(f"000020{row}") for row in (1, 2, 3)]], path)
    with Samples(verified, lake, "val", SIZE_PX) as val:
        image = val[0]["image"]
    assert image[:, 0].min() == 255
    assert image[:, -1].min() == 255
    assert image[:, 4].max() < 20


def test_pixels_are_those_that_pillow_reads(lake: Lake, verified: Manifest) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", quality=95)
    coloured = sample("0000200")[1] | {"jpg": stream.getvalue()}
    grey = io.BytesIO()
    Image.fromarray(noise).convert("L").save(grey, "JPEG")
    rest = [sample("0000202"), sample("0000203")]
    files = [("0000200", coloured), ("0000201", sample("0000201")[1] | {"jpg": grey.getvalue()}), *rest]
    write_tar(files, Path(lake.full("shards/00002.tar")))
    with Samples(verified, lake, "val", SIZE_PX) as val:
        for index, data in enumerate((stream, grey)):
            pixels = np.array(Image.open(data).convert("RGB"))
            assert np.array_equal(val[index]["image"].permute(1, 2, 0).numpy(), pixels)


def test_variants_are_read_when_asked_for(lake: Lake, verified: Manifest) -> None:
    with Samples(verified, lake, "val") as val:
        assert val.variants(0) == ()
        assert val.variants(1) == ("0000201 again", "ünd")
        assert val[1]["caption"] == "kid 0000201"


def test_few_files_are_open_at_a_time(lake: Lake, verified: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "max_open_shards", lambda: 1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Samples(verified, lake, "train", SIZE_PX) as samples:
        for index in (0, 13, 1, 7, 12, 2):
            check(dict(samples[index]))
            assert len(list(Path("/proc/self/fd").iterdir())) <= before + loader.FILES_A_SHARD
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_tar_is_walked_through_once(lake: Lake, verified: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    with Samples(verified, lake, "train") as samples:
        first = keys_of(samples)
    assert len(lake.list("index")) == 3

    def walk(*_: object) -> None:
        raise AssertionError("a tar is read again")

    monkeypatch.setattr(loader, "index_tar", walk)
    with Samples(verified, lake, "train") as samples:
        assert keys_of(samples) == first
    # Tombstones are not part of the index: another snapshot has others.
    later = verified.model_copy(update={"details": {**verified.details, "tombstones": []}})
    with Samples(later, lake, "train") as samples:
        assert keys_of(samples) == [key for key in TRAIN if key not in (LOST, NOT_EMBEDDED)]


def test_an_index_that_cannot_be_read_is_made_again(lake: Lake, verified: Manifest) -> None:
    with Samples(verified, lake, "val") as val:
        first = keys_of(val)
    (index,) = lake.list("index")
    kept = lake.read_bytes(index)
    Path(lake.full(index)).write_bytes(kept[:90])
    with Samples(verified, lake, "val") as val:
        assert keys_of(val) == first
    assert lake.read_bytes(index) == kept


def test_a_lake_that_cannot_be_written_is_read_all_the_same(
    lake: Lake, verified: Manifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise LakeError("it is read-only")

    monkeypatch.setattr(lake, "write_bytes", refuse)
    with caplog.at_level(logging.WARNING), Samples(verified, lake, "train", SIZE_PX) as samples:
        assert sorted(keys_in(batches(samples, 0, len(samples)))) == LIVE
    assert "it is read-only" in caplog.text


def test_a_missing_file_is_named(lake: Lake, verified: Manifest) -> None:
    lake.remove("reordered/text_emb/text_emb_00001.npy")
    with pytest.raises(StageNotDone, match=r"text_emb_00001\.npy is missing"):
        Samples(verified, lake, "train")


def test_embeddings_of_another_shape_are_named(lake: Lake, verified: Manifest) -> None:
    np.save(lake.full("reordered/img_emb/img_emb_00001.npy"), np.ones((5, DIM + 1), np.float16))
    with pytest.raises(CorruptFile, match=r"img_emb_00001\.npy holds \(5, 5\), the dataset manifest says \(5, 4\)"):
        Samples(verified, lake, "train")
    Path(lake.full("reordered/img_emb/img_emb_00001.npy")).write_bytes(b"no array")
    with pytest.raises(CorruptFile, match=r"img_emb_00001\.npy is no whole \.npy file"):
        Samples(verified, lake, "train")


@pytest.mark.parametrize(
    ("keys", "error", "sentence"),
    [
        (["0000200", "0000201", "0000202", "0000303"], KeyOutsideShard, "key 0000303 is of another shard"),
        (["0000200", "0000201", "0000202", "0000204"], KeyOutsideShard, "key 0000204 is of another shard"),
        (["0000200", "0000201", "0000202", "02-03"], KeyOutsideShard, "'02-03' is not made of 7 digits"),
        (["0000200", "0000201", "0000202"], CorruptFile, "holds 3 samples, the dataset manifest says 4"),
        (["0000200", "0000201", "0000202", "0000202"], DuplicateKey, r"0000202\.jpg comes twice"),
    ],
)
def test_a_tar_that_is_of_another_shard_or_lacks_a_sample_is_named(
    lake: Lake, verified: Manifest, keys: list[str], error: type[Exception], sentence: str
) -> None:
    parts = sample("0000200")[1]
    write_tar([(key, parts) for key in keys], Path(lake.full("shards/00002.tar")))
    with pytest.raises(error, match=rf"shards/00002\.tar.*{sentence}"):
        Samples(verified, lake, "val")


@pytest.mark.parametrize("indexed", [False, True])
def test_a_cut_tar_is_named(lake: Lake, verified: Manifest, indexed: bool) -> None:
    tar = Path(lake.full("shards/00002.tar"))
    if indexed:
        Samples(verified, lake, "val").close()
    whole = tar.read_bytes()
    tar.write_bytes(whole[: whole.index(b"kid 0000203")])
    with pytest.raises(CorruptFile, match=r"shards/00002\.tar (is|was) cut"):
        Samples(verified, lake, "val")


def test_a_file_that_is_no_tar_is_named(lake: Lake, verified: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    for data in (b"", b"<html>" * 400):
        Path(lake.full("shards/00002.tar")).write_bytes(data)
        with pytest.raises(CorruptFile, match=r"shards/00002\.tar"):
            Samples(verified, lake, "val")
    assert capsys.readouterr().out == ""


def test_samples_that_changed_places_since_they_were_indexed_are_named(lake: Lake, verified: Manifest) -> None:
    Samples(verified, lake, "val").close()
    order = ["0000201", "0000200", "0000202", "0000203"]
    write_tar([sample(key) for key in order], Path(lake.full("shards/00002.tar")))
    with (
        Samples(verified, lake, "val", SIZE_PX) as val,
        pytest.raises(CorruptFile, match=r"00002\.tar: 0000200\.txt is not where it was .*there is '0000201\.txt'"),
    ):
        val[0]


def test_a_row_that_became_zero_is_named(lake: Lake, verified: Manifest) -> None:
    Samples(verified, lake, "val").close()
    path = lake.full("reordered/img_emb/img_emb_00002.npy")
    rows = np.load(path)
    rows[3] = 0
    np.save(path, rows)
    with (
        Samples(verified, lake, "val") as val,
        pytest.raises(CorruptFile, match=r"00002\.tar: row 3 of its img_emb, .* key 0000203, became zero"),
    ):
        val[3]


def test_a_picture_that_cannot_be_decoded_is_named(lake: Lake, verified: Manifest) -> None:
    broken = sample("0000201")[1]
    broken["jpg"] = broken["jpg"][:200]
    rest = [sample(f"000020{row}") for row in (0, 2, 3)]
    write_tar([rest[0], ("0000201", broken), *rest[1:]], Path(lake.full("shards/00002.tar")))
    with (
        Samples(verified, lake, "val", SIZE_PX) as val,
        pytest.raises(CorruptFile, match=r"00002\.tar: 0000201\.jpg cannot be decoded \(.+\)"),
    ):
        val[1]
