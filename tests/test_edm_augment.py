"""EDM's augmentation: that what is told is what was done, how often each is done, and that samples know of none."""

from __future__ import annotations

import pytest
import torch

from baselines.edm import EDM
from baselines.edm_augment import edm_augment
from baselines.geometry import rotate, scale, translate, warp
from baselines.meanflow import MeanFlow
from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import UsageError

TINY = {"channels": 8, "channel_multipliers": (1, 2), "res_blocks": 1, "attention_resolutions": ()}
DIGITS = DataSpec((1, 8, 8))


def remade(images, told, sign):
    """The images as the numbers tell: flipped, then scaled, turned, stretched and shifted."""
    scaled, along, across, x, y, mirrored, upended, cosine, sine = told.unbind(dim=1)
    stretched, axis = sign * torch.hypot(along, across), torch.atan2(across, along)
    flipped = torch.where(mirrored[:, None, None, None] > 0, images.flip(3), images)
    flipped = torch.where(upended[:, None, None, None] > 0, flipped.flip(2), flipped)
    maps = (
        scale(2 ** (-0.2 * scaled), 2 ** (-0.2 * scaled))
        @ rotate(torch.atan2(sine, cosine + 1))
        @ rotate(-axis)
        @ scale(2 ** (-0.2 * stretched), 2 ** (0.2 * stretched))
        @ rotate(axis)
        @ translate(-x / 4, -y / 4)
    )
    return warp(flipped, maps)


def test_the_images_are_what_the_told_numbers_make_of_them():
    """But for a stretch's sign, as in the paper: squeezing along an axis is told as stretching along its opposite."""
    torch.manual_seed(0)
    images = torch.randn(64, 3, 16, 16)
    moved, told = edm_augment(images, 0.6)
    errors = torch.stack([(moved - remade(images, told, sign)).abs().amax(dim=(1, 2, 3)) for sign in (1, -1)])
    assert errors.amin(dim=0).max() < 1e-4
    assert (errors[0] < 1e-4).float().mean() == pytest.approx(0.4 + 0.6 / 2, abs=0.15)


def test_each_is_done_as_often_as_asked_and_mirroring_half_the_time():
    torch.manual_seed(0)
    _, told = edm_augment(torch.zeros(20_000, 1, 8, 8), 0.12)
    shares = (told != 0).float().mean(dim=0).tolist()
    scaled, along, across, x, y, mirrored, upended, cosine, sine = shares
    assert [scaled, along, x, cosine] == pytest.approx([0.12] * 4, abs=0.01)
    assert (x, cosine) == (y, sine)
    assert across == pytest.approx(0.06, abs=0.01)  # half the stretches are along the horizontal
    assert mirrored == pytest.approx(0.5, abs=0.02)
    assert upended == pytest.approx(0.06, abs=0.01)  # a coin in 12 %
    done = told[told[:, 0] != 0]
    assert done[:, 0].std().item() == pytest.approx(1, abs=0.05)


def test_autocast_changes_nothing():
    images, found = torch.randn(16, 3, 8, 8), []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found += [edm_augment(images, 0.5)]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_with_no_chance_images_are_mirrored_at_most():
    images = torch.randn(16, 3, 8, 8)
    moved, told = edm_augment(images, 0.0)
    assert not told[:, [0, 1, 2, 3, 4, 6, 7, 8]].any()
    mirrored = told[:, 5, None, None, None] > 0
    torch.testing.assert_close(moved, torch.where(mirrored, images.flip(3), images), rtol=0, atol=1e-5)


def test_upright_images_are_neither_upended_nor_turned():
    """A bright upper half stays above."""
    images = torch.zeros(200, 1, 16, 16)
    images[:, :, :8] = 1.0
    moved, told = edm_augment(images, 0.5, upright=True)
    assert told.shape == (200, 6)
    still = (told[:, 3:5] == 0).all(dim=1) & (told[:, 2] == 0)
    assert (moved[still, :, :6].mean(dim=(1, 2, 3)) > 0.9).all()


@pytest.mark.parametrize(("model", "numbers"), [(EDM, 9), (MeanFlow, 6)])
def test_the_network_is_told_while_it_trains_alone(model, numbers):
    built = model(DIGITS, augment=0.5, **TINY)
    seen = []
    built.network.register_forward_pre_hook(lambda _, args, told: seen.append(told), with_kwargs=True)
    optimizers = built.optimizers()
    built.train().training_step(torch.rand(4, 1, 8, 8), 0, optimizers)
    assert all(told["augmentation"].shape == (4, numbers) for told in seen)
    seen.clear()
    built.eval().sample(2, torch.Generator())
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("architecture", ["ddpm", "ddpm++", "ncsn++"])
def test_what_is_told_matters_and_zeros_are_nothing(architecture):
    """Zeros are what samples are told."""
    network = EDM(DIGITS, augment=0.5, architecture=architecture, **TINY).network.eval()
    for parameter in network.parameters():  # residual branches and the output start as zero
        torch.nn.init.normal_(parameter, std=0.1)
    x, time = torch.randn(3, 1, 8, 8), torch.rand(3)
    told = torch.randn(3, 9)
    assert torch.equal(network(x, time), network(x, time, augmentation=torch.zeros(3, 9)))
    assert not torch.allclose(network(x, time), network(x, time, augmentation=told))


def test_edm_at_cifars_size_has_nine_numbers_times_the_channels_more_parameters():
    plain, told = (
        sum(parameter.numel() for parameter in EDM(DataSpec((3, 32, 32)), augment=augment).network.parameters())
        for augment in (0.0, 0.12)
    )
    assert told - plain == 9 * 128


def test_points_have_nothing_to_augment():
    with pytest.raises(UsageError, match=r"augment = 0\.1 is for images: choose 0 for points"):
        EDM(DataSpec((2,)), augment=0.1)
