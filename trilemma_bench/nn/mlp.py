"""The network for points: a plain perceptron, with Fourier features and time where they are asked for."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from trilemma_bench.nn.embedding import Conditioning, FourierFeatures, TimestepEmbedding
from trilemma_bench.nn.layers import init_zero


class MLP(nn.Module):
    """Points N×in_features → N×out_features through `layers` hidden layers of width `hidden`.

    fourier_features: how many random Fourier features stand beside the inputs, fourier_scale: their standard deviation
    in cycles per unit. time_dim: width of the time embedding that scales and shifts every hidden layer; 0 for none.
    times: how many times a sample has. classes: of labels, which join the time; 0 for none.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: int = 256,
        layers: int = 3,
        fourier_features: int = 0,
        fourier_scale: float = 1.0,
        time_dim: int = 0,
        times: int = 1,
        classes: int = 0,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.features: nn.Module = nn.Identity()
        if fourier_features:
            self.features = features = FourierFeatures(in_features, fourier_features, fourier_scale)
            in_features = features.out_features
        widths = [in_features] + [hidden] * layers
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.activation = activation or nn.SiLU()
        self.out = nn.Linear(widths[-1], out_features)
        self.time = _LayerStyles(time_dim, hidden, layers, times, classes) if time_dim else None

    def forward(self, x: Tensor, steps: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """steps: times of shape (N,), N×times if several, with N = 1 where all are alike; for a network with time.
        labels: int64 N.
        """
        h = self.features(x)
        styles = self.time(steps, labels) if self.time is not None else [None] * len(self.hidden)
        for layer, style in zip(self.hidden, styles, strict=True):
            h = layer(h)
            if style is not None:
                scale, shift = style.chunk(2, dim=1)
                h = h * (1 + scale) + shift
            h = self.activation(h)
        return self.out(h)


class _LayerStyles(nn.Module):
    """Steps (N,), labels → for every layer its scale and shift, N×2·hidden (Perez et al. 2018); none at the start."""

    def __init__(self, dim: int, hidden: int, layers: int, times: int, classes: int) -> None:
        super().__init__()
        self.layers = layers
        self.embed = Conditioning(TimestepEmbedding(dim, dim, times=times), dim, classes)
        self.project = init_zero(nn.Linear(dim, 2 * hidden * layers))

    def forward(self, steps: Tensor, labels: Tensor | None) -> tuple[Tensor, ...]:
        return self.project(self.embed(steps, labels)).chunk(self.layers, dim=1)
