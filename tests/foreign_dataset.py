"""The demo's dataset as img2dataset and clip-retrieval would leave it, without anything that sp-data adds.

The embeddings are shuffled over two partitions that do not follow the shards. Shard 1 has one sample of each kind that
goes wrong in practice.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from demo_clip_folder import CLIP

from sp_data.dataset.shards.tars import read_tar, write_tar
from sp_data.exchange.imports.run import ImportRequest
from sp_data.lake import Lake

IMG2DATASET_COLUMNS = ["url", "caption", "key", "status", "error_message", "width", "height", "sha256"]
FAILED, NO_CAPTION, NO_ROW, STRAY = "0000103", "0000104", "0000105", "0000199"


def foreign(demo_lake: Lake, into: Path) -> ImportRequest:
    """Write the demo's shards and embeddings below `into` as img2dataset and clip-retrieval leave them."""
    (into / "shards").mkdir(parents=True)
    shards = Path(demo_lake.full("shards"))
    for parquet in shards.glob("*.parquet"):
        name = parquet.stem
        table = pq.read_table(parquet, columns=IMG2DATASET_COLUMNS)
        samples = list(read_tar(shards / f"{name}.tar"))
        if name == "00001":
            table = with_values(table, FAILED, status="failed_to_download", error_message="HTTP Error 404: Not Found")
            table = with_values(table, NO_CAPTION, caption=None)
            samples = [
                (key, parts | ({"txt": b""} if key == NO_CAPTION else {})) for key, parts in samples if key != FAILED
            ]
        rng = np.random.default_rng(int(name))
        pq.write_table(table.take(rng.permutation(table.num_rows)), into / "shards" / parquet.name)
        write_tar(samples, into / "shards" / f"{name}.tar")
        shutil.copy(shards / f"{name}_stats.json", into / "shards")
    shuffle_embeddings(Path(demo_lake.full(f"embeddings/{CLIP}")), into / "embeddings")
    return ImportRequest(into / "shards", into / "embeddings", "theirs", "demo", reembed=4)


def with_values(table: pa.Table, key: str, **new_values: str | None) -> pa.Table:
    for column, value in new_values.items():
        is_row = pc.equal(table["key"], key)
        column_values = pc.if_else(is_row, pa.scalar(value, pa.string()), table[column])
        table = table.set_column(table.schema.get_field_index(column), column, column_values)
    return table


def shuffle_embeddings(embeddings: Path, into: Path) -> None:
    rows, metadata = (
        {},
        pa.concat_tables(
            [
                pq.read_table(path, columns=["image_path", "caption"])
                for path in sorted((embeddings / "metadata").iterdir())
            ]
        ),
    )
    for kind in ("img_emb", "text_emb"):
        rows[kind] = np.concatenate([np.load(path) for path in sorted((embeddings / kind).iterdir())])
        (into / kind).mkdir(parents=True)
    (into / "metadata").mkdir()
    keys = metadata["image_path"].to_pylist()
    keys[keys.index(NO_ROW)] = STRAY
    metadata = metadata.set_column(0, "image_path", pa.array(keys))
    order = np.random.default_rng(0).permutation(len(keys))
    for partition, indices in enumerate(np.array_split(order, 2)):
        for kind in rows:
            np.save(into / kind / f"{kind}_{partition}.npy", rows[kind][indices])
        pq.write_table(metadata.take(indices), into / "metadata" / f"metadata_{partition}.parquet")
