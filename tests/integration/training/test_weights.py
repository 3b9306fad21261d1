"""LAION's weights from a server that speaks the hub's protocol, and trained ones as files that others load."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dalle2_pytorch.train_configs import (
    DecoderConfig,
    DiffusionPriorConfig,
    TrainDecoderConfig,
    TrainDiffusionPriorConfig,
)
from dalle2_pytorch.trainer import DecoderTrainer
from hub_server import Hub, hub
from huggingface_hub import constants, file_download
from laion_sizes import in_a_process
from legacy_references import FOLDER, config, unpacked

from sp_data.errors import CorruptFile, UsageError
from sp_data.lake import Lake
from sp_data.recipe import demo
from sp_data.training.checkpoints import Checkpoint, save
from sp_data.training.models import OLD_LAYOUT, build_decoder, unet_config
from sp_data.training.weights import laion
from sp_data.training.weights.adopt import adopt, load_start
from sp_data.training.weights.export import export_decoder, export_prior
from sp_data.training.weights.laion import HubUnreachable, fetch

PRIOR = "laion/DALLE2-PyTorch/prior/latest.pth"
UPSAMPLER = "Veldrovive/upsamplers/working/latest.pth"
CHUNK = 1024
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The reference files at LAION's addresses."""
    folder = tmp_path_factory.mktemp("published")
    return {
        PRIOR: unpacked("1.0.1/prior.pth", folder).read_bytes(),
        "laion/DALLE2-PyTorch/prior/prior_config.json": (FOLDER / "1.0.1/prior_config.json").read_bytes(),
        "laion/DALLE2-PyTorch/decoder/v1.0.2/latest.pth": unpacked("1.0.1/decoder.pth", folder).read_bytes(),
        UPSAMPLER: unpacked("1.0.1/upsampler.pth", folder).read_bytes(),
        "Veldrovive/upsamplers/working/decoder_config.json": (FOLDER / "1.0.1/upsampler_config.json").read_bytes(),
    }


@pytest.fixture
def server(published: dict[str, bytes]) -> Iterator[Hub]:
    with hub() as running:
        running.files |= published
        clip = b"a CLIP"
        running.plain[f"/clip/{hashlib.sha256(clip).hexdigest()}/ViT-L-14.pt"] = clip
        yield running


