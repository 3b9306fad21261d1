"""The folder of embeddings, named by what they are made of.

    embeddings/ViT-L-14-3f2a91bc/

Embeddings of another model, other weights or another batch size never share a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sp_data.canonical import digest_of
from sp_data.dataset.embed.clip import weights_digest
from sp_data.recipe import Recipe

VERSION = 1
"""Raised, with the stage's own version, when a row comes out differently, so that other rows lie in another folder."""


def identity_fields(recipe: Recipe) -> dict[str, Any]:
    """What names the embeddings: the settings, and the sha256 of the weights where they lie on this machine.

    Reads the weights' files, which takes seconds where they are large.
    """
    return {**recipe.embed.identity_fields(), "weights": weights_digest(recipe.embed.clip_model)}


def clip_folder(fields: Mapping[str, Any]) -> str:
    """'ViT-L-14-3f2a91bc': the folder of these identity fields below embeddings/ and reordered/."""
    return f"{fields['name']}-{digest_of([VERSION, dict(fields)])[:8]}"


def shard_identity(fields: Mapping[str, Any], tar_sha256: str) -> str:
    """What one shard's embeddings are made of."""
    return digest_of([VERSION, dict(fields), tar_sha256])
