"""Denoising diffusion GAN (Xiao, Kreis & Vahdat, ICLR 2022): each of a few denoising steps is a conditional GAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddgan.diffusion import Diffusion
from ddgan.discriminator import ImageDiscriminator
from ddgan.generator import ImageGenerator
from ddgan.points import PointDiscriminator, PointGenerator
from trilemma_bench.contracts import DataSpec, Trainable


class DDGAN(Trainable):
    """DDGAN (Xiao et al. 2022): a conditional GAN for each of a few denoising steps.

    Generator and discriminator see x_{t+1} and t; the generator predicts x_0, and the posterior gives x_t.

    steps: T, the denoising steps, and so the network evaluations of a sample. latent_dim: width of z; 0 for none, which
    makes each denoising distribution unimodal (the paper's ablation). lr_…, beta1, beta2: of Adam. r1_gamma: weight of
    the R1 penalty on real x_t, applied every `r1_every` steps and not multiplied by that number, as in the reference.

    For images: channels, multipliers, blocks, style_dim, mapping_layers (generator); discriminator_channels, time_dim.
    For points: hidden, layers (both networks), fourier_features, fourier_scale (cycles per unit of the data).
    """

    training_defaults: ClassVar[Mapping[str, Any]] = {"batch_size": 128, "budget": "51200kimg", "ema_decay": 0.9999}
    network: nn.Module

    def __init__(
        self,
        data: DataSpec,
        *,
        steps: int = 4,
        latent_dim: int = 100,
        lr_generator: float = 1.6e-4,
        lr_discriminator: float = 1.25e-4,
        beta1: float = 0.5,
        beta2: float = 0.9,
        r1_gamma: float = 0.05,
        r1_every: int = 15,
        channels: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        blocks: int = 2,
        style_dim: int = 256,
        mapping_layers: int = 3,
        discriminator_channels: int = 64,
        time_dim: int = 128,
        hidden: int = 512,
        layers: int = 3,
        fourier_features: int = 64,
        fourier_scale: float = 0.1,
    ) -> None:
        super().__init__(data)
        self.steps, self.latent_dim = steps, latent_dim
        self.rates, self.betas = (lr_generator, lr_discriminator), (beta1, beta2)
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        self.diffusion = Diffusion(steps)
        self.discriminator: nn.Module
        if data.is_image:
            generator = {"channels": channels, "multipliers": multipliers, "blocks": blocks}
            style = {"style_dim": style_dim, "mapping_layers": mapping_layers}
            self.network = ImageGenerator(data.shape, latent_dim, **generator, **style)  # type: ignore[arg-type]
            self.discriminator = ImageDiscriminator(data.shape, channels=discriminator_channels, time_dim=time_dim)
        else:
            size = {"hidden": hidden, "layers": layers, "features": fourier_features, "scale": fourier_scale}
            self.network = PointGenerator(data.shape[0], latent_dim, steps, **size)
            self.discriminator = PointDiscriminator(data.shape[0], steps, **size)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        networks = {"generator": (self.network, self.rates[0]), "discriminator": (self.discriminator, self.rates[1])}
        return {
            name: torch.optim.Adam(net.parameters(), lr=rate, betas=self.betas, fused=True)
            for name, (net, rate) in networks.items()
        }

    def training_step(
        self, batch: Tensor, step: int, optimizers: dict[str, torch.optim.Optimizer]
    ) -> dict[str, Tensor]:
        """One update of the discriminator, then one of the generator, each with its own steps t and noise."""
        losses = self._update_discriminator(batch, optimizers["discriminator"], penalise=step % self.r1_every == 0)
        losses["loss_g"] = self._update_generator(batch, optimizers["generator"])
        return losses

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Ancestral sampling with T evaluations of the generator (algorithm of §4)."""

        def noise(*shape: int) -> Tensor:
            return torch.randn(count, *shape, generator=rng, device=rng.device)

        x = noise(*self.data.shape)
        for step in reversed(range(self.steps)):
            t = torch.full((count,), step, device=rng.device)
            x0 = self.network(x, noise(self.latent_dim), t)
            x = self.diffusion.posterior_sample(x0, x, t, noise(*self.data.shape))
        return x

    def evaluations(self) -> int | None:
        return self.steps

    def describe(self) -> str:
        without_z = "" if self.latent_dim else ", no z"
        return f"T={self.steps}{without_z}"

    def _update_discriminator(
        self, batch: Tensor, optimizer: torch.optim.Optimizer, penalise: bool
    ) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(True)
        t, x_t, x_next = self._pair(batch)
        with torch.no_grad():
            fake = self._fake(x_next, t)
        real_logits = self.discriminator(x_t.requires_grad_(penalise), x_next, t)
        fake_logits = self.discriminator(fake, x_next, t)
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        total = loss + self.r1_gamma / 2 * gradient_penalty(real_logits, x_t) if penalise else loss
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        return {"loss_d": loss.detach()}

    def _update_generator(self, batch: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        self.discriminator.requires_grad_(False)
        t, _, x_next = self._pair(batch)
        loss = F.softplus(-self.discriminator(self._fake(x_next, t), x_next, t)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def _pair(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = torch.randint(self.steps, (len(batch),), device=batch.device)
        return t, *self.diffusion.pair(batch, t)

    def _fake(self, x_next: Tensor, t: Tensor) -> Tensor:
        """x_t of the model, given x_{t+1} (N×…)."""
        z = torch.randn(len(x_next), self.latent_dim, device=x_next.device)
        x0 = self.network(x_next, z, t)
        return self.diffusion.posterior_sample(x0, x_next, t, torch.randn_like(x0))


def gradient_penalty(logits: Tensor, inputs: Tensor) -> Tensor:
    """R1: the mean squared norm of the gradient of `logits` (N) with respect to `inputs` (N×…) (Mescheder 2018)."""
    (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()