def go_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def at_the_server(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    from clip import clip

    go_to(server.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setitem(clip._MODELS, "ViT-L/14", server.url + next(iter(server.plain)))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return server


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "x")


def test_laions_weights_are_fetched_once_and_known_for_what_they_are(at_the_server: Hub, lake: Lake) -> None:
    adopted = fetch(lake)
    assert [(one.name, one.kind, one.unet, one.legacy, one.version) for one in adopted] == [
        ("laion-prior", "prior", None, True, "1.0.2"),
        ("laion-decoder", "unet", 1, True, "1.0.1"),
        ("laion-upsampler", "unet", 2, True, "1.0.2"),
    ]
    assert adopted[0].config == config("1.0.1/prior_config.json")
    assert adopted[2].config == config("1.0.1/upsampler_config.json")
    assert adopted[0].source == f"{at_the_server.url}/laion/DALLE2-PyTorch/resolve/main/prior/latest.pth"
    assert laion.clip_file().read_bytes() == b"a CLIP"
    num_requests = len(at_the_server.ranges)
    assert fetch(lake) == adopted
    assert len(at_the_server.ranges) == num_requests == 3


def test_a_download_that_was_cut_goes_on_where_it_ended(
    at_the_server: Hub, lake: Lake, published: dict[str, bytes]
) -> None:
    at_the_server.cut_after[PRIOR] = 10 * CHUNK
    with pytest.raises(HubUnreachable, match="fetch these elsewhere") as missing:
        fetch(lake, ["laion-prior"], clip=False)
    assert missing.value.items[0].endswith("prior/latest.pth -> --prior FILE")
    assert not lake.exists("weights/laion-prior/adopted.json")
    (adopted,) = fetch(lake, ["laion-prior"], clip=False)
    assert at_the_server.ranges == [(PRIOR, None), (PRIOR, f"bytes={10 * CHUNK}-")]
    assert adopted.source_sha256 == hashlib.sha256(published[PRIOR]).hexdigest()


def test_a_file_with_another_sha256_is_refused_and_not_kept(at_the_server: Hub, lake: Lake, tmp_path: Path) -> None:
    at_the_server.sums[PRIOR] = "0" * 64
    for _ in range(2):
        with pytest.raises(CorruptFile, match=r"the hub says .* and 0000000000000000: it is removed"):
            fetch(lake, ["laion-prior"], clip=False)
    assert [name for name, _ in at_the_server.ranges] == [PRIOR, PRIOR]
    assert not lake.list("weights")
    del at_the_server.sums[PRIOR]
    assert fetch(lake, ["laion-prior"], clip=False)


def test_what_is_in_the_cache_serves_without_a_network_and_is_checked_by_its_name(
    at_the_server: Hub, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch(lake)
    go_to(NOBODY, monkeypatch)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    again = fetch(Lake(str(tmp_path / "lake"), "y"))
    assert [one.digest for one in again] == [one.digest for one in first]
    blob = next(file for file in (tmp_path / "hub").rglob("latest.pth") if "prior" in str(file)).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CorruptFile, match="it is removed"):
        fetch(Lake(str(tmp_path / "lake"), "z"))
    assert not blob.exists()


def sp_data(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "SP_LAKE"}
    return subprocess.run(
        [sys.executable, "-m", "sp_data.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=kept | environment,
    )


def test_without_a_network_one_error_lists_every_address_and_where_its_file_goes(tmp_path: Path) -> None:
    process = sp_data(
        *("weights", "laion", "--recipe", "southpark"),
        cwd=tmp_path,
        HF_ENDPOINT=NOBODY,
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path / "hf"),
        HOME=str(tmp_path / "home"),
        HTTPS_PROXY=NOBODY,
        https_proxy=NOBODY,
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    openai = "https://openaipublic.azureedge.net/clip/models/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
    listed = process.stderr[process.stderr.index("fetch these elsewhere:") :].splitlines()[1:]
    assert listed == [
        f"  {NOBODY}/laion/DALLE2-PyTorch/resolve/main/prior/latest.pth -> --prior FILE",
        f"  {NOBODY}/laion/DALLE2-PyTorch/resolve/main/prior/prior_config.json -> beside that file",
        f"  {NOBODY}/laion/DALLE2-PyTorch/resolve/main/decoder/v1.0.2/latest.pth -> --decoder FILE",
        f"  {NOBODY}/Veldrovive/upsamplers/resolve/main/working/latest.pth -> --upsampler FILE",
        f"  {NOBODY}/Veldrovive/upsamplers/resolve/main/working/decoder_config.json -> beside that file",
        f"  {openai}/ViT-L-14.pt -> {tmp_path}/home/.cache/clip/ViT-L-14.pt",
    ]


def test_the_command_uses_the_endpoint_of_the_usual_variable_and_takes_local_files(
    server: Hub, tmp_path: Path, published: dict[str, bytes]
) -> None:
    (tmp_path / "latest.pth").write_bytes(published[PRIOR])
    (tmp_path / "prior_config.json").write_bytes((FOLDER / "1.0.1/prior_config.json").read_bytes())
    process = sp_data(
        *("weights", "laion", "prior", "upsampler", "--prior", "latest.pth", "--recipe", "southpark", "--json"),
        cwd=tmp_path,
        HF_ENDPOINT=server.url,
        HF_HOME=str(tmp_path / "hf"),
    )
    assert process.returncode == 0, process.stderr
    told = json.loads(process.stdout)
    assert told["dataset"] == "southpark"
    assert [(one["name"], one["source"]) for one in told["weights"]] == [
        ("laion-prior", "latest.pth"),
        ("laion-upsampler", f"{server.url}/Veldrovive/upsamplers/resolve/main/working/latest.pth"),
    ]
    assert [name for name, _ in server.ranges] == [UPSAMPLER]
    record, _ = load_start(Lake(str(tmp_path / "lake"), "southpark"), "laion-prior")
    assert record.config == config("1.0.1/prior_config.json")


UNET = {
    "dim": 8,
    "dim_mults": [1, 2],
    "cond_dim": 8,
    "image_embed_dim": 16,
    "text_embed_dim": 16,
    "cond_on_text_encodings": True,
    "num_resnet_blocks": 1,
    "attn_heads": 1,
    "attn_dim_head": 8,
    "max_text_len": 2,
}
DECODER = {
    "unets": [UNET, UNET | {"cond_on_text_encodings": False}],
    "image_sizes": [8, 16],
    "timesteps": 30,
    "sample_timesteps": [10, 20],
    "beta_schedule": ["cosine", "linear"],
    "learned_variance": [True, False],
    "use_noise_for_lowres_cond": [True],
    "predict_v": [False, False],
}
PRIOR_CONFIG = {
    "net": {"dim": 16, "depth": 1, "heads": 1, "dim_head": 8, "num_timesteps": 30, "max_text_len": 2},
    "image_embed_dim": 16,
    "image_size": 224,
    "timesteps": 30,
    "sampling_clamp_l2norm": True,
}


def test_an_exported_decoder_loads_as_dalle2_laion_and_dalle2_pytorch_load_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = DecoderConfig(**DECODER).create()
    export_decoder(DECODER | {"layout": None}, [unet.state_dict() for unet in trained.unets], tmp_path / "d.pth")
    # dalle2-laion: DalleModelManager._load_single_decoder
    saved = torch.load(tmp_path / "d.pth", map_location="cpu")
    assert saved["version"] == "1.15.6"
    theirs = TrainDecoderConfig(**saved["config"]).decoder
    assert theirs.clip is None and theirs.image_sizes == [8, 16]
    decoder = theirs.create().eval()
    decoder.load_state_dict(saved["model"], strict=True)
    wanted = trained.state_dict()
    assert saved["model"].keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in decoder.state_dict().items())
    # dalle2-pytorch: DecoderTrainer.load
    DecoderTrainer(DecoderConfig(**DECODER).create()).load(str(tmp_path / "d.pth"), only_model=True, strict=True)


def test_an_exported_prior_loads_as_dalle2_laion_loads_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = DiffusionPriorConfig(**PRIOR_CONFIG).create()
    export_prior(PRIOR_CONFIG, trained.state_dict(), tmp_path / "p.pth")
    saved = torch.load(tmp_path / "p.pth", map_location="cpu")
    prior = TrainDiffusionPriorConfig(**saved["config"]).prior.create().eval()
    prior.load_state_dict(saved["model"], strict=True)
    wanted = trained.state_dict()
    assert saved["model"].keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in prior.state_dict().items())


