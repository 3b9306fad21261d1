"""Where the demo's files lie in a lake: the one name that tests cannot know by heart."""

from __future__ import annotations

from sp_data.dataset.embed.folder import clip_folder
from sp_data.recipe import demo

CLIP = clip_folder(demo().embed)
"""Folder of the tiny CLIP below embeddings/ and reordered/."""
