"""Tars, tables and folders as other programs write them, and as someone with bad intentions does: taken, or refused in
one sentence that names the file and the cure; never half."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import few_and_many, fuzz, mutated
from PIL import Image

from sp_data import manifest as manifests
from sp_data.dataset.loader import Samples
from sp_data.dataset.shards.tars import read_tar
from sp_data.errors import CorruptFile, LayoutError, SpDataError
from sp_data.exchange.export.run import export, form_of
from sp_data.exchange.imports.run import ImportRequest, import_dataset
from sp_data.kept_recipe import recall_recipe
from sp_data.lake import Lake

SHARDS, SAMPLES, DIM = 3, 4, 128
Member = tuple[tarfile.TarInfo, bytes]


def picture(number: int, form: str = "JPEG") -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def members_of(path: Path) -> list[Member]:
    with tarfile.open(path) as tar:
        return [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def rewrite(path: Path, edit: Callable[[list[Member]], list[Member]], form: int = tarfile.USTAR_FORMAT) -> None:
    members = edit(members_of(path))
    with tarfile.open(path, "w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))


def renamed(rename: Callable[[str], str], *extra: Member) -> Callable[[list[Member]], list[Member]]:
    return lambda members: [*extra, *(member(rename(info.name), data) for info, data in members)]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """img2dataset's folder and clip-retrieval's, as small as they can be."""
    root = tmp_path_factory.mktemp("foreign") / "theirs"
    (root / "shards").mkdir(parents=True)
    keys, captions = [], []
    for shard in range(SHARDS):
        rows = []
        with tarfile.open(root / f"shards/{shard:05d}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for index in range(SAMPLES):
                key, caption = f"{shard:05d}{index}", f"a kid {shard} {index}"
                row = {"url": f"http://x.example/{key}.jpg", "caption": caption, "key": key, "status": "success"}
                row |= {"error_message": None, "width": 32, "height": 32, "sha256": key}
                rows.append(row)
                files = ((".jpg", picture(shard * 10 + index)), (".txt", caption.encode()))
                for extension, data in (*files, (".json", json.dumps(row).encode())):
                    info, _ = member(key + extension, data)
                    info.mtime = 1.5  # img2dataset's tars have a header of times beside each file
                    tar.addfile(info, io.BytesIO(data))
                keys.append(key)
                captions.append(caption)
        pq.write_table(pa.Table.from_pylist(rows), root / f"shards/{shard:05d}.parquet")
        (root / f"shards/{shard:05d}_stats.json").write_text("{}")
    rng = np.random.default_rng(0)
    for kind in ("img_emb", "text_emb"):
        (root / "emb" / kind).mkdir(parents=True)
        rows_of_kind = rng.normal(size=(len(keys), DIM))
        rows_of_kind /= np.linalg.norm(rows_of_kind, axis=1, keepdims=True)
        np.save(root / f"emb/{kind}/{kind}_0.npy", rows_of_kind.astype(np.float16))
    (root / "emb/metadata").mkdir()
    pq.write_table(pa.table({"image_path": keys, "caption": captions}), root / "emb/metadata/metadata_0.parquet")
    return root


@pytest.fixture
def copy(theirs: Path, tmp_path: Path) -> Path:
    shutil.copytree(theirs, tmp_path / "theirs")
    return tmp_path / "theirs"


def imported(root: Path, lake: str = "lake") -> tuple[Lake, int, dict[str, int]]:
    """The dataset, how many of its pictures the loader gives, and what was dropped."""
    dataset = Lake(str(root.parent / lake), "x")
    result, tally = import_dataset(ImportRequest(root / "shards", root / "emb", "x", "demo", reembed=0), dataset)
    count = 0
    for split in ("train", "val", "test"):
        with Samples(result.manifest, dataset, split, 32) as samples:
            count += sum(1 for sample in map(samples.__getitem__, range(len(samples))) if sample["caption"])
    return dataset, count, dict(tally.dropped)


def jpeg_upper_case(root: Path) -> None:
    rewrite(root / "shards/00001.tar", renamed(lambda name: name.replace(".jpg", ".JPG")))


def jpeg_spelt_out(root: Path) -> None:
    rewrite(root / "shards/00001.tar", renamed(lambda name: name.replace(".jpg", ".jpeg")))


def made_with_tar_dot(root: Path) -> None:
    rewrite(root / "shards/00001.tar", renamed(lambda name: f"./{name}", member(".", kind=tarfile.DIRTYPE)))


def made_on_a_mac(root: Path) -> None:
    rewrite(
        root / "shards/00001.tar",
        lambda members: [both for info, data in members for both in (member(f"._{info.name}", b"Mac"), (info, data))],
    )


def gnu_format(root: Path) -> None:
    rewrite(root / "shards/00001.tar", list, tarfile.GNU_FORMAT)


def another_file_of_a_sample(root: Path) -> None:
    rewrite(root / "shards/00001.tar", lambda members: [*members, member("000013.seg.npy", b"x")])


def tars_alone(root: Path) -> None:
    for path in [*(root / "shards").glob("*.parquet"), *(root / "shards").glob("*.json")]:
        path.unlink()


def dictionaries(root: Path) -> None:
    path = root / "emb/metadata/metadata_0.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.table({name: table[name].dictionary_encode() for name in table.schema.names}), path)
    path = root / "shards/00001.parquet"
    table = pq.read_table(path)
    for name in ("key", "caption", "status"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].dictionary_encode())
    pq.write_table(table, path)


def floats_and_strange_columns(root: Path) -> None:
    path = root / "shards/00001.parquet"
    table = pq.read_table(path)
    table = table.set_column(
        table.schema.get_field_index("width"), "width", pa.array([32.0, float("nan"), None, 2.0**70])
    )
    table = table.append_column("variants", pa.array(["{", "3", "[1]", "null"]))
    pq.write_table(table.append_column("exif", pa.array([{"a": [1]}] * SAMPLES)), path)


@pytest.mark.parametrize(
    "odd",
    [
        jpeg_upper_case,
        jpeg_spelt_out,
        made_with_tar_dot,
        made_on_a_mac,
        gnu_format,
        another_file_of_a_sample,
        tars_alone,
        dictionaries,
        floats_and_strange_columns,
    ],
)
def test_what_is_only_written_otherwise_is_taken_whole(copy: Path, odd: Callable[[Path], None]) -> None:
    odd(copy)
    before = {path.name: path.read_bytes() for path in (copy / "shards").glob("*")}
    lake, count, dropped = imported(copy)
    assert (count, dropped) == (SHARDS * SAMPLES, {})
    assert {path.name: path.read_bytes() for path in (copy / "shards").glob("*")} == before, "theirs is not touched"
    parts = dict(read_tar(Path(lake.full("shards/00001.tar"))))
    assert parts["000012"]["jpg"] == picture(12), "the pictures are theirs, byte for byte"


def packed(pack: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / "shards/00001.tar"
        path.write_bytes(pack(path.read_bytes()))

    return spoil


def with_member(extra: Member) -> Callable[[Path], None]:
    return lambda root: rewrite(root / "shards/00001.tar", lambda members: [*members, extra])


def sparse(root: Path) -> None:
    info, data = member("000012.bin", b"0\n".ljust(512, b"\0"))
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "000012.bin"}
    info.pax_headers["GNU.sparse.realsize"] = str(1 << 41)
    rewrite(root / "shards/00001.tar", lambda members: [*members, (info, data)], tarfile.PAX_FORMAT)


def other_pictures(form: str) -> Callable[[Path], None]:
    return lambda root: rewrite(root / "shards/00001.tar", renamed(lambda name: name.replace(".jpg", f".{form}")))


def column(name: str, values: list[object]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / "shards/00001.parquet"
        table = pq.read_table(path)
        position = table.schema.get_field_index(name)
        pq.write_table(table.set_column(position, name, pa.array(values)), path)

    return spoil


def keys_in_metadata(rename: Callable[[str], object]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / "emb/metadata/metadata_0.parquet"
        table = pq.read_table(path)
        keys = pa.array([rename(key) for key in table["image_path"].to_pylist()])
        pq.write_table(table.set_column(0, "image_path", keys), path)

    return spoil


def link_out(root: Path) -> None:
    path = root / "shards/00001_stats.json"
    path.unlink()
    path.symlink_to("/etc/hostname")


def a_pipe(root: Path) -> None:
    (root / "shards/00001.tar").unlink()
    os.mkfifo(root / "shards/00001.tar")


def negative_size(root: Path) -> None:
    """A size that leads a reader back to the same header, for ever."""
    path = root / "shards/00001.tar"
    data = bytearray(path.read_bytes())
    data[124:136] = b"-00000001000"
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)


TAR = r"00001\.tar"
METADATA = r"metadata_0\.parquet row 0"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (packed(gzip.compress), TAR + r" is compressed \(gzip\)"),
        (packed(lzma.compress), TAR + r" is compressed \(xz\)"),
        (packed(bz2.compress), TAR + r" is compressed \(bzip2\)"),
        (packed(lambda data: pa.compress(data, codec="zstd", asbytes=True)), TAR + r" is compressed \(zstd\)"),
        (packed(lambda data: data[:700]), TAR),
        (packed(lambda data: b""), TAR),
        (negative_size, TAR),
        (sparse, TAR + r" holds a sparse file"),
        (with_member(member("000012.cls", kind=tarfile.SYMTYPE, link="/etc/passwd")), TAR + r" holds a link"),
        (with_member(member("000012.cls", kind=tarfile.LNKTYPE, link="/etc/passwd")), TAR + r" holds a link"),
        (with_member(member("000012.cls", kind=tarfile.CHRTYPE)), TAR + r" holds a device"),
        (with_member(member("000012.cls", kind=tarfile.FIFOTYPE)), TAR + r" holds a device or a pipe"),
        (with_member(member("data", kind=tarfile.DIRTYPE)), TAR + r" holds a folder"),
        (with_member(member("data/000012.cls", b"x")), TAR + r" holds 'data/000012.cls': expected names KEY"),
        (with_member(member("../000012.cls", b"x")), TAR + r" holds '\.\./000012.cls': expected names KEY"),
        (with_member(member("/000012.cls", b"x")), TAR + r" holds '/000012.cls': expected names KEY"),
        (with_member(member("readme", b"x")), TAR + r" holds 'readme': expected names KEY"),
        (with_member(member("000012.jpg", b"x")), TAR + r" holds 000012.jpg twice"),
        (other_pictures("png"), TAR + r" holds pictures as \.png .*--encode_format jpg"),
        (other_pictures("webp"), TAR + r" holds pictures as \.webp .*--encode_format jpg"),
        (column("key", [10, 11, 12, 13]), r"00001\.parquet has the column 'key' as int64: expected text of digits"),
        (column("key", ["000010", None, "000012", "000013"]), r"00001\.parquet row 1 has no key"),
        (column("key", ["../../x", "000011", "000012", "000013"]), r"00001\.parquet has key '\.\./\.\./x'"),
        (column("key", ["0000199999999", "000011", "000012", "000013"]), r"00001\.parquet has (key|the index)"),
        (column("caption", [["a"]] * SAMPLES), r"00001\.parquet has the column 'caption' as list"),
        (column("width", ["a"] * SAMPLES), r"00001\.parquet has the column 'width' as string"),
        (keys_in_metadata(lambda key: f"{key[:5]}/{key}"), METADATA + r": key '00000/000000' is not .*without folder"),
        (keys_in_metadata(lambda key: f"/data/{key}.jpg"), METADATA + r": key '/data/000000\.jpg' is not"),
        (keys_in_metadata(int), METADATA + r" names the key 0: expected text"),
        (link_out, r"00001_stats\.json is a link to /etc/hostname"),
        (a_pipe, TAR + r" is not a file"),
        (lambda root: (root / "shards/00001.tar").rename(root / "shards/abc.tar"), r"abc\.tar: expected shards named"),
    ],
)
def test_what_a_dataset_cannot_hold_is_refused_by_name(copy: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(copy)
    with pytest.raises((CorruptFile, LayoutError), match=message) as caught:
        imported(copy)
    assert "; " in str(caught.value) or ":" in str(caught.value)
    assert manifests.latest(Lake(str(copy.parent / "lake"), "x"), "verify") is None


def not_pictures(members: list[Member]) -> Iterator[Member]:
    spoilt = {"000010.jpg": b"<html>", "000011.jpg": b"", "000012.txt": b"\xff\xfe\xff"}
    return (member(info.name, spoilt.get(info.name, data)) for info, data in members)


def test_samples_that_cannot_be_read_are_dropped_with_their_reason(copy: Path) -> None:
    rewrite(copy / "shards/00001.tar", lambda members: list(not_pictures(members)))
    lake, count, dropped = imported(copy)
    assert (count, dropped) == (SHARDS * SAMPLES - 3, {"not-an-image": 2, "no-caption": 1})
    verified, recipe = manifests.latest(lake, "verify"), recall_recipe(lake)
    assert verified is not None
    assert recipe is not None
    result = export(verified, form_of("imagefolder", verified, recipe), lake, copy.parent / "out", to="imagefolder")
    assert result.num_samples == count


def test_pictures_of_another_form_under_the_name_of_a_jpeg_are_read(copy: Path) -> None:
    rewrite(
        copy / "shards/00001.tar",
        lambda members: [
            member(info.name, picture(1, "PNG") if info.name == "000010.jpg" else data) for info, data in members
        ],
    )
    assert imported(copy)[1] == SHARDS * SAMPLES


@few_and_many
def test_any_tar_is_imported_and_read_or_refused(theirs: Path, num_inputs: int, tmp_path: Path) -> None:
    from sp_data.exchange.imports.foreign_tar import is_plain, write_plain

    whole = (theirs / "shards/00001.tar").read_bytes()
    plain = tmp_path / "plain.tar"
    with tarfile.open(plain, "w", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in members_of(theirs / "shards/00001.tar")[:6]:
            small, start = member(info.name, data[:600])
            tar.addfile(small, io.BytesIO(start))
    path, anew = tmp_path / "00001.tar", tmp_path / "anew.tar"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        if is_plain(path):
            list(read_tar(path))
        else:
            write_plain(path, anew)
            list(read_tar(anew))

    tokens = (
        b"./",
        b"../",
        b"\0" * 512,
        b"0000000\0",
        b"x",
        b"g",
        b"L",
        b"S",
        b"2",
        b"5",
        b"ustar\0",
        b"path=",
        b"size=",
    )
    fuzz(mutated([whole, plain.read_bytes()], tokens), read, num_inputs, refusals=(SpDataError,))


@few_and_many
def test_any_table_is_read_or_refused(theirs: Path, num_inputs: int, tmp_path: Path) -> None:
    from sp_data.dataset.reorder.plan import read_numbers
    from sp_data.exchange.imports.foreign_table import read_foreign

    path = tmp_path / "00001.parquet"
    seeds = [(theirs / "shards/00001.parquet").read_bytes(), (theirs / "emb/metadata/metadata_0.parquet").read_bytes()]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        if b"image_path" in data:
            read_numbers([path], tmp_path)
        else:
            read_foreign(path)

    fuzz(mutated(seeds), read, num_inputs, refusals=(SpDataError,))


@few_and_many
def test_any_array_is_read_or_refused(num_inputs: int, tmp_path: Path) -> None:
    from sp_data.arrays import map_array

    path = tmp_path / "img_emb_0.npy"
    np.save(path, np.ones((3, 4), np.float16))
    seeds = [path.read_bytes()]
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    seeds.append(path.read_bytes())

    def read(data: bytes) -> None:
        path.write_bytes(data)
        np.array(map_array(path)).sum()

    tokens = (b"(", b"'", b"O", b"99999999999", b"-1", b"{", b"lambda:0", b"9" * 30, b"\x03", b"'shape': (")
    fuzz(mutated(seeds, tokens), read, num_inputs, refusals=(SpDataError,))
