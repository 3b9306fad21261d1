"""Exports, read back by the programs they are made for.

The dataset is made by hand so that a wrong pairing shows: a picture's colour, its caption and both its embeddings name
its key. Five shards; each has an index that failed, some have a tombstone or a picture without embedding.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sp_data.dataset.shards.tars import read_tar, write_tar
from sp_data.errors import StageError, UsageError
from sp_data.exchange.export.base import Written
from sp_data.exchange.export.dalle2_config import shares
from sp_data.exchange.export.run import MARK, ExportJob, ExportResult, export, form_of, write_shard
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.recipe import Recipe, load_recipe

LAYOUT = KeyLayout(5, 2)
DIM = 8
SPLITS = {0: "train", 1: "val", 4: "train", 7: "test", 9: "train"}
"""Shard -> split. Numbers have gaps, as after a compaction."""
SIZE = 12
FAILED, TOMBSTONE, LOST = 3, 5, 7
"""Indices: failed in every shard, tombstoned in shards 4 and 7, without embedding in shard 4."""
ALL_DEAD = 9
"""Every sample of this shard has a tombstone."""


def colour(shard: int, index: int) -> tuple[int, int, int]:
    return 20 * shard, 20 * index, 100


def row(shard: int, index: int, kind: str) -> np.ndarray:
    """An embedding that encodes its key; a text embedding is the negative of the image embedding."""
    embedding = np.zeros(DIM, np.float16)
    embedding[:3] = shard + 1, index + 1, 1
    return embedding if kind == "img_emb" else -embedding


def key_of_embedding(embedding: Any) -> str:
    numbers = np.abs(np.asarray(embedding, np.float32))
    return LAYOUT.key(int(numbers[0]) - 1, int(numbers[1]) - 1)


def key_of(picture: Any) -> str:
    """The key that the colour of a `(3, h, w)` picture in 0..1 names."""
    red, green, _ = np.asarray(picture).mean(axis=(1, 2)) * 255
    return LAYOUT.key(round(float(red) / 20), round(float(green) / 20))


def alive(shard: int, index: int) -> bool:
    dead = {FAILED} | ({TOMBSTONE} if shard in (4, 7) else set()) | ({LOST} if shard == 4 else set())
    return index not in dead and shard != ALL_DEAD


ALIVE = {split: [] for split in ("train", "val", "test")} | {
    split: [LAYOUT.key(n, i) for n, s in SPLITS.items() if s == split for i in range(SIZE) if alive(n, i)]
    for split in ("train", "val", "test")
}
EVERY = sorted(key for keys in ALIVE.values() for key in keys)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(str(tmp_path_factory.mktemp("export") / "lake"), "hand")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("demo", [f"embed.dim={DIM}"]).model_copy(update={"name": "hand"})


@pytest.fixture(scope="module")
def verified(lake: Lake) -> Manifest:
    shards = [make_shard(lake, number, split) for number, split in SPLITS.items()]
    dead = [LAYOUT.key(number, TOMBSTONE) for number in (4, 7)] + [LAYOUT.key(ALL_DEAD, i) for i in range(SIZE)]
    return Manifest.make(
        stage="verify",
        version=1,
        recipe={},
        inputs={},
        counts=Counts(in_=0, out=0),
        files=[],
        details={
            "layout": str(LAYOUT),
            "clip": "hand",
            "clip_model": "ViT-L/14",
            "dim": DIM,
            "dtype": "float16",
            "tombstones": sorted(dead),
            "shards": shards,
        },
    )


def make_shard(lake: Lake, number: int, split: str) -> dict[str, Any]:
    name = LAYOUT.shard_name(number)
    samples, rows = [], []
    for index in range(SIZE):
        key = LAYOUT.key(number, index)
        fields = {
            "key": key,
            "status": "failed_to_download" if index == FAILED else "success",
            "caption": f"a picture\nof {key}",
            "split": split,
            "title": f"File:{key}.png",
            "page": f"Page {key}",
            "revision": number,
            "licence": "Fairuse",
            "uploader": "Ada",
            "url": f"https://example.org/{key}.png",
            "sha1": f"{number:039d}{index:x}",
        }
        rows.append(fields)
        if index != FAILED:
            picture = io.BytesIO()
            Image.new("RGB", (16, 16), colour(number, index)).save(picture, "JPEG", quality=95)
            parts = {"jpg": picture.getvalue(), "txt": fields["caption"].encode(), "json": json.dumps(fields).encode()}
            samples.append((key, parts))
    with lake.scratch("hand") as folder:
        write_tar(samples, folder / "tar")
        pq.write_table(pa.Table.from_pylist(rows), folder / "parquet")
        lake.publish(folder / "tar", f"shards/{name}.tar")
        lake.publish(folder / "parquet", f"shards/{name}.parquet")
        for kind in ("img_emb", "text_emb"):
            embeddings = np.stack([row(number, index, kind) for index in range(SIZE)])
            embeddings[[FAILED, LOST] if number == 4 else [FAILED]] = 0
            np.save(folder / "rows.npy", embeddings)
            lake.publish(folder / "rows.npy", f"reordered/hand/{kind}/{kind}_{name}.npy")
    paths = {"tar": f"shards/{name}.tar", "parquet": f"shards/{name}.parquet"}
    paths |= {kind: f"reordered/hand/{kind}/{kind}_{name}.npy" for kind in ("img_emb", "text_emb")}
    files = {kind: {"path": path, "sha256": ""} for kind, path in paths.items()}
    return {"number": number, "split": split, "num_rows": SIZE, "num_samples": SIZE - 1, **files}


def exported(to: str, verified: Manifest, recipe: Recipe, lake: Lake, target: Path, **options: Any) -> ExportResult:
    form = form_of(to, verified, recipe, embeddings_in_tars=options.pop("embeddings_in_tars", False))
    return export(verified, form, lake, target, to=to, **options)


@pytest.fixture(scope="module")
def dalle2(verified: Manifest, recipe: Recipe, lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dalle2") / "export"
    result = exported("dalle2-pytorch", verified, recipe, lake, target)
    assert result.splits == {split: len(keys) for split, keys in ALIVE.items()}
    assert result.dropped == {"tombstone": 2 + SIZE - 1, "no embedding": 1}
    return target


@pytest.fixture(scope="module")
def decoder_config(dalle2: Path) -> Any:
    from dalle2_pytorch.train_configs import TrainDecoderConfig

    return TrainDecoderConfig.from_json_path(str(dalle2 / "train_decoder_config.json"))


@pytest.fixture(scope="module")
def prior_config(dalle2: Path) -> Any:
    from dalle2_pytorch.train_configs import TrainDiffusionPriorConfig

    return TrainDiffusionPriorConfig.from_json_path(str(dalle2 / "train_prior_config.json"))


def decoder_samples(data: Any, urls: list[str], **more: Any) -> Iterator[tuple[Any, Any, str]]:
    """(picture, embedding, caption) of each sample, by dalle2-pytorch's own dataset."""
    from dalle2_pytorch.dataloaders import ImageEmbeddingDataset

    yield from ImageEmbeddingDataset(
        urls,
        img_embedding_folder_url=data.img_embeddings_url,
        index_width=data.index_width,
        img_preproc=data.img_preproc,
        extra_keys=["txt"],
        shuffle_shards=False,
        **more,
    )


