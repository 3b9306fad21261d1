"""The random numbers of one step: drawn for the whole batch, so that they do not depend on who trains which part.

    Draws(seed, step 120) ── noise    (batch, 3, 64, 64)   rows 0 2 4 …  to process 0, in micro-batches
                          ├─ times    (batch,)             rows 1 3 5 …  to process 1
                          └─ …                             each purpose with a generator of its own

So a step gives the same loss and gradients with any micro-batch, on any number of devices. Dropout inside a network is
the exception: its masks are torch's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from sp_data.training.dalle2 import dalle2_module
from sp_data.training.seeds import number_of


class Draws:
    """The random numbers of a batch of `batch_size`, of which `rows` (indices) are wanted."""

    def __init__(
        self, purpose: Sequence[object], batch_size: int, rows: Sequence[int] | None, device: torch.device
    ) -> None:
        """`rows`: None stands for all of them. Equal purposes give equal numbers on equal kinds of device."""
        self.purpose, self.batch_size, self.device = tuple(purpose), batch_size, device
        self.rows = None if rows is None or list(rows) == list(range(batch_size)) else rows

    def part(self, positions: range) -> Draws:
        """The draws of those rows alone that stand at these positions among this one's."""
        rows = range(self.batch_size) if self.rows is None else self.rows
        return Draws(self.purpose, self.batch_size, rows[positions.start : positions.stop], self.device)

    def normal(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        """`(rows, *shape)` float32 from a normal distribution."""
        return self._own(torch.randn((self.batch_size, *shape), generator=self._generator(name), device=self.device))

    def uniform(self, name: str) -> torch.Tensor:
        """`(rows,)` float32 from 0..1."""
        return self._own(torch.rand(self.batch_size, generator=self._generator(name), device=self.device))

    def integers(self, name: str, high: int) -> torch.Tensor:
        """`(rows,)` int64 from 0 to `high` - 1."""
        return self._own(
            torch.randint(0, high, (self.batch_size,), generator=self._generator(name), device=self.device)
        )

    def offsets(self, name: str, high: int) -> list[int]:
        """An integer from 0 to `high` - 1 for each row, on the CPU: an index that no GPU is waited for."""
        generator = torch.Generator().manual_seed(number_of(*self.purpose, name))
        drawn = torch.randint(0, high, (self.batch_size,), generator=generator).tolist()
        return drawn if self.rows is None else [drawn[row] for row in self.rows]

    def scalar(self, name: str) -> float:
        """One number from 0..1 for the whole batch."""
        return number_of(*self.purpose, name) / 2**63

    @contextlib.contextmanager
    def deciding_what_is_dropped(self) -> Iterator[None]:
        """Within the context, dalle2-pytorch's networks leave out conditions by these numbers."""
        module: Any = dalle2_module()
        original = module.prob_mask_like
        names = iter(("drop-0", "drop-1", "drop-2", "drop-3"))

        def prob_mask_like(shape: tuple[int, ...], prob: float, device: torch.device) -> torch.Tensor:
            if prob in (0, 1):
                mask: torch.Tensor = original(shape, prob, device)
                return mask
            return self.uniform(next(names)) < prob

        module.prob_mask_like = prob_mask_like
        try:
            yield
        finally:
            module.prob_mask_like = original

    @classmethod
    def for_samples(cls, purpose: Sequence[object], samples: range, device: torch.device) -> Draws:
        """Draws that depend on each sample's own number alone, whatever else is in the batch."""
        return _SampleDraws(purpose, samples, device)

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(number_of(*self.purpose, name))

    def _own(self, whole: torch.Tensor) -> torch.Tensor:
        if self.rows is None:
            return whole
        if isinstance(self.rows, range):
            # A slice: a list of indices would have to be copied to the GPU, which the process waits for.
            return whole[self.rows.start : self.rows.stop : self.rows.step]
        return whole[list(self.rows)]


class _SampleDraws(Draws):
    def __init__(self, purpose: Sequence[object], samples: range, device: torch.device) -> None:
        super().__init__(purpose, len(samples), None, device)
        self._each = [Draws((*purpose, sample), 1, None, device) for sample in samples]

    def normal(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        return torch.cat([draws.normal(name, shape) for draws in self._each])

    def uniform(self, name: str) -> torch.Tensor:
        return torch.cat([draws.uniform(name) for draws in self._each])

    def integers(self, name: str, high: int) -> torch.Tensor:
        return torch.cat([draws.integers(name, high) for draws in self._each])

    def offsets(self, name: str, high: int) -> list[int]:
        return [draws.offsets(name, high)[0] for draws in self._each]


class FakeDraws(Draws):
    """All zeros: for a step with fake tensors, of which only the shapes count."""

    def __init__(self, batch_size: int) -> None:
        super().__init__((), batch_size, None, torch.device("cpu"))

    def normal(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        return torch.zeros(self.batch_size, *shape)

    def uniform(self, name: str) -> torch.Tensor:
        return torch.zeros(self.batch_size)

    def integers(self, name: str, high: int) -> torch.Tensor:
        return torch.zeros(self.batch_size, dtype=torch.long)

    def offsets(self, name: str, high: int) -> list[int]:
        return [0] * self.batch_size

    def scalar(self, name: str) -> float:
        # No blur: kornia looks at values, which a fake tensor does not have.
        return 1.0
