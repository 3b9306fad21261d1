"""What is trained on a dataset: the prior, the decoder's unets, and the judge of their pictures.

    decoder:
      steps: 20000                 # for every unet
      unets:
        - {image_size_px: 64}
        - {image_size_px: 256, steps: 8000, random_crop_px: 64}   # but this one

Each unet of the decoder is a training of its own. What it does not say itself, it takes from the decoder
(`Decoder.training_of`).
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from sp_data.recipe.part import EXECUTION_ONLY, RecipePart

CLIP_WORDS = 77
"""Tokens that OpenAI's CLIPs read."""
NUM_GROUPS = 8
"""Groups of dalle2-pytorch's group norms: they divide every number of channels."""
MIN_LINEAR_TIMESTEPS = 21
"""A linear schedule of fewer timesteps has a beta of 1 or more (it ends at 20 / timesteps)."""
RENAMED = {"schedule": "lr_scheduler", "warmup_steps": "lr_warmup_steps", "keep_checkpoints": "checkpoints_total_limit"}
"""Names of older recipes."""


class Training(RecipePart):
    """How a network is trained, and for how long. Where diffusers' training scripts have the option, the name is
    theirs."""

    start: str | None = Field(
        None, description="Weights to begin with, by their name in the lake (sp-data weights); null: from nothing"
    )
    steps: int = Field(100_000, ge=1)
    batch_size: int = Field(64, ge=1)
    micro_batch_size: int | Literal["auto"] = Field(
        "auto",
        description="Pictures that are in memory at a time on each device; `auto`: as many as fit",
        json_schema_extra=EXECUTION_ONLY,
    )
    gradient_checkpointing: bool = Field(
        False, description="Less memory, a third more time", json_schema_extra=EXECUTION_ONLY
    )
    learning_rate: float = Field(1e-4, gt=0, le=1)
    lr_scheduler: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="`linear` and `cosine` fall to zero by the last step"
    )
    lr_warmup_steps: int = Field(1000, ge=0)
    weight_decay: float = Field(0.01, ge=0, description="Not of norms and biases")
    adam_epsilon: float = Field(1e-8, gt=0)
    use_8bit_adam: bool = Field(False, description="A quarter of the optimizer's memory; needs bitsandbytes")
    max_grad_norm: float | None = Field(0.5, gt=0)
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="Of the averaged weights; these generate")
    lora_rank: int | None = Field(
        None, ge=1, description="Train small matrices beside the frozen weights (peft); null: train all weights"
    )
    lora_alpha: int = Field(16, ge=1, description="The matrices count alpha / rank times")
    precision: Literal["bf16", "tf32", "fp32"] = Field(
        "bf16", description="Of the forward pass; tf32 is fp32 with a GPU's shorter products"
    )
    seed: int = Field(0, ge=0)
    log_every: int = Field(
        50, ge=1, description="Steps between lines of metrics.jsonl", json_schema_extra=EXECUTION_ONLY
    )
    save_every: int = Field(1000, ge=1, description="Steps between checkpoints; each is evaluated first")
    checkpoints_total_limit: int = Field(
        2,
        ge=2,
        description="The latest ones, beside the best; at least two, since one may be incomplete when a run is killed",
        json_schema_extra=EXECUTION_ONLY,
    )
    validation_samples: int | None = Field(
        512, ge=1, description="Of the val split, chosen by the seed; null: the whole split"
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Stop after so many evaluations without a lower validation loss; null: never"
    )
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        ("tensorboard",), description="Beside metrics.jsonl", json_schema_extra=EXECUTION_ONLY
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", json_schema_extra=EXECUTION_ONLY)
    processes: int | None = Field(
        None,
        ge=1,
        description="That train together; null: one a GPU, on a CPU one a core",
        json_schema_extra=EXECUTION_ONLY,
    )
    loader_processes: int = Field(
        0, ge=0, description="Processes that read pictures ahead", json_schema_extra=EXECUTION_ONLY
    )
    compile: bool = Field(False, description="torch.compile, on a GPU only", json_schema_extra=EXECUTION_ONLY)
    channels_last: bool = Field(
        False, description="Channels as the fastest index, on a GPU only", json_schema_extra=EXECUTION_ONLY
    )

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, fields: Any) -> Any:
        return _renamed(fields)

    @model_validator(mode="after")
    def _batch_can_be_split(self) -> Self:
        if isinstance(self.micro_batch_size, int) and not 1 <= self.micro_batch_size <= self.batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size}: expected 1 to batch_size {self.batch_size}")
        if self.processes is not None and self.processes > self.batch_size:
            raise ValueError(f"processes {self.processes} is more than batch_size {self.batch_size}")
        return self


def _renamed(fields: Any) -> Any:
    return {RENAMED.get(name, name): value for name, value in fields.items()} if isinstance(fields, dict) else fields