def tar_urls(data: Any) -> list[str]:
    numbers = range(data.start_shard, data.end_shard + 1)
    return [data.webdataset_base_url.format(str(number).zfill(data.shard_width)) for number in numbers]


def test_the_decoders_loader_pairs_every_live_picture_with_its_own_embedding_and_caption(decoder_config: Any) -> None:
    """The loader is not told to go on after an error: every sample has its row."""
    data = decoder_config.data
    samples = [
        (key_of(picture), key_of_embedding(emb["img"]), text)
        for picture, emb, text in decoder_samples(data, tar_urls(data))
    ]
    assert [picture for picture, _, _ in samples] == [embedding for _, embedding, _ in samples]
    assert [text for _, _, text in samples] == [f"a picture\nof {key}" for key, _, _ in samples]
    assert sorted(key for key, _, _ in samples) == EVERY


def test_the_decoders_dataloader_gives_each_sample_once_as_configured(decoder_config: Any) -> None:
    from dalle2_pytorch.dataloaders import create_image_embedding_dataloader

    data = decoder_config.data
    loader = create_image_embedding_dataloader(
        tar_urls(data),
        data.num_workers,
        batch_size=4,
        img_embeddings_url=data.img_embeddings_url,
        index_width=data.index_width,
        img_preproc=data.img_preproc,
        extra_keys=["txt"],
    )
    pairs = []
    for pictures, emb, texts in loader:
        assert pictures.shape[1:] == (3, 64, 64)
        pairs += [(key_of(picture), key_of_embedding(row)) for picture, row in zip(pictures, emb["img"], strict=True)]
        assert [f"a picture\nof {key_of(picture)}" for picture in pictures] == list(texts)
    assert all(picture == embedding for picture, embedding in pairs)
    assert sorted(picture for picture, _ in pairs) == EVERY


