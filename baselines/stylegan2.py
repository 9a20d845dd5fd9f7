"""StyleGAN2 in its CIFAR configuration (Karras et al. 2020a and b), with DiffAugment or ADA."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from baselines.augment import ada_augment, diff_augment
from baselines.stylegan2_networks import Discriminator, Generator, LabelMapping, MappingNetwork, Synthesis
from trilemma_bench.contracts import Count, DataSpec, NonNegative, Positive, Real, Share, Trainable, Whole
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.adversarial import (
    frozen,
    nonsaturating_discriminator_loss,
    nonsaturating_generator_loss,
    r1_penalty,
    update,
)
from trilemma_bench.nn.labels import ProjectionDiscriminator, draw_labels, label_arguments, label_count
from trilemma_bench.nn.mlp import MLP

ADA_INTERVAL = 4  # steps between two changes of p
GENERATOR_SLOW = 4 / 5  # of its Adam: for a step of path lengths after every fourth, which the configuration leaves out


class StyleGAN2(Trainable):
    """StyleGAN2 (Karras et al. 2020a and b) as for CIFAR-10: no path-length term, no style mixing, one step.

    latent_dim, style_dim: widths of z and w; mapping_layers: between them. channels: feature maps at most,
    channel_base: times 1/size otherwise. hidden, layers: of points' perceptrons. lr: of both, for Adam with betas (0,
    0.99), slowed for steps of lazy penalties as in their program. r1_gamma: of the R1 penalty (weight γ/2), a step of
    its own after every r1_interval steps of the discriminator, and that many times stronger. augment: 'none',
    'diffaugment' (Zhao et al. 2020) or 'ada' (Karras et al. 2020b), whose strength follows the share of real images
    that get a positive logit: towards ada_target, by 1 in ada_kimg at the fastest. class_conditional: learns
    from labels, which samples get evenly: their vectors join z, and the discriminator projects on them (Karras et al.
    2020b). label_layers: between a label and what is projected on, 0 as in the paper and its program, 8 as in the
    authors' later one for PyTorch. truncation: ψ, 1 for none.
    """

    training_defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 64,
        "budget": "100000kimg",
        "ema_decay": 0.9999,
        "lr_schedule": "constant",
    }
    sampling_settings: ClassVar[frozenset[str]] = frozenset({"truncation"})
    network: Generator
    augment_p: Tensor
    sign_sum: Tensor

    def __init__(
        self,
        data: DataSpec,
        *,
        latent_dim: Count = 512,
        style_dim: Count = 512,
        mapping_layers: Count = 2,
        channels: Count = 512,
        channel_base: Count = 32768,
        hidden: Count = 256,
        layers: Count = 3,
        lr: NonNegative = 2.5e-3,
        r1_gamma: NonNegative = 0.01,
        r1_interval: Count = 16,
        augment: Literal["none", "diffaugment", "ada"] = "none",
        ada_target: Share = 0.6,
        ada_kimg: Positive = 500.0,
        class_conditional: bool = False,
        label_layers: Whole = 0,
        truncation: Real = 1.0,
    ) -> None:
        super().__init__(data)
        self.augment = augment
        if augment != "none" and not data.is_image:
            raise UsageError(f"augment = '{augment}' is for images: choose none")
        self.latent_dim, self.lr, self.r1_gamma, self.r1_interval = latent_dim, lr, r1_gamma, r1_interval
        self.ada_target, self.ada_kimg, self.truncation = ada_target, ada_kimg, truncation
        self.unit = 1.0 if data.is_image else data.scale
        self.wants_labels, self.classes = class_conditional, label_count(class_conditional, data.classes)
        mapping = MappingNetwork(latent_dim, style_dim, mapping_layers, truncation, self.classes)
        outputs = style_dim if self.classes else 1
        discriminator: nn.Module
        if data.is_image:
            self.network = Generator(mapping, Synthesis(data.shape, style_dim, channels, channel_base))
            discriminator = Discriminator(data.shape, channels, channel_base, outputs)
        else:
            leaky, dim = nn.LeakyReLU(0.2), data.shape[0]
            self.network = Generator(mapping, MLP(style_dim, dim, hidden=hidden, layers=layers, activation=leaky))
            discriminator = MLP(dim, outputs, hidden=hidden, layers=layers, activation=leaky)
        if self.classes:
            labels = LabelMapping(self.classes, outputs, label_layers)
            discriminator = ProjectionDiscriminator(discriminator, labels)
        self.discriminator = discriminator
        self.register_buffer("augment_p", torch.zeros(()))
        self.register_buffer("sign_sum", torch.zeros(()))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        slow = self.r1_interval / (self.r1_interval + 1) if self.r1_gamma else 1.0  # Karras et al. 2020a, app. B
        return {
            "generator": _adam(self.network, self.lr, GENERATOR_SLOW),
            "discriminator": _adam(self.discriminator, self.lr, slow),
        }

    def training_step(
        self,
        batch: Tensor,
        step: int,
        optimizers: dict[str, torch.optim.Optimizer],
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One step of the generator, then one of the discriminator, with R1 when it is due.

        ADA adapts when a step begins: what the last ones saw of reals is that of all processes by then.
        """
        if self._adapts(step):
            self._adapt(len(batch) * self.processes)
        real = batch / self.unit
        with frozen(self.discriminator):
            fake = self._augmented(self._fake(real, *label_arguments(labels)))
            generator_loss = nonsaturating_generator_loss(self.discriminator(fake, *label_arguments(labels)))
            update(optimizers["generator"], generator_loss)
        loss = self._discriminator_loss(real, *label_arguments(labels))
        update(optimizers["discriminator"], loss)
        if self._penalises(step):
            update(optimizers["discriminator"], self._penalty(real, *label_arguments(labels)))
        losses = {"generator": generator_loss.detach(), "discriminator": loss.detach()}
        return losses | ({"augment_p": self.augment_p.clone()} if self.augment == "ada" else {})

    def step_kind(self, step: int) -> Hashable:
        return self._penalises(step), self._adapts(step)

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        z = torch.randn((count, self.latent_dim), generator=rng, device=rng.device)
        noise = torch.randn((count, self.network.noise_dim), generator=rng, device=rng.device)
        labels = label_arguments(draw_labels(self.classes, count, rng))
        samples = self.network(z, noise, *labels)
        return samples.clamp(-1, 1) if self.data.is_image else samples * self.unit

    def evaluations(self) -> int | None:
        return 1

    def describe(self) -> str:
        parts = {
            self.augment: self.augment != "none",
            "class-conditional": self.wants_labels,
            f"ψ={self.truncation:g}": self.truncation != 1,
        }
        return ", ".join(part for part, holds in parts.items() if holds)

    def _discriminator_loss(self, real: Tensor, *labels: Tensor) -> Tensor:
        """labels: int64 N, or nothing."""
        with torch.no_grad():
            fake = self._augmented(self._fake(real, *labels))
        logits = self.discriminator(self._augmented(real), *labels)
        self.sign_sum += logits.detach().sign().mean()
        return nonsaturating_discriminator_loss(logits, self.discriminator(fake, *labels))

    def _penalty(self, real: Tensor, *labels: Tensor) -> Tensor:
        """R1 at the images, through an augmentation of their own."""
        penalty = r1_penalty(lambda images: self.discriminator(self._augmented(images), *labels), real)
        return 0.5 * self.r1_gamma * self.r1_interval * penalty

    def _adapts(self, step: int) -> bool:
        return self.augment == "ada" and step > 0 and step % ADA_INTERVAL == 0

    def _penalises(self, step: int) -> bool:
        return self.r1_gamma > 0 and step % self.r1_interval == 0

    def _fake(self, like: Tensor, *labels: Tensor) -> Tensor:
        z = torch.randn(len(like), self.latent_dim, device=like.device)
        return self.network(z, torch.randn(len(like), self.network.noise_dim, device=like.device), *labels)

    def _augmented(self, samples: Tensor) -> Tensor:
        if self.augment == "none":
            return samples
        return diff_augment(samples) if self.augment == "diffaugment" else ada_augment(samples, self.augment_p)

    @torch.no_grad()
    def _adapt(self, batch: int) -> None:
        """Moves p by the sign of E[sign D(real)] − target (Karras et al. 2020b, §3). batch: of all processes."""
        change = torch.sign(self.sign_sum / ADA_INTERVAL - self.ada_target)
        self.augment_p.add_(change * batch * ADA_INTERVAL / (1000 * self.ada_kimg)).clamp_(min=0)
        self.sign_sum.zero_()


def _adam(network: nn.Module, lr: float, slow: float) -> torch.optim.Adam:
    """Adam that takes 1/slow times as many steps as with lr and betas (0, 0.99) (Karras et al. 2020a, App. B)."""
    return torch.optim.Adam(network.parameters(), lr=lr * slow, betas=(0.0, 0.99**slow), fused=True)
