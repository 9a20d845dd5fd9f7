"""DDPM (Ho, Jain & Abbeel 2020) and, on the same trained network, DDIM (Song, Meng & Ermon 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.samplers import ancestral, ddim, even_steps, quadratic_steps, uniform_steps
from trilemma_bench.contracts import DataSpec, Trainable
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.mlp import MLP
from trilemma_bench.nn.schedules import alphas_cumprod, linear_betas
from trilemma_bench.nn.unet import UNet

DDIM_SPACINGS = {"uniform": uniform_steps, "quadratic": quadratic_steps}


class DDPM(Trainable):
    """DDPM (Ho et al. 2020): denoising diffusion in many small Gaussian steps.

    Learns the noise ε in x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε by its mean squared error; samples step by step.

    Points use hidden, layers, fourier_*; images use channels, channel_multipliers, res_blocks, attention_resolutions
    and dropout (see `nn.mlp.MLP` and `nn.unet.UNet`). sampling_steps: how many of diffusion_steps a sample visits, all
    of them by default. variance: 'large' (β) or 'small' (β̃).
    """

    sampling_settings: ClassVar[frozenset[str]] = frozenset({"sampling_steps", "variance"})
    training_defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 128,
        "budget": "102400kimg",
        "ema_decay": 0.9999,
        "lr_schedule": "constant",
        "lr_warmup_steps": 5000,
    }

    def __init__(
        self,
        data: DataSpec,
        *,
        diffusion_steps: int = 1000,
        hidden: int = 128,
        layers: int = 4,
        fourier_features: int = 32,
        fourier_scale: float = 1.0,
        channels: int = 64,
        channel_multipliers: tuple[int, ...] = (1, 2, 2),
        res_blocks: int = 2,
        attention_resolutions: tuple[int, ...] = (16,),
        dropout: float = 0.1,
        lr: float = 2e-4,
        max_grad_norm: float = 1.0,
        sampling_steps: int | None = None,
        variance: str = "large",
    ) -> None:
        super().__init__(data)
        self.lr, self.max_grad_norm, self.variance = lr, max_grad_norm, _one_of("variance", variance, "large", "small")
        self.diffusion_steps = diffusion_steps
        self.sampling_steps = self._checked_sampling_steps(sampling_steps)
        self.unit = 1.0 if data.is_image else data.scale
        self.network: nn.Module
        if data.is_image:
            self.network = _unet(data, channels, channel_multipliers, res_blocks, attention_resolutions, dropout)
        else:
            self.network = MLP(
                data.shape[0],
                data.shape[0],
                hidden=hidden,
                layers=layers,
                fourier_features=fourier_features,
                fourier_scale=fourier_scale,
                time_dim=64,
            )
        self.alphas_bar = alphas_cumprod(linear_betas(diffusion_steps))
        self.register_buffer("_signal", self.alphas_bar.sqrt().float(), persistent=False)
        self.register_buffer("_noise", (1 - self.alphas_bar).sqrt().float(), persistent=False)

    _signal: Tensor
    _noise: Tensor

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"network": torch.optim.Adam(self.network.parameters(), lr=self.lr, fused=True)}

    def training_step(
        self, batch: Tensor, step: int, optimizers: dict[str, torch.optim.Optimizer]
    ) -> dict[str, Tensor]:
        """One step on the simple loss (Ho et al. 2020, eq. 14), each sample at its own time."""
        optimizer = optimizers["network"]
        time = torch.randint(self.diffusion_steps, (len(batch),), device=batch.device)
        column = (-1, *[1] * (batch.ndim - 1))
        noise = torch.randn_like(batch)
        noisy = self._signal[time].view(column) * (batch / self.unit) + self._noise[time].view(column) * noise
        loss = F.mse_loss(self.network(noisy, time), noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.max_grad_norm)
        optimizer.step()
        return {"loss": loss.detach()}

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        noise = torch.randn((count, *self.data.shape), generator=rng, device=rng.device)
        x0 = self.denoise(noise, rng)
        return x0.clamp(-1, 1) if self.data.is_image else x0 * self.unit

    def denoise(self, noise: Tensor, rng: torch.Generator) -> Tensor:
        """The sampler: noise → x_0 in the network's unit."""
        steps = even_steps(self.diffusion_steps, self.sampling_steps)
        is_image = self.data.is_image
        return ancestral(self.network, noise, self.alphas_bar, steps, rng, variance=self.variance, clip=is_image)

    def describe(self) -> str:
        return f"{self.sampling_steps} steps"

    def _checked_sampling_steps(self, steps: int | None) -> int:
        steps = self.diffusion_steps if steps is None else steps
        if not 1 <= steps <= self.diffusion_steps:
            raise UsageError(f"sampling_steps = {steps}: choose 1 to diffusion_steps = {self.diffusion_steps}")
        return steps


