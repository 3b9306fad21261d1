"""dalle2-pytorch, imported for its models alone.

`import dalle2_pytorch` also imports what only some of its users need: x-clip and CoCa (other CLIPs), open_clip (which
imports timm, transformers and wandb) for its configuration classes, vector-quantize-pytorch for VQ-GANs, and through
torchvision torch's compiler. That is more than torch itself takes. Here they are deferred: whoever uses one gets it.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from types import ModuleType

from sp_data.runtime.deferred import deferred

DEFERRED = (
    "boto3",
    "coca_pytorch",
    "open_clip",
    "torch._dynamo",
    "vector_quantize_pytorch",
    "wandb",
    "x_clip",
)
"""Modules that building, training or sampling a prior or decoder does not use. Creating an optimizer of torch imports
torch._dynamo; sampling does not."""


@functools.cache
def dalle2_module() -> ModuleType:
    """dalle2_pytorch.dalle2_pytorch, where its models are, without its samplers' progress bars, and with gradient
    checkpointing as torch recommends it.

    Raises ImportError if dalle2-pytorch is not installed.
    """
    with _lean():
        from dalle2_pytorch import dalle2_pytorch
        from tqdm.auto import tqdm

    # It leaves use_reentrant to torch, which warns of that, says it will raise, and takes True: unfit for
    # DistributedDataParallel, which then sees a parameter twice.
    dalle2_pytorch.checkpoint = functools.partial(dalle2_pytorch.checkpoint, use_reentrant=False)
    # Its samplers draw a progress bar for each batch, over ours; no option turns that off.
    dalle2_pytorch.tqdm = functools.partial(tqdm, disable=True)
    module: ModuleType = dalle2_pytorch
    return module


@functools.cache
def dalle2_configs() -> ModuleType:
    """dalle2_pytorch.train_configs, whose DecoderConfig and DiffusionPriorConfig build the models.

    Raises ImportError if dalle2-pytorch is not installed.
    """
    dalle2_module()
    with _lean():
        from dalle2_pytorch import train_configs

    module: ModuleType = train_configs
    return module


@contextlib.contextmanager
def _lean() -> Iterator[None]:
    """Its imports warn of deprecated names in its own code and in its libraries'; no user can act on that."""
    with warnings.catch_warnings(), deferred(*DEFERRED):
        warnings.simplefilter("ignore")
        yield
