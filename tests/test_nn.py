"""The network blocks against analytic cases and the papers' numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trilemma_bench.errors import UsageError
from trilemma_bench.nn.conv import ConvDecoder, ConvEncoder
from trilemma_bench.nn.coupling import CouplingFlow
from trilemma_bench.nn.embedding import FourierFeatures, timestep_embedding, unit_mean_square
from trilemma_bench.nn.layers import group_norm, init_fan_average, init_fan_out, largest_divisor, minibatch_stddev
from trilemma_bench.nn.mlp import MLP
from trilemma_bench.nn.ncsnpp import NCSNpp
from trilemma_bench.nn.resample import FIRDownsample, FIRUpsample, doubled, fir_filter, normalised, shifted_sums
from trilemma_bench.nn.schedules import (
    alphas_cumprod,
    gaussian_posterior,
    linear_betas,
    respaced_betas,
    vp_betas,
    vp_log_mean_coefficient,
)
from trilemma_bench.nn.unet import UNet
from trilemma_bench.trained import count_parameters


def close(actual: torch.Tensor, expected: list[float], atol: float = 1e-8) -> bool:
    return torch.allclose(actual, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=atol)


class TestSchedules:
    @pytest.mark.parametrize(
        ("steps", "betas"),
        [
            (1, [0.99995681]),
            (2, [0.92132403, 0.99945103]),
            (4, [0.47825530, 0.84920600, 0.95641771, 0.98740390]),
            (8, [0.15644526, 0.38149278, 0.54650106, 0.66748765, 0.75619687, 0.82123982, 0.86893031, 0.90389770]),
        ],
    )
    def test_vp_betas_are_those_of_ddgan(self, steps, betas):
        assert close(vp_betas(steps), betas)

    def test_alphas_cumprod_of_four_steps(self):
        assert close(alphas_cumprod(vp_betas(4)), [0.52174470, 0.07867597, 0.00342888, 0.0000431905])

    def test_posterior_of_four_steps(self):
        posterior = gaussian_posterior(vp_betas(4))
        assert close(posterior.x0, [1, 0.66577836, 0.26919089, 0.05782154])
        assert close(posterior.xt, [0, 0.20157628, 0.19300081, 0.11185234])
        assert close(posterior.variance, [0, 0.44081915, 0.88420244, 0.98406071])

    def test_vp_signal_almost_whole_at_the_start(self):
        signal = torch.exp(2 * vp_log_mean_coefficient(torch.tensor(1e-3, dtype=torch.float64)))
        assert signal.item() == pytest.approx(0.999890, abs=1e-6)

    def test_linear_betas_are_those_of_ddpm(self):
        betas = linear_betas()
        assert betas.dtype == torch.float64
        assert len(betas) == 1000
        assert betas[[0, 1, -1]].tolist() == pytest.approx([1e-4, 1e-4 + 0.0199 / 999, 0.02], abs=1e-12)
        # Ho et al. 2020, §4: next to nothing of the data is left at the end.
        assert alphas_cumprod(betas)[-1].item() == pytest.approx(4.0358e-5, rel=1e-3)

    def test_respacing_keeps_the_marginals(self):
        bar = alphas_cumprod(linear_betas())
        kept = torch.tensor([0, 10, 500, 999])
        assert torch.allclose(alphas_cumprod(respaced_betas(bar, kept)), bar[kept], rtol=1e-12)

    def test_respacing_to_all_steps_changes_nothing(self):
        betas = linear_betas()
        assert torch.allclose(respaced_betas(alphas_cumprod(betas), torch.arange(1000)), betas, rtol=0, atol=1e-13)


class TestEmbedding:
    def test_sines_then_cosines_of_the_steps(self):
        row = timestep_embedding(torch.tensor([3]), 4)[0]
        slow = 3 / 10_000
        assert row.tolist() == pytest.approx([math.sin(3), math.sin(slow), math.cos(3), math.cos(slow)], abs=1e-6)

    def test_every_step_of_a_thousand_is_told_apart(self):
        rows = timestep_embedding(torch.arange(1000), 64)
        distance = torch.cdist(rows, rows) + 9 * torch.eye(1000)
        assert distance.min() > 0.1

    def test_odd_width(self):
        assert timestep_embedding(torch.arange(2), 5).shape == (2, 5)

    def test_fourier_features_keep_the_input_and_are_in_the_state(self):
        features = FourierFeatures(2, 8, scale=0.5)
        points = torch.randn(3, 2)
        out = features(points)
        assert out.shape == (3, features.out_features) == (3, 18)
        assert torch.equal(out[:, :2], points)
        assert torch.allclose(out[:, 2:10] ** 2 + out[:, 10:] ** 2, torch.ones(3, 8), atol=1e-5)
        assert "frequencies" in features.state_dict()

    @pytest.mark.parametrize("scale", [0.2, 0.4])
    def test_fourier_features_have_normal_frequencies_in_cycles(self, scale):
        """E cos(2π b·x) for b ~ N(0, s²) is exp(−2π² s² |x|²), within four standard errors."""
        torch.manual_seed(0)
        features, point = FourierFeatures(2, 4096, scale), torch.tensor([[0.3, -0.4]])
        cosines = features(point)[0, -4096:]
        assert cosines.mean().item() == pytest.approx(math.exp(-2 * (math.pi * scale * 0.5) ** 2), abs=4 * 0.71 / 64)

    def test_rows_get_a_mean_square_of_one_unless_they_are_hardly_there(self):
        """Of a mean square m, m / (m + 1e-8) is left (StyleGAN's normalisation of z)."""
        x = torch.tensor([[3.0, 4.0], [-1e-4, 1e-4], [0.0, 0.0]], dtype=torch.float64)
        found = unit_mean_square(x)
        assert found.square().mean(dim=1).tolist() == pytest.approx([1, 0.5, 0])
        assert (found[0] / found[0].norm()).tolist() == pytest.approx([0.6, 0.8])


class TestLayers:
    @pytest.mark.parametrize(("number", "limit", "expected"), [(144, 32, 24), (64, 32, 32), (7, 4, 1), (6, 6, 6)])
    def test_largest_divisor(self, number, limit, expected):
        assert largest_divisor(number, limit) == expected

    @pytest.mark.parametrize(("channels", "groups"), [(128, 32), (144, 24), (32, 8), (6, 1), (3, 1)])
    def test_group_norm_divides_any_width(self, channels, groups):
        assert group_norm(channels).num_groups == groups

    @pytest.mark.parametrize("form", [lambda norm: norm, lambda norm: norm.by_channel])
    def test_group_norm_adds_a_millionth_to_the_variance(self, form):
        """As in the programs of DDPM, Score SDE and DDGAN: an image of variance 1e-6 comes out at 1/√2."""
        x = torch.tensor([1e-3, -1e-3]).view(1, 1, 1, 2).expand(1, 4, 2, 2)
        torch.testing.assert_close(form(group_norm(4))(x), 1e3 * x / math.sqrt(2))

    @pytest.mark.parametrize(
        ("initialise", "fans"),
        [(init_fan_average, (0.5, 0.5)), (init_fan_out, (0, 1)), (lambda layer: init_fan_out(layer, 0.1), (0, 10))],
        ids=["average", "out", "out, a tenth"],
    )
    @pytest.mark.parametrize(("layer", "pixels"), [(nn.Linear(40, 120), 1), (nn.Conv2d(40, 120, 3), 9)])
    def test_weights_start_uniform_with_the_variance_of_their_fans(self, initialise, fans, layer, pixels):
        """Glorot & Bengio 2010: 1 over the average of fan_in and fan_out; or gain/fan_out."""
        torch.manual_seed(0)
        initialise(layer)
        variance = 1 / (pixels * (fans[0] * 40 + fans[1] * 120))
        assert layer.weight.var().item() == pytest.approx(variance, rel=0.06)  # four standard errors
        assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(3 * variance), rel=0.01)
        assert not layer.bias.any()

    @pytest.mark.parametrize("affine", [True, False])
    def test_group_norm_by_channel_is_torchs(self, affine):
        """Values and gradients, of channels that differ much in their mean."""
        norm = group_norm(24, affine).double()
        for value in norm.parameters():
            torch.nn.init.normal_(value)
        x = torch.randn(3, 24, 5, 7, dtype=torch.float64) + 10 * torch.randn(24, 1, 1, dtype=torch.float64)
        weight = torch.randn_like(x)
        found = []
        for form in (norm, norm.by_channel):
            inputs = [x.clone().requires_grad_(), *norm.parameters()]
            output = form(inputs[0])
            found.append([output, *torch.autograd.grad((output * weight).sum(), inputs)])
        for ours, torchs in zip(*found, strict=True):
            assert torch.allclose(ours, torchs, rtol=0, atol=1e-10)

    def test_group_norm_by_channel_computes_in_float32(self):
        norm, x = group_norm(8), (torch.randn(2, 8, 4, 4) + 100).bfloat16()
        assert torch.allclose(norm.by_channel(x), norm(x.float()), rtol=0, atol=1e-3)

    def test_minibatch_stddev_of_equal_samples_is_zero(self):
        x = torch.randn(1, 3, 4, 4).expand(8, 3, 4, 4)
        out = minibatch_stddev(x)
        assert out.shape == (8, 4, 4, 4)
        assert out[:, 3].max() < 1.1e-4

    def test_minibatch_stddev_is_the_deviation_within_each_group(self):
        x = torch.tensor([0.0, 10.0, 2.0, 10.0]).view(4, 1)  # groups of two: samples 0 and 2, 1 and 3
        assert minibatch_stddev(x, group=2)[:, 1].tolist() == pytest.approx([1, 0, 1, 0], abs=2e-4)

    def test_minibatch_stddev_takes_any_batch_size(self):
        assert minibatch_stddev(torch.randn(7, 5), group=4).shape == (7, 6)


