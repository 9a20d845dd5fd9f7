"""Weights files of the published shapes and names, made from a seed, in the place of the real ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
import torchvision
from torch import Tensor, nn

from trilemma_bench import weights
from trilemma_bench.features.cifar_resnet import ResNet


def install(name: str, content: Any) -> str:
    """Saves `content` as the weights `name`, and has this process's table expect its hash. Gives the hash."""
    weight = weights.WEIGHTS[name]
    weight.path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, weight.path)
    made = replace(weight, sha256=weights.sha256_of(weight.path), size=weight.path.stat().st_size)
    weights.WEIGHTS[name] = made
    return made.sha256


def install_cifar_resnet() -> nn.Module:
    """The network with the weights that are installed, in the published format; its batch norms differ."""
    torch.manual_seed(0)
    network = ResNet(blocks=9)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.uniform_(module.running_var, 0.5, 2)
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    install("cifar-resnet56", {"state_dict": state, "best_prec1": 10.0})
    return network.eval()


def install_inception() -> nn.Module:
    """torch-fidelity's network with the weights that are installed: a function of uint8 images, the oracle.

    Its activations keep their size from layer to layer, and its batch norms differ from the identity.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with patch.object(FeatureExtractorInceptionV3, "load_state_dict"), patch.object(torch, "load"):
        network = FeatureExtractorInceptionV3(
            "seeded", ["2048", "logits_unbiased"], feature_extractor_weights_path="unused"
        )
    rng = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=rng)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=rng)
            module.running_var.uniform_(0.5, 1.5, generator=rng)
            module.weight.data.uniform_(0.8, 1.2, generator=rng)
            module.bias.data.normal_(0, 0.1, generator=rng)
    install("inception", network.state_dict())
    return network


def vgg16_state() -> dict[str, Tensor]:
    """Weights of VGG16's shapes. Rows of the large layers overlap in storage, so that half a gigabyte takes little."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in torchvision.models.vgg16(init_weights=False).state_dict().items()}
    rng = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        scale = (2 / shape[1:].numel()) ** 0.5 if len(shape) > 1 else 0.1
        if key.startswith("classifier") and len(shape) == 2:
            values = torch.randn(shape[0] * 7 + shape[1], generator=rng) * scale
            state[key] = values.as_strided(shape, (7, 1))
        else:
            state[key] = torch.randn(shape, generator=rng) * scale
    return state


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest distance of a row to the expected one, as a share of its length."""
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())
