"""Weights of a file or a checkpoint under a name of the lake, for good."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from legacy_references import converted, network, unpacked
from safetensors.torch import load_file, save_file

from sp_data.canonical import sha256_of
from sp_data.errors import CorruptFile, UsageError
from sp_data.lake import Lake
from sp_data.training.weights.adopt import Adopted, adopt, find, load_start


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "x")


def state_of(number: int, fill: float = 0.0) -> dict[str, torch.Tensor]:
    """The beginning and the end of a unet of today."""
    return {
        "init_conv.weight": torch.full((8, 3 * number, 7, 7), fill),
        "downs.0.0.1.weight": torch.full((8, 32, 1, 1), fill),
        "to_out.bias": torch.full((3,), fill),
    }


def bare(tmp_path: Path, fill: float = 0.0) -> Path:
    file = tmp_path / f"unet-{fill}.safetensors"
    save_file(state_of(1, fill), file)
    return file


def checkpoint(folder: Path, kind: str, state: dict[str, torch.Tensor], **fields: Any) -> Path:
    """A checkpoint's folder as a training of this project leaves it, with the fields that matter here."""
    folder.mkdir(parents=True)
    save_file(state, folder / "weights.safetensors")
    with (folder / "weights.safetensors").open("rb") as stream:
        sha256 = sha256_of(stream)
    files = [{"path": f"runs/r/checkpoints/step-00000001/{folder.name}/weights.safetensors", "sha256": sha256}]
    (folder / "checkpoint.json").write_text(json.dumps({"kind": kind, "model": {"a": 1}, "files": files} | fields))
    return folder


def test_an_old_decoder_lies_in_the_lake_under_todays_names_and_says_that_it_needs_the_patch(
    lake: Lake, tmp_path: Path
) -> None:
    file = unpacked("1.0.1/decoder.pth", tmp_path)
    (adopted,) = adopt(lake, file, "old")
    assert (adopted.name, adopted.kind, adopted.unet, adopted.legacy, adopted.version) == (
        "old",
        "unet",
        1,
        True,
        "1.0.1",
    )
    assert adopted.source == str(file)
    assert adopted.source_sha256 == sha256_of(file.open("rb"))
    assert adopted.config and adopted.config["decoder"]["timesteps"] == 24
    record, state = load_start(lake, "old")
    assert record == adopted
    wanted = converted(network("1.0.1/decoder.pth", tmp_path))
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name].float(), wanted[name]) for name in wanted)
    assert adopted.num_parameters == sum(value.numel() for value in wanted.values())
    kept = Adopted.model_validate_json(lake.read_bytes("weights/old/adopted.json"))
    assert kept == adopted


def test_the_layers_of_a_prior_count_their_shared_frequencies_once(lake: Lake, tmp_path: Path) -> None:
    (adopted,) = adopt(lake, unpacked("1.0.1/prior.pth", tmp_path), "p", version="1.0.2")
    _, state = load_start(lake, "p")
    rotary = [value.numel() for name, value in state.items() if name.endswith("rotary_emb.freqs")]
    assert len(rotary) == 2
    assert adopted.num_parameters == sum(value.numel() for value in state.values()) - rotary[0]
    assert state["net.null_text_embeds"].shape == (1, 2, 16)


def test_the_version_is_asked_for_where_it_matters_and_may_not_contradict_the_file(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"give --version, for LAION's weights 1\.0\.2"):
        adopt(lake, unpacked("1.0.1/upsampler.pth", tmp_path), "up")
    (upsampler,) = adopt(lake, unpacked("1.0.1/upsampler.pth", tmp_path), "up", version="1.0.2")
    assert (upsampler.unet, upsampler.legacy, upsampler.version) == (2, True, "1.0.2")
    with pytest.raises(UsageError, match=r"says that dalle2-pytorch 1\.0\.1 saved it, not --version 1\.0\.2"):
        adopt(lake, unpacked("1.0.1/decoder.pth", tmp_path), "base", version="1.0.2")
    assert not lake.exists("weights/base/adopted.json")


def test_a_file_with_two_unets_gives_two_names(lake: Lake, tmp_path: Path) -> None:
    unets = {f"unets.{number - 1}.{name}": v for number in (1, 2) for name, v in state_of(number).items()}
    torch.save(unets | {"noise_schedulers.0.betas": torch.zeros(3)}, tmp_path / "d.pth")
    names = [(one.name, one.unet, one.legacy) for one in adopt(lake, tmp_path / "d.pth", "mine")]
    assert names == [("mine-unet1", 1, False), ("mine-unet2", 2, False)]
    assert load_start(lake, "mine-unet2")[1]["init_conv.weight"].shape == (8, 6, 7, 7)


