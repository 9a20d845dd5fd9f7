"""The average of a network's weights over training, which is what is sampled from, measured and exported."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """An exponential moving average of a network's parameters, with the usual start: min(decay, (1 + n)/(10 + n)).

    Buffers are copied as they are.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._averages: list[Tensor] = list(self.network.parameters())
        self._currents: list[Tensor] = list(network.parameters())
        self._buffers = list(zip(self.network.buffers(), network.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Takes the network's present weights into the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, self._currents, 1 - decay)
        for average, current in self._buffers:
            average.copy_(current)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the trained network has the averaged weights, and the average has the trained ones."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for average, current in [*zip(self._averages, self._currents, strict=True), *self._buffers]:
            average.data, current.data = current.data, average.data