def test_the_decoders_script_draws_our_split(decoder_config: Any) -> None:
    """The split is drawn as create_dataloaders in dalle2-pytorch's train_decoder.py draws it."""
    import torch

    data, splits = decoder_config.data, decoder_config.data.splits
    available = list(range(data.start_shard, data.end_shard + 1))
    assert splits.train + splits.test + splits.val == 1
    sizes = [round(splits.train * len(available)), round(splits.test * len(available))]
    sizes.append(len(available) - sum(sizes))
    drawn = torch.utils.data.random_split(
        available, sizes, generator=torch.Generator().manual_seed(decoder_config.seed)
    )
    for split, numbers in zip(("train", "test", "val"), drawn, strict=True):
        urls = [data.webdataset_base_url.format(str(number).zfill(data.shard_width)) for number in numbers]
        assert sorted(key_of(picture) for picture, _, _ in decoder_samples(data, urls)) == ALIVE[split]


def test_a_tombstone_is_a_row_of_zeros_for_the_decoder_and_no_sample(dalle2: Path) -> None:
    for shard in json.loads((dalle2 / MARK).read_text())["shards"]:
        number = shard["number"]
        in_tar = {key for key, _ in read_tar(dalle2 / f"shards/{number:05d}.tar")}
        for kind in ("img_emb", "text_emb"):
            rows = np.load(dalle2 / f"decoder/{kind}/{kind}_{number:05d}.npy")
            assert (rows.shape, rows.dtype) == ((SIZE, DIM), np.float16)
            assert {LAYOUT.key(int(shard["shard"]), int(i)) for i in np.flatnonzero(rows.any(axis=1))} == in_tar
    assert not (dalle2 / "shards/00004.tar").exists()


def test_the_priors_loaders_pair_every_live_row_with_its_caption_and_split_as_we_do(prior_config: Any) -> None:
    from dalle2_pytorch.dataloaders import get_reader, make_splits

    data = prior_config.data
    images = get_reader(text_conditioned=True, img_url=data.image_url, meta_url=data.meta_url)
    assert images.count == data.num_data_points == len(EVERY)
    for embeddings, metadata in images(batch_size=7, show_progress=False):
        assert [f"a picture\nof {key_of_embedding(row)}" for row in embeddings] == metadata["caption"].to_list()

    images, texts = get_reader(
        text_conditioned=False, img_url=data.image_url, txt_url=data.image_url.replace("img_emb", "text_emb")
    )
    loaders = make_splits(
        text_conditioned=False,
        batch_size=5,
        num_data_points=data.num_data_points,
        train_split=data.splits.train,
        eval_split=data.splits.val,
        image_reader=images,
        text_reader=texts,
    )
    for split, loader in zip(("train", "val", "test"), loaders, strict=True):
        keys = []
        for image, text in loader:
            np.testing.assert_array_equal(image, -text)
            keys += [key_of_embedding(row) for row in image]
        assert sorted(keys) == ALIVE[split]


