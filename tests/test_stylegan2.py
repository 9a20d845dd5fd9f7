"""StyleGAN2: the published sizes, modulation by its definition, and ADA's control of their strength."""

from __future__ import annotations

import math

import pytest
import torch
from models import millions, sampled
from torch import nn
from torch.nn import functional as F

from baselines.stylegan2 import ADA_INTERVAL, StyleGAN2
from baselines.stylegan2_networks import (
    Discriminator,
    EqualisedLinear,
    Generator,
    LabelMapping,
    MappingNetwork,
    ModulatedConv2d,
    Synthesis,
    widths,
)
from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.labels import ProjectionDiscriminator
from trilemma_bench.trained import count_parameters

IMAGES = DataSpec((3, 16, 16))
TINY = {"latent_dim": 8, "style_dim": 8, "channels": 8, "channel_base": 128}


def test_the_cifar10_networks_have_the_published_sizes():
    with torch.device("meta"):
        model = StyleGAN2(DataSpec((3, 32, 32)))
    assert millions(model.network) == 19.95
    assert millions(model.discriminator) == 20.72


def test_maps_are_as_many_as_the_base_over_the_size_and_512_at_most():
    assert widths(256, 512, 16384) == {256: 64, 128: 128, 64: 256, 32: 512, 16: 512, 8: 512, 4: 512}
    assert widths(28, 512, 4096) == {28: 146, 14: 292, 7: 512}


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


