"""What came and went between two datasets, as Markdown with contact sheets: what a person approves."""

from __future__ import annotations

from collections.abc import Collection

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import read_kept
from sp_data.foreign_text import markdown
from sp_data.lake import Lake
from sp_data.report.samples import Shown, pictures_of, thumbnail
from sp_data.runtime.contact_sheet import contact_sheet, data_uri
from sp_data.training.dataset_change import DatasetChange, Picture, curated_of

NUM_SHOWN = 32
NUM_NAMED = 20


def change_markdown(lake: Lake, change: DatasetChange) -> str:
    """A contact sheet and the names of the pictures that came; the same of those that went, or have another caption."""
    lines = [f"## {markdown(lake.dataset)}: {change}", ""]
    if change.before_at:
        lines += [f"Since {change.before_at[:16].replace('T', ' ')} UTC.", ""]
    for word, digest, pictures in (
        ("New", change.digest, change.added),
        ("Gone", change.before, change.gone),
        ("Recaptioned", change.digest, change.recaptioned),
    ):
        if not pictures:
            continue
        lines += [f"### {word}: {len(pictures):,}", ""]
        images = list(pictures_of(_shown(lake, digest, set(pictures[:NUM_SHOWN]))))
        if images:
            lines += [f"![{word.lower()} pictures]({data_uri(contact_sheet(images))})", ""]
        lines += [f"- {markdown(title)}" for title, _ in pictures[:NUM_NAMED]]
        if len(pictures) > NUM_NAMED:
            lines.append(f"- and {len(pictures) - NUM_NAMED:,} more")
        lines.append("")
    return "\n".join(lines)


def _shown(lake: Lake, digest: str | None, wanted: Collection[Picture]) -> list[Shown]:
    """These pictures of the verified dataset with this digest, as far as they are still in the lake."""
    verified = next((each for each in manifests.all_of(lake, "verify") if each.digest == digest), None)
    curated = curated_of(lake, verified) if verified else None
    if curated is None:
        return []
    rows = read_kept(lake, curated, ["title", "sha1", "caption", "path"]).to_pylist()
    return [
        Shown(thumbnail(lake, row["path"]), row["title"], row["caption"])
        for row in rows
        if (row["title"], row["sha1"]) in wanted
    ]
