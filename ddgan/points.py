"""Generator and discriminator for points: perceptrons of three layers, as in the paper's toy (appendix C.5)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from trilemma_bench.nn.embedding import FourierFeatures, silent_embedding


class StepMLP(nn.Module):
    """Coordinates and further inputs N×·, steps t (N), labels (int64 N) → N×outputs.

    One learned vector a step joins the first layer, and one a label where there are `classes`. The coordinates' Fourier
    features let a small network resolve modes much narrower than their distance.
    """

    def __init__(
        self,
        dim: int,
        extra: int,
        outputs: int,
        steps: int,
        *,
        hidden: int,
        layers: int,
        features: int,
        scale: float,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.features = FourierFeatures(dim, features, scale) if features else nn.Identity()
        width = dim + 2 * features + extra
        self.first = nn.Linear(width, hidden)
        self.step = nn.Embedding(steps, hidden)
        self.labels = silent_embedding(classes, hidden) if classes else None
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise([hidden] * layers))
        self.last = nn.Linear(hidden, outputs)
        self.activation = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor, extra: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.first(torch.cat([self.features(x), extra], dim=1)) + self.step(t)
        if self.labels is not None:
            h = h + self.labels(labels)
        h = self.activation(h)
        for layer in self.hidden:
            h = self.activation(layer(h))
        return self.last(h)


class PointGenerator(StepMLP):
    """G(x_{t+1}, z, t, labels) → its prediction, N×D."""

    def __init__(self, dim: int, latent_dim: int, steps: int, **size: float) -> None:
        super().__init__(dim, latent_dim, dim, steps, **size)  # type: ignore[arg-type]


class PointDiscriminator(StepMLP):
    """D(x_t, given, t, labels) → logits N; `given` is x_{t+1}, or nothing (N×0)."""

    def __init__(self, dim: int, given: int, steps: int, **size: float) -> None:
        super().__init__(dim, given, 1, steps, **size)  # type: ignore[arg-type]

    def forward(self, x: Tensor, extra: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(x, extra, t, labels).squeeze(1)