class Prior(Training):
    """Text embedding -> image embedding (dalle2-pytorch's DiffusionPrior); its width is the CLIP's."""

    adam_epsilon: float = Field(1e-6, gt=0)
    depth: int = Field(12, ge=1)
    heads: int = Field(12, ge=1)
    dim_head: int = Field(64, ge=2)
    dropout: float = Field(0.05, ge=0, lt=1, description="In attention and feed-forward layers")
    normformer: bool = True
    text_encodings: bool = Field(
        True, description="Also condition on each word: needs a CLIP whose text tower is as wide as its embeddings"
    )
    max_text_len: int = Field(77, ge=1, description="Use 1 without text encodings: the cost of a step grows with it")
    timesteps: int = Field(1000, ge=2)
    sample_timesteps: int = Field(64, ge=2, description="May be changed later", json_schema_extra=EXECUTION_ONLY)
    cond_drop_prob: float = Field(0.1, ge=0, lt=1, description="Share of captions left out while training")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_sampling(self.sample_timesteps, self.timesteps)
        if self.text_encodings and self.max_text_len < CLIP_WORDS:
            raise ValueError(
                f"max_text_len {self.max_text_len} would cut what CLIP reads: set it to {CLIP_WORDS}, or "
                "text_encodings to false"
            )
        if self.gradient_checkpointing:
            raise ValueError("gradient_checkpointing: dalle2-pytorch has it for unets only; lower micro_batch_size")
        _check_start(self.start, "laion-prior", "")
        if self.dim_head % 2:
            raise ValueError(f"dim_head {self.dim_head} is odd: rotary embeddings turn pairs of numbers")
        return self


class Unet(RecipePart):
    """One unet of the decoder: the first draws, each later one is an upsampler. The names are dalle2-pytorch's.

    The second half are fields of its training; null: the decoder's.
    """

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
    random_crop_px: int | None = Field(
        None, ge=8, description="An upsampler learns on random crops of this size; null: on whole pictures"
    )
    use_blur_for_lowres_cond: bool = Field(True, description="Blur half of the small pictures that are enlarged")
    use_noise_for_lowres_cond: bool = Field(False, description="Add noise of a level that the unet is told")

    start: str | None = None
    steps: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    micro_batch_size: int | Literal["auto"] | None = Field(None, json_schema_extra=EXECUTION_ONLY)
    gradient_checkpointing: bool | None = Field(None, json_schema_extra=EXECUTION_ONLY)
    learning_rate: float | None = Field(None, gt=0, le=1)
    lr_scheduler: Literal["constant", "linear", "cosine"] | None = None
    lr_warmup_steps: int | None = Field(None, ge=0)
    weight_decay: float | None = Field(None, ge=0)
    use_8bit_adam: bool | None = None
    max_grad_norm: float | None = Field(None, gt=0)
    ema_decay: float | None = Field(None, ge=0, lt=1)
    lora_rank: int | None = Field(None, ge=1)
    save_every: int | None = Field(None, ge=1)
    early_stopping_patience: int | None = Field(None, ge=1)

    @property
    def num_halvings(self) -> int:
        """How often the picture is halved on the way down."""
        return len(self.dim_mults) if self.memory_efficient else len(self.dim_mults) - 1

    def check(self, number: int, timesteps: int) -> None:
        """Raises ValueError, naming the field, if dalle2-pytorch cannot build or run it as the decoder's `number`-th
        unet (from 1)."""
        name = f"unets.{number - 1}"
        if not self.dim_mults or min(self.dim_mults) < 1:
            raise ValueError(f"{name}.dim_mults {list(self.dim_mults)}: expected one or more numbers from 1 on")
        if self.dim % NUM_GROUPS:
            raise ValueError(f"{name}.dim {self.dim}: expected a multiple of {NUM_GROUPS} (the groups of its norms)")
        if len(self.self_attn) != len(self.dim_mults):
            raise ValueError(f"{name}.self_attn has {len(self.self_attn)} entries, dim_mults has {len(self.dim_mults)}")
        factor = 2**self.num_halvings
        for field, size in (("image_size_px", self.image_size_px), ("random_crop_px", self.random_crop_px)):
            if size is not None and size % factor:
                raise ValueError(
                    f"{name}.{field} {size} cannot be halved {self.num_halvings} times: expected a multiple of {factor}"
                )
        if number == 1:
            if self.random_crop_px is not None:
                raise ValueError(f"{name}.random_crop_px: the first unet draws whole pictures; only upsamplers crop")
        elif timesteps < MIN_LINEAR_TIMESTEPS:
            raise ValueError(
                f"timesteps {timesteps}: the linear noise schedule of an upsampler needs {MIN_LINEAR_TIMESTEPS} or more"
            )
        elif not (self.use_blur_for_lowres_cond or self.use_noise_for_lowres_cond):
            raise ValueError(f"{name}: an upsampler needs use_blur_for_lowres_cond or use_noise_for_lowres_cond")
        if self.random_crop_px is not None and self.random_crop_px > self.image_size_px:
            raise ValueError(f"{name}.random_crop_px {self.random_crop_px} is larger than the picture")


