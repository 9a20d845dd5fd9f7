"""DINOv2 and CLIP: the networks that published files describe, small, against independent formulations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from inputs import scene
from seeded_weights import install, relative_error
from torch_fidelity.feature_extractor_clip import VisionTransformer as OpenAIsTower

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.features.clip import CLIPB32, MEAN, STD, ImageTower, image_tower_state
from trilemma_bench.features.dinov2 import DINOv2B14, DINOv2L14, resized_positions
from trilemma_bench.features.extraction import extract
from trilemma_bench.features.resize import bicubic_uint8
from trilemma_bench.features.vit import VisionTransformer
from trilemma_bench.trained import count_parameters

RNG = torch.Generator().manual_seed(0)
WIDTH, DEPTH = 128, 2


def random(*shape, scale=0.1, mean=0.0):
    return torch.randn(shape, generator=RNG) * scale + mean


@pytest.fixture
def scenes():
    return torch.stack([scene(48, 40, seed) for seed in range(3)])


# DINOv2


def dinov2_state(width=WIDTH, depth=DEPTH):
    """The tensors of a published DINOv2 file, by name and shape."""
    state = {
        "cls_token": random(1, 1, width),
        "pos_embed": random(1, 1 + 37 * 37, width),
        "mask_token": random(1, width),
        "patch_embed.proj.weight": random(width, 3, 14, 14),
        "patch_embed.proj.bias": random(width),
        "norm.weight": random(width, mean=1),
        "norm.bias": random(width),
    }
    for i in range(depth):
        for norm in ("norm1", "norm2"):
            state |= {f"blocks.{i}.{norm}.weight": random(width, mean=1), f"blocks.{i}.{norm}.bias": random(width)}
        for name, outs, ins in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
            state[f"blocks.{i}.{name}.weight"] = random(outs * width, ins * width)
            state[f"blocks.{i}.{name}.bias"] = random(outs * width)
        state |= {f"blocks.{i}.ls1.gamma": random(width, mean=0.5), f"blocks.{i}.ls2.gamma": random(width, mean=0.5)}
    return state


def dinov2_by_the_book(state, images):
    """The forward pass of the paper's network, written down from its equations with loops over heads and blocks."""
    width = state["cls_token"].shape[-1]

    def norm(x, name):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def attention(x, name):
        query, key, value = linear(x, f"{name}.qkv").split(width, dim=-1)
        heads = []
        for start in range(0, width, 64):
            q, k, v = (part[..., start : start + 64] for part in (query, key, value))
            heads.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(64), dim=-1) @ v)
        return linear(torch.cat(heads, dim=-1), f"{name}.proj")

    patches = F.unfold(images, 14, stride=14).transpose(1, 2)  # N×256×(3·14·14)
    x = patches @ state["patch_embed.proj.weight"].flatten(1).T + state["patch_embed.proj.bias"]
    x = torch.cat([state["cls_token"].expand(len(images), 1, width), x], dim=1) + resized_positions(
        state["pos_embed"], 16
    )
    for i in range(DEPTH):
        block = f"blocks.{i}"
        x = x + state[f"{block}.ls1.gamma"] * attention(norm(x, f"{block}.norm1"), f"{block}.attn")
        hidden = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        x = x + state[f"{block}.ls2.gamma"] * linear(hidden, f"{block}.mlp.fc2")
    return norm(x[:, 0], "norm")


def test_dinov2_is_its_papers_network(scenes):
    state = dinov2_state()
    made = install("dinov2-vitb14", state)
    extractor = DINOv2B14()
    extractor.dim = WIDTH  # of this small network
    found = extract(extractor, scenes)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (bicubic_uint8(scenes, 224) / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert relative_error(found, dinov2_by_the_book(state, images)) < 1e-5
    assert relative_error(found[:1], found[1:2]) > 0.01
    assert (extractor.weights_sha256, extractor.resize) == (made, "pil-bicubic-uint8-224")
    assert torch.equal(extract(extractor, scenes.flip(0)), found.flip(0))


def cubic(distance):
    """Keys' kernel with torch's a = −0.75, of distances below 2."""
    t = abs(distance)
    return 1.25 * t**3 - 2.25 * t**2 + 1 if t <= 1 else -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)


def test_positions_are_resized_by_a_factor_a_little_too_large():
    """(16 + 0.1) / 37, as the published models are set up: point i lies at (i + 0.5)·37 / 16.1 − 0.5."""
    values = torch.randn(37, generator=RNG)
    positions = torch.cat([torch.zeros(1, 2), torch.cartesian_prod(values, values)])[None]
    found = resized_positions(positions, 16)[0, 1:].view(16, 16, 2)
    expected = []
    for i in range(16):
        place = (i + 0.5) * 37 / 16.1 - 0.5
        near = range(math.floor(place) - 1, math.floor(place) + 3)
        expected.append(sum(cubic(place - k) * values[min(max(k, 0), 36)] for k in near))
    torch.testing.assert_close(found[:, 5, 0], torch.stack(expected), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[5, :, 1], torch.stack(expected), atol=1e-4, rtol=0)
    assert resized_positions(positions, 37) is positions


