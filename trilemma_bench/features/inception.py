"""TF-Inception features: torch-fidelity's network, made more than twice as fast, after two published resizes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trilemma_bench.features.network import ImageNetwork
from trilemma_bench.features.resize import bicubic, tf1_bilinear

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d

SIDE = 299
LAST_SPATIAL = "Mixed_6d"  # TensorFlow's mixed_6; its first channels are those of the branch of one 1×1 convolution
SPATIAL_CHANNELS = 7
STEM_CPU_IMAGES = 2  # images that the layers before the blocks see at once on a CPU


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
        layers = dict(_torch_fidelitys(state).named_children())
        blocks = {name: _block(layer) for name, layer in layers.items() if name.startswith("Mixed")}
        cut = list(blocks).index(LAST_SPATIAL) + 1
        self.stem = self._placed(_stem(layers))
        self.lower = self._placed(nn.Sequential(*list(blocks.values())[:cut]))
        self.upper = self._placed(nn.Sequential(*list(blocks.values())[cut:]))
        self.pool = layers["AvgPool"]
        self.logits_weight = layers["fc"].get_parameter("weight").T.to(self.device)

    def _placed(self, layers: nn.Module) -> nn.Module:
        return layers.to(self.device).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        # The stem's maps are the largest by far: those of a few images fit a cache, and their memory is used again by
        # the next ones, whereas that of many would go back to the operating system and come again page by page.
        count = STEM_CPU_IMAGES if images.device.type == "cpu" else len(images)
        maps = self.lower(torch.cat([self.stem(self.input(part)) for part in images.split(count)]))
        found = {}
        if "spatial" in outputs:
            found["spatial"] = maps[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        if "features" in outputs or "logits" in outputs:
            found["features"] = self.pool(self.upper(maps).float()).flatten(1)
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


class Block(nn.Module):
    """Branches of one input, each without its last ReLU: their channels side by side, then ReLU."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1).relu_()


def _stem(layers: dict[str, nn.Module]) -> nn.Module:
    """The layers before the blocks. ReLU comes after a maximum, where there is a quarter of the pixels: the same."""
    return nn.Sequential(
        _chain(
            _folded(layers["Conv2d_1a_3x3"]),
            _folded(layers["Conv2d_2a_3x3"]),
            nn.Sequential(_folded(layers["Conv2d_2b_3x3"]), layers["MaxPool_1"]),
            _folded(layers["Conv2d_3b_1x1"]),
            nn.Sequential(_folded(layers["Conv2d_4a_3x3"]), layers["MaxPool_2"]),
        ),
        nn.ReLU(inplace=True),
    )


def _block(original: nn.Module) -> Block:
    """A block of torch-fidelity, whose convolutions are named after branch and place, such as 'branch3x3dbl_2'.

    Two at one place, such as '3a' and '3b', have the same input. The last branch is a pool.
    """
    convolutions = {name: _folded(layer) for name, layer in original.named_children()}
    pool = _pool(original, convolutions.pop("branch_pool", None))
    branches: dict[str, list[nn.Module]] = {}
    for place, names in groupby(convolutions, key=lambda name: name.rstrip("ab")):
        layers = [convolutions[name] for name in names]
        branches.setdefault(place.split("_")[0], []).append(layers[0] if len(layers) == 1 else Block(*layers))
    return Block(*(_chain(*branch) for branch in branches.values()), pool)


def _pool(block: nn.Module, convolution: nn.Module | None) -> nn.Module:
    """The pool branch of a block of torch-fidelity, whose input is nowhere negative: a maximum needs no ReLU."""
    from torch_fidelity.feature_extractor_inceptionv3 import InceptionE_2

    if convolution is None:
        return nn.MaxPool2d(3, stride=2)
    if isinstance(block, InceptionE_2):
        return nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), convolution)
    # The average of the inputs, convolved, is the average of the convolved ones, which have fewer channels.
    return nn.Sequential(convolution, nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False))


def _chain(*layers: nn.Module) -> nn.Sequential:
    """The layers one after the other, with ReLU between them."""
    return nn.Sequential(layers[0], *(step for layer in layers[1:] for step in (nn.ReLU(inplace=True), layer)))


def _folded(layer: BasicConv2d) -> nn.Module:
    """The convolution of `layer`, without its ReLU, with its batch normalisation, an affine map per channel, in it."""
    return fuse_conv_bn_eval(layer.conv, layer.bn)


def _torch_fidelitys(state: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's network with these weights, in evaluation mode and without gradients."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    buffer = io.BytesIO()  # torch-fidelity would run whatever code a file contains: it gets one that holds tensors only
    torch.save(state, buffer)
    buffer.seek(0)
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer)