class TestResample:
    def test_taps_sum_to_the_root_of_the_gain(self):
        assert sum(normalised(gain=4.0)) == pytest.approx(2)
        assert normalised() == pytest.approx((1 / 8, 3 / 8, 3 / 8, 1 / 8))

    @pytest.mark.parametrize(("stride", "padding"), [(1, 2), (1, 1), (2, 1)])
    def test_sums_of_shifted_images_are_the_convolution(self, stride, padding):
        image = torch.randn(2, 3, 12, 8, dtype=torch.float64)
        expected = fir_filter(image, normalised(), stride, padding)
        assert torch.allclose(shifted_sums(image, normalised(), stride, padding), expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1), (1, 5, 10, 10, 5, 1)])
    def test_nearest_neighbours_and_a_shorter_filter_are_the_zero_stuffed_one(self, taps):
        image, upsample = torch.randn(2, 3, 6, 4, dtype=torch.float64), FIRUpsample(taps)
        assert torch.allclose(doubled(image, upsample.taps), upsample(image), rtol=0, atol=1e-12)

    def test_sums_of_shifted_images_have_second_derivatives(self):
        image = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda x: doubled(x, normalised()) ** 2, (image,))

    @pytest.mark.parametrize(("resample", "size"), [(FIRUpsample(), 16), (FIRDownsample(), 4)])
    def test_a_constant_stays_constant_inside(self, resample, size):
        out = resample(torch.full((2, 3, 8, 8), 0.7))
        assert out.shape == (2, 3, size, size)
        assert torch.allclose(out[..., 1:-1, 1:-1], torch.tensor(0.7), atol=1e-6)

    def test_a_ramp_stays_a_ramp_inside(self):
        ramp = torch.arange(8.0).expand(1, 1, 8, 8)
        # Pixel centres: the doubled image samples the ramp a quarter of a pixel to each side.
        expected = torch.arange(16.0) / 2 - 0.25
        assert torch.allclose(FIRUpsample()(ramp)[0, 0, 8, 2:-2], expected[2:-2], atol=1e-5)
        assert torch.allclose(FIRDownsample()(ramp)[0, 0, 2, 1:-1], torch.tensor([2.5, 4.5]), atol=1e-5)

    def test_an_impulse_becomes_the_kernel(self):
        impulse = torch.zeros(1, 2, 4, 4)
        impulse[0, 1, 2, 2] = 1
        out = FIRUpsample()(impulse)
        line = torch.tensor(normalised(gain=4.0))
        assert torch.allclose(out[0, 1, 3:7, 3:7], torch.outer(line, line))
        assert out[0, 0].abs().max() == 0

    def test_up_then_down_keeps_the_total(self):
        image = torch.zeros(1, 1, 12, 12)
        image[..., 4:8, 4:8] = torch.randn(4, 4)
        assert FIRDownsample()(FIRUpsample()(image)).sum().item() == pytest.approx(image.sum().item(), abs=1e-4)

    def test_two_taps_up_repeat_each_pixel(self):
        image = torch.randn(1, 1, 4, 4)
        assert torch.allclose(FIRUpsample((1, 1))(image), image.repeat_interleave(2, 2).repeat_interleave(2, 3))

    @pytest.mark.parametrize("resample", [FIRUpsample(), FIRDownsample()])
    def test_second_derivatives(self, resample):
        image = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda x: resample(x) ** 2, (image,))

    def test_holds_no_state(self):
        assert not FIRUpsample().state_dict()


