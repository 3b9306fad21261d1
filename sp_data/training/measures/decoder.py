"""Every figure of pictures that a decoder drew, in one dictionary for a row of metrics.jsonl.

reconstruction     mean cosine of the drawn picture to the embedding that it was drawn from
clip_score         100 x mean cosine of the drawn picture to its caption, no cosine below 0 (Hessel et al. 2021,
                   arXiv:2104.08718, with 100 for their 2.5, as is usual since)
clip_score_real    the same of the originals: the score of a perfect decoder
cmmd               distance to the held-out originals (cmmd.py), and cmmd_error its standard error
cmmd_relative      the distance in parts of that of one picture drawn over and over; far from 1/40; absent
                   if all originals are equal
nearest            mean cosine to the nearest training picture (neighbours.py)
nearest_real       the same of the originals
pulled             share of pictures that are pulled towards training pictures; memorised from 0.6
copies             share of pictures as near to a training picture as copies; 0.05 by chance
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sp_data.training.measures.cmmd import Cmmd, cmmd_of_pairs
from sp_data.training.measures.embeddings import Rows, cosines, same_rows, unit
from sp_data.training.measures.neighbours import Memory, memory


@dataclass(frozen=True, slots=True)
class DecoderMeasures:
    figures: dict[str, float]
    """By the names above."""
    distance: Cmmd
    memory: Memory

    @property
    def sentences(self) -> list[str]:
        """The verdicts in words."""
        return [str(self.distance), str(self.memory)]


def decoder_measures(drawn: Rows, originals: Rows, captions: Rows, training: Rows) -> DecoderMeasures:
    """The figures of pictures that were drawn from the embeddings of held-out ones.

    `drawn`, `originals` and `captions` are `(n, dim)`, row by row of one sample: CLIP's embedding of the drawn picture,
    the image embedding that it was drawn from, and the caption's text embedding. `training` is `(m, dim)`, all training
    pictures. Raises DataError for fewer than 3 samples, and for rows that are zero, not finite or of different shapes.
    """
    same_rows(drawn=drawn, originals=originals, captions=captions)
    x, y, words = unit(drawn, "drawn", 3), unit(originals, "original", 3), unit(captions, "caption", 3)
    distance, neighbours = cmmd_of_pairs(x, y), memory(x, y, training)
    figures = {
        "reconstruction": float(cosines(x, y).mean()),
        "clip_score": _clip_score(x, words),
        "clip_score_real": _clip_score(y, words),
        "cmmd": distance.value,
        "cmmd_error": distance.error,
        "nearest": float(neighbours.nearest.cosine.mean(dtype=np.float64)),
        "nearest_real": float(neighbours.originals_nearest.cosine.mean(dtype=np.float64)),
        "pulled": neighbours.share_pulled,
        "copies": neighbours.share_as_near_as_copies,
    }
    if distance.relative is not None:
        figures["cmmd_relative"] = distance.relative
    return DecoderMeasures(figures, distance, neighbours)


def _clip_score(pictures: Rows, captions: Rows) -> float:
    return 100 * float(np.maximum(cosines(pictures, captions), 0).mean())
