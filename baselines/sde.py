"""The stochastic differential equations of score-based models and their samplers (Song et al. 2021).

A score maps (x, time) to ∇ log p_t(x), with x N×… and time a float in [0, 1]; each call is one network evaluation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from baselines import ode
from baselines.samplers import noise_like
from trilemma_bench.nn.schedules import vp_log_mean_coefficient

Score = Callable[[Tensor, float], Tensor]


class SDE(ABC):
    """dx = drift(t) x dt + √diffusion²(t) dw from data at t = 0 to noise at t = 1.

    end: the time at which sampling stops. prior_std: of x at t = 1.
    """

    end: float
    prior_std: float

    @abstractmethod
    def marginal(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """(signal, std): x_t = signal·x_0 + std·ε."""

    @abstractmethod
    def drift(self, time: float) -> float:
        """The factor on x."""

    @abstractmethod
    def squared_diffusion(self, time: float) -> float:
        """g²."""

    def step(self, earlier: float, later: float) -> tuple[float, float]:
        """(signal, std) of x at `later` given x at `earlier`; time 0 stands for the data itself."""
        signal, std = (float(each) for each in self.marginal(torch.tensor(later, dtype=torch.float64)))
        before, std_before = (1.0, 0.0)
        if earlier > 0:
            before, std_before = (float(each) for each in self.marginal(torch.tensor(earlier, dtype=torch.float64)))
        ratio = signal / before
        return ratio, max(std**2 - (ratio * std_before) ** 2, 0.0) ** 0.5


class VariancePreserving(SDE):
    """The VP SDE, with β(t) linear in t (Song et al. 2021, eq. 11, 29 and App. C)."""

    end, prior_std = 1e-3, 1.0

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min, self.beta_max = beta_min, beta_max

    def marginal(self, time: Tensor) -> tuple[Tensor, Tensor]:
        log_signal = vp_log_mean_coefficient(time, self.beta_min, self.beta_max)
        return log_signal.exp(), (-torch.expm1(2 * log_signal)).sqrt()

    def drift(self, time: float) -> float:
        return -0.5 * self.squared_diffusion(time)

    def squared_diffusion(self, time: float) -> float:
        return self.beta_min + time * (self.beta_max - self.beta_min)


class VarianceExploding(SDE):
    """The VE SDE, with σ(t) geometric in t (Song et al. 2021, eq. 9, 30 and App. C)."""

    end = 1e-5

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        self.sigma_min, self.sigma_max, self.prior_std = sigma_min, sigma_max, sigma_max
        self.log_ratio = math.log(sigma_max / sigma_min)

    def marginal(self, time: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(time), self.sigma_min * torch.exp(self.log_ratio * time)

    def drift(self, time: float) -> float:
        return 0.0

    def squared_diffusion(self, time: float) -> float:
        std = float(self.marginal(torch.tensor(time, dtype=torch.float64))[1])
        return 2 * std**2 * self.log_ratio


def predictor_corrector(
    score: Score,
    noise: Tensor,
    sde: SDE,
    steps: int,
    rng: torch.Generator,
    *,
    snr: float = 0.16,
    corrector: bool = True,
) -> Tensor:
    """The PC sampler: at each of `steps` times a Langevin step of signal-to-noise ratio `snr`, then one of the reverse
    diffusion (Song et al. 2021, algorithms 2 to 5); the last step adds no noise.

    noise: standard normal. Two evaluations a step, one without the corrector.
    """
    x = sde.prior_std * noise
    times = [*torch.linspace(1, sde.end, steps, dtype=torch.float64).tolist(), 0.0]
    for now, then in pairwise(times):
        ratio, std = sde.step(then, now)
        if corrector:
            x = _langevin(score(x, now), x, ratio**2, snr, rng)
        x = _reverse_mean(score, x, sde, now, then)
        if then > 0:
            x = x + std * noise_like(x, rng)
    return x


def probability_flow(score: Score, noise: Tensor, sde: SDE, *, tolerance: float = 1e-5) -> Tensor:
    """The ODE with the SDE's marginals, solved by RK45 from t = 1 to the SDE's end (Song et al. 2021, §4.3).

    Then a step of the reverse diffusion without noise, which takes out what is left of it (App. C and their program).
    """

    def velocity(x: Tensor, time: float) -> Tensor:
        return sde.drift(time) * x - 0.5 * sde.squared_diffusion(time) * score(x, time)

    x = ode.rk45(velocity, sde.prior_std * noise, 1.0, sde.end, rtol=tolerance, atol=tolerance)
    return _reverse_mean(score, x, sde, sde.end, 0.0)


def _reverse_mean(score: Score, x: Tensor, sde: SDE, now: float, then: float) -> Tensor:
    """The mean of the reverse diffusion's step from x at `now` to `then` (Song et al. 2021, eq. 46)."""
    ratio, std = sde.step(then, now)
    return (2 - ratio) * x + std**2 * score(x, now)


def _langevin(slope: Tensor, x: Tensor, alpha: float, snr: float, rng: torch.Generator) -> Tensor:
    """A step of Langevin dynamics, its size from the batch's mean norms (Song et al. 2021, App. G).

    A score of zero, as an untrained network gives, moves nothing.
    """
    noise = noise_like(x, rng)
    noise_norm, slope_norm = (each.flatten(1).norm(dim=1).mean() for each in (noise, slope))
    ratio = torch.where(slope_norm > 0, noise_norm / slope_norm, 0.0)
    size = 2 * alpha * (snr * ratio) ** 2
    return x + size * slope + (2 * size).sqrt() * noise
