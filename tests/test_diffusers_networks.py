"""Our networks compute what diffusers' do with the same weights: DDPM's U-Net, and the blocks of NCSN++."""

from __future__ import annotations

import pytest
import torch
from exact import rng
from models import wake
from torch import nn

from trilemma_bench.nn.embedding import FourierEmbedding
from trilemma_bench.nn.ncsnpp import PyramidConv, ResBlock
from trilemma_bench.nn.resample import FIRDownsample, FIRUpsample, NearestUpsample
from trilemma_bench.nn.unet import UNet

pytest.importorskip("diffusers")

from diffusers import UNet2DModel
from diffusers.models.downsampling import FirDownsample2D
from diffusers.models.embeddings import GaussianFourierProjection
from diffusers.models.resnet import ResnetBlock2D

WIDTH = 128  # of at least this width all layers have DDPM's 32 groups, as diffusers' have
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def images(channels=3, size=8):
    return torch.randn(2, channels, size, size, generator=rng(1))


@torch.no_grad()
def give(ours: nn.Module, theirs: nn.Module) -> None:
    for mine, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        their.copy_(mine.view_as(their))


def give_block(ours, theirs):
    give(ours.before[0], theirs.norm1)
    give(ours.before[2], theirs.conv1)
    give(ours.time, theirs.time_emb_proj)
    give(ours.after[0], theirs.norm2)
    give(ours.last, theirs.conv2)
    if theirs.conv_shortcut is not None:
        give(ours.shortcut, theirs.conv_shortcut)


@torch.no_grad()
def give_attention(ours, theirs):
    give(ours.norm, theirs.group_norm)
    for name in ("weight", "bias"):
        for mine, their in zip(getattr(ours.qkv, name).chunk(3), (theirs.to_q, theirs.to_k, theirs.to_v), strict=True):
            getattr(their, name).copy_(mine.flatten(1) if mine.ndim > 1 else mine)
    give(ours.last, theirs.to_out[0])


def give_level(ours, theirs):
    for mine, their in zip(ours.blocks, theirs.resnets, strict=True):
        give_block(mine, their)
    for mine, their in zip(ours.blocks, getattr(theirs, "attentions", []), strict=False):
        give_attention(mine.attention, their)


def give_unet(ours, theirs):
    give(ours.time, theirs.time_embedding)
    give(ours.first, theirs.conv_in)
    for mine, their in zip(ours.down, theirs.down_blocks, strict=True):
        give_level(mine, their)
        if their.downsamplers:
            give(mine.halve, their.downsamplers[0])
    for mine, their in zip(ours.middle, theirs.mid_block.resnets, strict=True):
        give_block(mine, their)
    give_attention(ours.middle[0].attention, theirs.mid_block.attentions[0])
    for mine, their in zip(ours.up, theirs.up_blocks, strict=True):
        give_level(mine, their)
        if their.upsamplers:
            give(mine.enlarge, their.upsamplers[0])
    give(ours.last[0], theirs.conv_norm_out)
    give(ours.last[2], theirs.conv_out)


@torch.no_grad()
def test_ddpms_unet():
    """Of two widths, with attention at 4 pixels; halvings are padded on all sides, in both."""
    ours = wake(UNet(3, 8, channels=WIDTH, multipliers=(1, 2), res_blocks=2, attention_resolutions=(4,))).eval()
    theirs = UNet2DModel(
        sample_size=8,
        block_out_channels=(WIDTH, 2 * WIDTH),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        norm_eps=1e-6,
        freq_shift=1,
        flip_sin_to_cos=False,
        downsample_padding=1,
    ).eval()
    give_unet(ours, theirs)
    steps = torch.tensor([3, 700])
    expected = theirs(images(), steps).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(images(), steps), expected, **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize(
    ("inputs", "outputs", "resample", "options"),
    [
        (WIDTH, WIDTH, None, {}),
        (WIDTH, 2 * WIDTH, None, {}),
        (WIDTH, WIDTH, FIRDownsample(), {"down": True, "kernel": "fir"}),
        (WIDTH, WIDTH, FIRUpsample(), {"up": True, "kernel": "fir"}),
        (WIDTH, WIDTH, nn.AvgPool2d(2), {"down": True, "kernel": "sde_vp"}),
        (WIDTH, WIDTH, NearestUpsample(), {"up": True, "kernel": "sde_vp"}),
    ],
    ids=["same width", "wider", "NCSN++ down", "NCSN++ up", "DDPM++ down", "DDPM++ up"],
)
def test_blocks_of_ncsnpp(inputs, outputs, resample, options):
    """Theirs take the time before its SiLU, ours after it."""
    ours = wake(ResBlock(inputs, outputs, resample, time_dim=8)).eval()
    theirs = ResnetBlock2D(
        in_channels=inputs,
        out_channels=outputs,
        temb_channels=8,
        output_scale_factor=2**0.5,
        use_in_shortcut=bool(options) or None,
        **options,
    ).eval()
    give(ours.time, theirs.time_emb_proj)
    for name in ("norm1", "conv1", "norm2", "conv2"):
        give(getattr(ours, name), getattr(theirs, name))
    if theirs.conv_shortcut is not None:
        give(ours.shortcut, theirs.conv_shortcut)
    time, x = torch.randn(2, 8, generator=rng(2)), images(inputs)
    torch.testing.assert_close(ours(x, nn.functional.silu(time)), theirs(x, time), **TOLERANCE)


@torch.no_grad()
def test_the_pyramid_of_ncsnpp():
    ours, theirs = PyramidConv(3, 5), FirDownsample2D(3, 5, use_conv=True)
    give(ours.conv, theirs.Conv2d_0)
    torch.testing.assert_close(ours(images()), theirs(images()), **TOLERANCE)


def test_random_fourier_features_of_the_time():
    ours, theirs = FourierEmbedding(16, 16.0), GaussianFourierProjection(16, 16.0, log=False)
    theirs.weight.data = ours.frequencies / (2 * torch.pi)
    times = torch.tensor([0.0, 0.3, 1.0])
    torch.testing.assert_close(ours(times), theirs(times), rtol=0, atol=1e-4)
