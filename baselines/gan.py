"""A plain GAN, with the losses that its descendants changed: non-saturating, WGAN-GP, relativistic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.denoiser import one_of
from trilemma_bench.contracts import DataSpec, Trainable
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.adversarial import (
    frozen,
    nonsaturating_discriminator_loss,
    nonsaturating_generator_loss,
    r1_penalty,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
    update,
    wasserstein_critic_loss,
    wasserstein_generator_loss,
    wgan_penalty,
)
from trilemma_bench.nn.conv import ConvDecoder, ConvEncoder
from trilemma_bench.nn.mlp import MLP

DISCRIMINATOR_LOSSES = {
    "non-saturating": nonsaturating_discriminator_loss,
    "wgan-gp": wasserstein_critic_loss,
    "relativistic": relativistic_discriminator_loss,
}


class GAN(Trainable):
    """A GAN: one step from noise to data, with a generator and a discriminator that compete.

    Generator and discriminator are perceptrons for points (hidden, layers), convolutional for images (channels).

    loss: 'non-saturating' (Goodfellow et al. 2014) with the R1 penalty (Mescheder et al. 2018), 'wgan-gp' (Gulrajani et
    al. 2017), or 'relativistic' with R1 and R2, as R3GAN (Huang et al. 2024). latent: width of z. r1: the penalties'
    weight γ (half of it multiplies each), applied every r1_interval steps and then that many times stronger (Karras et
    al. 2020); gp: of WGAN-GP's penalty. critic_steps: of the discriminator for each of the generator; WGAN-GP's are 5.
    lr, lr_discriminator: learning rates of Adam, whose betas are (0.5, 0.9).
    """

    training_defaults: ClassVar[Mapping[str, Any]] = {"batch_size": 64, "budget": "10000kimg", "ema_decay": 0.999}

    def __init__(
        self,
        data: DataSpec,
        *,
        loss: str = "non-saturating",
        latent: int = 64,
        hidden: int = 256,
        layers: int = 3,
        channels: int = 64,
        lr: float = 2e-4,
        lr_discriminator: float = 2e-4,
        r1: float = 0.1,
        r1_interval: int = 16,
        gp: float = 10.0,
        critic_steps: int = 1,
    ) -> None:
        super().__init__(data)
        self.loss = one_of("loss", loss, *DISCRIMINATOR_LOSSES)
        if critic_steps < 1 or r1_interval < 1:
            raise UsageError(f"critic_steps = {critic_steps}, r1_interval = {r1_interval}: choose at least 1")
        self.gp, self.critic_steps = gp, critic_steps
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
        """One step of the discriminator, then, every critic_steps steps, one of the generator."""
        real = batch / self.unit
        loss, penalty = self._discriminator_losses(real, step)
        update(optimizers["discriminator"], loss + penalty)
        if (step + 1) % self.critic_steps:
            return {"discriminator": loss.detach()}
        with frozen(self.discriminator):
            generator_loss = self._generator_loss(real)
            update(optimizers["generator"], generator_loss)
        return {"discriminator": loss.detach(), "generator": generator_loss.detach()}

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        latents = torch.randn((count, self.latent), generator=rng, device=rng.device)
        return self.network(latents) * self.unit

    def evaluations(self) -> int | None:
        return 1

    def describe(self) -> str:
        return "" if self.loss == "non-saturating" else self.loss

    def _discriminator_losses(self, real: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """(the loss, the penalty on gradients: 0 when it is not due)."""
        with torch.no_grad():
            fake = self.network(self._latents(real))
        loss = DISCRIMINATOR_LOSSES[self.loss](self.discriminator(real), self.discriminator(fake))
        if self.loss == "wgan-gp":
            return loss, self.gp * wgan_penalty(self.discriminator, real, fake)
        if not self.r1 or step % self.r1_interval:
            return loss, torch.zeros_like(loss)
        penalty = r1_penalty(self.discriminator, real)
        if self.loss == "relativistic":
            penalty = penalty + r1_penalty(self.discriminator, fake)
        return loss, 0.5 * self.r1 * self.r1_interval * penalty

    def _generator_loss(self, real: Tensor) -> Tensor:
        fake = self.discriminator(self.network(self._latents(real)))
        if self.loss == "relativistic":
            return relativistic_generator_loss(self.discriminator(real), fake)
        return wasserstein_generator_loss(fake) if self.loss == "wgan-gp" else nonsaturating_generator_loss(fake)

    def _latents(self, like: Tensor) -> Tensor:
        return torch.randn((len(like), self.latent), device=like.device, dtype=like.dtype)
