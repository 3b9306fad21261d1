"""The demo: a made-up wiki of paper-cutout kids, its tiny CLIP, and everything it needs to run without a network.

kids.py says who the kids are, artist.py draws them, world.py makes a wiki of them, server.py serves it,
train_clip.py trained the weights in clip/.
"""

from pathlib import Path


def clip_folder() -> Path:
    """The folder with the tiny CLIP, for clip-retrieval's `hf_clip:` route: 64 px in, 128 numbers out."""
    return Path(__file__).parent / "clip" / "model"