class TestMLP:
    def test_time_changes_the_output_once_trained(self):
        network = MLP(2, 2, hidden=16, time_dim=8)
        x = torch.randn(5, 2)
        early, late = torch.zeros(5), torch.full((5,), 900)
        assert torch.allclose(network(x, early), network(x, late))  # the styles start as no change
        nn.init.normal_(network.time.project.weight)
        assert not torch.allclose(network(x, early), network(x, late), atol=1e-3)

    def test_one_step_for_all_equals_a_step_each(self):
        network = MLP(2, 3, hidden=16, fourier_features=4, time_dim=8)
        nn.init.normal_(network.time.project.weight)
        x = torch.randn(5, 2)
        assert torch.allclose(network(x, torch.tensor([7])), network(x, torch.full((5,), 7)), atol=1e-6)


class TestUNet:
    def test_the_cifar10_network_has_the_papers_size(self):
        with torch.device("meta"):
            network = UNet(
                3, 32, channels=128, multipliers=(1, 2, 2, 2), res_blocks=2, attention_resolutions=(16,), dropout=0.1
            )
        # The port with 35.87 M counts a fixed table of 1000 × 128 embeddings too.
        assert count_parameters(network) + 1000 * 128 == 35_874_307

    def test_queries_keys_and_values_start_as_three_layers_would(self):
        """Each of Glorot's variance, 1 over its width: the fused layer as a whole would have half of it."""
        network = UNet(3, 8, channels=64, multipliers=(1,), res_blocks=1, attention_resolutions=(8,))
        (weight, *_) = (each for name, each in network.named_parameters() if name.endswith("qkv.weight"))
        assert weight.shape == (3 * 64, 64, 1, 1)
        for part in weight.chunk(3):
            assert part.var().item() == pytest.approx(1 / 64, rel=0.1)

    @pytest.mark.parametrize("size", [8, 28, 32, 64])
    def test_shape_and_silent_start(self, size):
        network = UNet(3, size, channels=8, res_blocks=1)
        out = network(torch.randn(2, 3, size, size), torch.tensor([5]))
        assert out.shape == (2, 3, size, size)
        assert out.abs().max() == 0

    def test_one_step_for_all_equals_a_step_each(self):
        network = UNet(1, 8, channels=8, multipliers=(1, 2), res_blocks=1, attention_resolutions=(4,))
        for each in network.parameters():
            nn.init.normal_(each, std=0.2)
        x = torch.randn(3, 1, 8, 8)
        out = network(x, torch.tensor([7]))
        assert torch.allclose(out, network(x, torch.full((3,), 7)), atol=1e-4)
        assert not torch.allclose(out, network(x, torch.tensor([700])), atol=1e-2)

    def test_a_size_that_cannot_be_halved(self):
        with pytest.raises(UsageError, match="28 pixels cannot be halved 3 times"):
            UNet(1, 28, channels=8, multipliers=(1, 1, 1, 1))

    @pytest.mark.parametrize("network", [UNet, NCSNpp])
    def test_levels_without_blocks(self, network):
        with pytest.raises(UsageError, match="res_blocks = 0: choose at least 1"):
            network(1, 8, channels=8, multipliers=(1, 2), res_blocks=0)


