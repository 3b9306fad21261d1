"""The demo: a made-up wiki of paper-cutout kids and its tiny CLIP, all that a run without a network needs.

kids/    who the kids are, and how they are drawn
wiki/    a wiki about them, and the server that speaks MediaWiki's API
clip/    the tiny CLIP, its weights and how they were trained
"""

from pathlib import Path


def clip_folder() -> Path:
    """The folder with the tiny CLIP, for clip-retrieval's `hf_clip:` route: 64 px in, 128 numbers out."""
    return Path(__file__).parent / "clip" / "model"