def test_the_configurations_make_models_of_the_datasets_width(decoder_config: Any, prior_config: Any) -> None:
    assert decoder_config.decoder.unets[0].image_embed_dim == prior_config.prior.image_embed_dim == DIM
    assert decoder_config.data.index_width == LAYOUT.index_width
    assert (prior_config.prior.clip.make, prior_config.prior.clip.model) == ("openai", "ViT-L/14")
    assert decoder_config.decoder.create().unets[0].image_to_tokens[0].in_features == DIM
    assert prior_config.prior.net.create().dim == DIM


def test_with_embeddings_in_the_tars_each_lies_beside_its_picture(
    verified: Manifest, recipe: Recipe, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read by dalle2-pytorch's own dataset, in both ways it offers."""
    from dalle2_pytorch.dataloaders import ImageEmbeddingDataset
    from dalle2_pytorch.train_configs import TrainDecoderConfig
    from webdataset import autodecode

    target = tmp_path / "in-tars"
    exported("dalle2-pytorch", verified, recipe, lake, target, embeddings_in_tars=True)
    data = TrainDecoderConfig.from_json_path(str(target / "train_decoder_config.json")).data
    assert data.img_embeddings_url is None
    assert not (target / "decoder").exists()
    dataset = ImageEmbeddingDataset(
        tar_urls(data), img_preproc=data.img_preproc, extra_keys=["npy", "txt"], shuffle_shards=False
    )
    samples = [(key_of(picture), key_of_embedding(embedding), text) for picture, _, embedding, text in dataset]
    assert samples == [(key, key, f"a picture\nof {key}") for key, _, _ in samples]
    assert sorted(key for key, _, _ in samples) == EVERY
    for extension in ("img_emb", "text_emb"):
        monkeypatch.setitem(autodecode.decoders, extension, autodecode.decoders["npy"])
    for picture, emb, _ in decoder_samples(data, tar_urls(data)):
        assert key_of(picture) == key_of_embedding(emb["img"]) == key_of_embedding(emb["text"])
        assert emb["img"][0] > 0 > emb["text"][0]


def test_an_imagefolder_names_each_picture_with_its_caption_and_where_it_is_from(
    verified: Manifest, recipe: Recipe, lake: Lake, tmp_path: Path
) -> None:
    exported("imagefolder", verified, recipe, lake, tmp_path / "folder")
    for split, keys in ALIVE.items():
        lines = [json.loads(line) for line in (tmp_path / "folder" / split / "metadata.jsonl").open()]
        assert sorted(line["key"] for line in lines) == keys
        assert len(list((tmp_path / "folder" / split).rglob("*.jpg"))) == len(keys)
        for line in lines:
            with Image.open(tmp_path / "folder" / split / line["file_name"]) as picture:
                assert key_of(np.asarray(picture).transpose(2, 0, 1) / 255) == line["key"]
            assert line["text"] == f"a picture\nof {line['key']}"
            assert (line["title"], line["page"]) == (f"File:{line['key']}.png", f"Page {line['key']}")
            assert (line["licence"], line["uploader"], len(line["sha1"])) == ("Fairuse", "Ada", 40)


def test_kohyas_folders_hold_a_caption_of_one_line_beside_each_picture(
    verified: Manifest, recipe: Recipe, lake: Lake, tmp_path: Path
) -> None:
    result = exported("kohya", verified, recipe, lake, tmp_path / "kohya", splits=("train",))
    assert result.splits == {"train": len(ALIVE["train"])}
    folder = tmp_path / "kohya" / "train" / "1_hand"
    assert sorted(path.stem for path in folder.glob("*.jpg")) == ALIVE["train"]
    assert {path.stem: path.read_text() for path in folder.glob("*.txt")} == {
        key: f"a picture of {key}" for key in ALIVE["train"]
    }
    attributions = [json.loads(line) for line in (tmp_path / "kohya" / "attribution.jsonl").open()]
    assert sorted(Path(line["file_name"]).stem for line in attributions) == ALIVE["train"]
    assert all((tmp_path / "kohya" / line["file_name"]).exists() and line["licence"] for line in attributions)


def test_a_folder_of_someone_elses_is_left_alone_and_an_earlier_export_is_replaced(
    verified: Manifest, recipe: Recipe, lake: Lake, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(StageError, match="holds something that is no export"):
        exported("kohya", verified, recipe, lake, tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]
    exported("kohya", verified, recipe, lake, tmp_path / "out")
    exported("imagefolder", verified, recipe, lake, tmp_path / "out", splits=("val",))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MARK, "val"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_an_export_that_fails_half_way_leaves_nothing(
    verified: Manifest, recipe: Recipe, lake: Lake, tmp_path: Path
) -> None:
    tar = Path(lake.full("shards/00007.tar"))
    aside = tar.rename(tmp_path / "aside.tar")
    try:
        with pytest.raises(FileNotFoundError):
            exported("imagefolder", verified, recipe, lake, tmp_path / "out")
    finally:
        aside.rename(tar)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_argument_is_a_usage_error(verified: Manifest, recipe: Recipe, lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one of dalle2-pytorch, imagefolder, kohya"):
        exported("webdataset", verified, recipe, lake, tmp_path)
    with pytest.raises(UsageError, match="imagefolder has no embeddings"):
        exported("imagefolder", verified, recipe, lake, tmp_path, embeddings_in_tars=True)
    with pytest.raises(UsageError, match="expected one of train, val, test"):
        exported("kohya", verified, recipe, lake, tmp_path, splits=("dev",))


@pytest.mark.parametrize("counts", [(70, 20, 10), (1, 1, 1), (18, 1, 1), (99_999_998, 1, 1), (7, 0, 3), (7, 3, 0)])
def test_shares_add_up_to_one_and_come_back_as_the_counts(counts: tuple[int, int, int]) -> None:
    split, total = shares(*counts), sum(counts)
    assert split["train"] + split["val"] + split["test"] == split["train"] + split["test"] + split["val"] == 1
    assert (round(split["train"] * total), round(split["test"] * total)) == (counts[0], counts[2])
    if all(counts):  # the prior's loader needs all three
        assert split["train"] + split["val"] < 1
        assert (int(split["train"] * total), int(split["val"] * total)) == counts[:2]


def test_an_unchanged_shard_is_not_copied_where_a_link_can_be_made(dalle2: Path, lake: Lake) -> None:
    shards = {shard["shard"]: shard["number"] for shard in json.loads((dalle2 / MARK).read_text())["shards"]}
    linked = dalle2 / f"shards/{shards['00000']:05d}.tar"
    assert linked.samefile(lake.full("shards/00000.tar"))
    with tarfile.open(dalle2 / f"shards/{shards['00004']:05d}.tar") as tar:
        assert f"{LAYOUT.key(4, TOMBSTONE)}.jpg" not in tar.getnames()


@pytest.mark.parametrize("to", ["dalle2-pytorch", "imagefolder", "kohya"])
def test_a_shard_that_is_written_again_is_the_same(
    to: str, verified: Manifest, recipe: Recipe, lake: Lake, tmp_path: Path
) -> None:
    """As when a machine is lost during its job and another machine does the job again."""
    form, shard = form_of(to, verified, recipe), verified.details["shards"][0]
    layout = KeyLayout.parse(verified.details["layout"])
    dim = int(verified.details["dim"])
    job = ExportJob(lake.url, lake.dataset, layout, dim, shard, frozenset(), form.writer, tmp_path)
    first = write_shard(job)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert write_shard(job) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_earlier_export_is_put_back_after_a_kill_during_its_replacement(
    verified: Manifest, recipe: Recipe, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "kids"
    exported("kohya", verified, recipe, lake, target)
    # What a kill between two renames leaves; no process has this number.
    target.rename(tmp_path / ".kids.before-99999999")
    (tmp_path / ".kids.export-99999999").mkdir()

    def full(_job: ExportJob) -> Written:
        raise StageError("no space")

    with monkeypatch.context() as patch, pytest.raises(StageError, match="no space"):
        patch.setattr("sp_data.exchange.export.run.write_shard", full)
        exported("imagefolder", verified, recipe, lake, target)
    assert [path.name for path in tmp_path.iterdir()] == ["kids"]
    assert (target / "attribution.jsonl").exists(), "the earlier export"
    exported("imagefolder", verified, recipe, lake, target)
    assert [path.name for path in tmp_path.iterdir()] == ["kids"]
    assert (target / "train/metadata.jsonl").exists()
