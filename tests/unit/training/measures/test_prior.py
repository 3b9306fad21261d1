from __future__ import annotations

import numpy as np
import pytest

from sp_data.errors import DataError
from sp_data.training.measures.prior import prior_figures

PICTURES = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
CAPTIONS = np.array([[0.6, 0.8, 0], [0, 0.6, 0.8], [0.8, 0, 0.6]])
MEAN = np.array([1.0, 1, 1])


def test_a_perfect_prior_against_its_baselines() -> None:
    assert prior_figures(PICTURES, PICTURES, CAPTIONS, MEAN) == pytest.approx(
        {"cosine": 1, "cosine_caption": 0.6, "cosine_mean": 1 / np.sqrt(3), "cosine_other": 0}
    )


def test_predictions_of_the_wrong_rows_are_good_for_others_only() -> None:
    figures = prior_figures(np.roll(PICTURES, 1, axis=0), PICTURES, CAPTIONS, MEAN)
    assert figures["cosine"] == pytest.approx(0)
    # Of six other pictures three are hit.
    assert figures["cosine_other"] == pytest.approx(0.5)


def test_pictures_of_one_caption_are_not_unrelated() -> None:
    captions = CAPTIONS[[0, 0, 2]]
    predicted = PICTURES[[0, 0, 2]]
    # Rows 0 and 1 share a caption. Left are 0-2, 1-2, 2-0, 2-1, all at right angles.
    assert prior_figures(predicted, PICTURES[[0, 0, 2]], captions, MEAN)["cosine_other"] == pytest.approx(0)
    assert prior_figures(predicted, PICTURES[[0, 0, 2]], CAPTIONS, MEAN)["cosine_other"] == pytest.approx(1 / 3)


def test_float16_rows_of_one_caption_are_seen_as_one() -> None:
    captions = np.random.default_rng(0).standard_normal((1, 768)).repeat(3, axis=0)
    captions += 1e-3 * np.random.default_rng(1).standard_normal(captions.shape)
    pictures = np.random.default_rng(2).standard_normal((3, 768))
    figures = prior_figures(pictures, pictures, captions.astype(np.float16), pictures.mean(axis=0))
    assert "cosine_other" not in figures


def test_lengths_do_not_matter() -> None:
    figures = prior_figures(PICTURES, PICTURES, CAPTIONS, MEAN)
    assert prior_figures(5 * PICTURES, PICTURES / 7, 3 * CAPTIONS, MEAN / 2) == pytest.approx(figures)


def test_chunks_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 20, 8))
    figures = prior_figures(*rows, MEAN[[0] * 8])
    monkeypatch.setattr("sp_data.training.measures.embeddings.CHUNK", 7)
    assert prior_figures(*rows, MEAN[[0] * 8]) == pytest.approx(figures)


def test_a_zero_row_is_refused_with_its_number() -> None:
    with pytest.raises(DataError, match="picture embedding 1 is zero"):
        prior_figures(PICTURES, PICTURES * [[1], [0], [1]], CAPTIONS, MEAN)


def test_rows_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(DataError, match="row by row"):
        prior_figures(PICTURES, PICTURES[:2], CAPTIONS, MEAN)
