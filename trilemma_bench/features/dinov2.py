"""DINOv2 features (Oquab et al. 2023, arXiv:2304.07193), as in FD-DINOv2 (Stein et al. 2023, arXiv:2306.04675)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma_bench.features.network import IMAGENET_MEAN, IMAGENET_STD, ImageNetwork
from trilemma_bench.features.resize import bicubic_uint8, normalised
from trilemma_bench.features.vit import VisionTransformer, depth_of

SIDE = 224
POSITION_OFFSET = 0.1


class DINOv2(ImageNetwork):
    """The class token after the last layer norm, of uint8 RGB images of any size.

    The resize is that of dgm-eval, the code of FD-DINOv2: Pillow's bicubic to 224, rounded to whole levels. EDM2's does
    not round; torch-fidelity's is another one, and its numbers cannot be compared.
    """

    resize = "pil-bicubic-uint8-224"

    def build(self, state: dict[str, Tensor]) -> None:
        state = {key: value for key, value in state.items() if key != "mask_token"}  # used in training only
        width, _, _, patch = state["patch_embed.proj.weight"].shape
        state["pos_embed"] = resized_positions(state["pos_embed"], SIDE // patch)
        with torch.device("meta"):
            network = VisionTransformer(
                width, depth_of(state), patch, state["pos_embed"].shape[1],
                activation=F.gelu, epsilon=1e-6, layer_scale=True,
            )  # fmt: skip
        network.load_state_dict(state, assign=True)
        self.network = network.to(self.device).eval().requires_grad_(False)

    def forward(self, images: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        return {"features": self.network(normalised(bicubic_uint8(images, SIDE), IMAGENET_MEAN, IMAGENET_STD))}


class DINOv2B14(DINOv2):
    """DINOv2 ViT-B/14: float32 N×768."""

    name = "dinov2-vitb14"
    weights_name = "dinov2-vitb14"
    dim = 768


class DINOv2L14(DINOv2):
    """DINOv2 ViT-L/14, the one of FD-DINOv2: float32 N×1024."""

    name = "dinov2-vitl14"
    weights_name = "dinov2-vitl14"
    dim = 1024


def resized_positions(positions: Tensor, side: int) -> Tensor:
    """Position embeddings 1×(1 + M²)×width, learned on M×M patches, for side×side: 1×(1 + side²)×width.

    Bicubic without antialiasing, by the factor (side + 0.1) / M, as the published models are set up.
    """
    learned = round((positions.shape[1] - 1) ** 0.5)
    if learned == side:
        return positions
    grid = positions[:, 1:].unflatten(1, (learned, learned)).permute(0, 3, 1, 2)
    factor = (side + POSITION_OFFSET) / learned
    grid = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
