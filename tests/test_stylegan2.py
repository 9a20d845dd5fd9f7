"""StyleGAN2: the published sizes, modulation by its definition, and ADA's control of their strength."""

from __future__ import annotations

import math

import pytest
import torch
from models import millions
from torch.nn import functional as F

from baselines.stylegan2 import ADA_INTERVAL, StyleGAN2
from baselines.stylegan2_networks import EqualisedLinear, MappingNetwork, ModulatedConv2d
from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import UsageError

IMAGES = DataSpec((3, 16, 16))
TINY = {"latent_dim": 8, "style_dim": 8, "channels": 8, "channel_base": 128}


def test_the_cifar10_networks_have_the_published_sizes():
    with torch.device("meta"):
        model = StyleGAN2(DataSpec((3, 32, 32)))
    assert millions(model.network) == 19.95
    assert millions(model.discriminator) == 20.72


@pytest.mark.parametrize("size", [8, 28, 32, 64])
def test_every_size_has_a_generator_and_a_discriminator(size):
    model = StyleGAN2(DataSpec((3, size, size)), **TINY)
    images = model.sample(4, torch.Generator().manual_seed(0))
    assert images.shape == (4, 3, size, size)
    assert model.discriminator(images).shape == (4, 1)


@pytest.mark.parametrize("demodulate", [True, False])
def test_a_modulated_convolution_is_a_convolution_with_scaled_weights(demodulate):
    """Karras et al. 2020a, eq. 1 and 3, sample by sample."""
    layer = ModulatedConv2d(5, 4, 6, 3, demodulate=demodulate)
    x, w = torch.randn(3, 5, 7, 7), torch.randn(3, 6)
    out = layer(x, w)
    for index, style in enumerate(layer.style(w)):
        weight = layer.weight * layer.gain * style[None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        assert torch.allclose(out[index : index + 1], F.conv2d(x[index : index + 1], weight, padding=1), atol=1e-5)


def test_demodulation_keeps_unit_variance():
    layer = ModulatedConv2d(64, 64, 8, 3)
    out = layer(torch.randn(8, 64, 32, 32), 3 * torch.randn(8, 8))
    assert out[:, :, 2:-2, 2:-2].std().item() == pytest.approx(1, abs=0.05)


def test_doubling_doubles_and_keeps_a_constant_image():
    layer = ModulatedConv2d(1, 1, 2, 3, demodulate=False, doubling=True)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.style.weight.zero_()
    out = layer(torch.ones(1, 1, 8, 8), torch.zeros(1, 2))
    assert out.shape == (1, 1, 16, 16)
    middle = out[0, 0, 4:-4, 4:-4]
    assert torch.allclose(middle, middle[0, 0].expand_as(middle), atol=1e-5)


def test_a_slower_layer_starts_alike_and_learns_less():
    """The multiplier divides the stored weights, so that a step of Adam moves the effective ones less."""
    torch.manual_seed(0)
    slow = EqualisedLinear(512, 512, lr_multiplier=0.01)
    effective = slow.weight * slow.gain
    assert effective.std().item() == pytest.approx(1 / math.sqrt(512), rel=0.02)
    assert slow.gain == pytest.approx(0.01 / math.sqrt(512))


def test_truncation_draws_towards_the_average_in_sampling_only():
    mapping = MappingNetwork(8, 8, 2, truncation=0.0)
    mapping(torch.randn(512, 8))  # training: moves the average
    assert mapping.average.abs().sum() > 0
    mapping.eval()
    assert torch.allclose(mapping(torch.randn(3, 8)), mapping.average.expand(3, -1))


class TestADA:
    @pytest.mark.parametrize(("logit", "kimg", "expected"), [(1.0, 1.0, 0.512), (1.0, 0.25, 2.048), (-1.0, 1.0, 0.0)])
    def test_strength_follows_the_sign_of_the_real_logits(self, logit, kimg, expected):
        """All real images judged real: p rises by batch·4/(kimg·1000) every fourth step; all fake: it stays at 0."""
        model = StyleGAN2(IMAGES, augment="ada", ada_kimg=kimg, **TINY)
        for step in range(8 * ADA_INTERVAL + 1):
            if model._adapts(step):
                model._adapt(16)
            model.sign_sum += torch.tensor(logit).sign()
        assert model.augment_p.item() == pytest.approx(expected, abs=1e-6)

    def test_the_penalty_is_of_the_slope_before_augmentation(self, monkeypatch):
        """Of D(x) = ⟨w, 2x⟩ it is |2w|²."""
        model = StyleGAN2(IMAGES, augment="ada", r1_gamma=1.0, r1_interval=1, **TINY)
        weights = torch.randn(3, 16, 16)
        monkeypatch.setattr(model, "_augmented", lambda images: 2 * images)
        model.discriminator.forward = lambda images: (images * weights).sum(dim=(1, 2, 3))
        penalty = model._penalty(torch.randn(4, 3, 16, 16))
        assert penalty.item() == pytest.approx(0.5 * 4 * weights.square().sum().item())

    @pytest.mark.parametrize("augment", ["diffaugment", "ada"])
    def test_a_step_trains_with_augmentation(self, augment):
        model = StyleGAN2(IMAGES, augment=augment, **TINY)
        model.augment_p.fill_(0.5)
        optimizers = model.optimizers()
        before = model.network.synthesis.start.detach().clone()
        for step in range(2):
            losses = model.training_step(torch.rand(8, 3, 16, 16) * 2 - 1, step, optimizers)
        assert all(loss.isfinite() for loss in losses.values())
        assert not torch.equal(before, model.network.synthesis.start)


def test_adams_are_slowed_for_lazy_steps_and_r1_has_a_step_of_its_own():
    model = StyleGAN2(IMAGES, r1_interval=16, **TINY)
    optimizers = model.optimizers()
    for name, slow in (("generator", 4 / 5), ("discriminator", 16 / 17)):
        group = optimizers[name].param_groups[0]
        assert group["lr"] == pytest.approx(model.lr * slow)
        assert group["betas"] == pytest.approx((0, 0.99**slow))
    steps = []
    optimizers["discriminator"].register_step_post_hook(lambda *_: steps.append(1))
    for step in range(17):
        model.training_step(torch.rand(4, 3, 16, 16) * 2 - 1, step, optimizers)
    assert len(steps) == 17 + 2


WRONG = [{"r1_interval": 0}, {"ada_kimg": 0.0}]


@pytest.mark.parametrize("settings", WRONG)
def test_a_wrong_setting_is_named(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        StyleGAN2(IMAGES, **TINY, **settings)


def test_points_have_nothing_to_augment():
    with pytest.raises(UsageError, match="for images"):
        StyleGAN2(DataSpec((2,)), augment="ada")
