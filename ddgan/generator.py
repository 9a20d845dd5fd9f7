"""The image generator: NCSN++ (Song et al. 2021) whose normalisations are styled by the latent z (Xiao et al. 2022)."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from trilemma_bench.nn.embedding import unit_mean_square
from trilemma_bench.nn.layers import init_fan_out
from trilemma_bench.nn.ncsnpp import NCSNpp


class Mapping(nn.Module):
    """z → style w (N×style_dim): z normalised to unit mean square, then `layers` + 1 dense layers with SiLU."""

    def __init__(self, latent_dim: int, style_dim: int, layers: int) -> None:
        super().__init__()
        widths = [latent_dim] + [style_dim] * (layers + 1)
        dense = [[nn.Linear(*pair), nn.SiLU()] for pair in pairwise(widths)]
        self.layers = nn.Sequential(*chain.from_iterable(dense))
        self.apply(init_fan_out)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(unit_mean_square(z))


class ImageGenerator(nn.Module):
    """G(x_{t+1}, z, t, labels) → N×C×H×W, float32: x_0 in [−1, 1] where `bounded`, any real numbers otherwise.

    shape: of an image. latent_dim: width of z; 0 for a generator without latent, whose style is constant.
    style_dim, mapping_layers: of z's mapping; unet: settings of `NCSNpp`, classes of labels among them. At CIFAR-10's
    size 48.43 M parameters.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        *,
        style_dim: int,
        mapping_layers: int,
        bounded: bool,
        **unet: Any,
    ) -> None:
        super().__init__()
        self.latent_dim, self.bounded = latent_dim, bounded
        self.mapping = Mapping(max(latent_dim, 1), style_dim, mapping_layers)
        self.unet = NCSNpp(shape[0], shape[-1], style_dim=style_dim, **unet)

    def forward(self, x: Tensor, z: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        style = self.mapping(z if self.latent_dim else x.new_ones(len(x), 1))
        output = self.unet(x, t, labels, style).float()
        return torch.tanh(output) if self.bounded else output
