"""Denoising diffusion GAN (Xiao, Kreis & Vahdat, ICLR 2022): each of a few denoising steps is a conditional GAN."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddgan.diffusion import Diffusion
from ddgan.discriminator import SMALL_SIZE, ImageDiscriminator
from ddgan.generator import ImageGenerator
from ddgan.points import PointDiscriminator, PointGenerator
from trilemma_bench.contracts import Count, Counts, DataSpec, Momentum, NonNegative, Positive, Trainable, Whole
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.adversarial import (
    frozen,
    logits_and_r1,
    nonsaturating_discriminator_loss,
    nonsaturating_generator_loss,
    update,
)
from trilemma_bench.nn.labels import draw_labels, label_arguments, label_count

Prediction = Literal["x0", "direct", "noise", "one-shot"]
BLACK = -1.0


class DDGAN(Trainable):
    """DDGAN (Xiao et al. 2022): a conditional GAN for each of a few denoising steps.

    Generator and discriminator see x_{t+1} and t; the generator predicts x_0, and the posterior gives x_t. The defaults
    are the paper's for CIFAR-10.

    steps: T, the denoising steps, and so the network evaluations of a sample. prediction: what the generator gives
    (the paper's table 2): 'x0'; 'direct' for x_t itself; 'noise' for that in x_{t+1}, from which x_0 follows;
    'one-shot' for x_0 from pure noise in one evaluation, judged after a diffusion to x_t, which augments both sides.
    latent_dim: width of z; 0 for none, which makes each denoising distribution unimodal. siddm: if > 0, the
    discriminator does not see x_{t+1}, and the weight of the term that brings x_t back to it (Xu et al. 2023).
    lr_…, beta1, beta2: of Adam. r1_gamma: γ of the R1 penalty γ/2·‖∇‖² on real x_t, applied every r1_interval steps and
    not multiplied by that number, as in the reference. class_conditional: both networks learn from labels, whose
    vectors join the embedding of t; samples get them evenly.

    For images: channels, channel_multipliers, res_blocks, attention_resolutions, style_dim, mapping_layers (generator);
    discriminator: 'small', 'large', or 'auto' by size; discriminator_channels, time_dim; pooling: of its last layer,
    the paper's 'sum' over places, or 'flatten', which small images need. padding: black pixels added on every side.
    For points: hidden, layers (both networks), fourier_features, fourier_scale (cycles per unit of the data).
    """

    training_defaults: ClassVar[Mapping[str, Any]] = {"batch_size": 128, "budget": "51200kimg", "ema_decay": 0.9999}
    network: nn.Module

    def __init__(
        self,
        data: DataSpec,
        *,
        steps: Count = 4,
        prediction: Prediction = "x0",
        latent_dim: Whole = 100,
        siddm: NonNegative = 0.0,
        lr_generator: NonNegative = 1.6e-4,
        lr_discriminator: NonNegative = 1e-4,
        beta1: Momentum = 0.5,
        beta2: Momentum = 0.9,
        r1_gamma: NonNegative = 0.05,
        r1_interval: Count = 15,
        class_conditional: bool = False,
        channels: Count = 128,
        channel_multipliers: Counts = (1, 2, 2, 2),
        res_blocks: Count = 2,
        attention_resolutions: tuple[Count, ...] = (16,),
        style_dim: Count = 256,
        mapping_layers: Whole = 4,
        discriminator: Literal["auto", "small", "large"] = "auto",
        discriminator_channels: Count = 128,
        time_dim: Count = 256,
        pooling: Literal["sum", "flatten"] = "sum",
        padding: Whole = 0,
        hidden: Count = 512,
        layers: Count = 3,
        fourier_features: Whole = 64,
        fourier_scale: Positive = 0.1,
    ) -> None:
        super().__init__(data)
        if siddm and prediction == "one-shot":
            raise UsageError("prediction = 'one-shot' has no x_{t+1} to come back to: set siddm = 0")
        self.steps, self.prediction, self.latent_dim, self.siddm = steps, prediction, latent_dim, siddm
        self.rates, self.betas = (lr_generator, lr_discriminator), (beta1, beta2)
        self.r1_gamma, self.r1_interval = r1_gamma, r1_interval
        self.wants_labels, self.classes = class_conditional, label_count(class_conditional, data.classes)
        self.padding = padding if data.is_image else 0
        self.shape = (data.shape[0], *(size + 2 * self.padding for size in data.shape[1:]))
        self.given = 0 if siddm or prediction == "one-shot" else data.shape[0]
        self.diffusion = Diffusion(steps)
        self.discriminator: nn.Module
        if data.is_image:
            self.network = self._image_generator(
                style_dim=style_dim,
                mapping_layers=mapping_layers,
                channels=channels,
                multipliers=channel_multipliers,
                res_blocks=res_blocks,
                attention_resolutions=attention_resolutions,
            )
            self.discriminator = self._image_discriminator(
                discriminator, pooling, channels=discriminator_channels, time_dim=time_dim
            )
        else:
            self.network, self.discriminator = self._point_networks(
                hidden=hidden, layers=layers, features=fourier_features, scale=fourier_scale
            )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        networks = {"generator": (self.network, self.rates[0]), "discriminator": (self.discriminator, self.rates[1])}
        return {
            name: torch.optim.Adam(net.parameters(), lr=rate, betas=self.betas, fused=True)
            for name, (net, rate) in networks.items()
        }

    def training_step(
        self,
        batch: Tensor,
        step: int,
        optimizers: dict[str, torch.optim.Optimizer],
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One update of the discriminator, then one of the generator, each with its own steps t and noise."""
        batch = F.pad(batch, [self.padding] * 4, value=BLACK) if self.padding else batch
        losses = self._update_discriminator(
            batch, optimizers["discriminator"], self._penalises(step), *label_arguments(labels)
        )
        return losses | self._update_generator(batch, optimizers["generator"], *label_arguments(labels))

    def step_kind(self, step: int) -> Hashable:
        return self._penalises(step)

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Ancestral sampling with T evaluations of the generator (algorithm of §4); 'one-shot' takes one."""

        def noise(*shape: int) -> Tensor:
            return torch.randn(count, *shape, generator=rng, device=rng.device)

        x = noise(*self.shape)
        labels = label_arguments(draw_labels(self.classes, count, rng))
        if self.prediction == "one-shot":
            x = self._at_once(x, noise(self.latent_dim), *labels)
        else:
            for step in reversed(range(self.steps)):
                t = torch.full((count,), step, device=rng.device)
                x = self._denoise(x, noise(self.latent_dim), t, noise(*self.shape), *labels)
        return self._cropped(x)

    def evaluations(self) -> int | None:
        return 1 if self.prediction == "one-shot" else self.steps

    def describe(self) -> str:
        parts = {
            f"T={self.steps}": True,
            self.prediction: self.prediction != "x0",
            "no z": not self.latent_dim,
            f"SIDDM {self.siddm:g}": self.siddm > 0,
            "class-conditional": self.wants_labels,
        }
        return ", ".join(part for part, holds in parts.items() if holds)

    def _image_generator(self, **sizes: Any) -> ImageGenerator:
        bounded = self.prediction in ("x0", "one-shot")
        return ImageGenerator(self.shape, self.latent_dim, bounded=bounded, classes=self.classes, **sizes)

    def _image_discriminator(self, kind: str, pooling: str, **sizes: int) -> ImageDiscriminator:
        channels, size = self.shape[0] + self.given, self.shape[-1]
        large, flatten = kind == "large" or (kind == "auto" and size > SMALL_SIZE), pooling == "flatten"
        return ImageDiscriminator(channels, size, large=large, flatten=flatten, classes=self.classes, **sizes)

    def _point_networks(self, **sizes: float) -> tuple[PointGenerator, PointDiscriminator]:
        dim, classes = self.shape[0], self.classes
        generator = PointGenerator(dim, self.latent_dim, self.steps, classes=classes, **sizes)
        return generator, PointDiscriminator(dim, self.given, self.steps, classes=classes, **sizes)

    def _penalises(self, step: int) -> bool:
        return self.r1_gamma > 0 and step % self.r1_interval == 0

    def _update_discriminator(
        self, batch: Tensor, optimizer: torch.optim.Optimizer, penalise: bool, *labels: Tensor
    ) -> dict[str, Tensor]:
        """labels: int64 N, or nothing; likewise below."""
        t, x_t, x_next = self._pair(batch)
        with torch.no_grad():
            fake = self._fake(x_next, t, *labels)
        if penalise:
            real_logits, penalty = logits_and_r1(lambda real: self._judge(real, x_next, t, *labels), x_t)
        else:
            real_logits, penalty = self._judge(x_t, x_next, t, *labels), x_t.new_zeros(())
        loss = nonsaturating_discriminator_loss(real_logits, self._judge(fake, x_next, t, *labels))
        update(optimizer, loss + self.r1_gamma / 2 * penalty)
        return {"loss_d": loss.detach()}

    def _update_generator(self, batch: Tensor, optimizer: torch.optim.Optimizer, *labels: Tensor) -> dict[str, Tensor]:
        t, _, x_next = self._pair(batch)
        with frozen(self.discriminator):
            fake = self._fake(x_next, t, *labels)
            losses = {"loss_g": nonsaturating_generator_loss(self._judge(fake, x_next, t, *labels))}
            if self.siddm:
                losses["loss_forward"] = self.siddm * F.mse_loss(self.diffusion.forward_mean(fake, t), x_next)
            update(optimizer, torch.stack([*losses.values()]).sum())
        return {name: loss.detach() for name, loss in losses.items()}

    def _pair(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = torch.randint(self.steps, (len(batch),), device=batch.device)
        return t, *self.diffusion.pair(batch, t)

    def _judge(self, x_t: Tensor, x_next: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        return self.discriminator(x_t, x_next[:, : self.given], t, *labels)

    def _fake(self, x_next: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        """x_t of the model, given x_{t+1} (N×…)."""
        z = torch.randn(len(x_next), self.latent_dim, device=x_next.device)
        noise = torch.randn_like(x_next)
        if self.prediction == "one-shot":
            return self.diffusion.diffuse(self._at_once(torch.randn_like(x_next), z, *labels), t, noise)
        return self._denoise(x_next, z, t, noise, *labels)

    def _denoise(self, x_next: Tensor, z: Tensor, t: Tensor, noise: Tensor, *labels: Tensor) -> Tensor:
        """x_t of the model from x_{t+1} and z; `noise` ~ N(0, I) is that of the posterior."""
        output = self.network(x_next, z, t, *labels).float()
        if self.prediction == "direct":
            return output
        x0 = self.diffusion.clean(x_next, output, t) if self.prediction == "noise" else output
        return self.diffusion.posterior_sample(x0, x_next, t, noise)

    def _at_once(self, noise: Tensor, z: Tensor, *labels: Tensor) -> Tensor:
        """x_0 from pure noise."""
        t = torch.full((len(noise),), self.steps - 1, device=noise.device)
        return self.network(noise, z, t, *labels).float()

    def _cropped(self, x: Tensor) -> Tensor:
        return x[..., self.padding : -self.padding, self.padding : -self.padding] if self.padding else x


class SIDDM(DDGAN):
    """SIDDM (Xu et al. 2023): DDGAN whose discriminator judges x_t alone, with x_{t+1} matched by a forward step.

    siddm: weight of that term, E‖√(1−β_{t+1}) x_t − x_{t+1}‖² as a mean over coordinates: the cross-entropy between
    forward steps without its factor 1/(2β_{t+1}). The paper's entropy term, a network that only regularises, is left
    out. Others: as DDGAN's.
    """

    def __init__(self, data: DataSpec, *, siddm: Positive = 1.0, **settings: Any) -> None:
        super().__init__(data, siddm=siddm, **settings)
