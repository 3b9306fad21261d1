"""The folder of embeddings, named by what they are made of.

    embeddings/ViT-L-14-3f2a91bc/

Embeddings of another model, other weights or another batch size never share a folder.
"""

from __future__ import annotations

from typing import Any

from sp_data.canonical import digest_of
from sp_data.dataset.embed.clip import weights_digest
from sp_data.recipe import Embed, Recipe

VERSION = 1
"""Raised, with the stage's own version, when a row comes out differently, so that other rows lie in another folder."""


def identity_fields(recipe: Recipe) -> dict[str, Any]:
    """What names the embeddings: the settings, and a digest of weights that lie on this machine."""
    return _fields(recipe.embed)


def _fields(settings: Embed) -> dict[str, Any]:
    return {**settings.identity_fields(), "weights": weights_digest(settings.clip_model)}


def clip_folder(settings: Embed) -> str:
    """'ViT-L-14-3f2a91bc': the folder of these settings below embeddings/ and reordered/."""
    return f"{settings.name}-{digest_of([VERSION, _fields(settings)])[:8]}"


def shard_identity(settings: Embed, tar_sha256: str) -> str:
    """Digest of what one shard's embeddings are made of."""
    return digest_of([VERSION, _fields(settings), tar_sha256])
