"""The exact denoising distribution q(x_{t−1} | x_t) of a mixture in one dimension (figure 2 of Xiao et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MEANS, STD = np.array([-1.0, 1.0]), 0.05  # two modes of equal weight
GRID = np.linspace(-2.5, 2.5, 4001)


@dataclass(frozen=True)
class Step:
    """The forward step x_t = √(1−β) x_{t−1} + √β ε, from a marginal with ᾱ before it."""

    alpha_bar: float
    beta: float


def marginal(x: Floats, alpha_bar: float) -> Floats:
    """The density of √ᾱ x_0 + √(1−ᾱ) ε at x."""
    means, variance = alpha_bar**0.5 * MEANS, alpha_bar * STD**2 + 1 - alpha_bar
    return np.mean([_normal(x, mean, variance) for mean in means], axis=0)


def denoising(step: Step, x_t: float) -> Floats:
    """q(x_{t−1} | x_t) on GRID, by Bayes' rule: q(x_t | x_{t−1}) q(x_{t−1}), normalised there."""
    density = _normal(np.array(x_t), (1 - step.beta) ** 0.5 * GRID, step.beta) * marginal(GRID, step.alpha_bar)
    return density / (density.sum() * (GRID[1] - GRID[0]))


def modes(density: Floats, least: float = 0.05) -> int:
    """Local maxima that reach at least the share `least` of the highest."""
    inner = density[1:-1]
    peaks = (inner > density[:-2]) & (inner >= density[2:]) & (inner >= least * density.max())
    return int(peaks.sum())


def chain(steps: int, beta_min: float = 0.1, beta_max: float = 20.0) -> list[Step]:
    """The steps of the variance-preserving schedule with T = `steps` (appendix A of the paper), from the data on."""
    times = 1e-3 + (1 - 1e-3) * np.arange(steps + 1) / steps
    alphas_bar = np.exp(-0.5 * times**2 * (beta_max - beta_min) - times * beta_min)
    ratios = alphas_bar[1:] / alphas_bar[:-1]
    return [Step(float(bar), float(1 - ratio)) for bar, ratio in zip(alphas_bar[:-1], ratios, strict=True)]


def multimodal_share(step: Step) -> float:
    """The probability, over x_t ~ q(x_t), that q(x_{t−1} | x_t) has more than one mode."""
    places = np.linspace(-2.5, 2.5, 201)
    weights = marginal(places, step.alpha_bar * (1 - step.beta))
    several = np.array([modes(denoising(step, float(x_t))) > 1 for x_t in places])
    return float(weights[several].sum() / weights.sum())


def _normal(x: Floats, mean: Floats | float, variance: float) -> Floats:
    return np.exp(-0.5 * (x - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
