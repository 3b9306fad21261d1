"""What came and went since the models were trained: whether a fine-tuning is due. Needs no torch.

    change = change_since_training(lake, verified)
    change.added, change.gone            # (title, sha1) of each picture
    due(recipe, change, now)             # (True, "3 pictures came, 2 went")

Two datasets are compared by the pictures that curate kept for them: title and sha1 of the original, and the caption. A
picture that was uploaded anew came and went.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import read_kept
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe

Picture = tuple[str, str]
"""Title and sha1 of the original."""


@dataclass(frozen=True, slots=True)
class DatasetChange:
    """The verified dataset beside an earlier one."""

    digest: str
    """Of the dataset as it is now."""
    added: tuple[Picture, ...]
    gone: tuple[Picture, ...]
    before: str | None = None
    """Digest of the earlier dataset; None: there is none, or its pictures are not known any more."""
    before_at: str = ""
    """When the models of the earlier dataset were trained, or when it was verified (ISO 8601)."""
    recaptioned: tuple[Picture, ...] = ()
    """In both, with another caption."""

    @property
    def num_changes(self) -> int:
        return len(self.added) + len(self.gone) + len(self.recaptioned)

    def __str__(self) -> str:
        pictures = [f"+{len(self.added):,} −{len(self.gone):,}"] if self.added or self.gone else []
        captions = [f"{len(self.recaptioned):,} recaptioned"] if self.recaptioned else []
        # The same pictures and words in other shards or at another size.
        return ", ".join([*pictures, *captions]) or "made anew"


def change_between(lake: Lake, before: Manifest | None, now: Manifest) -> DatasetChange:
    """What came and went between two verified datasets."""
    old = _captions(lake, before) if before is not None else None
    new = _captions(lake, now) or {}
    if before is None or old is None:
        return DatasetChange(now.digest, tuple(sorted(new)), ())
    return DatasetChange(
        now.digest,
        tuple(sorted(new.keys() - old.keys())),
        tuple(sorted(old.keys() - new.keys())),
        before.digest,
        before.made_at,
        tuple(sorted(picture for picture, caption in new.items() if caption != old.get(picture, caption))),
    )


def change_since_training(lake: Lake, now: Manifest) -> DatasetChange:
    """What came and went since the dataset that the newest decoder was trained on, or else the newest prior."""
    trained = manifests.latest(lake, "decoder") or manifests.latest(lake, "prior")
    if trained is None:
        return change_between(lake, None, now)
    digest = trained.inputs.get("verify")
    before = next((each for each in manifests.all_of(lake, "verify") if each.digest == digest), None)
    change = change_between(lake, before, now)
    return replace(change, before=digest, before_at=trained.made_at)


def due(recipe: Recipe, change: DatasetChange, now: datetime) -> tuple[bool, str]:
    """Whether the recipe's `follow_up` asks for a fine-tuning now, and why or why not, in a few words."""
    follow_up = recipe.follow_up
    if not follow_up.finetune:
        return False, "follow_up.finetune is false"
    if change.num_changes == 0:
        return False, "no picture and no caption changed since the last fine-tuning"
    if change.before is None:
        return True, "there is no fine-tuning yet"
    if change.num_changes >= follow_up.after_changes:
        return True, f"{change} since the last fine-tuning"
    age_days = (now - datetime.fromisoformat(change.before_at)).total_seconds() / 86_400
    if follow_up.after_days and age_days >= follow_up.after_days:
        return True, f"{change}, and the last fine-tuning is {age_days:.0f} days old"
    return False, f"{change} since the last fine-tuning; follow_up waits for {follow_up.after_changes:,} changes"


def curated_of(lake: Lake, verified: Manifest) -> Manifest | None:
    """The manifest of the tables that a verified dataset was made from, None if they were removed."""
    digest = verified.inputs.get("curate")
    curated = next((each for each in manifests.all_of(lake, "curate") if each.digest == digest), None)
    return None if curated is None or manifests.missing_files(lake, curated.files) else curated


def _captions(lake: Lake, verified: Manifest) -> dict[Picture, str] | None:
    """The pictures of a verified dataset, None if the tables that it was made from were removed."""
    curated = curated_of(lake, verified)
    if curated is None:
        return None
    table = read_kept(lake, curated, ["title", "sha1", "caption"])
    titles, sha1s, captions = (table[name].to_pylist() for name in ("title", "sha1", "caption"))
    return dict(zip(zip(titles, sha1s, strict=True), captions, strict=True))
