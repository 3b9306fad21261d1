"""What a prior's predictions are worth: their cosine to the right picture, and what costs no prior.

cosine           predicted image embedding, and the embedding of the caption's own picture
cosine_caption   the caption's text embedding, taken for the picture's: a prior must beat it
cosine_other     predictions for other captions, and this picture: far below, or the caption is not listened to
cosine_mean      the mean of the training pictures, taken for every picture: a prior must beat it too
"""

from __future__ import annotations

import numpy as np

from sp_data.training.measures.embeddings import Rows, chunks, cosines, same_rows, same_width, unit

SAME_CAPTION = 0.999
"""Text embeddings of a cosine above it are of one caption: float16 rows of the same words come out as 0.9999."""


def prior_figures(predicted: Rows, pictures: Rows, captions: Rows, mean: Rows) -> dict[str, float]:
    """Mean cosines, by the names above.

    `predicted`, `pictures` and `captions` are `(n, dim)`, row by row of one sample: the prior's image embedding, the
    picture's, and the caption's text embedding. `mean` is `(dim,)`, the mean training picture. `cosine_other` is absent
    if all captions are equal. Raises DataError for rows that are zero, not finite, or of different shapes.
    """
    same_rows(predicted=predicted, pictures=pictures, captions=captions)
    same_width(pictures=pictures, mean=mean)
    own, guess, words = unit(pictures, "picture"), unit(predicted, "predicted"), unit(captions, "caption")
    figures = {
        "cosine": float(cosines(guess, own).mean()),
        "cosine_caption": float(cosines(words, own).mean()),
        "cosine_mean": float((own @ unit(mean[None], "mean")[0]).mean(dtype=np.float64)),
    }
    total, count = 0.0, 0
    for part in chunks(len(own)):
        # Pictures often share a caption, and a prediction for the same words is not unrelated.
        other = words[part] @ words.T < SAME_CAPTION
        total += float((guess[part] @ own.T).sum(where=other, dtype=np.float64))
        count += int(other.sum())
    if count:
        figures["cosine_other"] = total / count
    return figures
