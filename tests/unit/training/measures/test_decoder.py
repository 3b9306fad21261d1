from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest

from sp_data.errors import DataError
from sp_data.training.measures.decoder import decoder_measures

Rows = npt.NDArray[np.float64]


def pictures(count: int, seed: int) -> Rows:
    return 1 + np.random.default_rng(seed).standard_normal((count, 32))


ORIGINALS, TRAINING = pictures(80, 1), pictures(300, 2)
CAPTIONS = ORIGINALS + 0.5 * pictures(80, 3)


def test_a_perfect_decoder_reconstructs_and_scores_as_its_originals_do() -> None:
    measures = decoder_measures(ORIGINALS, ORIGINALS, CAPTIONS, TRAINING)
    figures = measures.figures
    assert figures["reconstruction"] == pytest.approx(1)
    assert figures["clip_score"] == pytest.approx(figures["clip_score_real"])
    assert figures["nearest"] == pytest.approx(figures["nearest_real"])
    assert figures["cmmd"] == pytest.approx(0, abs=3 * figures["cmmd_error"] + 1e-6)
    assert figures["pulled"] == 0
    assert not measures.distance.far
    assert not measures.memory.memorised


def test_a_decoder_that_draws_twenty_training_pictures_is_far_and_memorised() -> None:
    few = TRAINING[:20]
    copies = few[np.arange(80) % 20]
    measures = decoder_measures(copies, ORIGINALS, CAPTIONS, few)
    perfect = decoder_measures(ORIGINALS, ORIGINALS, CAPTIONS, few)
    assert measures.memory.memorised
    assert measures.figures["nearest"] == pytest.approx(1)
    assert measures.figures["clip_score"] < perfect.figures["clip_score"]
    assert measures.figures["cmmd_relative"] > 1 / 40
    assert [sentence.split()[0] for sentence in measures.sentences] == ["CMMD", "memorised:"]


def test_a_negative_cosine_to_the_caption_scores_nothing() -> None:
    measures = decoder_measures(ORIGINALS, ORIGINALS, -ORIGINALS, TRAINING)
    assert measures.figures["clip_score"] == 0


def test_the_clip_score_is_a_hundred_times_the_cosine() -> None:
    assert decoder_measures(CAPTIONS, ORIGINALS, CAPTIONS, TRAINING).figures["clip_score"] == pytest.approx(100)


def test_the_figures_can_be_written_as_json_even_of_equal_originals() -> None:
    equal = np.repeat(ORIGINALS[:1], 80, axis=0)
    figures = decoder_measures(ORIGINALS, equal, CAPTIONS, TRAINING).figures
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_captions_of_other_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="row by row"):
        decoder_measures(ORIGINALS, ORIGINALS, CAPTIONS[:79], TRAINING)
