"""DDGAN's diffusion: schedule, posterior and pairs against the paper's numbers."""

from __future__ import annotations

import math

import pytest
import torch
from exact import rng

from ddgan.diffusion import Diffusion

ALPHAS_BAR = {
    1: [0.00004319],
    2: [0.07867597, 0.00004319],
    4: [0.52174470, 0.07867597, 0.00342888, 0.0000431905],
}
BETAS = {
    1: [0.99995681],
    2: [0.92132403, 0.99945103],
    4: [0.47825530, 0.84920600, 0.95641771, 0.98740390],
    8: [0.15644526, 0.38149278, 0.54650106, 0.66748765, 0.75619687, 0.82123982, 0.86893031, 0.90389770],
}


def close(value, expected, atol=1e-7):
    torch.testing.assert_close(value, torch.as_tensor(expected), atol=atol, rtol=0)


@pytest.mark.parametrize("steps", BETAS)
def test_betas_are_the_published_ones(steps):
    close(Diffusion(steps).step_noise[1:] ** 2, BETAS[steps])


@pytest.mark.parametrize("steps", ALPHAS_BAR)
def test_what_is_left_of_the_data_is_as_published(steps):
    close(Diffusion(steps).signal[1:] ** 2, ALPHAS_BAR[steps])


@pytest.mark.parametrize("steps", BETAS)
def test_variance_is_preserved(steps):
    diffusion = Diffusion(steps)
    close(diffusion.signal**2 + diffusion.noise**2, torch.ones(steps + 1), atol=2e-7)
    assert diffusion.noise[0].item() == pytest.approx(1e-4, rel=1e-3)


def test_posterior_coefficients_at_four_steps_are_the_published_ones():
    diffusion = Diffusion(4)
    close(diffusion.posterior_x0, [1, 0.66577836, 0.26919089, 0.05782154])
    close(diffusion.posterior_xt, [0, 0.20157628, 0.19300081, 0.11185234])
    close(diffusion.posterior_noise**2, [0, 0.44081915, 0.88420244, 0.98406071])


@pytest.mark.parametrize("steps", BETAS)
def test_the_posterior_is_bayes_rule(steps):
    """Precisions add: 1/var = ᾱ-noise before + one step's; the means likewise (in float64, from the betas)."""
    diffusion, bar = Diffusion(steps), 1.0
    for t, beta in enumerate(BETAS[steps]):
        before, bar = bar, bar * (1 - beta)
        if t == 0:
            continue
        precision = 1 / (1 - before) + (1 - beta) / beta
        close(diffusion.posterior_noise[t] ** 2, 1 / precision, atol=3e-7)
        close(diffusion.posterior_x0[t], math.sqrt(before) / (1 - before) / precision, atol=3e-7)
        close(diffusion.posterior_xt[t], math.sqrt(1 - beta) / beta / precision, atol=3e-7)


def test_the_last_step_returns_the_generators_output():
    x0, noise = torch.randn(2, 5, 3)
    sample = Diffusion(4).posterior_sample(x0, torch.randn(5, 3), torch.zeros(5, dtype=torch.int64), noise)
    assert torch.equal(sample, x0)


def test_a_posterior_sample_is_the_published_mean_and_noise():
    x0, x_next, noise = torch.randn(3, 5, 2, 3, generator=rng())
    sample = Diffusion(4).posterior_sample(x0, x_next, torch.full((5,), 2), noise)
    close(sample, 0.26919089 * x0 + 0.19300081 * x_next + math.sqrt(0.88420244) * noise, atol=1e-6)


@pytest.mark.parametrize("t", [0, 1, 3])
def test_pairs_have_the_marginals_of_the_diffusion(t):
    torch.manual_seed(0)
    diffusion = Diffusion(4)
    x0 = torch.full((200_000, 1), 2.0)
    x_t, x_next = diffusion.pair(x0, torch.full((len(x0),), t))
    for x, step in ((x_t, t), (x_next, t + 1)):
        assert x.mean().item() == pytest.approx(2 * diffusion.signal[step].item(), abs=0.01)
        assert x.std().item() == pytest.approx(diffusion.noise[step].item(), abs=0.01)
    residual = x_next - diffusion.forward_mean(x_t, torch.full((len(x0),), t))
    assert residual.std().item() == pytest.approx(diffusion.step_noise[t + 1].item(), abs=0.01)
    assert ((residual - residual.mean()) * (x_t - x_t.mean())).mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("t", [0, 1, 2])
def test_clean_undoes_the_diffusion(t):
    diffusion, (x0, noise) = Diffusion(4), torch.randn(2, 6, 3, generator=rng())
    steps = torch.full((6,), t)
    close(diffusion.clean(diffusion.diffuse(x0, steps + 1, noise), noise, steps), x0, atol=1e-5)
