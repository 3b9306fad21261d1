"""What all visitors of the page share: the dataset, one set of loaded models, the search index, and the turns."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sp_data import manifest as manifests
from sp_data.errors import SpDataError, StageError, StageNotDone
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.ui.checkpoints import BEST
from sp_data.ui.turns import Turns

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sp_data.dataset.embed.clip import Clip
    from sp_data.generation.explain import NearThreshold
    from sp_data.generation.generator import ImageGenerator
    from sp_data.generation.search import DatasetIndex, Neighbour
    from sp_data.training.models import Kind

log = logging.getLogger(__name__)

NEAREST = 3
LOOK_AGAIN_S = 5
"""How long a new dataset, or a page that was forgotten, may go unnoticed."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """The training pictures nearest to a generated one."""

    neighbours: tuple[Neighbour, ...] = ()
    threshold: NearThreshold | None = None
    """None: too few pictures are held out of training to say what is nearly a copy."""
    why_not: str = ""
    """Why none are shown."""

    @property
    def copied(self) -> Neighbour | None:
        """The training picture of which it is nearly a copy."""
        first = self.neighbours[0] if self.neighbours else None
        return first if first and self.threshold and first.cosine > self.threshold.cosine else None


class PageState:
    """Everything is loaded when it is first used: the page itself opens without torch."""

    def __init__(self, recipe: Recipe, lake: Lake, folder: Path, device: str = "auto") -> None:
        """`folder`: for uploads, on this machine."""
        self.recipe, self.lake, self.folder, self.device = recipe, lake, folder, device
        self.turns = Turns()
        self._drawings: dict[str, threading.Event] = {}
        self._generator: ImageGenerator | None = None
        self._weights: tuple[str, ...] = ()
        self._clip: Clip | None = None
        self._index: DatasetIndex | None = None
        self._threshold: NearThreshold | None = None
        self._looked_at = -math.inf
        self._lock = threading.RLock()
        # Of its own: opening an index takes long, and cancelling must not wait for it.
        self._drawings_lock = threading.RLock()

    # Drawing

    def begin(self, session: str) -> threading.Event:
        """A visitor begins to draw, and gives up what was being drawn before. The event is set to cancel."""
        with self._drawings_lock:
            self.cancel(session)
            cancelled = self._drawings[session] = threading.Event()
            return cancelled

    def cancel(self, session: str) -> None:
        """End what a visitor draws, or waits to draw."""
        with self._drawings_lock:
            if (drawing := self._drawings.pop(session, None)) is not None:
                drawing.set()
        self.turns.wake()

    def end(self, session: str, cancelled: threading.Event) -> None:
        """A drawing has ended, or nobody waits for it any more."""
        with self._drawings_lock:
            if self._drawings.get(session) is cancelled:
                del self._drawings[session]
        cancelled.set()
        self.turns.wake()

    def close(self) -> None:
        for session in list(self._drawings):
            self.cancel(session)

    def generator(self, prior: str, unets: Sequence[str], on_load: Callable[[], None]) -> ImageGenerator:
        """The generator of these checkpoints: folders in the lake, or BEST. `on_load` is called if it must be loaded.

        Only one set of models is kept: another one takes its place. Whoever calls has the turn.
        Raises StageNotDone, UsageError, StageError, CorruptFile.
        """
        on_load_needed = self._generator is None
        if on_load_needed:
            on_load()
        # Imported late: it takes ten seconds.
        import torch

        from sp_data.generation.generator import ImageGenerator
        from sp_data.generation.models import load_models

        named = [choice for choice in (prior, *unets) if choice != BEST]
        weights = self._weights_of(named)
        if self._generator is None or weights != self._weights:
            if not on_load_needed:
                on_load()
            self._forget_models()
            try:
                self._generator = ImageGenerator(load_models(self.recipe, self.lake, named, self.device))
            except torch.OutOfMemoryError as error:
                self._forget_models()
                raise StageError(
                    "the models do not fit into the GPU's free memory; wait until a training on it has ended, or start "
                    "the page with --device cpu"
                ) from error
            except FileNotFoundError as error:
                raise StageError(f"{error.filename} has vanished; choose another checkpoint under Runs") from error
            self._weights = weights
            self._clip = self._generator.models.clip
        return self._generator

    def _weights_of(self, named: Sequence[str]) -> tuple[str, ...]:
        """What tells other weights from those that are loaded. Raises UsageError for a name that has vanished."""
        from sp_data.generation.models import find_checkpoints
        from sp_data.generation.networks import named_network

        weights = [str(named_network(self.lake, name).source.origin) for name in named]
        kinds: tuple[Kind, ...] = ("prior", "decoder")
        for kind in kinds:
            # Whether the named ones do without is seen when they are loaded.
            with contextlib.suppress(StageNotDone):
                weights += [checkpoint.name for checkpoint in find_checkpoints(kind, self.lake, [BEST])]
        return tuple(weights)

    def _forget_models(self) -> None:
        self._generator, self._weights = None, ()
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # Searching

    def clip(self) -> Clip:
        from sp_data.dataset.embed.clip import load_clip

        with self._lock:
            if self._clip is None:
                self._clip = load_clip(self.recipe.embed.clip_model, self.recipe.embed.dim)
            return self._clip

    def index(self) -> DatasetIndex:
        """The newest verified dataset, without what was forgotten since. Raises StageNotDone, StageError."""
        from sp_data.generation.explain import near_threshold
        from sp_data.generation.search import DatasetIndex

        with self._lock:
            now = time.monotonic()
            if self._index is None or (now > self._looked_at + LOOK_AGAIN_S and not self._index.is_current()):
                # One that is replaced is not closed: another thread may be reading it.
                index = DatasetIndex.open(self.recipe, self.lake)
                self._threshold = near_threshold(index, self.lake)
                self._index = index
            if now > self._looked_at + LOOK_AGAIN_S:
                self._looked_at = now
            return self._index

    def nearest(self, embedding: npt.NDArray[np.float32]) -> Nearest:
        """The training pictures nearest to an embedding `(dim,)`."""
        try:
            index = self.index()
            (neighbours,) = index.nearest(embedding[None], NEAREST, "train")
        except SpDataError as error:
            return Nearest(why_not=str(error))
        return Nearest(tuple(neighbours), self._threshold)

    def num_pictures(self) -> int | None:
        """Of the newest verified dataset; None if there is none."""
        verified = manifests.latest(self.lake, "verify")
        return None if verified is None else verified.counts.out
