"""The training picture nearest to each drawn one, and whether a model draws its training pictures again.

Training pictures of one wiki are alike, so a high cosine to the nearest proves nothing: a picture that the model never
saw has a near training picture too. How near is therefore measured on the unseen originals that were drawn from, as in
the data-copying test of Meehan et al. 2020 (arXiv:2004.05675), but original by original:

    original i (held out)  ->  drawn i
    nearest training picture    0.53    0.94     nearer by 0.41
    nearest other original      0.71    0.60     not nearer
                                                 so drawn i is pulled towards the training pictures

A model that copies pulls nearly all. One that learnt pulls at most half: it knows training pictures no better than
unseen ones, and chance decides which come nearer. A model that draws everything alike, such as a blurred average, comes
nearer to all pictures; the second line is there so that this does not count.

The pictures must be held out: drawn from a training picture's embedding, a good model draws that picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sp_data.training.measures.embeddings import Rows, UnitRows, chunks, same_rows, same_width, unit

MEMORISED = 0.6
"""Share of pulled pictures from which a model is called memorised, given MIN_Z too. Half is the most that a model
without memory reaches, and nearly all is what copies reach.

Decoders trained on 1,500 of the demo's kids pulled 29 and 36 %, and equal ones trained equally long on 20 kids 77 and
84 %, though these blend the kids that they know more often than they copy one
(tests/integration/training/test_memorised.py)."""
MIN_Z = 3.0
"""Standard deviations, of a fair coin thrown once a picture, by which the share must exceed one half: chance does that
once in 700 times. Nine pictures, all pulled, just reach it."""
COPY_QUANTILE = 0.95
"""A drawn picture is as near as a copy if its nearest training picture is nearer than that of 95 % of the unseen
originals: 5 % of pictures are by chance."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """For each picture, the row of the nearest one of others, and the cosine to it: `(n,)` each."""

    rows: npt.NDArray[np.int64]
    cosine: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Memory:
    """How the drawn pictures lie to the training pictures."""

    nearest: Nearest
    """The training picture nearest to each drawn one."""
    originals_nearest: Nearest
    """The training picture nearest to each original."""
    share_pulled: float
    """Of drawn pictures that are nearer to a training picture than their original is, and that by more than they are
    nearer to another original."""
    share_as_near_as_copies: float
    """Of drawn pictures beyond COPY_QUANTILE of the originals. One picture of a large set that is copied shows here,
    where the share of pulled ones hardly moves: look at `closest`."""

    @property
    def num_drawn(self) -> int:
        return len(self.nearest.rows)

    @property
    def z(self) -> float:
        """Standard deviations of a fair coin by which the share of pulled pictures exceeds one half."""
        return (self.share_pulled - 0.5) * 2 * math.sqrt(self.num_drawn)

    @property
    def memorised(self) -> bool:
        return self.share_pulled >= MEMORISED and self.z >= MIN_Z

    def closest(self, count: int) -> npt.NDArray[np.int64]:
        """Rows of the drawn pictures that lie nearest to a training picture, nearest first: `nearest.rows` there names
        it. To be looked at side by side."""
        order: npt.NDArray[np.int64] = np.argsort(-self.nearest.cosine, kind="stable")[:count]
        return order

    def __str__(self) -> str:
        shares = (
            f"{self.share_pulled:.0%} of {self.num_drawn:,} drawn pictures are pulled towards training pictures "
            f"(near 100 % if all were copies, at most 50 % without memory; memorised from {MEMORISED:.0%})"
        )
        if self.memorised:
            return f"memorised: {shares}; train on more pictures, for fewer steps, or with a smaller model"
        if self.share_pulled >= MEMORISED:
            return f"perhaps memorised, too few pictures to say: {shares}; draw more pictures"
        return f"not memorised: {shares}"


def nearest(rows: Rows, others: Rows) -> Nearest:
    """The nearest one of `others` `(m, dim)` for each of `rows` `(n, dim)`; the first of equally near ones."""
    same_width(rows=rows, others=others)
    return _nearest(unit(rows, "drawn"), unit(others, "other"))


def memory(drawn: Rows, originals: Rows, training: Rows) -> Memory:
    """How pictures drawn from unseen originals, `(n, dim)` both, lie to the training pictures, `(m, dim)`.

    Row i was drawn from what row i of `originals` shows. Raises DataError for fewer than 2 originals.
    """
    same_rows(drawn=drawn, originals=originals)
    same_width(drawn=drawn, training=training)
    x, y, known = unit(drawn, "drawn", 2), unit(originals, "original", 2), unit(training, "training")
    of_drawn, of_originals = _nearest(x, known), _nearest(y, known)
    towards_training = of_drawn.cosine - of_originals.cosine
    towards_originals = _nearest_other(x, y) - _nearest_other(y, y)
    pulled = (towards_training > 0) & (towards_training > towards_originals)
    as_near = of_drawn.cosine > np.quantile(of_originals.cosine, COPY_QUANTILE)
    return Memory(of_drawn, of_originals, float(pulled.mean()), float(as_near.mean()))


def _nearest(rows: UnitRows, others: UnitRows) -> Nearest:
    best, cosine = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    for part in chunks(len(rows)):
        near = rows[part] @ others.T
        best[part] = near.argmax(axis=1)
        cosine[part] = near.max(axis=1)
    return Nearest(best, cosine)


def _nearest_other(rows: UnitRows, originals: UnitRows) -> npt.NDArray[np.float32]:
    """Cosine to the nearest original that is not the row's own, `(n,)`."""
    cosine = np.empty(len(rows), np.float32)
    for part in chunks(len(rows)):
        near = rows[part] @ originals.T
        near[np.arange(len(near)), np.arange(part.start, part.stop)] = -np.inf
        cosine[part] = near.max(axis=1)
    return cosine