class TestConv:
    @pytest.mark.parametrize("size", [8, 28, 32, 64])
    def test_shapes(self, size):
        images = ConvDecoder(5, (3, size, size), 4)(torch.randn(2, 5))
        assert images.shape == (2, 3, size, size)
        assert ConvEncoder((3, size, size), 7, 4)(images).shape == (2, 7)

    @pytest.mark.parametrize(
        ("size", "smallest", "width"), [(8, 4, 8), (28, 7, 16), (32, 4, 16), (64, 4, 16), (5, 5, 4), (4, 4, 4)]
    )
    def test_images_are_halved_down_to_four_pixels_or_an_odd_size(self, size, smallest, width):
        """The width, 4 at full size, doubles twice at most."""
        assert ConvDecoder(5, (3, size, size), 4).start == (width, smallest, smallest)
        seen = []
        encoder = ConvEncoder((3, size, size), 7, 4)
        encoder.last.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].shape))
        encoder(torch.zeros(1, 3, size, size))
        assert seen == [(1, width, smallest, smallest)]

    def test_the_minibatch_deviation_lets_samples_see_each_other(self):
        torch.manual_seed(0)
        images = torch.randn(4, 1, 8, 8)
        changed = torch.cat([images[:3], images[3:] + 1])
        alone, compared = ConvEncoder((1, 8, 8), 1, 4), ConvEncoder((1, 8, 8), 1, 4, compares_samples=True)
        assert torch.allclose(alone(images)[0], alone(changed)[0], atol=1e-6)
        assert not torch.allclose(compared(images)[0], compared(changed)[0], atol=1e-4)


