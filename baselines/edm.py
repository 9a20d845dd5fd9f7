"""EDM (Karras, Aittala, Aila & Laine 2022): preconditioned denoising, sampled by Heun's method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines import ode
from baselines.denoiser import Denoiser, column
from baselines.networks import Architecture
from trilemma_bench.contracts import Count, Counts, DataSpec, NonNegative, Positive, Real, Share
from trilemma_bench.errors import UsageError


class EDM(Denoiser):
    """EDM (Karras et al. 2022): a denoiser D(x, σ) = c_skip x + c_out F(c_in x, c_noise), and Heun's steps.

    The defaults are the paper's for CIFAR-10, whose DDPM++ has three levels, but for `augment`: 0.12 there. p_mean,
    p_std: of ln σ in training. sigma_min, sigma_max, rho: of the times that sampling_steps visits, with
    2·sampling_steps − 1 network evaluations.
    """

    sampling_settings: ClassVar[frozenset[str]] = Denoiser.sampling_settings | frozenset(
        {"sampling_steps", "sigma_min", "sigma_max", "rho"}
    )
    training_defaults: ClassVar[Mapping[str, Any]] = {
        **Denoiser.training_defaults,
        "batch_size": 512,
        "budget": "200000kimg",
        "ema_decay": 0.9993,
        "lr_warmup_steps": 19532,
    }

    def __init__(
        self,
        data: DataSpec,
        *,
        architecture: Architecture = "ddpm++",
        channels: Count = 128,
        channel_multipliers: Counts = (2, 2, 2),
        res_blocks: Count = 4,
        dropout: Share = 0.13,
        lr: NonNegative = 1e-3,
        max_grad_norm: NonNegative = 0.0,
        p_mean: Real = -1.2,
        p_std: NonNegative = 1.2,
        sampling_steps: Count = 18,
        sigma_min: Positive = 0.002,
        sigma_max: Positive = 80.0,
        rho: Positive = 7.0,
        **settings: Any,
    ) -> None:
        shape: dict[str, Any] = {"channels": channels, "channel_multipliers": channel_multipliers, "dropout": dropout}
        shape |= {"res_blocks": res_blocks, "lr": lr, "max_grad_norm": max_grad_norm}
        super().__init__(data, architecture=architecture, **shape, **settings)
        if sampling_steps < 2:
            raise UsageError(f"sampling_steps = {sampling_steps}: choose at least 2")
        if sigma_min >= sigma_max:
            raise UsageError(f"sigma_min = {sigma_min}, sigma_max = {sigma_max}: choose sigma_min < sigma_max")
        self.p_mean, self.p_std, self.sampling_steps = p_mean, p_std, sampling_steps
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho
        self.sigma_data = 0.5 if data.is_image else 1.0

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        """E λ(σ)‖D(x + σε, σ) − x‖² (Karras et al. 2022, eq. 8), as the error of F itself: there λ c_out² is 1."""
        sigma = torch.exp(self.p_mean + self.p_std * torch.randn(len(x), device=x.device))
        noisy = x + column(sigma, x) * torch.randn_like(x)
        skip, out, _ = self._scalings(sigma, x)
        return {"loss": F.mse_loss(self._raw(noisy, sigma), (x - skip * noisy) / out)}

    def denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, σ), the mean of the data given x (N×…); sigma: (N,) or (1,)."""
        skip, out, _ = self._scalings(sigma, x)
        return skip * x + out * self._raw(x, sigma)

    def denoise(self, noise: Tensor, rng: torch.Generator) -> Tensor:
        """Heun's steps from σ_max to 0 (Karras et al. 2022, algorithm 1); the last one is Euler's."""
        *sigmas, last = sigma_steps(self.sampling_steps, self.sigma_min, self.sigma_max, self.rho)
        x = ode.heun(self._slope, self.sigma_max * noise, [*sigmas, last])
        return ode.euler(self._slope, x, [last, 0.0])

    def predictions(self) -> int | None:
        return 2 * self.sampling_steps - 1

    def _slope(self, x: Tensor, sigma: float) -> Tensor:
        """dx/dσ = (x − D(x, σ))/σ (Karras et al. 2022, eq. 1 and 3 with σ(t) = t)."""
        return (x - self.denoised(x, torch.full((1,), sigma, device=x.device))) / sigma

    def _raw(self, x: Tensor, sigma: Tensor) -> Tensor:
        """F(c_in x, c_noise)."""
        return self.predict(self._scalings(sigma, x)[2] * x, sigma.log() / 4)

    def _scalings(self, sigma: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(c_skip, c_out, c_in), shaped to multiply `like` (Karras et al. 2022, table 1)."""
        sigma = column(sigma, like)
        total = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data / total.sqrt(), 1 / total.sqrt()


def sigma_steps(count: int, lowest: float, highest: float, rho: float) -> list[float]:
    """`count` noise levels from `highest` to `lowest`, even in σ^(1/ρ) (Karras et al. 2022, eq. 5)."""
    first, last = highest ** (1 / rho), lowest ** (1 / rho)
    return [(first + index / (count - 1) * (last - first)) ** rho for index in range(count)]
