"""CIFAR-10 ResNet-56 features (He et al. 2016, arXiv:1512.03385, section 4.2), which need no large download."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trilemma_bench import weights
from trilemma_bench.contracts import DataSpec, FeatureExtractor
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.features.network import IMAGENET_MEAN, IMAGENET_STD


class Block(nn.Module):
    """Two 3×3 convolutions around a shortcut without parameters (option A): subsampled, padded with zero channels."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.missing = width - before

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        before = self.missing // 2
        shortcut = x[..., :: self.stride, :: self.stride]
        return F.relu(residual + F.pad(shortcut, (0, 0, 0, 0, before, self.missing - before)))


class ResNet(nn.Module):
    """ResNet of depth 6n + 2 for 32×32 images. Input: normalised N×3×32×32. blocks: n, 9 for ResNet-56."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks)
        self.layer2 = _stage(16, 32, 2, blocks)
        self.layer3 = _stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, classes)

    def features(self, images: Tensor) -> Tensor:
        """Averages over the last feature maps: N×64."""
        x = F.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(x))).float().mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits: N×classes."""
        return self.linear(self.features(images))


def _stage(before: int, width: int, stride: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(Block(before, width, stride), *(Block(width, width, 1) for _ in range(blocks - 1)))


class CifarResNet56(FeatureExtractor):
    """The 64 averaged features of a CIFAR-10 ResNet-56 (accuracy 93.39 % on the test split): float32 N×64.

    Raises TrilemmaError when the weights are missing or damaged.
    """

    name = "cifar-resnet56"
    dim = 64

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.weights_sha256 = weights.WEIGHTS[self.name].sha256
        stored = weights.load(self.name)["state_dict"]
        self.network = ResNet(blocks=9)
        self.network.load_state_dict({key.removeprefix("module."): value for key, value in stored.items()})
        self.network.to(self.device).eval().requires_grad_(False)

    def __call__(self, samples: Tensor) -> Tensor:
        return self.network.features(self.normalise(samples))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images N×3×32×32 → the network's input."""
        mean, std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (images.to(self.device).float() / 255 - mean) / std

    def check(self, data: DataSpec) -> None:
        if data.shape != (3, 32, 32):
            raise TrilemmaError(
                f"extractor '{self.name}' measures 32×32 RGB images, not data of shape "
                f"{'×'.join(map(str, data.shape))}: choose another protocol"
            )
