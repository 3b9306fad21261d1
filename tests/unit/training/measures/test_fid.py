from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from sp_data.errors import CorruptFile, DataError
from sp_data.training.measures import fid
from sp_data.training.measures.fid import FidKid, Unavailable, fid_and_kid, inception_weights, load_inception


class MeanColour(nn.Module):
    """Three features a picture, for Inception's 2,048."""

    calls = 0

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        assert pictures.dtype == torch.uint8
        self.calls += 1
        return pictures.float().mean(dim=(2, 3)) / 255


def noise(count: int, low: int, high: int, seed: int) -> torch.Tensor:
    return torch.randint(low, high, (count, 3, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_fid_is_the_distance_between_two_gaussians() -> None:
    drawn, real = noise(200, 0, 150, seed=1), noise(150, 100, 256, seed=2)
    x, y = (MeanColour()(pictures).double().numpy() for pictures in (drawn, real))
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(cov_x @ cov_y).real
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(cov_x + cov_y - 2 * root)
    measured = fid_and_kid(MeanColour(), drawn, real)
    assert measured.fid == pytest.approx(expected, rel=1e-4)
    assert (measured.num_drawn, measured.num_real) == (200, 150)


def test_kid_of_equal_sources_is_near_zero_and_of_others_is_not() -> None:
    equal = fid_and_kid(MeanColour(), noise(300, 0, 256, seed=1), noise(300, 0, 256, seed=2))
    other = fid_and_kid(MeanColour(), noise(300, 0, 150, seed=1), noise(300, 0, 256, seed=2))
    assert abs(equal.kid) < 3 * equal.kid_error
    assert other.kid > 3 * other.kid_error
    assert set(other.figures) == {"fid", "kid", "kid_error"}


def test_equal_pictures_give_equal_figures_and_leave_the_random_numbers_alone() -> None:
    pictures = noise(40, 0, 150, seed=1), noise(40, 0, 256, seed=2)
    before = torch.get_rng_state()
    first = fid_and_kid(MeanColour(), *pictures)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert fid_and_kid(MeanColour(), *pictures) == first


def test_each_picture_goes_through_the_network_once() -> None:
    network = MeanColour()
    fid_and_kid(network, noise(100, 0, 150, seed=1), noise(64, 0, 256, seed=2))
    assert network.calls == 3


@pytest.mark.parametrize("pictures", [noise(3, 0, 9, seed=1), noise(9, 0, 9, seed=1).float()])
def test_too_few_pictures_or_floats_are_refused(pictures: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"drawn pictures are .* expected uint8"):
        fid_and_kid(MeanColour(), pictures, noise(9, 0, 9, seed=2))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(fid.VARIABLE, raising=False)
    return Path(torch.hub.get_dir()) / "checkpoints"


def test_without_weights_the_reason_says_where_they_belong(empty_cache: Path) -> None:
    missing = inception_weights()
    assert isinstance(missing, Unavailable)
    for part in (str(empty_cache / fid.FILE), fid.URL, fid.VARIABLE, "never downloaded"):
        assert part in str(missing)


def test_weights_are_found_where_torch_fidelity_keeps_them(empty_cache: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert fid.URL == URL_INCEPTION_V3
    empty_cache.mkdir(parents=True)
    (empty_cache / fid.FILE).touch()
    assert inception_weights() == empty_cache / fid.FILE


def test_a_path_given_comes_before_the_variable_and_the_variable_before_the_cache(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_cache.mkdir(parents=True)
    files = [empty_cache / fid.FILE, tmp_path / "by_variable.pth", tmp_path / "given.pth"]
    for file in files:
        file.touch()
    monkeypatch.setenv(fid.VARIABLE, str(files[1]))
    assert inception_weights() == files[1]
    assert inception_weights(files[2]) == files[2]
    files[1].unlink()
    missing = inception_weights()
    assert isinstance(missing, Unavailable)
    assert f"{fid.VARIABLE} has no Inception weights at {files[1]}" in str(missing)


def test_a_file_of_other_bytes_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    file = tmp_path / fid.FILE
    file.write_bytes(b"a truncated download")
    with pytest.raises(CorruptFile, match="6726825d"):
        load_inception(file)


def test_the_network_is_loaded_from_the_file_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity
    from torchmetrics.image.fid import NoTrainInceptionV3

    with monkeypatch.context() as random_weights:
        random_weights.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        random_weights.setattr(NoTrainInceptionV3, "load_state_dict", lambda *_: None)
        weights = NoTrainInceptionV3("inception-v3-compat", ["2048"]).state_dict()
    file = tmp_path / "weights.pth"
    torch.save(weights, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(fid, "FILE", f"weights-inception-{digest[:8]}.pth")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(fidelity, "load_state_dict_from_url", refuse)
    network = load_inception(file)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    measured = fid_and_kid(network, noise(4, 0, 150, seed=1), noise(4, 0, 256, seed=2))
    assert isinstance(measured, FidKid)
