"""What every figure takes: CLIP embeddings as `(n, dim)` arrays, one row a picture or a caption.

Rows need no unit length (a recipe's float16 rows have it only to three digits): each figure divides them by their
length first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.errors import DataError

Rows = npt.NDArray[np.floating[Any]]
UnitRows = npt.NDArray[np.float32]

CHUNK = 512
"""Rows that are compared with all others at once: 512 x 10,000 cosines in float64 are 41 MB."""


def unit(rows: Rows, name: str, at_least: int = 1) -> UnitRows:
    """The rows at unit length, `(n, dim)` float32.

    Raises DataError, which names the rows by `name`, if there are fewer than `at_least`, or if a row is zero or not
    finite.
    """
    if rows.ndim != 2 or len(rows) < at_least:
        raise DataError(f"{name} embeddings have the shape {rows.shape}, expected (n, dim) with n >= {at_least}")
    # float64: the squares of large float16 numbers overflow.
    exact = rows.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    broken = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
    if len(broken):
        raise DataError(
            f"{name} embedding {broken[0]:,} is zero or not finite ({len(broken):,} of {len(rows):,} are); leave out "
            "pictures that have no embedding before they are compared"
        )
    rows_of_one: UnitRows = (exact / lengths).astype(np.float32)
    return rows_of_one


def same_width(**named: Rows) -> None:
    """Raises DataError if these embeddings come from CLIPs of different widths."""
    widths = {name: rows.shape[-1] for name, rows in named.items()}
    if len(set(widths.values())) > 1:
        raise DataError(f"embeddings differ in width: {widths}; all must come from one CLIP")


def same_rows(**named: Rows) -> None:
    """Raises DataError unless row i of each belongs to row i of all others: equal shapes."""
    shapes = {name: rows.shape for name, rows in named.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"embeddings do not belong together row by row: {shapes}; give one row of each for a picture")


def cosines(left: Rows, right: Rows) -> npt.NDArray[np.float64]:
    """Cosine of row i of one to row i of the other, `(n,)`; rows of unit length."""
    products: npt.NDArray[np.float64] = np.einsum("nd,nd->n", left, right, dtype=np.float64)
    return products


def chunks(count: int) -> Iterator[slice]:
    for first in range(0, count, CHUNK):
        yield slice(first, min(first + CHUNK, count))
