"""DDPM (Ho, Jain & Abbeel 2020) and, on the same trained network, DDIM (Song, Meng & Ermon 2021) and DPM-Solver++ (Lu
et al. 2022).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.denoiser import Denoiser, column
from baselines.samplers import ancestral, ddim, dpm_solver, even_steps, quadratic_steps, uniform_steps
from trilemma_bench.contracts import Count, DataSpec, Share
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.schedules import alphas_cumprod, linear_betas

SPACINGS = {"uniform": uniform_steps, "quadratic": quadratic_steps}


class NoisePredictor(Denoiser):
    """Learns the noise ε in x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε by its mean squared error (Ho et al. 2020, eq. 14).

    diffusion_steps: T of the linear schedule. What a subclass adds is a sampler of the one trained network.
    """

    _signal: Tensor
    _noise: Tensor

    def __init__(self, data: DataSpec, *, diffusion_steps: Count = 1000, **settings: Any) -> None:
        super().__init__(data, **settings)
        self.diffusion_steps = diffusion_steps
        self.alphas_bar = alphas_cumprod(linear_betas(diffusion_steps))
        self.register_buffer("_signal", self.alphas_bar.sqrt().float(), persistent=False)
        self.register_buffer("_noise", (1 - self.alphas_bar).sqrt().float(), persistent=False)

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        """Each sample at its own time, drawn evenly."""
        time = torch.randint(self.diffusion_steps, (len(x),), device=x.device)
        noise = torch.randn_like(x)
        noisy = column(self._signal[time], x) * x + column(self._noise[time], x) * noise
        return {"loss": F.mse_loss(self.predict(noisy, time), noise)}

    def predictions(self) -> int | None:
        return self.sampling_steps

    def checked_steps(self, steps: int, least: int = 1, spare: int = 0) -> int:
        """`steps`, if the chain has so many, and `spare` more."""
        most = self.diffusion_steps - spare
        if not least <= steps <= most:
            raise UsageError(
                f"sampling_steps = {steps}: choose {least} to {most} (diffusion_steps = {self.diffusion_steps})"
            )
        return steps


class DDPM(NoisePredictor):
    """DDPM (Ho et al. 2020): denoising diffusion in many small Gaussian steps.

    sampling_steps: how many of diffusion_steps a sample visits, all of them by default. variance: of each step, 'large'
    (β) or 'small' (β̃).
    """

    sampling_settings: ClassVar[frozenset[str]] = Denoiser.sampling_settings | frozenset({"sampling_steps", "variance"})

    def __init__(
        self,
        data: DataSpec,
        *,
        sampling_steps: Count | None = None,
        variance: Literal["large", "small"] = "large",
        **settings: Any,
    ) -> None:
        super().__init__(data, **settings)
        self.variance = variance
        self.sampling_steps = self.checked_steps(self.diffusion_steps if sampling_steps is None else sampling_steps)

    def denoise(self, noise: Tensor, rng: torch.Generator) -> Tensor:
        steps = even_steps(self.diffusion_steps, self.sampling_steps)
        is_image = self.data.is_image
        return ancestral(self.predict, noise, self.alphas_bar, steps, rng, variance=self.variance, clip=is_image)


class DDIM(NoisePredictor):
    """DDIM (Song et al. 2021): a trained DDPM, sampled in few steps.

    sampling_steps: at least 2. eta: 0 for the deterministic sampler, 1 for DDPM's noise. spacing: which steps are
    visited, 'uniform' or 'quadratic' (the paper's for CIFAR-10).
    """

    trained_as: ClassVar[str | None] = "ddpm"
    sampling_settings: ClassVar[frozenset[str]] = Denoiser.sampling_settings | frozenset(
        {"sampling_steps", "eta", "spacing"}
    )

    def __init__(
        self,
        data: DataSpec,
        *,
        sampling_steps: Count = 50,
        eta: Share = 0.0,
        spacing: Literal["uniform", "quadratic"] = "quadratic",
        **settings: Any,
    ) -> None:
        super().__init__(data, **settings)
        self.sampling_steps = self.checked_steps(sampling_steps, least=2)
        self.eta, self.spacing = eta, spacing

    def denoise(self, noise: Tensor, rng: torch.Generator) -> Tensor:
        steps = SPACINGS[self.spacing](self.diffusion_steps, self.sampling_steps)
        return ddim(self.predict, noise, self.alphas_bar, steps, rng, eta=self.eta)


class DPMSolver(NoisePredictor):
    """DPM-Solver++ (Lu et al. 2022), the second-order multistep method: a trained DDPM, sampled in 10 to 20 steps.

    sampling_steps: at least 2. spacing: which steps are visited, 'even' from the last one, or 'quadratic', as DDIM's.
    """

    trained_as: ClassVar[str | None] = "ddpm"
    sampling_settings: ClassVar[frozenset[str]] = Denoiser.sampling_settings | frozenset({"sampling_steps", "spacing"})

    def __init__(
        self,
        data: DataSpec,
        *,
        sampling_steps: Count = 20,
        spacing: Literal["even", "quadratic"] = "even",
        **settings: Any,
    ) -> None:
        super().__init__(data, **settings)
        self.sampling_steps = self.checked_steps(sampling_steps, least=2, spare=spacing == "even")
        self.spacing = spacing

    def denoise(self, noise: Tensor, rng: torch.Generator) -> Tensor:
        if self.spacing == "even":
            steps = even_steps(self.diffusion_steps, self.sampling_steps + 1)[1:]  # the first would change nothing
        else:
            steps = quadratic_steps(self.diffusion_steps, self.sampling_steps)
        return dpm_solver(self.predict, noise, self.alphas_bar, steps)
