"""A plain GAN: the non-saturating loss (Goodfellow et al. 2014) with the R1 penalty (Mescheder et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from trilemma_bench.contracts import DataSpec, Trainable
from trilemma_bench.nn.conv import ConvDecoder, ConvEncoder
from trilemma_bench.nn.mlp import MLP


class GAN(Trainable):
    """A GAN with the non-saturating loss (Goodfellow et al. 2014) and an R1 penalty: one step from noise to data.

    Generator and discriminator are perceptrons for points (hidden, layers), convolutional for images (channels).

    latent: width of z. r1: the penalty's weight γ, applied every r1_interval steps and then that many times stronger
    (Karras et al. 2020). lr, lr_discriminator: learning rates of Adam, whose betas are (0.5, 0.9).
    """

    training_defaults: ClassVar[Mapping[str, Any]] = {"batch_size": 64, "budget": "10000kimg", "ema_decay": 0.999}

    def __init__(
        self,
        data: DataSpec,
        *,
        latent: int = 64,
        hidden: int = 256,
        layers: int = 3,
        channels: int = 64,
        lr: float = 2e-4,
        lr_discriminator: float = 2e-4,
        r1: float = 0.1,
        r1_interval: int = 16,
    ) -> None:
        super().__init__(data)
        self.latent, self.r1, self.r1_interval = latent, r1, r1_interval
        self.lr, self.lr_discriminator = lr, lr_discriminator
        self.unit = 1.0 if data.is_image else data.scale
        self.network: nn.Module
        self.discriminator: nn.Module
        if data.is_image:
            self.network = nn.Sequential(ConvDecoder(latent, data.shape, channels), nn.Tanh())
            self.discriminator = ConvEncoder(data.shape, 1, channels, compares_samples=True)
        else:
            leaky = nn.LeakyReLU(0.2)
            self.network = MLP(latent, data.shape[0], hidden=hidden, layers=layers, activation=leaky)
            self.discriminator = MLP(data.shape[0], 1, hidden=hidden, layers=layers, activation=leaky)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        betas = (0.5, 0.9)
        generator, discriminator = self.network.parameters(), self.discriminator.parameters()
        return {
            "generator": torch.optim.Adam(generator, lr=self.lr, betas=betas, fused=True),
            "discriminator": torch.optim.Adam(discriminator, lr=self.lr_discriminator, betas=betas, fused=True),
        }

    def training_step(
        self, batch: Tensor, step: int, optimizers: dict[str, torch.optim.Optimizer]
    ) -> dict[str, Tensor]:
        """One step of the discriminator, then one of the generator."""
        real = batch / self.unit
        penalised = self.r1 > 0 and step % self.r1_interval == 0
        discriminator_loss = self._discriminator_loss(real, penalised)
        _update(optimizers["discriminator"], discriminator_loss)
        self.discriminator.requires_grad_(False)
        generator_loss = softplus(-self.discriminator(self.network(self._latents(real)))).mean()
        _update(optimizers["generator"], generator_loss)
        self.discriminator.requires_grad_(True)
        return {"discriminator": discriminator_loss.detach(), "generator": generator_loss.detach()}

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        latents = torch.randn((count, self.latent), generator=rng, device=rng.device)
        return self.network(latents) * self.unit

    def evaluations(self) -> int | None:
        return 1

    def _discriminator_loss(self, real: Tensor, penalised: bool) -> Tensor:
        with torch.no_grad():
            fake = self.network(self._latents(real))
        real = real.detach().requires_grad_(penalised)
        logits = self.discriminator(real)
        loss = softplus(-logits).mean() + softplus(self.discriminator(fake)).mean()
        if penalised:
            (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
            loss = loss + 0.5 * self.r1 * self.r1_interval * slope.square().flatten(1).sum(dim=1).mean()
        return loss

    def _latents(self, like: Tensor) -> Tensor:
        return torch.randn((len(like), self.latent), device=like.device, dtype=like.dtype)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
