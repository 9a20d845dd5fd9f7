"""The few-step diffusion of DDGAN (Xiao, Kreis & Vahdat 2022): pairs (x_t, x_{t+1}), and the posterior between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trilemma_bench.nn.schedules import alphas_cumprod, gaussian_posterior, vp_betas

CLEAN_BETA = 1e-8  # of the step before the first, so that x_0 carries noise of 1e-4; the reference's float32 loses it


class Diffusion(nn.Module):
    """Steps t = 0 … T−1, each from x_{t+1} back to x_t; t = 0 ends at the data. Works on any shape N×….

    The variance-preserving schedule of §3 and appendix A of the paper: β_t from the VP-SDE's marginals.
    """

    signal: Tensor
    noise: Tensor
    step_signal: Tensor
    step_noise: Tensor
    posterior_x0: Tensor
    posterior_xt: Tensor
    posterior_noise: Tensor

    def __init__(self, steps: int, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        super().__init__()
        betas = vp_betas(steps, beta_min, beta_max)
        padded = torch.cat([betas.new_tensor([CLEAN_BETA]), betas])
        cumulative = alphas_cumprod(padded)
        posterior = gaussian_posterior(betas)
        tables = {
            "signal": cumulative.sqrt(),
            "noise": (1 - cumulative).sqrt(),
            "step_signal": (1 - padded).sqrt(),
            "step_noise": padded.sqrt(),
            "posterior_x0": posterior.x0,
            "posterior_xt": posterior.xt,
            "posterior_noise": posterior.variance.sqrt(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def pair(self, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """A sample of (x_t, x_{t+1}) ~ q(· | x_0) for t (N) in 0 … T−1."""
        x_t = self.diffuse(x0, t, torch.randn_like(x0))
        return x_t, self.forward_mean(x_t, t) + at(self.step_noise, t + 1, x0) * torch.randn_like(x0)

    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t ~ q(x_t | x_0), made from `noise` ~ N(0, I)."""
        return at(self.signal, t, x0) * x0 + at(self.noise, t, x0) * noise

    def forward_mean(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The mean of q(x_{t+1} | x_t)."""
        return at(self.step_signal, t + 1, x_t) * x_t

    def clean(self, x_next: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_0 from x_{t+1} and the noise in it: the inverse of `diffuse` at t + 1."""
        return (x_next - at(self.noise, t + 1, noise) * noise) / at(self.signal, t + 1, noise)

    def posterior_sample(self, x0: Tensor, x_next: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t ~ q(x_t | x_{t+1}, x_0) (eq. 5 of the paper), made from `noise` ~ N(0, I); at t = 0 it is x_0."""
        mean = at(self.posterior_x0, t, x0) * x0 + at(self.posterior_xt, t, x0) * x_next
        return mean + at(self.posterior_noise, t, x0) * noise


def at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """table[t] (N), shaped to multiply `like` (N×…)."""
    return table[t].view(-1, *[1] * (like.ndim - 1))
