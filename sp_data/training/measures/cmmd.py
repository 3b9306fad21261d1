"""CMMD: how far a set of drawn pictures is from a set of held-out ones, in a CLIP's space.

Jayasumana et al. 2024, *Rethinking FID: Towards a Better Evaluation Metric for Image Generation* (arXiv:2401.09603):
the squared maximum mean discrepancy under a Gaussian kernel, for embeddings x of m drawn and y of n held-out pictures,
each at unit length as in the paper's code (google-research/cmmd):

    k(a, b) = exp(-|a - b|^2 / (2 sigma^2)),  sigma = 10;  at unit length this is exp((cosine(a, b) - 1) / 100)

    CMMD = 1000 * (  sum over i != j of k(x_i, x_j) / (m (m - 1))
                   + sum over i != j of k(y_i, y_j) / (n (n - 1))
                   - 2 * sum over all i, j of k(x_i, y_j) / (m n)  )

This is the unbiased estimate (Gretton et al. 2012, equation 3): its mean is the true distance at any m and n. Equal
distributions give 0 on average, so half of the estimates are slightly below zero; they are not cut off. The paper's
code keeps i = j, where k is 1, and divides by m^2 and n^2. That adds (1/m + 1/n) times 1000 * (1 - mean k). If the mean
cosine is 0.35, it is 0.0004 at the paper's 30,000 pictures, but 0.65 at 20: a small validation split would look bad by
its size alone.

The bandwidth is large beside distances at unit length (at most 2), so k is nearly linear in the cosine, and CMMD is
close to 10 * |mean x - mean y|^2. It sees a wrong colour of the sky; it does not see that pictures lack variety while
their mean is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sp_data.training.measures.embeddings import Rows, UnitRows, chunks, cosines, same_rows, same_width, unit

SIGMA = 10.0
SCALE = 1000.0
STEADY = 500
"""Pictures from which the figure is steady; with fewer its error bar is said with it."""
FAR = 1 / 40
"""Part of `one_picture` from which drawn pictures are called far from the held-out ones: see Cmmd.far.

Fixed on the demo's kids and CLIP, where decoders trained on 1,500 kids came to 1/144 (1,000 steps) and 1/78 (700), and
equal ones trained equally long on 20 kids to 1/13 and 1/8 (tests/integration/training/test_memorised.py). Where CLIP
finds all pictures of a wiki alike, one_picture is small and a young decoder is called far for its speckle alone."""

_Sums = npt.NDArray[np.float64]
_Total = TypeVar("_Total", float, _Sums)


@dataclass(frozen=True, slots=True)
class Cmmd:
    """A distance with its error bar, both in CMMD's unit."""

    value: float
    error: float
    """One standard error, by the jackknife over pictures (Efron and Stein 1981: not too small on average). It holds
    the chance in which pictures were taken, for the drawn and the held-out ones."""
    one_picture: float
    """CMMD of a single held-out picture, drawn over and over, on average: 1000 * (1 - mean k(y_i, y_j)). N pictures
    drawn over and over have 1/N of it, whatever the CLIP."""
    num_drawn: int
    num_held_out: int

    @property
    def relative(self) -> float | None:
        """The distance in parts of `one_picture`: 1/N is as far as N pictures, drawn over and over. None if all
        held-out pictures are equal."""
        return self.value / self.one_picture if self.one_picture > 0 else None

    @property
    def far(self) -> bool:
        """Whether the drawn pictures are as far from the held-out ones as 40 pictures, drawn over and over, or
        further, by more than two standard errors. Too few training pictures do that, and so do speckle and blur."""
        return self.value - 2 * self.error > FAR * self.one_picture

    def __str__(self) -> str:
        fewer = min(self.num_drawn, self.num_held_out)
        hint = f"; below {STEADY} pictures compare it only within its error" if fewer < STEADY else ""
        verdict = ""
        if self.far and self.relative is not None:
            verdict = f", far: as {max(1, round(1 / self.relative)):,} of them would be, drawn over and over"
        return (
            f"CMMD {self.value:.3f} ± {self.error:.3f} of {self.num_drawn:,} drawn pictures to {self.num_held_out:,} "
            f"held-out ones{verdict}{hint}"
        )


