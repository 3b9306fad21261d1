"""A stage as markdown: what a Prefect artifact shows."""

from __future__ import annotations

from sp_data import manifest as manifests
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.report import samples
from sp_data.report.samples import Shown, pictures_of
from sp_data.report.sheet import contact_sheet, data_uri

NUM_SHOWN = 32


def stage_markdown(lake: Lake, manifest: Manifest, state: str) -> str:
    """Counts, reasons, a contact sheet where the stage has pictures, lineage. At most some 200 kB."""
    counts = manifest.counts
    lines = [
        f"## {manifest.stage}: {state}",
        "",
        "| in | out | dropped | files | bytes |",
        "|---:|---:|---:|---:|---:|",
        f"| {counts.in_:,} | {counts.out:,} | {counts.num_dropped:,} | "
        f"{len(manifest.files):,} | {manifest.num_bytes:,} |",
    ]
    if counts.dropped:
        lines += ["", "| dropped because | pictures |", "|---|---:|"]
        lines += [f"| {reason} | {count:,} |" for reason, count in sorted(counts.dropped.items())]
    for title, shown in _pictures(lake, manifest):
        pictures = list(pictures_of(shown))
        if pictures:
            lines += ["", f"### {title}", "", f"![{title}]({data_uri(contact_sheet(pictures))})"]
            lines += ["", *[f"- {one.title}: {one.line}" for one in shown[:8]]]
    lines += ["", "### Lineage", "", f"- identity `{manifest.identity}`", f"- digest `{manifest.digest}`"]
    lines += [f"- from {stage} `{digest}`" for stage, digest in sorted(manifest.inputs.items())]
    lines += [f"- {name} {version}" for name, version in sorted(manifest.versions.items())]
    return "\n".join(lines) + "\n"


def _pictures(lake: Lake, manifest: Manifest) -> list[tuple[str, list[Shown]]]:
    if manifest.stage == "scrape":
        return [("Originals", samples.originals(lake, manifest, NUM_SHOWN))]
    if manifest.stage == "curate":
        return [
            ("Kept", samples.kept(lake, manifest, NUM_SHOWN)),
            ("Dropped", samples.dropped(lake, manifest, limit_a_reason=4)),
        ]
    if manifest.stage == "shard":
        return [("In the shards", samples.from_shards(lake, manifest, NUM_SHOWN))]
    # Later stages make numbers; their pictures are those of the shards they were made from.
    sharded = manifests.latest(lake, "shard")
    if sharded is not None and manifest.inputs.get("shard") == sharded.digest:
        return [("Of these pictures", samples.from_shards(lake, sharded, NUM_SHOWN // 2))]
    return []
