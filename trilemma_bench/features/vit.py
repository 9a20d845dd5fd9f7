"""The vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) that DINOv2 and CLIP share, for inference.

Modules are called as in DINOv2's published files.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 64
Activation = Callable[[Tensor], Tensor]


class Attention(nn.Module):
    """Self-attention among tokens N×T×width, with heads 64 wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, -1, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor for each channel (Touvron et al. 2021, arXiv:2103.17239)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Attention and MLP, each after a layer norm and around a shortcut."""

    def __init__(self, width: int, activation: Activation, epsilon: float, layer_scale: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, epsilon)
        self.attn = Attention(width)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, epsilon)
        self.mlp = Mlp(width, activation)
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Normalised images N×3×S×S → the class token after the last norm: N×width.

    patch: side of a patch in pixels. tokens: patches of an image and the class token. activation, epsilon: of the MLPs
    and the layer norms. patch_bias, layer_scale: whether there are such parameters.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        patch: int,
        tokens: int,
        *,
        activation: Activation,
        epsilon: float,
        patch_bias: bool = True,
        layer_scale: bool = False,
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch, bias=patch_bias)})
        self.blocks = nn.Sequential(*(Block(width, activation, epsilon, layer_scale) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, epsilon)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.blocks(self.tokens(images))[:, 0])

    def tokens(self, images: Tensor) -> Tensor:
        """The class token and a token for each patch, with their positions: N×T×width."""
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed


def depth_of(state: dict[str, Tensor]) -> int:
    """How many blocks the weights have."""
    return 1 + max(int(found[1]) for key in state if (found := re.match(r"blocks\.(\d+)\.", key)))