def test_a_name_is_for_good(lake: Lake, tmp_path: Path) -> None:
    first = adopt(lake, bare(tmp_path, 1), "a")
    record = Path(lake.full("weights/a/adopted.json"))
    before = record.stat().st_mtime_ns
    assert adopt(lake, bare(tmp_path, 1), "a") == first
    assert record.stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="choose another --name, or remove"):
        adopt(lake, bare(tmp_path, 2), "a")
    assert load_start(lake, "a")[1]["to_out.bias"].tolist() == [1, 1, 1]
    for name in ("../a", "", ".a", "a/b"):
        with pytest.raises(UsageError, match="--name"):
            adopt(lake, bare(tmp_path, 1), name)


def test_a_checkpoint_of_any_lake_is_adopted_as_a_path_or_a_url(lake: Lake, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "other/step-1", "decoder", state_of(2), unet=3, model={"layout": "1.0"})
    for name, path in (("path", str(folder)), ("url", f"file://{folder}")):
        (adopted,) = adopt(lake, path, name)
        assert (adopted.kind, adopted.unet, adopted.legacy) == ("unet", 3, True)
        assert adopted.config == {"layout": "1.0"}
        assert adopted.source == path


def test_a_decoders_checkpoint_of_before_gives_its_unets(lake: Lake, tmp_path: Path) -> None:
    state = {f"unets.{n - 1}.{name}": value for n in (1, 2) for name, value in state_of(n).items()}
    state |= {"noise_schedulers.1.betas": torch.zeros(3), "lowres_conds.1.noise_scheduler.betas": torch.zeros(3)}
    adopted = adopt(lake, checkpoint(tmp_path / "c", "decoder", state), "c")
    assert [(one.unet, one.legacy) for one in adopted] == [(1, False), (2, False)]


def test_a_priors_checkpoint_is_adopted_without_its_noise_schedule(lake: Lake, tmp_path: Path) -> None:
    state = {"net.learned_query": torch.ones(2), "noise_scheduler.betas": torch.zeros(3)}
    (adopted,) = adopt(lake, checkpoint(tmp_path / "c", "prior", state), "c")
    assert (adopted.kind, adopted.unet) == ("prior", None)
    assert list(load_start(lake, "c")[1]) == ["net.learned_query"]


def test_a_changed_byte_is_an_error_that_names_the_file(lake: Lake, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "c", "decoder", state_of(1), unet=1)
    adopt(lake, folder, "c")
    for file in (folder / "weights.safetensors", Path(lake.full("weights/c/weights.safetensors"))):
        with file.open("r+b") as stream:
            stream.seek(-1, os.SEEK_END)
            stream.write(b"\x01")
    with pytest.raises(CorruptFile, match=r"c/weights.safetensors changed: its sha256 is"):
        adopt(lake, folder, "d")
    with pytest.raises(CorruptFile, match=r"weights/c/weights.safetensors changed.*adopt .*/c again"):
        load_start(lake, "c")


def test_what_is_no_checkpoint_is_said(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"it has no checkpoint.json; expected a folder such as"):
        adopt(lake, tmp_path / "empty", "x")
    lies = checkpoint(tmp_path / "lies", "prior", state_of(1))
    with pytest.raises(CorruptFile, match=r"recorded as a prior, but weights.safetensors holds a unet"):
        adopt(lake, lies, "x")
    (lies / "checkpoint.json").write_text("[]")
    with pytest.raises(CorruptFile, match="is not a checkpoint's record"):
        adopt(lake, lies, "x")
    with pytest.raises(UsageError, match="cannot be fetched"):
        adopt(lake, "file:///missing/x.pth", "x")


def test_weights_that_are_not_there_are_listed(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no weights 'b': there are none"):
        load_start(lake, "b")
    adopt(lake, bare(tmp_path), "a")
    with pytest.raises(UsageError, match="no weights 'b': there are a; bring some with sp-data weights adopt"):
        load_start(lake, "b")


def test_a_kill_before_the_record_leaves_nothing_that_counts(lake: Lake, tmp_path: Path) -> None:
    adopt(lake, bare(tmp_path), "a")
    shutil.copytree(lake.full("weights/a"), lake.full("weights/b"))
    lake.remove("weights/b/adopted.json")
    assert find(lake, "b") is None
    (adopted,) = adopt(lake, bare(tmp_path, 2), "b")
    assert load_file(lake.full(adopted.files[0].path))["to_out.bias"].tolist() == [2, 2, 2]


def test_a_remote_lake_takes_and_gives_weights(tmp_path: Path) -> None:
    remote = Lake("memory://weights-test", "x")
    adopt(remote, bare(tmp_path, 1), "a")
    assert load_start(remote, "a")[1]["to_out.bias"].tolist() == [1, 1, 1]
