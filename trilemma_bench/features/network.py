"""What extractors with a published network of RGB images share: weights, device, the check of the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from trilemma_bench import weights
from trilemma_bench.contracts import DataSpec, FeatureExtractor
from trilemma_bench.errors import TrilemmaError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageNetwork(FeatureExtractor):
    """Features of uint8 RGB images of any size, by a network with published weights.

    weights_name: its entry in `weights.WEIGHTS`. Raises TrilemmaError when the weights are missing or damaged.
    """

    weights_name: ClassVar[str]
    cpu_block = 16

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        state = weights.load(self.weights_name)
        self.weights_sha256 = weights.WEIGHTS[self.weights_name].sha256
        self.build(state)

    @abstractmethod
    def build(self, state: dict[str, Tensor]) -> None:
        """Makes the network from the tensors of the weights file, on the device, for inference."""

    @abstractmethod
    def forward(self, images: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        """uint8 images N×3×H×W on the device → the asked outputs, each N×·."""

    def __call__(self, samples: Tensor) -> Tensor:
        return self.compute(samples, ("features",))["features"]

    def compute(self, samples: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        if samples.dtype != torch.uint8 or samples.ndim != 4 or samples.shape[1] != 3:
            raise TrilemmaError(
                f"extractor '{self.name}' needs uint8 images N×3×H×W, got {samples.dtype} {tuple(samples.shape)}"
            )
        return self.forward(samples.to(self.device), outputs)

    def check(self, data: DataSpec) -> None:
        if not data.is_image or data.shape[0] != 3:
            raise TrilemmaError(
                f"extractor '{self.name}' measures RGB images, not data of shape {'×'.join(map(str, data.shape))}: "
                "choose another protocol"
            )