def test_weights_that_compute_as_1_0_did_are_exported_as_1_0_wrote_them(lake: Lake, tmp_path: Path) -> None:
    """And come back as the same bytes."""
    original = unpacked("1.0.1/upsampler.pth", tmp_path)
    cascade = config("1.0.1/upsampler_config.json")["decoder"]
    states = []
    for name in ("decoder", "upsampler"):
        adopt(lake, unpacked(f"1.0.1/{name}.pth", tmp_path), name, version="1.0.1")
        states.append(load_start(lake, name)[1])
    export_decoder(cascade | {"layout": "1.0", "predict_v": [False, False]}, states, tmp_path / "d.pth", legacy=True)
    saved = torch.load(tmp_path / "d.pth")
    assert saved["version"] == "1.0.2"
    assert "predict_v" not in saved["config"]["decoder"] and "layout" not in saved["config"]["decoder"]
    theirs = torch.load(original, weights_only=True)
    assert {name for name in saved["model"] if not name.startswith("unets.0.")} == theirs.keys()
    assert all(torch.equal(saved["model"][name], value) for name, value in theirs.items())
    base, upsampler = adopt(lake, tmp_path / "d.pth", "back")
    assert (base.legacy, upsampler.legacy) == (True, True)
    assert upsampler.digest == adopt(lake, original, "upsampler", version="1.0.1")[0].digest
    with pytest.raises(UsageError, match="predict_v"):
        export_decoder(cascade | {"predict_v": [True, False]}, states, tmp_path / "v.pth", legacy=True)

    (prior,) = adopt(lake, unpacked("1.0.1/prior.pth", tmp_path), "prior", version="1.0.1")
    settings = config("1.0.1/prior_config.json")["prior"]
    export_prior(settings, load_start(lake, "prior")[1], tmp_path / "p.pth", legacy=True)
    theirs = torch.load(tmp_path / "1.0.1-prior.pth", weights_only=True)
    saved = torch.load(tmp_path / "p.pth")
    assert saved["model"].keys() == {name for name in theirs if not name.startswith("clip.")}
    assert all(torch.equal(value, theirs[name]) for name, value in saved["model"].items())
    assert adopt(lake, tmp_path / "p.pth", "prior-back")[0].digest == prior.digest


