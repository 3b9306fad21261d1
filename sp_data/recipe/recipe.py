"""The whole recipe: a dataset, how it is made, and what is trained on it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from sp_data.recipe.dataset import Curate, Embed, Machines, Reorder, Shard, Verify
from sp_data.recipe.follow_up import FollowUp
from sp_data.recipe.part import RecipePart
from sp_data.recipe.source import Source
from sp_data.recipe.training import Decoder, Judge, Prior


class Recipe(RecipePart):
    """A dataset, how it is made, and what is trained on it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The dataset's folder in the lake")
    source: Source
    curate: Curate = Curate.model_validate({})
    shard: Shard = Shard.model_validate({})
    embed: Embed = Embed.model_validate({})
    reorder: Reorder = Reorder.model_validate({})
    verify: Verify = Verify.model_validate({})
    machines: Machines = Machines.model_validate({})
    prior: Prior = Prior.model_validate({})
    decoder: Decoder = Decoder.model_validate({})
    follow_up: FollowUp = FollowUp.model_validate({})
    judge: Judge | None = Field(None, description="Only the pictures of the demo can be judged")

    @model_validator(mode="after")
    def _pictures_are_large_enough(self) -> Self:
        if self.decoder.image_size_px > self.shard.image_size_px:
            raise ValueError(
                f"decoder.unets make pictures of {self.decoder.image_size_px} px from shards of "
                f"{self.shard.image_size_px} px; raise shard.image_size_px or train smaller unets"
            )
        return self

    @model_validator(mode="after")
    def _embeddings_become_tokens(self) -> Self:
        # dalle2-pytorch then takes the embedding itself for the image tokens: an error at most batch sizes, and at a
        # batch of as many pictures as there are tokens each picture is conditioned on all the others.
        if self.decoder.unets[0].cond_dim == self.embed.dim:
            raise ValueError(
                f"decoder.unets.0.cond_dim is equal to embed.dim ({self.embed.dim}), for which dalle2-pytorch makes no "
                "image tokens; choose another cond_dim"
            )
        return self
