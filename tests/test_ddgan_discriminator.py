"""DDGAN's discriminator of images, written out anew."""

from __future__ import annotations

import math

import pytest
import torch
from exact import rng
from torch import nn
from torch.nn import functional as F

from ddgan.discriminator import ImageDiscriminator


@pytest.mark.parametrize("large", [False, True])
def test_the_discriminator_is_the_papers_layer_by_layer(large):
    """Written out anew: 1×1, residual blocks over √2 that FIR halves, deviation of groups of 4, 3×3, sum, dense."""
    torch.manual_seed(0)
    network = ImageDiscriminator(6, 16, channels=8, time_dim=8, large=large, flatten=False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, given, t = torch.randn(8, 3, 16, 16), torch.randn(8, 3, 16, 16), torch.randint(4, (8,))

    def act(h):
        return F.leaky_relu(h, 0.2)

    def halved(h):
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = (torch.outer(taps, taps) / 64).expand(h.shape[1], 1, 4, 4)
        return F.conv2d(F.pad(h, (1, 1, 1, 1)), kernel, stride=2, groups=h.shape[1])

    angles = t[:, None] * torch.exp(-math.log(10_000) / 3 * torch.arange(4))
    first, _, second = network.time[0].layers
    time = act(second(act(first(torch.cat([angles.sin(), angles.cos()], dim=1)))))
    h = network.first(torch.cat([x, given], dim=1))
    for number, block in enumerate(network.blocks):
        inner, outer = act(block.conv1(act(h)) + block.time(time)[:, :, None, None]), h
        if large or number:
            inner, outer = halved(inner), halved(outer)
        h = (block.conv2(inner) + block.shortcut(outer)) / math.sqrt(2)
    assert h.shape == (8, 32, 4, 4)
    groups = h.view(4, 2, 32, 4, 4)  # samples 0, 2, 4, 6 and 1, 3, 5, 7
    deviation = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    h = torch.cat([h, deviation.repeat(4).view(8, 1, 1, 1).expand(-1, -1, 4, 4)], dim=1)
    expected = network.last(act(network.conv(h)).sum(dim=(2, 3)))[:, 0]
    torch.testing.assert_close(network(x, given, t), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.01


@pytest.mark.parametrize("large", [False, True])
def test_a_new_discriminators_branches_are_nearly_silent(large):
    """Then a block is its shortcut, and a small discriminator knows nothing, as their initial gain of 1e-10 has it."""
    made = ImageDiscriminator(6, 16, channels=8, time_dim=8, large=large, flatten=False)
    x, t = torch.randn(2, 4, 3, 16, 16, generator=rng()), torch.arange(4)
    block, time = made.blocks[-1], torch.randn(4, 8)
    h = torch.randn(4, block.conv1.in_channels, 8, 8)
    torch.testing.assert_close(block(h, time), block.shortcut(block.halve(h)) * 0.5**0.5, atol=1e-4, rtol=0)
    assert bool((made(*x, t).abs() < 0.05).all()) is not large


@pytest.mark.parametrize("large", [False, True])
def test_a_new_discriminators_weights_have_the_programs_variances(large):
    """1/fan_out: for the one logit 1, where Glorot's would be 2/513; 1e-10 of it for what starts silent."""
    made = ImageDiscriminator(6, 16, channels=128, time_dim=256, large=large, flatten=False)
    silent = [*(block.conv2 for block in made.blocks), *([] if large else [made.conv])]
    for layer in made.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            fan_out = layer.weight.shape[0] * layer.weight[0, 0].numel()
            gain = 1e-10 if any(layer is each for each in silent) else 1.0
            assert layer.weight.square().mean().item() * fan_out / gain == pytest.approx(1, rel=0.15)
            assert layer.bias is None or not layer.bias.any()


def test_the_filters_of_a_silent_layer_do_not_learn_alike():
    """From weights of exactly 0 every filter's gradient is the same but for a factor: Adam would move all as one."""
    torch.manual_seed(0)
    made = ImageDiscriminator(6, 16, channels=8, time_dim=8, large=False, flatten=False)
    x, t = torch.randn(2, 16, 3, 16, 16), torch.arange(16) % 4
    (made(*x, t)[:8].sum() - made(*x, t)[8:].sum()).backward()
    moves = made.conv.weight.grad.flatten(1).sign()
    assert torch.linalg.matrix_rank(moves) > len(moves) / 2
