"""Held-out real data in the place of a model: the row of a table that no model can be expected to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma_bench.contracts import DataSpec, GenerativeModel, Split
from trilemma_bench.errors import TrilemmaError


class RealData(GenerativeModel):
    """Held-out real data: the ceiling of every table.

    A `FiniteSource`: the samples of the split that the reference does not come from, each at most once.
    """

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self._samples: Tensor | None = None

    def prepare(self, samples: Split, split: str) -> None:
        self._samples = samples.samples

    def size(self) -> int:
        return len(self._prepared())

    def take(self, indices: Tensor) -> Tensor:
        samples = self._prepared()
        return samples[indices.to(samples.device)]

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Draws with replacement, on the generator's device: for a clock or a picture, not for scores."""
        indices = torch.randint(self.size(), (count,), generator=rng, device=rng.device)
        return self.take(indices).to(rng.device)

    def _prepared(self) -> Tensor:
        if self._samples is None:
            raise TrilemmaError("real-data has no samples yet: call prepare(split) with the held-out split first")
        return self._samples
