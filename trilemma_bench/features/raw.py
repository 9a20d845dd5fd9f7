"""Features without a network: the samples' own coordinates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trilemma_bench.contracts import DataSpec, FeatureExtractor
from trilemma_bench.errors import TrilemmaError


class Points(FeatureExtractor):
    """Raw coordinates of points: float32 N×D, in data units. `dim` is the data's, known after `check`."""

    name = "points"
    dim = 0

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def __call__(self, samples: Tensor) -> Tensor:
        return samples.to(self.device).float()

    def check(self, data: DataSpec) -> None:
        if data.is_image:
            raise TrilemmaError("extractor 'points' measures points N×D, not images: choose another protocol")
        self.dim = math.prod(data.shape)


class Pixels(FeatureExtractor):
    """Raw pixels of uint8 images in [0, 1], flattened: float32 N×(C·H·W). `dim` is known after `check`."""

    name = "pixels"
    dim = 0

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def __call__(self, samples: Tensor) -> Tensor:
        return samples.to(self.device).flatten(1).float() / 255

    def check(self, data: DataSpec) -> None:
        if not data.is_image:
            raise TrilemmaError("extractor 'pixels' measures images, not points: choose the protocol 'points'")
        self.dim = math.prod(data.shape)