class TestCouplings:
    @pytest.fixture(params=[2, 3, 8])
    def flow(self, request):
        torch.manual_seed(0)
        flow = CouplingFlow(request.param, couplings=4, hidden=16).double()
        for layer in flow.layers:
            nn.init.normal_(layer.out.weight, std=0.3)
        return flow

    def test_noise_is_found_again(self, flow):
        noise = torch.randn(50, sum(flow.halves), dtype=torch.float64)
        found, _ = flow.noise_of(flow(noise))
        torch.testing.assert_close(found, noise, rtol=0, atol=1e-5)  # layers' outputs are float32

    def test_volume_is_that_of_the_jacobian(self, flow):
        x = torch.randn(5, sum(flow.halves), dtype=torch.float64)
        _, log_volume = flow.noise_of(x)
        for one, volume in zip(x, log_volume, strict=True):
            jacobian = torch.autograd.functional.jacobian(lambda v: flow.noise_of(v[None])[0][0], one)
            assert float(volume.detach()) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-5)

    def test_every_coordinate_can_change(self, flow):
        noise = torch.randn(50, sum(flow.halves), dtype=torch.float64)
        assert ((flow(noise) - noise).abs().amax(dim=0) > 1e-3).all()

    def test_it_starts_as_noise(self):
        noise = torch.randn(9, 6)
        assert torch.equal(CouplingFlow(6, couplings=4, hidden=8)(noise), noise)
