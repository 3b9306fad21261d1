"""The folder of the demo's CLIP in a lake: its name depends on the recipe's `embed` settings."""

from __future__ import annotations

from sp_data.dataset.embed.folder import clip_folder, identity_fields
from sp_data.recipe import demo

CLIP = clip_folder(identity_fields(demo()))
"""Name of the tiny CLIP's folder in embeddings/ and reordered/."""
