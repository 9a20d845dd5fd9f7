"""Score-based models of continuous time (Song et al. 2021): what DDGAN's factor of 2000 is measured against."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from baselines.denoiser import Denoiser, column
from baselines.networks import Architecture
from baselines.sde import SDE, VarianceExploding, VariancePreserving, predictor_corrector, probability_flow
from trilemma_bench.contracts import Count, Counts, DataSpec, NonNegative, Positive
from trilemma_bench.errors import UsageError

EARLIEST = 1e-5  # time of the least noise that is learned
TIME_SCALE = 999.0  # the time embedding sees 0…999


class ScoreSDE(Denoiser):
    """A network that learns the noise in x_t at any time of an SDE, and so the score −ε/std.

    sampler: 'pc' for predictor–corrector with sampling_steps steps, 'ode' for the probability flow with adaptive RK45
    of the `tolerance`. corrector: false for the predictor alone. snr: signal-to-noise ratio of the corrector.
    """

    sampling_settings: ClassVar[frozenset[str]] = Denoiser.sampling_settings | frozenset(
        {"sampler", "sampling_steps", "corrector", "snr", "tolerance"}
    )
    training_defaults: ClassVar[Mapping[str, Any]] = {**Denoiser.training_defaults, "budget": "166400kimg"}

    def __init__(
        self,
        data: DataSpec,
        *,
        sampler: Literal["pc", "ode"] = "pc",
        sampling_steps: Count = 1000,
        corrector: bool = True,
        snr: Positive = 0.16,
        tolerance: Positive = 1e-5,
        channels: Count = 128,
        channel_multipliers: Counts = (1, 2, 2, 2),
        res_blocks: Count = 4,
        **settings: Any,
    ) -> None:
        shape: dict[str, Any] = {"channels": channels, "channel_multipliers": channel_multipliers}
        super().__init__(data, res_blocks=res_blocks, **shape, **settings)
        self.sampler = sampler
        self.sampling_steps, self.corrector, self.snr, self.tolerance = sampling_steps, corrector, snr, tolerance

    @property
    @abstractmethod
    def sde(self) -> SDE: ...

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        """Denoising score matching, weighted by std² (Song et al. 2021, eq. 7): E‖std·score + ε‖²."""
        time = EARLIEST + (1 - EARLIEST) * torch.rand(len(x), device=x.device)
        noise = torch.randn_like(x)
        signal, std = self.sde.marginal(time)
        noisy = column(signal, x) * x + column(std, x) * noise
        return {"loss": self.reduced((self.noise_in(noisy, time, std) - noise).square())}

    def reduced(self, errors: Tensor) -> Tensor:
        """The errors of all coordinates (N×…) → the loss."""
        return errors.mean()

    def noise_in(self, x: Tensor, time: Tensor, std: Tensor) -> Tensor:
        """ε in x (N×…) at `time` with the standard deviation `std` of the noise, both (N,) or (1,)."""
        return self.predict(x, TIME_SCALE * time)

    def score(self, x: Tensor, time: float) -> Tensor:
        at = torch.full((1,), time, device=x.device, dtype=x.dtype)
        std = self.sde.marginal(at)[1]
        return -self.noise_in(x, at, std) / std

    def denoise(self, noise: Tensor, rng: torch.Generator) -> Tensor:
        if self.sampler == "ode":
            return probability_flow(self.score, noise, self.sde, tolerance=self.tolerance)
        steps = self.sampling_steps
        return predictor_corrector(self.score, noise, self.sde, steps, rng, snr=self.snr, corrector=self.corrector)

    def predictions(self) -> int | None:
        return None if self.sampler == "ode" else self.sampling_steps * (1 + self.corrector)

    def describe_sampler(self) -> str:
        if self.sampler == "ode":
            return "ODE"
        return f"{'PC' if self.corrector else 'predictor'}, {self.sampling_steps} steps"


class ScoreVP(ScoreSDE):
    """Score SDE of preserved variance (Song et al. 2021), with the DDPM++ network: 61.8 M parameters at CIFAR-10.

    beta_min, beta_max: of its linear β(t). Others: as ScoreSDE's and Denoiser's.
    """

    def __init__(
        self,
        data: DataSpec,
        *,
        architecture: Architecture = "ddpm++",
        beta_min: Positive = 0.1,
        beta_max: Positive = 20.0,
        **settings: Any,
    ) -> None:
        super().__init__(data, architecture=architecture, **settings)
        if beta_min >= beta_max:
            raise UsageError(f"beta_min = {beta_min}, beta_max = {beta_max}: choose beta_min < beta_max")
        self._sde = VariancePreserving(beta_min, beta_max)

    @property
    def sde(self) -> SDE:
        return self._sde


class ScoreVE(ScoreSDE):
    """Score SDE of exploding variance (Song et al. 2021), with the NCSN++ network: 62.76 M parameters at CIFAR-10.

    sigma_min, sigma_max: of its geometric σ(t); the paper's 0.01 and 50 for images in [0, 1], doubled for [−1, 1].
    time_fourier_scale: of the network's random features of log σ, in cycles per unit. Others: as ScoreSDE's and
    Denoiser's; points are scaled to unit variance before the network, images are not.
    """

    training_defaults: ClassVar[Mapping[str, Any]] = {**ScoreSDE.training_defaults, "ema_decay": 0.999}

    def __init__(
        self,
        data: DataSpec,
        *,
        architecture: Architecture = "ncsn++",
        sigma_min: Positive = 0.02,
        sigma_max: Positive = 100.0,
        time_fourier_scale: NonNegative = 16.0,
        **settings: Any,
    ) -> None:
        if sigma_min >= sigma_max:
            raise UsageError(f"sigma_min = {sigma_min}, sigma_max = {sigma_max}: choose sigma_min < sigma_max")
        # The time is linear in log σ, so that random features of one are those of the other.
        frequencies = time_fourier_scale * math.log(sigma_max / sigma_min) / TIME_SCALE
        super().__init__(data, architecture=architecture, time_fourier_scale=frequencies, **settings)
        self._sde = VarianceExploding(sigma_min, sigma_max)

    @property
    def sde(self) -> SDE:
        return self._sde

    def reduced(self, errors: Tensor) -> Tensor:
        """Half the squared error of a sample, summed over its coordinates, as the paper's VE models have it."""
        return 0.5 * errors.flatten(1).sum(dim=1).mean()

    def noise_in(self, x: Tensor, time: Tensor, std: Tensor) -> Tensor:
        if not self.data.is_image:
            x = x / column((1 + std.square()).sqrt(), x)
        return super().noise_in(x, time, std)
