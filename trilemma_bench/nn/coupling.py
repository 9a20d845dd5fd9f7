"""Invertible maps of vectors whose volume is known: affine coupling layers (Dinh et al. 2017, arXiv:1605.08803)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trilemma_bench.nn.layers import init_zero
from trilemma_bench.nn.mlp import MLP

STRETCH = 2.0  # the logarithm of a layer's scale stays within ±2


class CouplingFlow(nn.Module):
    """A density of vectors N×dim, dim ≥ 2: standard normal noise, scaled and shifted by half after half.

    Each of the layers scales and shifts the second half by what a perceptron (hidden, layers) makes of the first, and
    turns the order of the coordinates. They start as the noise itself; with no couplings, they stay it.
    """

    def __init__(self, dim: int, *, couplings: int, hidden: int, layers: int = 2) -> None:
        super().__init__()
        self.halves = [dim // 2, dim - dim // 2]
        kept, changed = self.halves
        made = [MLP(kept, 2 * changed, hidden=hidden, layers=layers) for _ in range(couplings)]
        for layer in made:
            init_zero(layer.out)
        self.layers = nn.ModuleList(made)

    def forward(self, noise: Tensor) -> Tensor:
        x = noise
        for layer in self.layers:
            kept, changed = x.split(self.halves, dim=1)
            log_scale, shift = _affine(layer, kept)
            x = torch.cat([kept, changed * log_scale.exp() + shift], dim=1).flip(1)
        return x

    def noise_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(the noise, N×dim, that `forward` makes x of; log |∂noise/∂x|, N)."""
        log_volume = x.new_zeros(len(x))
        for layer in reversed(self.layers):
            kept, changed = x.flip(1).split(self.halves, dim=1)
            log_scale, shift = _affine(layer, kept)
            x = torch.cat([kept, (changed - shift) * torch.exp(-log_scale)], dim=1)
            log_volume = log_volume - log_scale.sum(dim=1)
        return x, log_volume


def _affine(layer: nn.Module, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithm of the scale, and shift, in float32 whatever the layer computes in."""
    raw, shift = layer(kept).float().chunk(2, dim=1)
    return STRETCH * torch.tanh(raw / STRETCH), shift
