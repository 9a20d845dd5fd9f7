"""Noise schedules of diffusion models, as float64 tensors: step k of T is entry k−1.

A schedule is its betas, the variances of the noise that each forward step adds:
x_k = √(1−β_k) x_{k−1} + √β_k ε. Everything else follows from them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def linear_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """DDPM's betas, float64 of shape (steps,), evenly spaced from `first` to `last` (Ho et al. 2020, §4)."""
    return torch.linspace(first, last, steps, dtype=torch.float64)


def vp_log_mean_coefficient(time: Tensor, beta_min: float = 0.1, beta_max: float = 20.0) -> Tensor:
    """log of the factor on x_0 at continuous time t in [0, 1] of the VP SDE (Song et al. 2021, eq. 29 and App. C)."""
    return -0.25 * time**2 * (beta_max - beta_min) - 0.5 * time * beta_min


def vp_betas(steps: int, beta_min: float = 0.1, beta_max: float = 20.0, start: float = 1e-3) -> Tensor:
    """The VP SDE cut into `steps` equal intervals of [start, 1]: float64 (steps,) (Xiao et al. 2022, App. C)."""
    time = start + (1 - start) * torch.arange(steps + 1, dtype=torch.float64) / steps
    log_signal = 2 * vp_log_mean_coefficient(time, beta_min, beta_max)
    return -torch.expm1(log_signal[1:] - log_signal[:-1])


def alphas_cumprod(betas: Tensor) -> Tensor:
    """ᾱ_k = Π (1−β): the share of the data's variance that is left after each step, of the shape of `betas`."""
    return torch.cumprod(1 - betas, dim=0)


def respaced_betas(alphas_bar: Tensor, kept: Tensor) -> Tensor:
    """The betas of the shorter chain that visits only the steps `kept` (int64, ascending; 0 is the first step).

    β'_k = 1 − ᾱ[kept_k] / ᾱ[kept_{k−1}]: the marginals stay the same (Nichol & Dhariwal 2021, eq. 19).
    """
    kept_bar = alphas_bar[kept]
    return 1 - kept_bar / _previous(kept_bar)


class Posterior(NamedTuple):
    """q(x_{k−1} | x_k, x_0) = N(x0·x_0 + xt·x_k, variance), each of shape (T,) (Ho et al. 2020, eq. 6 and 7)."""

    x0: Tensor
    xt: Tensor
    variance: Tensor


def gaussian_posterior(betas: Tensor) -> Posterior:
    """The posterior of every step; at the first one it is x_0 itself, without variance."""
    bar = alphas_cumprod(betas)
    bar_previous = _previous(bar)
    x0 = betas * bar_previous.sqrt() / (1 - bar)
    xt = (1 - bar_previous) * (1 - betas).sqrt() / (1 - bar)
    return Posterior(x0, xt, betas * (1 - bar_previous) / (1 - bar))


def _previous(alphas_bar: Tensor) -> Tensor:
    """ᾱ one step earlier; before the first step it is 1."""
    return torch.cat([alphas_bar.new_ones(1), alphas_bar[:-1]])