@pytest.mark.parametrize("layout", [None, OLD_LAYOUT])
def test_the_command_exports_a_checkpoint_of_the_lake(layout: str | None, tmp_path: Path) -> None:
    recipe = demo()
    lake = Lake(str(tmp_path / "lake"), recipe.name)
    settings = recipe.decoder.model_copy(update={"objective": "noise"})
    model = unet_config(settings, 1, recipe.embed.dim, layout)
    unet: Any = build_decoder([model]).unets[0]  # type: ignore[index]
    record = Checkpoint(
        kind="decoder",
        unet=1,
        run="decoder-unet1-0",
        step=1,
        loss=1.0,
        val_loss=None,
        num_samples=1,
        dataset="",
        clip="",
        settings={},
        model=model,
        num_parameters=1,
        files=(),
    )
    saved = save(lake, record, unet.state_dict(), {"step": 1})
    command = ("weights", "export", "decoder", "--out", "d.pth", "--checkpoint", saved.folder, "--recipe", "demo")
    process = sp_data(*command, "--json", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == {
        "dataset": "demo",
        "kind": "decoder",
        "file": "d.pth",
        "checkpoints": [saved.name],
    }
    exported = torch.load(tmp_path / "d.pth")
    assert exported["version"] == ("1.0.2" if layout else "1.15.6")
    decoder = TrainDecoderConfig(**exported["config"]).decoder.create()
    if layout is None:
        decoder.load_state_dict(exported["model"], strict=True)
        assert all(torch.equal(value, unet.state_dict()[name]) for name, value in decoder.unets[0].state_dict().items())
    else:
        assert any(".cross_attn.fn." in name for name in exported["model"])
        assert not {"lowres_cond", "cond_on_image_embeds"} & exported["config"]["decoder"]["unets"][0].keys()
    again = sp_data(*command, cwd=tmp_path)
    assert again.returncode == 2 and "d.pth exists: choose another --out" in again.stderr


def test_an_export_replaces_nothing_and_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "d.pth").write_text("mine")
    unets = [unet.state_dict() for unet in DecoderConfig(**DECODER).create().unets]
    with pytest.raises(UsageError, match="exists: choose another --out"):
        export_decoder(DECODER, unets, tmp_path / "d.pth")
    with pytest.raises(UsageError, match="2 unets cannot be exported from 1"):
        export_decoder(DECODER, unets[:1], tmp_path / "e.pth")
    assert [file.name for file in tmp_path.iterdir()] == ["d.pth"]


@pytest.mark.proof
@pytest.mark.parametrize(
    ("part", "num_parameters"), [("prior", 101_756_560), ("decoder", 982_610_118), ("upsampler", 632_649_228)]
)
def test_files_with_laions_names_and_shapes_load_strictly(
    part: str, num_parameters: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Time and peak memory of: making the file, loading it as it is, adopting it, loading what was adopted."""
    file = tmp_path / f"{part}.pth"
    steps = {
        "made": in_a_process("make", part, str(file)),
        "loaded": in_a_process("load", part, str(file)),
        "adopted": in_a_process("take_in", part, str(file), str(tmp_path / "lake")),
        "started": in_a_process("start", part, str(tmp_path / "lake")),
    }
    with capsys.disabled():
        for step, facts in steps.items():
            sys.stdout.write(f"\n{part} {file.stat().st_size / 1e9:.2f} GB {step}: {facts}")
    assert steps["adopted"]["num_parameters"] == num_parameters
    assert steps["loaded"]["checksum"] == steps["started"]["checksum"] == steps["made"]["checksum"]
