"""EDM: its preconditioning, its times, and Heun's sampler with the exact denoiser plugged in."""

from __future__ import annotations

import math

import pytest
import torch
from exact import Mixture, noise, rng

from baselines.edm import EDM, sigma_steps
from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import UsageError


def model(**settings):
    return EDM(DataSpec((1,), scale=1.0), hidden=8, fourier_features=2, **settings)


def exact_model(mixture, **settings):
    built = model(**settings)
    built.denoised = lambda x, sigma: mixture.denoised(x, float(sigma))
    return built


def test_the_sampler_recovers_a_mixture():
    x = exact_model(Mixture([-1.0, 0.5], 0.1), sampling_steps=40).denoise(noise(8000), rng())
    left = x < -0.25
    assert left.double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert x[left].mean().item() == pytest.approx(-1.0, abs=0.01)
    assert x[~left].std().item() == pytest.approx(0.1, abs=0.01)


def test_the_sampler_is_of_second_order():
    """A Gaussian flows along x = mean + √(std² + σ²) z; from σ_max to σ_min ≪ std the error falls fourfold."""
    mean, std, top = 0.7, 0.5, 10.0

    def error(steps):
        x = exact_model(Mixture([mean], std), sampling_steps=steps, sigma_max=top, sigma_min=1e-4).denoise(
            noise(50), rng()
        )
        z = (top * noise(50) - mean) / math.sqrt(std**2 + top**2)
        return float((x - (mean + std * z)).abs().max())

    assert math.log2(error(40) / error(80)) == pytest.approx(2, abs=0.3)


def test_eighteen_steps_are_thirty_five_evaluations_from_80_to_0002():
    sigmas = sigma_steps(18, 0.002, 80.0, 7.0)
    assert (sigmas[0], sigmas[-1]) == (pytest.approx(80), pytest.approx(0.002))
    assert sigmas[9] == pytest.approx((80 ** (1 / 7) + 9 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7)
    assert model().evaluations() == 35


def test_the_network_sees_the_scaled_sample_and_a_quarter_of_the_levels_logarithm():
    """c_in and c_noise of Karras et al. 2022, table 1, with σ_data = 1 for points; from the levels 80 to 0.002."""
    asked, start = [], noise(3).float()
    built = model()
    built.network.register_forward_pre_hook(lambda network, given: asked.append(given))
    built.denoise(start, rng())
    torch.testing.assert_close(asked[0][0], 80 * start / math.sqrt(80**2 + 1))
    assert [4 * asked[each][1].item() for each in (0, -1)] == pytest.approx([math.log(80), math.log(0.002)])


def test_the_preconditioning_keeps_unit_variance():
    """Inputs and targets of F have variance 1 at every σ (Karras et al. 2022, App. B.6)."""
    built = EDM(DataSpec((1, 8, 8)), channels=8, channel_multipliers=(1, 2), res_blocks=1)
    torch.manual_seed(0)
    x = 0.5 * torch.randn(20_000, 1, 1, 1)
    for value in (0.01, 0.5, 20.0):
        sigma = torch.full((1,), value)
        noisy = x + value * torch.randn_like(x)
        skip, out, scale = built._scalings(sigma, x)
        assert (scale * noisy).std().item() == pytest.approx(1, abs=0.02)
        assert ((x - skip * noisy) / out).std().item() == pytest.approx(1, abs=0.02)


def test_the_loss_is_the_weighted_error_of_the_denoiser():
    built, x = model(), torch.randn(64, 1)
    torch.manual_seed(3)
    loss = built.losses(x)["loss"]
    torch.manual_seed(3)
    sigma = torch.exp(-1.2 + 1.2 * torch.randn(64))
    noisy = x + sigma[:, None] * torch.randn_like(x)
    weight = ((sigma**2 + 1) / sigma**2)[:, None]  # σ_data = 1 for points
    expected = (weight * (built.denoised(noisy, sigma) - x) ** 2).mean()
    assert torch.allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("settings", [{"sampling_steps": 1}, {"sigma_min": 100.0}])
def test_a_wrong_setting_is_named(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        model(**settings)
