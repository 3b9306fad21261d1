"""The checkpoints of a dataset, by their own records: what there is to draw with, what it can do. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sp_data import manifest as manifests
from sp_data.canonical import parse_json
from sp_data.errors import StageNotDone
from sp_data.lake import Lake
from sp_data.training.trained import RECORD, best_folders

BEST = "best"
ADOPTED = "adopted.json"
NUM_AT_ONCE = 32
NO_DROPS = "these weights were trained without dropping their condition, so guidance cannot lead away from anything"
OLD_PRIOR = "weights of dalle2-pytorch 1.0 to 1.3 never learnt to be guided"
UNCONDITIONED = "this upsampler reads only the smaller picture, so there is nothing to be guided by"


@dataclass(frozen=True, slots=True)
class KnownCheckpoint:
    folder: str
    """Path in the lake."""
    kind: str
    """prior or decoder."""
    unet: int
    """Which of the decoder's, from 1; of a prior 1."""
    run: str
    """Empty for adopted weights."""
    step: int
    loss: float | None
    val_loss: float | None
    made_at: str
    dataset: str
    """Digest of the dataset that it was trained on."""
    model: dict[str, Any]
    """The network's configuration (training/models.py)."""

    @property
    def network(self) -> str:
        return "prior" if self.kind == "prior" else f"unet {self.unet}"

    @property
    def is_adopted(self) -> bool:
        """Weights of others, such as LAION's: no run of this lake has trained them."""
        return not self.run

    def __str__(self) -> str:
        if self.is_adopted:
            return self.folder
        measured = "" if self.val_loss is None else f", validation {self.val_loss:.4f}"
        return f"{self.run} step {self.step:,}{measured}"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What some checkpoints can do. Each is empty, or the reason why not."""

    no_prior_guidance: str = ""
    no_decoder_guidance: str = ""
    no_upsampler_guidance: str = ""
    num_unets: int = 1
    reads_words: bool = False
    """Whether the decoder reads the prompt beside the image embedding."""
    timesteps: int = 1000
    prior_timesteps: int = 1000


def known_checkpoints(lake: Lake) -> list[KnownCheckpoint]:
    """Every checkpoint whose record can be read: by network, the run that saved last first, and its latest step first;
    then adopted weights.

    A record that cannot be read is left out: whoever draws with it is told why.
    """
    paths = [path for path in lake.list("runs") if path.endswith(f"/{RECORD}")]
    paths += [path for path in lake.list("weights") if path.endswith(f"/{ADOPTED}")]
    with ThreadPoolExecutor(1 if lake.is_local else NUM_AT_ONCE) as pool:
        checkpoints = [one for one in pool.map(lambda path: _read(lake, path), paths) if one is not None]
    last = {checkpoint.run: checkpoint.made_at for checkpoint in sorted(checkpoints, key=lambda one: one.made_at)}
    newest_first = sorted(checkpoints, key=lambda one: (last[one.run], one.run, one.step), reverse=True)
    return sorted(newest_first, key=lambda one: (one.kind != "prior", one.unet, one.is_adopted))


def _read(lake: Lake, path: str) -> KnownCheckpoint | None:
    try:
        record = parse_json(lake.read_bytes(path))
        if path.endswith(f"/{ADOPTED}"):
            return _adopted(path.removesuffix(f"/{ADOPTED}"), record)
        return KnownCheckpoint(
            folder=path.removesuffix(f"/{RECORD}"),
            kind=str(record["kind"]),
            unet=int(record.get("unet") or 1),
            run=str(record["run"]),
            step=int(record["step"]),
            loss=record.get("loss"),
            val_loss=record.get("val_loss"),
            made_at=str(record.get("made_at", "")),
            dataset=str(record.get("dataset", "")),
            model=dict(record["model"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        # Removed by a training meanwhile, or damaged.
        return None


def _adopted(folder: str, record: dict[str, Any]) -> KnownCheckpoint:
    model = {**(record.get("config") or {}), **({"layout": "1.0"} if record["legacy"] else {})}
    kind, unet = ("decoder", int(record["unet"])) if record["unet"] else ("prior", 1)
    return KnownCheckpoint(folder, kind, unet, "", 0, None, None, "", str(record.get("dataset", "")), model)


def networks_of(checkpoints: Iterable[KnownCheckpoint]) -> list[str]:
    """'prior', 'unet 1', …: those of which there is a checkpoint."""
    return list(dict.fromkeys(checkpoint.network for checkpoint in checkpoints))


def best_of_finished(lake: Lake) -> list[str]:
    """Folders of the checkpoints that draw where none is chosen: those of the trainings that finished last."""
    folders: list[str] = []
    for kind in ("prior", "decoder"):
        manifest = manifests.latest(lake, kind)
        try:
            folders += best_folders(manifest) if manifest is not None else []
        except StageNotDone:
            continue
    return folders


def chosen(
    checkpoints: Sequence[KnownCheckpoint], choices: Iterable[str], best: Sequence[str]
) -> dict[str, KnownCheckpoint]:
    """Network -> the checkpoint that will draw. `choices` are folders, or BEST; `best`: as `best_of_finished`."""
    wanted = {choice for choice in choices if choice != BEST}
    has_finished = {one.kind for one in checkpoints if one.folder in best}
    by_network: dict[str, KnownCheckpoint] = {}
    for network in networks_of(checkpoints):
        of_network = [checkpoint for checkpoint in checkpoints if checkpoint.network == network]
        picked = [one for one in of_network if one.folder in wanted] or [
            one for one in of_network if one.folder in best
        ]
        if picked:
            by_network[network] = picked[0]
        elif not of_network[0].is_adopted and of_network[0].kind not in has_finished:
            # Otherwise it is a unet that the finished decoder does not have.
            by_network[network] = _best_of_run(of_network)
    return by_network


def _best_of_run(checkpoints: Sequence[KnownCheckpoint]) -> KnownCheckpoint:
    """As `training.checkpoints.best`, of the run that saved last."""
    of_run = [checkpoint for checkpoint in checkpoints if checkpoint.run == checkpoints[0].run]
    return min(of_run, key=lambda one: (float("inf") if one.val_loss is None else one.val_loss, -one.step))


def abilities(by_network: dict[str, KnownCheckpoint]) -> Abilities:
    """What the checkpoints that `chosen` gives can do."""
    prior = by_network["prior"].model if "prior" in by_network else {}
    unets = [checkpoint.model for network, checkpoint in by_network.items() if network != "prior"]
    first = unets[0] if unets else {}
    text_drop = max((float(unet.get("text_cond_drop_prob") or 0) for unet in unets), default=0.0)
    # Other people's configurations say it elsewhere: what is not known is left to the generator.
    drop = first.get("image_cond_drop_prob")
    guides_decoder = drop is None or float(drop) > 0 or text_drop > 0
    reads = any(_reads(unet) for unet in unets[1:])
    return Abilities(
        no_prior_guidance=_no_prior_guidance(prior),
        no_decoder_guidance="" if guides_decoder or not unets else NO_DROPS,
        no_upsampler_guidance=("" if guides_decoder else NO_DROPS) if reads or len(unets) < 2 else UNCONDITIONED,
        num_unets=max(1, len(unets)),
        reads_words=any(bool(unet.get("unet", {}).get("cond_on_text_encodings")) for unet in unets),
        timesteps=int(first.get("timesteps") or 1000),
        prior_timesteps=int(prior.get("timesteps") or 1000),
    )


def _no_prior_guidance(prior: dict[str, Any]) -> str:
    if "layout" in prior:
        return OLD_PRIOR
    drop = prior.get("cond_drop_prob")
    return NO_DROPS if prior and drop is not None and not float(drop) > 0 else ""


def _reads(unet: dict[str, Any]) -> bool:
    """Whether a unet has a condition beside the smaller picture."""
    if "unet" not in unet:
        return True
    network = unet["unet"]
    return bool(network.get("cond_on_image_embeds") or network.get("cond_on_text_encodings"))
