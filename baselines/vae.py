"""Variational autoencoders (Kingma & Welling 2014) with a Gaussian likelihood of one learned variance."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trilemma_bench.contracts import DataSpec, Trainable
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.conv import ConvDecoder, ConvEncoder, pyramid_sizes
from trilemma_bench.nn.ladder import Ladder, LadderEncoder
from trilemma_bench.nn.mlp import MLP


class VAE(Trainable):
    """A variational autoencoder (Kingma & Welling 2014): fast, covering, blurry.

    Encoder and decoder are perceptrons for points (hidden, layers), convolutional for images (channels), with one
    vector of `latent` numbers between them. With rungs ≥ 1 the latents of images are a ladder instead (Sønderby et al.
    2016; Child 2021): at each size of the maps so many groups, from coarse to fine, with `latent` numbers a place.

    The likelihood is N(decoder(z), σ²), with one σ for all coordinates that is learned (Rybkin et al. 2021), or kept
    at noise_std where learn_noise is false. beta: the weight of the KL term. A sample is the decoder's mean for
    images, as is usual, and the mean with its noise for points.
    """

    training_defaults: ClassVar[Mapping[str, Any]] = {"batch_size": 128, "budget": "5000kimg", "ema_decay": 0.999}

    def __init__(
        self,
        data: DataSpec,
        *,
        latent: int = 32,
        hidden: int = 256,
        layers: int = 3,
        channels: int = 64,
        rungs: int = 0,
        lr: float = 1e-3,
        beta: float = 1.0,
        noise_std: float = 0.3,
        learn_noise: bool = True,
    ) -> None:
        super().__init__(data)
        if rungs < 0 or (rungs and not data.is_image):
            raise UsageError(f"rungs = {rungs}: choose 0, or for images 1 and more")
        self.rungs, self.latents, self.lr, self.beta = rungs, latent, lr, beta
        self.unit = 1.0 if data.is_image else data.scale
        decoder: nn.Module
        if rungs:
            sizes = pyramid_sizes(data.shape[-1])[::-1]
            self.encoder: nn.Module = LadderEncoder(data.shape[0], sizes, channels)
            ladder = Ladder(data.shape[0], sizes, rungs, channels, latent)
            decoder, self.latents = ladder, ladder.latents
        elif data.is_image:
            self.encoder = ConvEncoder(data.shape, 2 * latent, channels)
            decoder = nn.Sequential(ConvDecoder(latent, data.shape, channels), nn.Tanh())
        else:
            self.encoder = MLP(data.shape[0], 2 * latent, hidden=hidden, layers=layers)
            decoder = MLP(latent, data.shape[0], hidden=hidden, layers=layers)
        self.network: Likelihood = Likelihood(decoder, noise_std, learn_noise)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return {"network": torch.optim.Adam(learned, lr=self.lr, fused=True)}

    def training_step(
        self, batch: Tensor, step: int, optimizers: dict[str, torch.optim.Optimizer]
    ) -> dict[str, Tensor]:
        """One step on the negative evidence lower bound, in nats per coordinate (up to a constant)."""
        x = batch / self.unit
        image, nats = self.reconstructed(x, torch.randn(len(x), self.latents, device=x.device))
        reconstruction, divergence = self.network.negative_log_likelihood(x, image), nats.mean() / x[0].numel()
        loss = reconstruction + self.beta * divergence
        optimizers["network"].zero_grad(set_to_none=True)
        loss.backward()
        optimizers["network"].step()
        return {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "kl": divergence.detach()}

    def reconstructed(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of p(x | z) for z from the posterior of each x, made of `noise` N×latents; KL(q ‖ p) of each, N."""
        seen = self.encoder(x)
        if self.rungs:
            image, nats = self.network(noise, seen)
            return image, nats
        mean, log_std = seen.chunk(2, dim=1)
        return self.network(mean + log_std.exp() * noise), gaussian_kl(mean, log_std)

    def step_kind(self, step: int) -> Hashable:
        return "all"

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        latents = torch.randn((count, self.latents), generator=rng, device=rng.device)
        mean = self.network(latents)
        if self.data.is_image:
            return mean
        noise = torch.randn(mean.shape, generator=rng, device=rng.device)
        return (mean + self.network.log_std.exp() * noise) * self.unit

    def evaluations(self) -> int | None:
        return 1


class Likelihood(nn.Module):
    """p(x | z) = N(decoder(z), σ²): the decoder with its σ beside it. Called, it returns the mean, of what the decoder
    takes.
    """

    def __init__(self, decoder: nn.Module, noise_std: float, learned: bool) -> None:
        super().__init__()
        self.decoder = decoder
        self.log_std = nn.Parameter(torch.tensor(noise_std).log(), requires_grad=learned)

    def forward(self, *inputs: Any) -> Any:
        return self.decoder(*inputs)

    def negative_log_likelihood(self, x: Tensor, mean: Tensor) -> Tensor:
        """−log p(x | z) per coordinate, without the constant ½ log 2π: a scalar."""
        scaled = (x - mean) * torch.exp(-self.log_std)
        return 0.5 * scaled.square().mean() + self.log_std


def gaussian_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std²) ‖ N(0, 1)) of N×latent, summed over the latents: shape N (Kingma & Welling 2014, App. B)."""
    return (0.5 * (mean.square() + torch.exp(2 * log_std) - 1) - log_std).sum(dim=1)
