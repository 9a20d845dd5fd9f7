"""A plain GAN, with the losses that its descendants changed: non-saturating, WGAN-GP, relativistic."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from trilemma_bench.contracts import Count, DataSpec, Momentum, NonNegative, Trainable
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
from trilemma_bench.nn.labels import LabelEmbedding, ProjectionDiscriminator, draw_labels, label_arguments, label_count
from trilemma_bench.nn.mlp import MLP

DISCRIMINATOR_LOSSES = {
    "non-saturating": nonsaturating_discriminator_loss,
    "wgan-gp": wasserstein_critic_loss,
    "relativistic": relativistic_discriminator_loss,
}


class Usual(NamedTuple):
    """What a loss's paper trains with, where a setting is not given."""

    r1_interval: int
    critic_steps: int
    beta1: float


USUAL = {"non-saturating": Usual(16, 1, 0.5), "wgan-gp": Usual(16, 5, 0.0), "relativistic": Usual(1, 1, 0.0)}


class GAN(Trainable):
    """A GAN: one step from noise to data, with a generator and a discriminator that compete.

    Generator and discriminator are perceptrons for points (hidden, layers), convolutional for images (channels).

    loss: 'non-saturating' (Goodfellow et al. 2014) with the R1 penalty (Mescheder et al. 2018), 'wgan-gp' (Gulrajani et
    al. 2017), or 'relativistic' with R1 and R2, as R3GAN (Huang et al. 2024). latent_dim: width of z. r1_gamma: γ of
    the penalties γ/2·‖∇‖², applied every r1_interval steps and then that many times stronger (Karras et al. 2020); gp:
    weight of WGAN-GP's penalty. critic_steps: of the discriminator for each of the generator. lr_…: learning rates of
    Adam, whose betas are (beta1, beta2). Where they are not given, r1_interval, critic_steps and beta1 are those of the
    loss's paper: 16, 1 and 0.5; WGAN-GP's 5 critic steps without momentum; R3GAN's penalties in every step without
    momentum. class_conditional: learns from labels, which samples get evenly: a vector as wide as z stands beside it,
    and the discriminator projects on another.
    """

    training_defaults: ClassVar[Mapping[str, Any]] = {"batch_size": 64, "budget": "10000kimg", "ema_decay": 0.999}

    def __init__(
        self,
        data: DataSpec,
        *,
        loss: Literal["non-saturating", "wgan-gp", "relativistic"] = "non-saturating",
        latent_dim: Count = 64,
        hidden: Count = 256,
        layers: Count = 3,
        channels: Count = 64,
        lr_generator: NonNegative = 2e-4,
        lr_discriminator: NonNegative = 2e-4,
        r1_gamma: NonNegative = 0.1,
        r1_interval: Count | None = None,
        gp: NonNegative = 10.0,
        critic_steps: Count | None = None,
        beta1: Momentum | None = None,
        beta2: Momentum = 0.9,
        class_conditional: bool = False,
    ) -> None:
        super().__init__(data)
        self.loss = loss
        usual = USUAL[loss]
        r1_interval = usual.r1_interval if r1_interval is None else r1_interval
        critic_steps = usual.critic_steps if critic_steps is None else critic_steps
        beta1 = usual.beta1 if beta1 is None else beta1
        self.gp, self.critic_steps = gp, critic_steps
        self.latent_dim, self.r1_gamma, self.r1_interval = latent_dim, r1_gamma, r1_interval
        self.lr_generator, self.lr_discriminator, self.betas = lr_generator, lr_discriminator, (beta1, beta2)
        self.unit = 1.0 if data.is_image else data.scale
        self.wants_labels, self.classes = class_conditional, label_count(class_conditional, data.classes)
        inputs, outputs = (2 * latent_dim, latent_dim) if self.classes else (latent_dim, 1)
        network: nn.Module
        discriminator: nn.Module
        if data.is_image:
            network = nn.Sequential(ConvDecoder(inputs, data.shape, channels), nn.Tanh())
            discriminator = ConvEncoder(data.shape, outputs, channels, compares_samples=True)
        else:
            leaky = nn.LeakyReLU(0.2)
            network = MLP(inputs, data.shape[0], hidden=hidden, layers=layers, activation=leaky)
            discriminator = MLP(data.shape[0], outputs, hidden=hidden, layers=layers, activation=leaky)
        self.network = LabelledGenerator(network, latent_dim, self.classes) if self.classes else network
        if self.classes:
            discriminator = ProjectionDiscriminator(discriminator, LabelEmbedding(self.classes, latent_dim))
        self.discriminator = discriminator

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        generator, discriminator = self.network.parameters(), self.discriminator.parameters()
        return {
            "generator": torch.optim.Adam(generator, lr=self.lr_generator, betas=self.betas, fused=True),
            "discriminator": torch.optim.Adam(discriminator, lr=self.lr_discriminator, betas=self.betas, fused=True),
        }

    def training_step(
        self,
        batch: Tensor,
        step: int,
        optimizers: dict[str, torch.optim.Optimizer],
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One step of the discriminator, then, every critic_steps steps, one of the generator."""
        real = batch / self.unit
        loss, penalty = self._discriminator_losses(real, step, *label_arguments(labels))
        update(optimizers["discriminator"], loss + penalty)
        if not self._moves_generator(step):
            return {"discriminator": loss.detach()}
        with frozen(self.discriminator):
            generator_loss = self._generator_loss(real, *label_arguments(labels))
            update(optimizers["generator"], generator_loss)
        return {"discriminator": loss.detach(), "generator": generator_loss.detach()}

    def step_kind(self, step: int) -> Hashable:
        return self._penalises(step), self._moves_generator(step)

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        latents = torch.randn((count, self.latent_dim), generator=rng, device=rng.device)
        labels = label_arguments(draw_labels(self.classes, count, rng))
        return self.network(latents, *labels) * self.unit

    def evaluations(self) -> int | None:
        return 1

    def describe(self) -> str:
        parts = {self.loss: self.loss != "non-saturating", "class-conditional": self.wants_labels}
        return ", ".join(part for part, holds in parts.items() if holds)

    def _discriminator_losses(self, real: Tensor, step: int, *labels: Tensor) -> tuple[Tensor, Tensor]:
        """(the loss, the penalty on gradients: 0 when it is not due); labels: int64 N, or nothing."""

        def judge(samples: Tensor) -> Tensor:
            return self.discriminator(samples, *labels)

        with torch.no_grad():
            fake = self.network(self._latents(real), *labels)
        loss = DISCRIMINATOR_LOSSES[self.loss](judge(real), judge(fake))
        if self.loss == "wgan-gp":
            return loss, self.gp * wgan_penalty(judge, real, fake)
        if not self._penalises(step):
            return loss, torch.zeros_like(loss)
        penalty = r1_penalty(judge, real)
        if self.loss == "relativistic":
            penalty = penalty + r1_penalty(judge, fake)
        return loss, 0.5 * self.r1_gamma * self.r1_interval * penalty

    def _penalises(self, step: int) -> bool:
        return self.loss != "wgan-gp" and self.r1_gamma > 0 and step % self.r1_interval == 0

    def _moves_generator(self, step: int) -> bool:
        return (step + 1) % self.critic_steps == 0

    def _generator_loss(self, real: Tensor, *labels: Tensor) -> Tensor:
        fake = self.discriminator(self.network(self._latents(real), *labels), *labels)
        if self.loss == "relativistic":
            return relativistic_generator_loss(self.discriminator(real, *labels), fake)
        return wasserstein_generator_loss(fake) if self.loss == "wgan-gp" else nonsaturating_generator_loss(fake)

    def _latents(self, like: Tensor) -> Tensor:
        return torch.randn((len(like), self.latent_dim), device=like.device, dtype=like.dtype)


class LabelledGenerator(nn.Module):
    """z (N×latent_dim) and labels (int64 N) → samples of `network`, which takes z beside the label's vector."""

    def __init__(self, network: nn.Module, latent_dim: int, classes: int) -> None:
        super().__init__()
        self.network, self.labels = network, LabelEmbedding(classes, latent_dim)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.network(torch.cat([z, self.labels(labels)], dim=1))
