"""Pictures to show for a stage: some that it kept, and some that it dropped with the reasons."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sp_data.canonical import parse_json
from sp_data.dataset.curate.decoding import MAX_PIXELS, Refused, decode_rgb, decoder_errors, opened_picture
from sp_data.dataset.curate.tables import read_dropped, read_kept
from sp_data.dataset.shards.tars import read_tar
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.wiki.catalogue import OK, catalogue_rows, read_catalogue

THUMB_PX = 128


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture on a page: its thumbnail (None if the bytes are unreadable), its name, and a line below it."""

    picture: Image.Image | None
    title: str
    line: str
    url: str = ""
    group: str = ""


def originals(lake: Lake, scraped: Manifest, limit: int) -> list[Shown]:
    """Original pictures as they came from the wiki, spread evenly over the catalogue."""
    rows = [row for row in catalogue_rows(read_catalogue(lake, scraped)) if row.status == OK]
    chosen = rows[:: max(1, len(rows) // limit)][:limit]
    return [Shown(thumbnail(lake, row.original or ""), row.title, row.caption, row.url) for row in chosen]


def refused(lake: Lake, scraped: Manifest) -> list[Shown]:
    """Files of the wiki that did not become originals, with the reasons; they have no picture to show."""
    rows = [row for row in catalogue_rows(read_catalogue(lake, scraped)) if row.status != OK]
    return [Shown(None, row.title, row.status, row.url, group="scrape") for row in rows]


def kept(lake: Lake, curated: Manifest, limit: int) -> list[Shown]:
    """Kept pictures, spread evenly over the table."""
    rows = read_kept(lake, curated).select(["title", "caption", "path", "url", "split"]).to_pylist()
    chosen = rows[:: max(1, len(rows) // limit)][:limit] if limit else []
    return [
        Shown(thumbnail(lake, row["path"]), row["title"], row["caption"], row["url"], row["split"]) for row in chosen
    ]


def dropped(lake: Lake, curated: Manifest, limit_a_reason: int) -> list[Shown]:
    """Dropped pictures by reason, a few of each."""
    rows = read_dropped(lake, curated).to_pylist()
    shown: list[Shown] = []
    for reason in sorted({row["reason"] for row in rows}):
        of_reason = [row for row in rows if row["reason"] == reason][:limit_a_reason]
        shown += [
            Shown(thumbnail(lake, row["original"]), row["title"], row["detail"], group=reason) for row in of_reason
        ]
    return shown


def from_shards(lake: Lake, sharded: Manifest, limit: int) -> list[Shown]:
    """The first pictures of the shards, a few of each, as training will see them."""
    layout = KeyLayout.parse(sharded.details["layout"])
    names = [layout.shard_name(shard["number"]) for shard in sharded.details["shards"]]
    shown: list[Shown] = []
    for name in names[:: max(1, len(names) // 4)][:4]:
        with lake.local(f"shards/{name}.tar") as path:
            for (key, parts), _ in zip(read_tar(path), range(limit // 4), strict=False):
                shown.append(_of_sample(key, parts))
    return shown


def _of_sample(key: str, parts: dict[str, bytes]) -> Shown:
    """A sample of a tar; that of an import has no title, and other fields than ours."""
    picture: Image.Image | None = None
    fields: Any = {}
    with contextlib.suppress(Refused, ValueError):
        fields = parse_json(parts.get("json", b"{}"))
        picture = decode_rgb(parts.get("jpg", b""))
    texts = fields if isinstance(fields, dict) else {}
    title, caption, url = (str(texts.get(name) or "") for name in ("title", "caption", "url"))
    return Shown(picture, title or key, caption, url, key)


def thumbnail(lake: Lake, path: str) -> Image.Image | None:
    """A small copy of a picture in the lake, transparent parts over white; None if it is gone or unreadable."""
    if not path or not lake.exists(path):
        return None
    with lake.local(path) as local:
        try:
            with opened_picture(local.read_bytes(), MAX_PIXELS) as opened, decoder_errors():
                opened.thumbnail((THUMB_PX, THUMB_PX))
                rgba = opened.convert("RGBA")
        except Refused:
            # This is the reason for which it was dropped; the page shows it.
            return None
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def pictures_of(shown: list[Shown]) -> Iterator[Image.Image]:
    return (sample.picture for sample in shown if sample.picture is not None)
