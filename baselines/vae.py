"""A variational autoencoder (Kingma & Welling 2014): a learned prior, a Gaussian likelihood of one learned variance."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trilemma_bench.contracts import Count, DataSpec, NonNegative, Positive, Trainable, Whole
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.conv import ConvDecoder, ConvEncoder
from trilemma_bench.nn.coupling import CouplingFlow
from trilemma_bench.nn.mlp import MLP


class VAE(Trainable):
    """A variational autoencoder (Kingma & Welling 2014): fast, covering, blurry.

    Encoder and decoder are perceptrons for points (hidden, layers), convolutional for images (channels).

    The prior of the latents is learned, too: noise that coupling layers (couplings, prior_hidden) bring to where the
    encoder has the data (Dinh et al. 2017; as a prior, Chen et al. 2017, arXiv:1611.02731). A plain Gaussian, which
    couplings = 0 leaves, is in large part where no data are, and the decoder draws there what it never learned.

    The likelihood is N(decoder(z), σ²), with one σ for all coordinates that is learned (Rybkin et al. 2021), or kept
    at noise_std where learn_noise is false. beta: the weight of the KL term. A sample is the decoder's mean for
    images, as is usual, and the mean with its noise for points.
    """

    training_defaults: ClassVar[Mapping[str, Any]] = {"batch_size": 128, "budget": "5000kimg", "ema_decay": 0.999}

    def __init__(
        self,
        data: DataSpec,
        *,
        latent_dim: Count = 32,
        hidden: Count = 256,
        layers: Count = 3,
        channels: Count = 64,
        lr: NonNegative = 1e-3,
        beta: NonNegative = 1.0,
        noise_std: Positive = 0.3,
        learn_noise: bool = True,
        couplings: Whole = 6,
        prior_hidden: Count = 128,
    ) -> None:
        if couplings and latent_dim < 2:
            raise UsageError(
                f"coupling layers need latents of two halves: set latent_dim to 2 or more, not {latent_dim}, "
                "or couplings to 0"
            )
        super().__init__(data)
        self.latent_dim, self.lr, self.beta = latent_dim, lr, beta
        self.unit = 1.0 if data.is_image else data.scale
        decoder: nn.Module
        if data.is_image:
            self.encoder: nn.Module = ConvEncoder(data.shape, 2 * latent_dim, channels)
            decoder = nn.Sequential(ConvDecoder(latent_dim, data.shape, channels), nn.Tanh())
        else:
            self.encoder = MLP(data.shape[0], 2 * latent_dim, hidden=hidden, layers=layers)
            decoder = MLP(latent_dim, data.shape[0], hidden=hidden, layers=layers)
        prior = CouplingFlow(latent_dim, couplings=couplings, hidden=prior_hidden)
        self.network: LatentModel = LatentModel(prior, decoder, noise_std, learn_noise)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return {"network": torch.optim.Adam(learned, lr=self.lr, fused=True)}

    def training_step(
        self, batch: Tensor, step: int, optimizers: dict[str, torch.optim.Optimizer]
    ) -> dict[str, Tensor]:
        """One step on the negative evidence lower bound, in nats per coordinate (up to a constant)."""
        x = batch / self.unit
        mean, log_std = self.encoder(x).float().chunk(2, dim=1)  # what is drawn is exact, under bf16 too
        drawn = torch.randn_like(mean)
        latents = mean + log_std.exp() * drawn
        reconstruction = self.network.negative_log_likelihood(x, latents)
        divergence = self.network.divergence(latents, drawn, log_std).mean() / x[0].numel()
        loss = reconstruction + self.beta * divergence
        optimizers["network"].zero_grad(set_to_none=True)
        loss.backward()
        optimizers["network"].step()
        return {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "kl": divergence.detach()}

    def compiled_parts(self) -> list[nn.Module]:
        return [self.encoder, self.network.decoder]  # training goes through the prior the other way

    def step_kind(self, step: int) -> Hashable:
        return "all"

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        mean = self.network(torch.randn((count, self.latent_dim), generator=rng, device=rng.device))
        if self.data.is_image:
            return mean
        noise = torch.randn(mean.shape, generator=rng, device=rng.device)
        return (mean + self.network.log_std.exp() * noise) * self.unit

    def evaluations(self) -> int | None:
        return 1


class LatentModel(nn.Module):
    """p(z) p(x | z): a prior, and N(decoder(z), σ²). Called with standard normal noise, it returns the mean of an x."""

    def __init__(self, prior: CouplingFlow, decoder: nn.Module, noise_std: float, learned: bool) -> None:
        super().__init__()
        self.prior, self.decoder = prior, decoder
        self.log_std = nn.Parameter(torch.tensor(noise_std).log(), requires_grad=learned)

    def forward(self, noise: Tensor) -> Tensor:
        return self.decoder(self.prior(noise))

    def negative_log_likelihood(self, x: Tensor, latents: Tensor) -> Tensor:
        """−log p(x | z) per coordinate, without the constant ½ log 2π: a scalar."""
        scaled = (x - self.decoder(latents)) * torch.exp(-self.log_std)
        return 0.5 * scaled.square().mean() + self.log_std

    def divergence(self, latents: Tensor, drawn: Tensor, log_std: Tensor) -> Tensor:
        """log q(z | x) − log p(z), N, whose mean is their divergence (Kingma & Welling 2014, eq. 2).

        latents: N×latent_dim, drawn from q as its mean and its standard deviation times `drawn`, standard normal.
        """
        noise, log_volume = self.prior.noise_of(latents)
        return (0.5 * (noise.square() - drawn.square()) - log_std).sum(dim=1) - log_volume
