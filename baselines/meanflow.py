"""MeanFlow (Geng, Deng, Bai, Kolter & He 2025): the mean velocity between two times; one step from noise to data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from baselines.denoiser import Denoiser, column
from trilemma_bench.contracts import Count, DataSpec, NonNegative, Real, Share
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.compiling import uncompiled

TIME_SCALE = 10.0  # of the time embedding: one that resolves finer times makes du/dt large, and training diverge


class MeanFlow(Denoiser):
    """MeanFlow (Geng et al. 2025): learns u(z, r, t), the mean velocity from time r to t of the flow from noise.

    z_t = (1 − t) x + t ε; the network sees t and t − r. two_times: the share of samples with r < t; on the others the
    loss is flow matching's. time_mean, earlier_mean, time_std: two times are logistic-normal, with these means, and t
    is the later one. Dropout strikes u and du/dt apart. adaptive: the power p of the loss's weight (error + 10⁻³)^−p.
    sampling_steps: 1, or more even steps.
    """

    times: ClassVar[int] = 2
    upright: ClassVar[bool] = True
    sampling_settings: ClassVar[frozenset[str]] = frozenset({"sampling_steps"})
    training_defaults: ClassVar[Mapping[str, Any]] = {
        **Denoiser.training_defaults,
        "batch_size": 1024,
        "budget": "819200kimg",
        "lr_warmup_steps": 10_000,
    }

    def __init__(
        self,
        data: DataSpec,
        *,
        two_times: Share = 0.75,
        time_mean: Real = -0.6,
        earlier_mean: Real = -4.0,
        time_std: NonNegative = 1.6,
        adaptive: NonNegative = 0.75,
        sampling_steps: Count = 1,
        dropout: Share = 0.2,
        lr: NonNegative = 6e-4,
        **settings: Any,
    ) -> None:
        super().__init__(data, dropout=dropout, lr=lr, **settings)
        if self.guidance:
            raise UsageError("guidance: a mean velocity is not guided after training; leave it out")
        self.two_times, self.adaptive, self.sampling_steps = two_times, adaptive, sampling_steps
        self.time_means, self.time_std = (time_mean, earlier_mean), time_std

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        """‖u − (v − (t − r) du/dt)‖² with the target held fixed, weighted (Geng et al. 2025, eq. 10, 11 and 22); and
        beside it the unweighted mean square of those samples with r = t, where no estimate of du/dt enters.
        """
        earlier, later = self._times(x)
        noise = torch.randn_like(x)
        velocity, share = noise - x, column(later, x)
        z = (1 - share) * x + share * noise
        target = velocity - column(later - earlier, x) * self._derivative(z, earlier, later, velocity)
        squares = (self._mean_velocity(z, earlier, later) - target).square().flatten(1)
        errors, at_once = squares.sum(dim=1), earlier == later
        loss = (errors / (errors.detach() + 1e-3) ** self.adaptive).mean()
        return {"loss": loss, "velocity": (squares.mean(dim=1) * at_once).sum() / at_once.sum().clamp(min=1)}

    def denoise(self, noise: Tensor, rng: torch.Generator) -> Tensor:
        x, times = noise, [1 - step / self.sampling_steps for step in range(self.sampling_steps + 1)]
        for later, earlier in pairwise(times):
            now, then = (torch.full((1,), time, device=x.device) for time in (later, earlier))
            x = x - (later - earlier) * self._mean_velocity(x, then, now)
        return x

    def predictions(self) -> int | None:
        return self.sampling_steps

    def _times(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(r, t) of each sample, r ≤ t."""
        one, other = (
            torch.sigmoid(mean + self.time_std * torch.randn(len(x), device=x.device)) for mean in self.time_means
        )
        earlier, later = torch.minimum(one, other), torch.maximum(one, other)
        return torch.where(torch.rand(len(x), device=x.device) < self.two_times, earlier, later), later

    def _mean_velocity(self, z: Tensor, earlier: Tensor, later: Tensor) -> Tensor:
        """u(z, r, t); times of shape (N,) or (1,)."""
        return self.predict(z, TIME_SCALE * torch.stack([later, later - earlier], dim=1))

    @torch.no_grad()
    def _derivative(self, z: Tensor, earlier: Tensor, later: Tensor, velocity: Tensor) -> Tensor:
        """du/dt along the flow: in the direction (v, 0, 1) of (z, r, t), in float32."""
        directions = (velocity, torch.zeros_like(earlier), torch.ones_like(later))
        # Normalisation has no forward derivative inside autocast, and attention has one in its plain form only.
        with (
            uncompiled(),
            torch.autocast(z.device.type, enabled=False),
            sdpa_kernel(SDPBackend.MATH),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", FutureWarning)  # of a part of PyTorch that loads here
            return torch.func.jvp(self._mean_velocity, (z, earlier, later), directions)[1]