def cmmd(drawn: Rows, held_out: Rows) -> Cmmd:
    """CMMD of drawn `(m, dim)` to held-out pictures `(n, dim)` that have nothing to do with each other.

    Use `cmmd_of_pairs` where each picture was drawn from the embedding of a held-out one. Raises DataError for fewer
    than 3 rows of either.
    """
    same_width(drawn=drawn, held_out=held_out)
    x, y = unit(drawn, "drawn", 3), unit(held_out, "held-out", 3)
    m, n = len(x), len(y)
    xx, yy = _within(x), _within(y)
    xy, yx = _across(x, y)
    value = _mean(xx.sum(), m) + _mean(yy.sum(), n) - 2 * xy.sum() / (m * n)
    # Leaving picture i out takes its row and its column away.
    without_x = _mean(xx.sum() - 2 * xx, m - 1) + _mean(yy.sum(), n) - 2 * (xy.sum() - xy) / ((m - 1) * n)
    without_y = _mean(xx.sum(), m) + _mean(yy.sum() - 2 * yy, n - 1) - 2 * (yx.sum() - yx) / (m * (n - 1))
    error = math.sqrt(_jackknife(without_x) + _jackknife(without_y))
    return Cmmd(SCALE * float(value), SCALE * error, -SCALE * _mean(float(yy.sum()), n), m, n)


def cmmd_of_pairs(drawn: Rows, originals: Rows) -> Cmmd:
    """CMMD of drawn to held-out pictures, both `(n, dim)`, where row i was drawn from what row i shows.

    A drawn picture resembles its own original, which is no property of the two distributions: with i = j in the mixed
    sum, small sets would look too close. Those are left out (Gretton et al. 2012, equation 4). Raises DataError for
    fewer than 3 rows.
    """
    same_rows(drawn=drawn, originals=originals)
    x, y = unit(drawn, "drawn", 3), unit(originals, "original", 3)
    n = len(x)
    own = _kernel(cosines(x, y))
    xy, yx = _across(x, y)
    yy = _within(y)
    by_pair = _within(x) + yy - (xy - own) - (yx - own)
    without = _mean(by_pair.sum() - 2 * by_pair, n - 1)
    return Cmmd(
        SCALE * float(_mean(by_pair.sum(), n)),
        SCALE * math.sqrt(_jackknife(without)),
        -SCALE * _mean(float(yy.sum()), n),
        n,
        n,
    )


def _kernel(cosine: Rows) -> npt.NDArray[np.float64]:
    """k - 1 of rows at unit length. The ones cancel in every sum above, and without them no digit is lost: k differs
    from 1 by 0.02 at most."""
    kernel: npt.NDArray[np.float64] = np.expm1((np.minimum(cosine, 1).astype(np.float64) - 1) / SIGMA**2)
    return kernel


def _within(rows: UnitRows) -> _Sums:
    """Sum over j != i of k - 1, for each i; i itself adds 0, within float32's 1e-9."""
    sums = np.empty(len(rows))
    for part in chunks(len(rows)):
        sums[part] = _kernel(rows[part] @ rows.T).sum(axis=1)
    return sums


def _across(x: UnitRows, y: UnitRows) -> tuple[_Sums, _Sums]:
    """Sums of k - 1 over all y for each x, and over all x for each y."""
    of_x, of_y = np.empty(len(x)), np.zeros(len(y))
    for part in chunks(len(x)):
        kernel = _kernel(x[part] @ y.T)
        of_x[part] = kernel.sum(axis=1)
        of_y += kernel.sum(axis=0)
    return of_x, of_y


def _mean(total: _Total, count: int) -> _Total:
    """Of a sum over all pairs of two different ones."""
    return total / (count * (count - 1))


def _jackknife(without: _Sums) -> float:
    """Variance of an estimate, from the estimates without each of its pictures."""
    count = len(without)
    return float((count - 1) / count * np.square(without - without.mean()).sum())
