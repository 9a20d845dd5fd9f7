"""Samplers of diffusion models: functions of a noise predictor, the noise to start from and the schedule.

`alphas_bar` is the schedule that the predictor was trained on (float64, shape T, see `nn.schedules.alphas_cumprod`);
`steps` are the steps that are visited (int64, ascending, in 0…T−1). The predictor maps (x_t, step of shape (1,)) to ε.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trilemma_bench.nn.schedules import gaussian_posterior, respaced_betas

NoisePredictor = Callable[[Tensor, Tensor], Tensor]


def even_steps(total: int, count: int) -> Tensor:
    """`count` of `total` steps, evenly spaced with both ends; the last one alone where count is 1
    (Nichol & Dhariwal 2021, §4).
    """
    return torch.linspace(total - 1, 0, count, dtype=torch.float64).round().long().flip(0)


def uniform_steps(total: int, count: int) -> Tensor:
    """0, T/S, 2T/S, …: DDIM's linear spacing, which never visits the last step (Song et al. 2021, App. D.2)."""
    return torch.arange(count) * total // count


def quadratic_steps(total: int, count: int) -> Tensor:
    """DDIM's quadratic spacing up to 0.8 T, denser near the data (Song et al. 2021, App. D.2).

    Steps that would fall together near 0 are set one apart, so that there are `count` of them.
    """
    index = torch.arange(count)
    quadratic = (0.8 * total * (index / max(count - 1, 1)).double() ** 2 + 1e-9).long()
    return torch.maximum(quadratic, index)


def ancestral(
    predict: NoisePredictor,
    noise: Tensor,
    alphas_bar: Tensor,
    steps: Tensor,
    rng: torch.Generator,
    *,
    variance: str = "large",
    clip: bool = False,
) -> Tensor:
    """DDPM's sampler (Ho et al. 2020, algorithm 2) on the chain respaced to `steps`; the last step adds no noise.

    variance: 'large' for β, 'small' for the posterior's β̃. clip: keeps the predicted x_0 in [−1, 1].
    """
    betas = respaced_betas(alphas_bar, steps)
    posterior = gaussian_posterior(betas)
    noise_scale = (betas if variance == "large" else posterior.variance).sqrt().tolist()
    to_x0, to_xt = posterior.x0.tolist(), posterior.xt.tolist()
    bar, visited = alphas_bar[steps].tolist(), steps.tolist()
    x = noise
    for k in reversed(range(len(visited))):
        x0 = predicted_x0(x, predict(x, _step(visited[k], x)), bar[k])
        if clip:
            x0 = x0.clamp(-1, 1)
        x = to_x0[k] * x0 + to_xt[k] * x
        if k > 0:
            x = x + noise_scale[k] * noise_like(x, rng)
    return x


def ddim(
    predict: NoisePredictor,
    noise: Tensor,
    alphas_bar: Tensor,
    steps: Tensor,
    rng: torch.Generator,
    *,
    eta: float = 0.0,
) -> Tensor:
    """DDIM's sampler (Song et al. 2021, eq. 12 and 16); eta = 0 draws nothing from `rng`, eta = 1 has DDPM's β̃."""
    bar, visited = alphas_bar[steps].tolist(), steps.tolist()
    x = noise
    for k in reversed(range(len(visited))):
        bar_previous = bar[k - 1] if k > 0 else 1.0
        sigma = eta * ((1 - bar[k] / bar_previous) * (1 - bar_previous) / (1 - bar[k])) ** 0.5
        epsilon = predict(x, _step(visited[k], x))
        x0 = predicted_x0(x, epsilon, bar[k])
        x = bar_previous**0.5 * x0 + (1 - bar_previous - sigma**2) ** 0.5 * epsilon
        if sigma > 0:
            x = x + sigma * noise_like(x, rng)
    return x


def dpm_solver(predict: NoisePredictor, noise: Tensor, alphas_bar: Tensor, steps: Tensor) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): a second-order multistep method in the half log-SNR λ.

    The first step and the last, which goes to λ = ∞, are of first order. One evaluation a step; draws nothing.
    """
    bar = alphas_bar[steps]
    signal, sigma = bar.sqrt().tolist(), (1 - bar).sqrt().tolist()
    half_log_snr = (0.5 * (bar / (1 - bar)).log()).tolist()
    x, before = noise, None
    for k in reversed(range(len(steps))):
        x0 = predicted_x0(x, predict(x, _step(int(steps[k]), x)), float(bar[k]))
        if k == 0:
            return x0
        width = half_log_snr[k - 1] - half_log_snr[k]
        estimate = x0
        if before is not None:
            ratio = (half_log_snr[k] - half_log_snr[k + 1]) / width
            estimate = x0 + (x0 - before) / (2 * ratio)
        x = sigma[k - 1] / sigma[k] * x - signal[k - 1] * math.expm1(-width) * estimate
        before = x0
    return x


def predicted_x0(x: Tensor, epsilon: Tensor, alpha_bar: float) -> Tensor:
    """x_0 = (x_t − √(1−ᾱ) ε) / √ᾱ (Ho et al. 2020, eq. 15)."""
    return (x - (1 - alpha_bar) ** 0.5 * epsilon) / alpha_bar**0.5


def _step(step: int, x: Tensor) -> Tensor:
    return torch.full((1,), step, device=x.device)


def noise_like(x: Tensor, rng: torch.Generator) -> Tensor:
    """Standard normal noise of x's shape, type and device."""
    return torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