OF_THE_DECODER = tuple(name for name in Unet.model_fields if name in Training.model_fields)
"""Fields that a unet takes from the decoder where it does not have its own."""


class Decoder(Training):
    """Image embedding -> picture (dalle2-pytorch's Decoder): the first unet draws, each later one enlarges."""

    unets: tuple[Unet, ...] = Field((Unet.model_validate({}),), min_length=1)
    objective: Literal["noise", "v", "x_start"] = Field("noise", description="What a unet predicts")
    learned_variance: bool = Field(True, description="Learn the variance of the first unet")
    snr_gamma: float | None = Field(
        None, gt=0, description="Weigh timesteps by min-SNR (arXiv:2303.09556; 5 is usual); null: all alike"
    )
    timesteps: int = Field(1000, ge=2)
    sample_timesteps: int = Field(
        25,
        ge=1,
        description="Steps of the sampler; as many as `timesteps`: as trained (DDPM). May be changed later",
        json_schema_extra=EXECUTION_ONLY,
    )
    image_cond_drop_prob: float = Field(0.1, ge=0, lt=1, description="0: guidance is not possible")
    text_cond_drop_prob: float = Field(0.5, ge=0, lt=1)
    evaluation_samples: int = Field(
        0,
        ge=0,
        description="Pictures that the finished decoder draws from held-out embeddings, to be measured; 0: none",
        json_schema_extra=EXECUTION_ONLY,
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_sampling(self.sample_timesteps, self.timesteps)
        sizes = [unet.image_size_px for unet in self.unets]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"unets must grow: their image_size_px are {sizes}")
        if self.objective != "noise" and self.learned_variance:
            raise ValueError(
                f"objective {self.objective!r} has no learned variance: dalle2-pytorch's loss of the variance takes "
                "the output for noise; set learned_variance to false"
            )
        for number, unet in enumerate(self.unets, start=1):
            unet.check(number, self.timesteps)
            try:
                training = self.training_of(number)
            except ValidationError as error:
                message = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"unets.{number - 1}: {message}") from error
            _check_start(training.start, "laion-decoder" if number == 1 else "laion-upsampler", f"unets.{number - 1}.")
        return self

    @property
    def image_size_px(self) -> int:
        """Width and height of the finished picture."""
        return self.unets[-1].image_size_px

    def training_of(self, number: int) -> Training:
        """How the `number`-th unet (from 1) is trained: its own fields, and the decoder's for the rest."""
        unet = self.unets[number - 1]
        fields = {name: getattr(self, name) for name in Training.model_fields}
        own = {name: value for name in OF_THE_DECODER if (value := getattr(unet, name)) is not None}
        return Training.model_validate(fields | own)

    def beta_schedule(self, number: int) -> Literal["cosine", "linear"]:
        """dalle2-pytorch's own choice: linear for the last unet of a cascade."""
        return "linear" if number > 1 and number == len(self.unets) else "cosine"

    def unet_identity_fields(self, number: int) -> dict[str, Any]:
        """What of the recipe names the weights of one unet: nothing of the others but the size that it enlarges."""
        unet = self.unets[number - 1]
        network = {name: value for name, value in unet.identity_fields().items() if name not in OF_THE_DECODER}
        shared = {"objective", "snr_gamma", "timesteps", "image_cond_drop_prob", "text_cond_drop_prob"}
        return {
            **self.training_of(number).identity_fields(),
            **network,
            **self.model_dump(mode="json", include=shared),
            "learned_variance": self.learned_variance and number == 1,
            "beta_schedule": self.beta_schedule(number),
            "lowres_size_px": self.unets[number - 2].image_size_px if number > 1 else None,
        }

    def identity_fields(self) -> dict[str, Any]:
        """Those of each unet."""
        return {"unets": [self.unet_identity_fields(number) for number in range(1, len(self.unets) + 1)]}


def _check_start(start: str | None, fitting: str, field: str) -> None:
    if start is not None and start.startswith("laion-") and start != fitting:
        raise ValueError(f"{field}start {start}: those are the weights of another network; expected {fitting}")


def _check_sampling(sample_timesteps: int, timesteps: int) -> None:
    if sample_timesteps > timesteps:
        raise ValueError(f"sample_timesteps {sample_timesteps} is more than timesteps {timesteps}")


class Judge(RecipePart):
    """How the demo judges its pictures: the colours of coats and hats against the prompts."""

    num_prompts: int = Field(64, ge=2, description="Half of them ask for pairs of coat and hat that no picture shows")
    seed: int = Field(0, ge=0)
