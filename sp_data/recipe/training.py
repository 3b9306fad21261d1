"""What is trained on a dataset: the prior, the decoder with its unets, and the judge of their pictures."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sp_data.recipe.part import EXECUTION_ONLY, RecipePart


class Training(RecipePart):
    """How a model is trained, and for how long; the same for prior and decoder."""

    steps: int = Field(100_000, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(1e-4, gt=0, le=1)
    schedule: Literal["constant", "linear"] = Field("constant", description="`linear` falls to zero by the last step")
    warmup_steps: int = Field(1000, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(0.5, gt=0)
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="Of the averaged weights; these generate")
    seed: int = Field(0, ge=0)
    log_every: int = Field(
        50, ge=1, description="Steps between lines of metrics.jsonl", json_schema_extra=EXECUTION_ONLY
    )
    save_every: int = Field(1000, ge=1, description="Steps between checkpoints; each is evaluated first")
    keep_checkpoints: int = Field(
        2,
        ge=2,
        description="The latest ones, beside the best; at least two, since one may be incomplete when a run is killed",
        json_schema_extra=EXECUTION_ONLY,
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", json_schema_extra=EXECUTION_ONLY)
    precision: Literal["bf16", "fp32"] = Field(
        "bf16", description="Of the forward pass", json_schema_extra=EXECUTION_ONLY
    )
    loader_processes: int = Field(
        0, ge=0, description="Processes that read pictures ahead", json_schema_extra=EXECUTION_ONLY
    )


class Prior(Training):
    """Text embedding -> image embedding (dalle2-pytorch's DiffusionPrior); its width is the CLIP's."""

    depth: int = Field(12, ge=1)
    heads: int = Field(12, ge=1)
    dim_head: int = Field(64, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1, description="In attention and feed-forward layers")
    normformer: bool = True
    text_encodings: bool = Field(
        True, description="Also condition on each word: needs a CLIP whose text tower is as wide as its embeddings"
    )
    max_text_len: int = Field(77, ge=1, description="Use 1 without text encodings: the cost of a step grows with it")
    timesteps: int = Field(1000, ge=2)
    sample_timesteps: int = Field(64, ge=1, description="May be changed later", json_schema_extra=EXECUTION_ONLY)
    cond_drop_prob: float = Field(0.1, ge=0, lt=1, description="Share of captions left out while training")


class Unet(RecipePart):
    """One unet of the decoder: the first draws, each later one is an upsampler. The names are dalle2-pytorch's."""

    image_size_px: int = Field(64, ge=8)
    dim: int = Field(320, ge=8)
    dim_mults: tuple[int, ...] = (1, 2, 3, 4)
    cond_dim: int = Field(512, ge=8)
    num_resnet_blocks: int = Field(4, ge=1)
    attn_heads: int = Field(8, ge=1)
    attn_dim_head: int = Field(64, ge=8)
    self_attn: tuple[bool, ...] = Field((False, True, True, True), description="One entry for each resolution")
    sparse_attn: bool = True
    memory_efficient: bool = Field(True, description="Halve the resolution before each block, not after it")
    init_cross_embed: bool = Field(True, description="A first layer with kernels of 3, 7 and 15 pixels instead of 7")
    text_encodings: bool = False


class Decoder(Training):
    """Image embedding -> picture (dalle2-pytorch's Decoder): the first unet draws, each later one enlarges."""

    unets: tuple[Unet, ...] = Field((Unet.model_validate({}),), min_length=1)
    objective: Literal["noise", "v", "x_start"] = Field("noise", description="What a unet predicts")
    learned_variance: bool = Field(True, description="Learn the variance of the first unet")
    timesteps: int = Field(1000, ge=2)
    sample_timesteps: int = Field(
        64, ge=1, description="Fewer than `timesteps`: DDIM. May be changed later", json_schema_extra=EXECUTION_ONLY
    )
    image_cond_drop_prob: float = Field(0.1, ge=0, lt=1, description="0: guidance is not possible")
    text_cond_drop_prob: float = Field(0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.sample_timesteps > self.timesteps:
            raise ValueError(f"sample_timesteps {self.sample_timesteps} is more than timesteps {self.timesteps}")
        sizes = [unet.image_size_px for unet in self.unets]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"unets must grow: their image_size_px are {sizes}")
        if self.objective == "v" and self.learned_variance:
            raise ValueError("objective 'v' has no learned variance; set learned_variance to false")
        for unet in self.unets:
            if len(unet.self_attn) != len(unet.dim_mults):
                raise ValueError(f"self_attn has {len(unet.self_attn)} entries, dim_mults has {len(unet.dim_mults)}")
        return self

    @property
    def image_size_px(self) -> int:
        """Width and height of the finished picture."""
        return self.unets[-1].image_size_px


class Judge(RecipePart):
    """How the demo judges its pictures: the colours of coats and hats against the prompts."""

    num_prompts: int = Field(64, ge=2, description="Half of them ask for pairs of coat and hat that no picture shows")
    seed: int = Field(0, ge=0)