class DDIM(DDPM):
    """DDIM (Song et al. 2021): a trained DDPM, sampled in few steps.

    sampling_steps: at least 2. eta: 0 for the deterministic sampler, 1 for DDPM's noise. spacing: which steps are
    visited, 'uniform' or 'quadratic' (the paper's for CIFAR-10). The other settings are DDPM's.
    """

    trained_as: ClassVar[str | None] = "ddpm"
    sampling_settings: ClassVar[frozenset[str]] = frozenset({"sampling_steps", "eta", "spacing"})

    def __init__(
        self,
        data: DataSpec,
        *,
        diffusion_steps: int = 1000,
        hidden: int = 128,
        layers: int = 4,
        fourier_features: int = 32,
        fourier_scale: float = 1.0,
        channels: int = 64,
        channel_multipliers: tuple[int, ...] = (1, 2, 2),
        res_blocks: int = 2,
        attention_resolutions: tuple[int, ...] = (16,),
        dropout: float = 0.1,
        lr: float = 2e-4,
        max_grad_norm: float = 1.0,
        sampling_steps: int = 50,
        eta: float = 0.0,
        spacing: str = "quadratic",
    ) -> None:
        super().__init__(
            data,
            diffusion_steps=diffusion_steps,
            hidden=hidden,
            layers=layers,
            fourier_features=fourier_features,
            fourier_scale=fourier_scale,
            channels=channels,
            channel_multipliers=channel_multipliers,
            res_blocks=res_blocks,
            attention_resolutions=attention_resolutions,
            dropout=dropout,
            lr=lr,
            max_grad_norm=max_grad_norm,
            sampling_steps=sampling_steps,
        )
        if sampling_steps < 2:
            raise UsageError(f"sampling_steps = {sampling_steps}: ddim starts at step 0, so it needs at least 2")
        if not 0 <= eta <= 1:
            raise UsageError(f"eta = {eta}: choose 0 (deterministic) to 1 (as noisy as DDPM)")
        self.eta, self.spacing = eta, _one_of("spacing", spacing, *DDIM_SPACINGS)

    def denoise(self, noise: Tensor, rng: torch.Generator) -> Tensor:
        steps = DDIM_SPACINGS[self.spacing](self.diffusion_steps, self.sampling_steps)
        return ddim(self.network, noise, self.alphas_bar, steps, rng, eta=self.eta)


def _unet(
    data: DataSpec,
    channels: int,
    multipliers: tuple[int, ...],
    res_blocks: int,
    attention: tuple[int, ...],
    dropout: float,
) -> UNet:
    size = data.shape[-1]
    if size % 2 ** (len(multipliers) - 1):
        raise UsageError(f"channel_multipliers has {len(multipliers)} levels, too many to halve {size} pixels so often")
    return UNet(
        data.shape[0],
        size,
        channels=channels,
        multipliers=multipliers,
        res_blocks=res_blocks,
        attention_resolutions=attention,
        dropout=dropout,
    )


def _one_of(setting: str, value: str, *known: str) -> str:
    if value not in known:
        raise UsageError(f"{setting} = '{value}': choose {' or '.join(known)}")
    return value
