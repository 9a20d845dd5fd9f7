"""Features of handwritten digits: the penultimate layer of a small classifier, one digit a channel.

The weights ship with the package; `scripts/train_digit_classifiers.py` made them.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from trilemma_bench.contracts import DataSpec, FeatureExtractor
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.features.extraction import in_blocks
from trilemma_bench.weights import sha256_of

DATA = Path(__file__).parents[1] / "data"
FEATURES = 64
WIDTHS = (16, 32, 64)


class DigitNetwork(nn.Module):
    """A convolutional classifier of `size`×`size` digits: stages of two 3×3 convolutions, halved to 2 or 3 pixels.

    Input: float N×1×size×size in [0, 1].
    """

    def __init__(self, size: int, classes: int = 10) -> None:
        super().__init__()
        stages = size.bit_length() - 2  # 8 → 2 stages, 28 → 3
        widths = (1, *WIDTHS[-stages:])
        self.body = nn.Sequential(*(_stage(before, width) for before, width in pairwise(widths)))
        self.hidden = nn.Linear(widths[-1] * (size >> stages) ** 2, FEATURES)
        self.head = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate activations: N×64."""
        return F.relu(self.hidden(self.body(2 * images - 1).flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits: N×classes."""
        return self.head(self.features(images))


def _stage(before: int, width: int) -> nn.Sequential:
    first = (nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    second = (nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(*first, *second, nn.MaxPool2d(2))


class DigitClassifier(FeatureExtractor):
    """Features 64 per channel: float32 N×(64·C). `dim` is known after `check`.

    size: side of the images; padded: side with the customary black border, which is cut off. accuracy: measured on
    held-out digits, with these weights. facts: what the weights file says of itself.
    """

    size: int
    padded: int
    dim = FEATURES

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        path = DATA / f"{self.name}.safetensors"
        if not path.is_file():
            raise TrilemmaError(f"{path} is missing from the installation: reinstall trilemma-bench")
        self.weights_sha256 = sha256_of(path)
        with safe_open(path, framework="pt") as file:
            self.facts: dict[str, str] = file.metadata()
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dict
        self.accuracy = float(self.facts["accuracy"])
        self.network = DigitNetwork(self.size)
        self.network.load_state_dict(state)
        self.network.to(self.device).eval().requires_grad_(False)

    def __call__(self, samples: Tensor) -> Tensor:
        return self.network.features(self._digits(samples)).unflatten(0, (len(samples), -1)).flatten(1)

    def check(self, data: DataSpec) -> None:
        if not data.is_image or data.shape[0] not in (1, 3) or data.shape[1:] not in self._sides():
            raise TrilemmaError(
                f"extractor '{self.name}' measures {self.size}×{self.size} digits in 1 or 3 channels, "
                f"not data of shape {'×'.join(map(str, data.shape))}: choose another protocol"
            )
        self.dim = FEATURES * data.shape[0]

    def classify(self, images: Tensor) -> Tensor:
        """The digit in each channel of uint8 images N×C×H×W: int64 N×C, on the CPU."""
        return in_blocks(self._classify, images, self.cpu_block, self.device)

    def _classify(self, images: Tensor) -> Tensor:
        return self.network(self._digits(images)).argmax(dim=1).unflatten(0, (len(images), -1))

    def _digits(self, images: Tensor) -> Tensor:
        """Each channel as an image of its own, in [0, 1]: float N·C×1×size×size."""
        if images.dtype != torch.uint8 or images.shape[2:] not in self._sides():
            raise TrilemmaError(
                f"extractor '{self.name}' needs uint8 images N×C×{self.size}×{self.size}, "
                f"got {images.dtype} {tuple(images.shape)}"
            )
        border = (images.shape[-1] - self.size) // 2
        digits = F.pad(images.to(self.device), (-border,) * 4)
        return digits.flatten(0, 1)[:, None].float() / 255

    def _sides(self) -> tuple[tuple[int, int], ...]:
        return (self.size, self.size), (self.padded, self.padded)


class DigitsCNN(DigitClassifier):
    """The classifier of 8×8 digits (scikit-learn's)."""

    name = "digits-cnn"
    size = padded = 8


class MnistCNN(DigitClassifier):
    """The classifier of 28×28 digits (MNIST), which may be padded to 32×32."""

    name = "mnist-cnn"
    size = 28
    padded = 32
