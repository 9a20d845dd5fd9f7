"""What diffusion-like baselines share: one network of (x, time), regressed with Adam, and a sampler from noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.networks import time_network
from trilemma_bench.contracts import DataSpec, Trainable
from trilemma_bench.errors import UsageError


class Denoiser(Trainable):
    """A model of one time-conditioned network: the baselines differ in their mathematics, not in their networks.

    A subclass gives the `losses` of a batch and `denoise`, its sampler; both see data of about unit scale.

    architecture, channels, channel_multipliers, res_blocks, attention_resolutions, dropout, time_fourier_scale: of
    images' networks (see `networks.time_network`); hidden, layers, fourier_features, fourier_scale: of points'. lr: of
    Adam. max_grad_norm: gradients are clipped to it; 0 for never. times: how many times the network sees.
    """

    training_defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 128,
        "budget": "102400kimg",
        "ema_decay": 0.9999,
        "lr_schedule": "constant",
        "lr_warmup_steps": 5000,
    }
    network: nn.Module
    times: ClassVar[int] = 1

    def __init__(
        self,
        data: DataSpec,
        *,
        architecture: str = "ddpm",
        channels: int = 64,
        channel_multipliers: tuple[int, ...] = (1, 2, 2),
        res_blocks: int = 2,
        attention_resolutions: tuple[int, ...] = (16,),
        dropout: float = 0.1,
        time_fourier_scale: float = 0.0,
        hidden: int = 128,
        layers: int = 4,
        fourier_features: int = 32,
        fourier_scale: float = 1.0,
        lr: float = 2e-4,
        max_grad_norm: float = 1.0,
    ) -> None:
        super().__init__(data)
        self.lr, self.max_grad_norm = lr, max_grad_norm
        self.unit = 1.0 if data.is_image else data.scale
        self.network = time_network(
            data,
            architecture=architecture,
            channels=channels,
            channel_multipliers=channel_multipliers,
            res_blocks=res_blocks,
            attention_resolutions=attention_resolutions,
            dropout=dropout,
            time_fourier_scale=time_fourier_scale,
            times=self.times,
            hidden=hidden,
            layers=layers,
            fourier_features=fourier_features,
            fourier_scale=fourier_scale,
        )

    @abstractmethod
    def losses(self, x: Tensor) -> dict[str, Tensor]:
        """Of data x (N×…, in units of about 1): 'loss', the scalar that is minimised, and others to be logged."""

    @abstractmethod
    def denoise(self, noise: Tensor, rng: torch.Generator) -> Tensor:
        """The sampler: standard normal noise (N×…) → data in the loss's unit."""

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"network": torch.optim.Adam(self.network.parameters(), lr=self.lr, fused=True)}

    def training_step(
        self, batch: Tensor, step: int, optimizers: dict[str, torch.optim.Optimizer]
    ) -> dict[str, Tensor]:
        optimizer = optimizers["network"]
        losses = self.losses(batch / self.unit)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        if self.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.max_grad_norm)
        optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        noise = torch.randn((count, *self.data.shape), generator=rng, device=rng.device)
        x = self.denoise(noise, rng)
        return x.clamp(-1, 1) if self.data.is_image else x * self.unit


def one_of(setting: str, value: str, *known: str) -> str:
    """`value`, if it is known. Raises UsageError that names the setting and its choices."""
    if value not in known:
        raise UsageError(f"{setting} = '{value}': choose {' or '.join(known)}")
    return value


def column(values: Tensor, like: Tensor) -> Tensor:
    """values (N), shaped to multiply `like` (N×…)."""
    return values.view(-1, *[1] * (like.ndim - 1))
