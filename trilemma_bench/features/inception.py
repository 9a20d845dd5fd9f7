"""TF-Inception features: torch-fidelity's network, made twice as fast by folding, after two published resizes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trilemma_bench.features.network import ImageNetwork
from trilemma_bench.features.resize import bicubic, tf1_bilinear

SIDE = 299
LAST_SPATIAL = "Mixed_6d"  # TensorFlow's mixed_6; its first channels are those of the branch of one 1×1 convolution
SPATIAL_CHANNELS = 7


class Inception(ImageNetwork):
    """Inception-v3 of 2015-12-05, of uint8 RGB images of any size, as published FIDs use it.

    features: the 2048 of pool3. logits: the 1008 before the softmax without their bias, for the Inception score.
    spatial: the first 7 channels of the 17×17 map mixed_6/conv, flattened row by row, channel last: 2023, for sFID
    (Nash et al. 2021, arXiv:2103.03841, as guided-diffusion computes it).
    """

    name = "inception"
    weights_name = "inception"
    dim = 2048
    resize = "tf1-bilinear-299"
    outputs = ("features", "logits", "spatial")

    def build(self, state: dict[str, Tensor]) -> None:
        network = _folded(_torch_fidelitys(state)).to(self.device).to(memory_format=torch.channels_last)
        layers = dict(network.named_children())
        self.logits_weight = layers.pop("fc").weight.T
        cut = list(layers).index(LAST_SPATIAL) + 1
        self.lower = nn.Sequential(*list(layers.values())[:cut])
        self.upper = nn.Sequential(*list(layers.values())[cut:])

    def forward(self, images: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        maps = self.lower(self.input(images))
        found = {}
        if "spatial" in outputs:
            found["spatial"] = maps[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        if "features" in outputs or "logits" in outputs:
            found["features"] = self.upper(maps).flatten(1)
        if "logits" in outputs:
            found["logits"] = found["features"] @ self.logits_weight
        return {output: found[output] for output in outputs}

    def input(self, images: Tensor) -> Tensor:
        """uint8 images N×3×H×W → the network's input N×3×299×299 in [−1, 1)."""
        # Scaled before the resize, where there are fewer pixels: the weights of a bilinear resize add up to one.
        return tf1_bilinear((images.float() - 128) / 128, SIDE)


class InceptionClean(Inception):
    """The same network and weights after clean-fid's resize (Parmar et al. 2022, arXiv:2104.11222): its mode 'clean'.

    Pillow's bicubic of each channel in float, never rounded between the resize and the network.
    """

    name = "inception-clean"
    resize = "pil-bicubic-299"

    def input(self, images: Tensor) -> Tensor:
        return ((bicubic(images, SIDE) - 128) / 128).contiguous(memory_format=torch.channels_last)


class ConvReLU(nn.Module):
    """A convolution with its bias, and ReLU."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x).relu_()


def _folded(network: nn.Module) -> nn.Module:
    """`network` with each batch normalisation, which is an affine map per channel, folded into its convolution."""
    from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d

    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, BasicConv2d):
                setattr(parent, name, ConvReLU(fuse_conv_bn_eval(layer.conv, layer.bn)))
    return network


def _torch_fidelitys(state: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's network with these weights, in evaluation mode and without gradients."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    buffer = io.BytesIO()  # torch-fidelity would run whatever code a file contains: it gets one that holds tensors only
    torch.save(state, buffer)
    buffer.seek(0)
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer)
