"""CLIP image features (Radford et al. 2021, arXiv:2103.00020)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trilemma_bench.features.network import ImageNetwork
from trilemma_bench.features.resize import bicubic_uint8, normalised
from trilemma_bench.features.vit import VisionTransformer, depth_of

SIDE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
EPSILON = 1e-5

# The names of Hugging Face's conversion, which holds OpenAI's weights as plain tensors, and ours.
NAMES = {
    r"vision_model\.embeddings\.class_embedding": "cls_token",
    r"vision_model\.embeddings\.position_embedding\.weight": "pos_embed",
    r"vision_model\.embeddings\.patch_embedding\.": "patch_embed.proj.",
    r"vision_model\.pre_layrnorm\.": "norm_pre.",
    r"vision_model\.post_layernorm\.": "norm.",
    r"vision_model\.encoder\.layers\.": "blocks.",
    r"\.self_attn\.out_proj\.": ".attn.proj.",
    r"\.self_attn\.": ".attn.",
    r"\.layer_norm": ".norm",
    r"visual_projection\.": "projection.",
}


def quick_gelu(x: Tensor) -> Tensor:
    """x·sigmoid(1.702 x): OpenAI's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


class ImageTower(VisionTransformer):
    """CLIP's image side: a further norm before the blocks, and a projection: N×width → N×dim."""

    def __init__(self, width: int, depth: int, patch: int, tokens: int, dim: int) -> None:
        super().__init__(width, depth, patch, tokens, activation=quick_gelu, epsilon=EPSILON, patch_bias=False)
        self.norm_pre = nn.LayerNorm(width, EPSILON)
        self.projection = nn.Linear(width, dim, bias=False)

    def tokens(self, images: Tensor) -> Tensor:
        return self.norm_pre(super().tokens(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.projection(super().forward(images))


class CLIPB32(ImageNetwork):
    """OpenAI's ViT-B/32, its image embedding before it is scaled to length one: float32 N×512.

    uint8 RGB images of any size; resized to 224 by Pillow's bicubic, as OpenAI's own preprocessing does.
    """

    name = "clip-vit-b-32"
    weights_name = "clip-vit-b-32"
    dim = 512
    resize = "pil-bicubic-uint8-224"

    def build(self, state: dict[str, Tensor]) -> None:
        state = image_tower_state(state)
        width, _, _, patch = state["patch_embed.proj.weight"].shape
        with torch.device("meta"):
            network = ImageTower(
                width, depth_of(state), patch, state["pos_embed"].shape[1], len(state["projection.weight"])
            )
        network.load_state_dict(state, assign=True)
        self.network = network.to(self.device).eval().requires_grad_(False)

    def forward(self, images: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        return {"features": self.network(normalised(bicubic_uint8(images, SIDE), MEAN, STD))}


def image_tower_state(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image side of Hugging Face's `CLIPModel` weights, under the names of `ImageTower`."""
    state = {}
    for key, value in published.items():
        if key.startswith(("vision_model.", "visual_projection.")) and not key.endswith("position_ids"):
            for pattern, name in NAMES.items():
                key = re.sub(pattern, name, key)
            state[key] = value.float()
    for index in range(depth_of(state)):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"blocks.{index}.attn.{part}_proj.{kind}") for part in "qkv"]
            state[f"blocks.{index}.attn.qkv.{kind}"] = torch.cat(parts)
    return {
        **state, "cls_token": state["cls_token"].view(1, 1, -1), "pos_embed": state["pos_embed"][None]
    }  # fmt: skip