@pytest.mark.parametrize(("extractor", "depth", "millions"), [(DINOv2B14, 12, 86.58), (DINOv2L14, 24, 304.37)])
def test_dinov2_has_the_published_size(extractor, depth, millions):
    """Parameters as the authors count them, of the file with its 37×37 positions and its mask token."""
    with torch.device("meta"):
        network = VisionTransformer(
            extractor.dim, depth, 14, 1 + 37 * 37, activation=F.gelu, epsilon=1e-6, layer_scale=True
        )
    assert count_parameters(network) + extractor.dim == pytest.approx(millions * 1e6, abs=5e3)
    small = dinov2_state(64, 1)
    with torch.device("meta"):
        same = VisionTransformer(64, 1, 14, 1 + 37 * 37, activation=F.gelu, epsilon=1e-6, layer_scale=True)
    assert same.state_dict().keys() == small.keys() - {"mask_token"}


# CLIP


def clip_state(width=WIDTH, depth=DEPTH, dim=32, patch=32):
    """The tensors of Hugging Face's CLIPModel file, by name and shape, with a stump of the text side."""
    state = {
        "logit_scale": random(),
        "text_model.final_layer_norm.weight": random(8),
        "text_projection.weight": random(dim, 8),
        "visual_projection.weight": random(dim, width),
        "vision_model.embeddings.class_embedding": random(width),
        "vision_model.embeddings.position_ids": torch.arange(50)[None],
        "vision_model.embeddings.patch_embedding.weight": random(width, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": random(50, width),
    }
    for name in ("pre_layrnorm", "post_layernorm"):
        state |= {f"vision_model.{name}.weight": random(width, mean=1), f"vision_model.{name}.bias": random(width)}
    for i in range(depth):
        layer = f"vision_model.encoder.layers.{i}"
        for norm in ("layer_norm1", "layer_norm2"):
            state |= {f"{layer}.{norm}.weight": random(width, mean=1), f"{layer}.{norm}.bias": random(width)}
        for name, outs, ins in (
            *((f"self_attn.{part}_proj", 1, 1) for part in ("q", "k", "v", "out")), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)
        ):  # fmt: skip
            state[f"{layer}.{name}.weight"] = random(outs * width, ins * width)
            state[f"{layer}.{name}.bias"] = random(outs * width)
    return state


def openais_tower(state):
    """OpenAI's own class, as torch-fidelity ships it, with the same weights under OpenAI's names."""
    model = "vision_model"
    ours = {
        "class_embedding": state[f"{model}.embeddings.class_embedding"],
        "positional_embedding": state[f"{model}.embeddings.position_embedding.weight"],
        "proj": state["visual_projection.weight"].T,
        "conv1.weight": state[f"{model}.embeddings.patch_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        ours[f"ln_pre.{kind}"] = state[f"{model}.pre_layrnorm.{kind}"]
        ours[f"ln_post.{kind}"] = state[f"{model}.post_layernorm.{kind}"]
        for i in range(DEPTH):
            layer, block = f"{model}.encoder.layers.{i}", f"transformer.resblocks.{i}"
            attention = [state[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            ours[f"{block}.attn.in_proj_{kind}"] = torch.cat(attention)
            ours[f"{block}.attn.out_proj.{kind}"] = state[f"{layer}.self_attn.out_proj.{kind}"]
            for theirs, name in (
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                ours[f"{block}.{theirs}.{kind}"] = state[f"{layer}.{name}.{kind}"]
    tower = OpenAIsTower(224, 32, WIDTH, DEPTH, WIDTH // 64, len(state["visual_projection.weight"]))
    tower.load_state_dict(ours)
    return tower.eval().requires_grad_(False)


def test_clip_is_openais(scenes):
    state = clip_state()
    made = install("clip-vit-b-32", state)
    extractor = CLIPB32()
    extractor.dim = 32  # of this small network
    found = extract(extractor, scenes)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    expected = openais_tower(state)((bicubic_uint8(scenes, 224) / 255 - mean) / std)
    assert relative_error(found, expected) < 1e-5
    assert relative_error(found[:1], found[1:2]) > 0.01
    assert found.shape == (3, 32)
    assert (extractor.weights_sha256, extractor.resize) == (made, "pil-bicubic-uint8-224")
    assert torch.equal(extract(extractor, scenes.flip(0)), found.flip(0))


def test_clip_has_the_published_size():
    """87.85 M parameters on the image side of ViT-B/32, the projection among them."""
    with torch.device("meta"):
        tower = ImageTower(768, 12, 32, 50, 512)
        small = ImageTower(WIDTH, DEPTH, 32, 50, 32)
    assert count_parameters(tower) == 87_849_216
    assert small.state_dict().keys() == image_tower_state(clip_state()).keys()


@pytest.mark.parametrize(
    ("name", "extractor", "state"),
    [("dinov2-vitb14", DINOv2B14, dinov2_state(64, 1)), ("clip-vit-b-32", CLIPB32, clip_state(64, 1))],
)
def test_images_of_other_kinds_are_refused(name, extractor, state):
    install(name, state)
    with pytest.raises(TrilemmaError, match=f"'{name}' needs uint8 images N×3×H×W"):
        extractor()(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
