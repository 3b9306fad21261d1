"""What a recipe's name for a CLIP stands for: a public model, the demo's, or a file on this machine.

ViT-L/14   open_clip:ViT-B-32/laion2b_s34b_b79k   hf_clip:openai/clip-vit-base-patch32     public
/a/file.pt   open_clip:ViT-B-32//a/file.pt   hf_clip:/a/folder                             a file
"""

from __future__ import annotations

import os

DEMO = "demo"
OPENAI = (
    *("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"),
    *("ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"),
)
"""Models that OpenAI published: clip fetches them, and checks their digest."""


def file_named(clip_model: str) -> str | None:
    """The file or folder that a name stands for; None for a public name and for the demo's."""
    if clip_model == DEMO:
        return None
    prefix, colon, _ = clip_model.partition(":")
    place = location(clip_model)
    if not colon or prefix == "openai_clip":
        return None if place in OPENAI else place
    return place if place.startswith(("/", ".", "~")) or os.path.lexists(place) else None


def location(clip_model: str) -> str:
    """The part of clip-retrieval's name that may be a path: hf_clip:PATH, open_clip:ARCHITECTURE/PATH, PATH."""
    prefix, colon, rest = clip_model.partition(":")
    if not colon:
        return clip_model
    return rest.partition("/")[2] if prefix == "open_clip" else rest