class TestWrittenOutAnew:
    """The networks from the formulas of the paper, with weights that are all drawn."""

    KERNEL = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64

    def drawn(self, network):
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.7)
        return network.eval()

    def act(self, h):
        return math.sqrt(2) * F.leaky_relu(h, 0.2)

    def dense(self, h, layer, slow=1.0):
        return slow * (h @ layer.weight.t() / math.sqrt(h.shape[1]) + layer.bias)

    def filtered(self, h, pad):
        return F.conv2d(F.pad(h, (pad,) * 4), self.KERNEL.expand(h.shape[1], 1, 4, 4), groups=h.shape[1])

    def stuffed(self, h):
        """Zeros between the pixels."""
        wide = h.new_zeros(*h.shape[:2], 2 * h.shape[2] - 1, 2 * h.shape[3] - 1)
        wide[..., ::2, ::2] = h
        return wide

    def modulated(self, x, w, conv, *, demodulate=True, doubling=False):
        images = []
        for image, style in zip(x[:, None], self.dense(w, conv.style), strict=True):
            weight = conv.weight / math.sqrt(conv.weight[0].numel()) * style[:, None, None]
            if demodulate:
                weight = weight / weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
            if doubling:
                wide = F.conv2d(F.pad(self.stuffed(image), (2,) * 4), weight.flip(2, 3))
                images += [4 * self.filtered(wide, 1)]
            else:
                images += [F.conv2d(image, weight, padding=weight.shape[-1] // 2)]
        return torch.cat(images)

    def test_the_mapping(self):
        """z of unit mean square, then two dense layers a hundred times as slow."""
        mapping, z = self.drawn(MappingNetwork(6, 8, 2)), 3 * torch.randn(5, 6)
        w = z / z.square().mean(dim=1, keepdim=True).sqrt()
        for layer in mapping.layers:
            w = self.act(self.dense(w, layer, slow=0.01))
        torch.testing.assert_close(mapping(z), w)

    def test_the_generator(self):
        """Layers at 4, 8 and 16 pixels, the first at each resolution but 4 doubling; what each paints is summed."""
        network = self.drawn(Generator(MappingNetwork(6, 8, 2), Synthesis((3, 16, 16), 8, 8, 64)))
        z, noise = torch.randn(3, 6), torch.randn(3, 16 + 2 * 64 + 2 * 256)
        layers, w = network.synthesis, network.mapping(z)
        sizes = [4, 8, 8, 16, 16]
        parts = noise.split([size**2 for size in sizes], dim=1)
        maps = [part.view(3, 1, size, size) for part, size in zip(parts, sizes, strict=True)]

        def styled(h, layer, doubling=False):
            h = self.modulated(h, w, layer.conv, doubling=doubling) + layer.strength * maps.pop(0)
            return self.act(h + layer.bias[:, None, None])

        h = styled(layers.start.expand(3, -1, -1, -1), layers.plain[0])
        assert h.shape == (3, 8, 4, 4)
        image = 0
        for level, to_rgb in enumerate(layers.to_rgb):
            if level:
                h = styled(styled(h, layers.doubling[level - 1], doubling=True), layers.plain[level])
                image = 4 * self.filtered(self.stuffed(image), 2)
            image = image + self.modulated(h, w, to_rgb.conv, demodulate=False) + to_rgb.bias[:, None, None]
        torch.testing.assert_close(network(z, noise), image, rtol=1e-4, atol=1e-3)

    def test_the_discriminator(self):
        """Without shortcuts: halving after a filter; the deviation of groups of 32, which meet samples i and i + 2."""
        network = self.drawn(Discriminator((3, 16, 16), 8, 64))
        x = torch.randn(64, 3, 16, 16)

        def conv(h, layer, **how):
            weight = layer.weight / math.sqrt(layer.weight[0].numel())
            return self.act(F.conv2d(h, weight, layer.bias, **how))

        first, *blocks = network.blocks
        h = conv(x, first)
        for plain, halving in blocks:
            h = conv(self.filtered(conv(h, plain, padding=1), 2), halving, stride=2)
        assert h.shape == (64, 8, 4, 4)
        deviation = h.view(32, 2, 8, 4, 4).var(dim=0, unbiased=False).sqrt().mean(dim=(1, 2, 3))
        h = torch.cat([h, deviation.repeat(32).view(64, 1, 1, 1).expand(-1, -1, 4, 4)], dim=1)
        h = self.act(self.dense(conv(h, network.conv, padding=1).flatten(1), network.dense))
        torch.testing.assert_close(network(x), self.dense(h, network.out), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("layers", [0, 3])
    def test_the_projection_on_labels(self, layers):
        """⟨features, vector⟩/√dim, with vectors of unit mean square, mapped as z is."""
        network = self.drawn(ProjectionDiscriminator(nn.Identity(), LabelMapping(4, 6, layers)))
        features, labels = torch.randn(5, 6), torch.tensor([0, 3, 1, 1, 2])
        embedding, *mapping = network.labels
        vectors = embedding.weight[labels]
        vectors = vectors / vectors.square().mean(dim=1, keepdim=True).sqrt()
        for layer in mapping:
            vectors = self.act(self.dense(vectors, layer, slow=0.01))
        expected = (features * vectors).sum(dim=1, keepdim=True) / math.sqrt(6)
        torch.testing.assert_close(network(features, labels), expected)


@pytest.mark.parametrize("layers", [0, 8])
def test_labels_add_their_vectors_a_wider_last_layer_and_the_mapping(layers):
    """At the published width of 512: of each layer 512² weights and 512 biases."""
    with torch.device("meta"):
        plain, other = (
            StyleGAN2(DataSpec((3, 32, 32), 10), class_conditional=each, label_layers=layers).discriminator
            for each in (False, True)
        )
    assert count_parameters(other) - count_parameters(plain) == 511 * 513 + 10 * 512 + layers * 512 * 513


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
    assert EqualisedLinear(8, 1, lr_multiplier=0.01, bias=3.0)(torch.zeros(8)).item() == pytest.approx(3)


def test_truncation_draws_towards_the_average_in_sampling_only():
    """The average moves by 1 − 0.995 of the way to each batch's."""
    mapping, z = MappingNetwork(8, 8, 2, truncation=0.7), torch.randn(512, 8)
    w = mapping(z)
    torch.testing.assert_close(mapping.average, 0.005 * w.mean(dim=0))
    torch.testing.assert_close(mapping.eval()(z), 0.7 * w + 0.3 * mapping.average)
    untruncated = MappingNetwork(8, 8, 2).eval()
    untruncated.load_state_dict(mapping.state_dict())
    torch.testing.assert_close(untruncated(z), w)


class TestADA:
    @pytest.mark.parametrize(
        ("sign", "kimg", "expected"), [(1.0, 1.0, 0.512), (1.0, 0.25, 2.048), (0.7, 1.0, 0.512), (0.5, 1.0, 0.0)]
    )
    def test_strength_follows_the_mean_sign_of_the_real_logits(self, sign, kimg, expected):
        """Above the target of 0.6 p rises by batch·4/(kimg·1000) every fourth step; below it falls, to 0 at least."""
        model = StyleGAN2(IMAGES, augment="ada", ada_kimg=kimg, **TINY)
        for step in range(8 * ADA_INTERVAL + 1):
            if model._adapts(step):
                model._adapt(16)
            model.sign_sum += sign
        assert model.augment_p.item() == pytest.approx(expected, abs=1e-6)

    def test_images_are_those_of_all_processes(self):
        """Of 3 with 8 images each, when all the last four steps' real images were judged real."""
        model = StyleGAN2(IMAGES, augment="ada", ada_kimg=1.0, **TINY)
        model.processes = 3
        model.sign_sum.fill_(ADA_INTERVAL)
        model.training_step(torch.rand(8, 3, 16, 16) * 2 - 1, ADA_INTERVAL, model.optimizers())
        assert model.augment_p.item() == pytest.approx(3 * 8 * 4 / 1000)

    def test_the_sign_is_that_of_the_real_images_logits(self):
        model = StyleGAN2(IMAGES, augment="ada", **TINY)
        model.discriminator.forward = lambda images: images[:, 0, 0, 0]
        logits = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, -0.8, -0.9])
        model._discriminator_loss(logits[:, None, None, None].expand(-1, 3, 16, 16))
        assert model.sign_sum.item() == pytest.approx((6 - 2) / 8)

    @pytest.mark.parametrize("interval", [1, 16])
    def test_the_penalty_is_of_the_slope_before_augmentation(self, monkeypatch, interval):
        """Of D(x) = ⟨w, 2x⟩ it is γ/2 |2w|², as many times stronger as it is rarer."""
        model = StyleGAN2(IMAGES, augment="ada", r1_gamma=0.3, r1_interval=interval, **TINY)
        weights = torch.randn(3, 16, 16)
        monkeypatch.setattr(model, "_augmented", lambda images: 2 * images)
        model.discriminator.forward = lambda images: (images * weights).sum(dim=(1, 2, 3))
        penalty = model._penalty(torch.randn(4, 3, 16, 16))
        assert penalty.item() == pytest.approx(interval * 0.3 / 2 * 4 * weights.square().sum().item())

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


@pytest.mark.parametrize(("gamma", "slow", "steps"), [(0.01, 16 / 17, 17 + 2), (0.0, 1.0, 17)])
def test_adams_are_slowed_for_lazy_steps_and_r1_has_a_step_of_its_own(gamma, slow, steps):
    """Without R1 there is neither."""
    model = StyleGAN2(IMAGES, r1_interval=16, r1_gamma=gamma, **TINY)
    optimizers = model.optimizers()
    for name, slower in (("generator", 4 / 5), ("discriminator", slow)):
        group = optimizers[name].param_groups[0]
        assert group["lr"] == pytest.approx(model.lr * slower)
        assert group["betas"] == pytest.approx((0, 0.99**slower))
    taken = []
    optimizers["discriminator"].register_step_post_hook(lambda *_: taken.append(1))
    for step in range(17):
        model.training_step(torch.rand(4, 3, 16, 16) * 2 - 1, step, optimizers)
    assert len(taken) == steps


def test_images_come_to_the_discriminator_as_they_are():
    """After the generator's step on its own samples: the images, then samples again."""
    model, seen, images = StyleGAN2(IMAGES, **TINY), [], torch.rand(4, 3, 16, 16) * 2 - 1
    model.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.training_step(images, 1, model.optimizers())
    assert [torch.equal(each, images) for each in seen] == [False, True, False]


def test_images_are_cut_to_their_range():
    model, outputs = StyleGAN2(IMAGES, **TINY), []
    model.network.register_forward_hook(lambda *call: outputs.append(call[-1]))
    samples, (painted,) = sampled(model, 50), outputs
    within = painted.abs() <= 1
    assert torch.equal(samples[within], painted[within])
    assert torch.equal(samples[~within], painted[~within].sign())
    assert 0.05 < within.float().mean() < 0.95


def test_the_row_says_how_it_was_augmented_and_truncated():
    plain, other = StyleGAN2(IMAGES, **TINY), StyleGAN2(IMAGES, augment="ada", truncation=0.7, **TINY)
    assert (plain.describe(), other.describe()) == ("", "ada, ψ=0.7")


def test_points_have_nothing_to_augment():
    with pytest.raises(UsageError, match="for images"):
        StyleGAN2(DataSpec((2,)), augment="ada")
