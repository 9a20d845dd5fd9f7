"""TF-Inception features, exactly as published FIDs use them: torch-fidelity's network and TensorFlow-1 resize."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from trilemma_bench import weights
from trilemma_bench.contracts import DataSpec, FeatureExtractor
from trilemma_bench.errors import TrilemmaError


class Inception(FeatureExtractor):
    """The 2048 'pool3' features of Inception-v3 of 2015-12-05, of uint8 RGB images of any size: float32 N×2048.

    Raises TrilemmaError when the weights are missing or damaged.
    """

    name = "inception"
    dim = 2048
    resize = "tf1-bilinear-299"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.device = torch.device(device)
        self.weights_sha256 = weights.WEIGHTS[self.name].sha256
        self.network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=_tensors_only(weights.find(self.name))
        ).to(self.device)

    def __call__(self, samples: Tensor) -> Tensor:
        return self.network(samples.to(self.device))[0]

    def check(self, data: DataSpec) -> None:
        if not data.is_image or data.shape[0] != 3:
            raise TrilemmaError(
                f"extractor 'inception' measures RGB images, not data of shape {'×'.join(map(str, data.shape))}: "
                "choose another protocol"
            )


def _tensors_only(path: Path) -> io.BytesIO:
    """The weights again, as a file that holds nothing else: torch-fidelity would run whatever code a file contains."""
    buffer = io.BytesIO()
    torch.save(torch.load(path, map_location="cpu", weights_only=True), buffer)
    buffer.seek(0)
    return buffer
