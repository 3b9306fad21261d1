from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from sp_data.errors import DataError
from sp_data.training.measures.neighbours import memory, nearest

Rows = npt.NDArray[np.float64]


def pictures(count: int, seed: int) -> Rows:
    """Alike, as pictures of one wiki are: cosines of 0.5 on average."""
    return 1 + np.random.default_rng(seed).standard_normal((count, 32))


def test_the_nearest_picture_is_found_whatever_its_length() -> None:
    found = nearest(np.array([[1.0, 0.1], [0.1, 1.0]]), np.array([[0.0, 0.2], [9.0, 0.0], [1.0, 1.0]]))
    assert found.rows.tolist() == [1, 0]
    assert found.cosine == pytest.approx([1 / np.sqrt(1.01)] * 2)


def test_chunks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, originals, training = pictures(40, 1), pictures(40, 2), pictures(60, 3)
    whole = memory(drawn, originals, training)
    monkeypatch.setattr("sp_data.training.measures.embeddings.CHUNK", 7)
    chunked = memory(drawn, originals, training)
    assert chunked.nearest.rows.tolist() == whole.nearest.rows.tolist()
    assert (chunked.share_pulled, chunked.share_as_near_as_copies) == (
        whole.share_pulled,
        whole.share_as_near_as_copies,
    )


@pytest.mark.parametrize("num_training", [20, 2000])
def test_copies_of_training_pictures_are_memorised(num_training: int) -> None:
    originals, training = pictures(60, 1), pictures(num_training, 2)
    copies = training[nearest(originals, training).rows] + 0.1 * pictures(60, 3)
    found = memory(copies, originals, training)
    assert found.memorised
    assert found.share_pulled > 0.9
    assert str(found).startswith("memorised: ")


@pytest.mark.parametrize("num_training", [20, 2000])
@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_pictures_like_their_unseen_originals_are_not_memorised(num_training: int, noise: float) -> None:
    originals, training = pictures(60, 1), pictures(num_training, 2)
    drawn = originals + noise * np.random.default_rng(4).standard_normal(originals.shape)
    found = memory(drawn, originals, training)
    assert found.share_pulled <= 0.5
    assert not found.memorised
    assert str(found).startswith("not memorised: ")


@pytest.mark.parametrize("num_training", [20, 60, 2000])
def test_a_blurred_average_comes_nearer_to_all_pictures_and_is_not_memorised(num_training: int) -> None:
    originals, training = pictures(60, 1), pictures(num_training, 2)
    blurred = 0.7 * originals + 0.3
    found = memory(blurred, originals, training)
    assert (found.nearest.cosine > found.originals_nearest.cosine).mean() > 0.9
    assert not found.memorised


def test_eight_pictures_are_too_few_to_call_a_model_memorised() -> None:
    originals, training = pictures(9, 1), pictures(20, 2)
    assert memory(training[:9], originals, training).memorised
    eight = memory(training[:8], originals[:8], training)
    assert eight.share_pulled == 1
    assert not eight.memorised
    assert str(eight).startswith("perhaps memorised, too few pictures to say: ")


def test_one_copied_picture_stands_first_among_the_closest() -> None:
    originals, training = pictures(60, 1), pictures(500, 2)
    drawn = originals + 0.3 * np.random.default_rng(4).standard_normal(originals.shape)
    drawn[17] = training[123]
    found = memory(drawn, originals, training)
    assert not found.memorised
    assert found.closest(1).tolist() == [17]
    assert found.nearest.rows[17] == 123
    without = memory(np.delete(drawn, 17, axis=0), np.delete(originals, 17, axis=0), training)
    assert found.share_as_near_as_copies > without.share_as_near_as_copies


def test_unseen_pictures_are_as_near_as_copies_once_in_twenty() -> None:
    originals, training = pictures(400, 1), pictures(500, 2)
    assert memory(pictures(400, 3), originals, training).share_as_near_as_copies == pytest.approx(0.05, abs=0.03)


def test_originals_that_belong_to_other_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="row by row"):
        memory(pictures(5, 1), pictures(6, 1), pictures(9, 2))


def test_embeddings_of_another_clip_are_refused() -> None:
    with pytest.raises(DataError, match="one CLIP"):
        memory(pictures(5, 1), pictures(5, 1), np.ones((9, 31)))
