"""The VAE: its divergence in closed form, the prior that it finds, and the noise that it learns."""

from __future__ import annotations

import math

import pytest
import torch
from exact import rng
from models import POINTS, fit, sampled

from baselines.vae import VAE
from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import UsageError


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_vae_divergence_is_the_closed_form_on_average(scale):
    """Against a prior N(0, 1) in the one coordinate and N(0, scale²) in the other."""
    model = VAE(POINTS, latent_dim=2, couplings=1)
    out = model.network.prior.layers[0].out
    out.bias.data[0] = 2 * math.atanh(math.log(scale) / 2)  # of the second coordinate, which is then the first
    mean, log_std = torch.tensor([[0.3, -1.0]]), torch.tensor([[0.2, -0.7]])
    prior = torch.distributions.Normal(0.0, torch.tensor([scale, 1.0]))
    expected = torch.distributions.kl_divergence(torch.distributions.Normal(mean, log_std.exp()), prior).sum()
    drawn = torch.randn(200_000, 2, generator=rng())
    with torch.no_grad():
        found = model.network.divergence(mean + log_std.exp() * drawn, drawn, log_std)
    assert float(found.mean()) == pytest.approx(float(expected), abs=5 * float(found.std()) / 200_000**0.5)


def test_the_loss_is_the_evidence_lower_bound_per_coordinate():
    """−log p(x | z) + β (log q(z | x) − log p(z)) of one drawn z (Kingma & Welling 2014, eq. 3), without ½ log 2π."""
    model = VAE(DataSpec((2,), scale=2.0), latent_dim=3, hidden=8, couplings=0, beta=0.5, noise_std=0.7)
    batch = torch.randn(16, 2, generator=rng())
    mean, log_std = model.encoder(batch / 2).detach().chunk(2, dim=1)
    posterior = torch.distributions.Normal(mean, log_std.exp())
    torch.manual_seed(3)
    latents = mean + log_std.exp() * torch.randn_like(mean)
    likelihood = torch.distributions.Normal(model.network.decoder(latents).detach(), 0.7).log_prob(batch / 2)
    prior = torch.distributions.Normal(0.0, 1.0)
    divergence = (posterior.log_prob(latents) - prior.log_prob(latents)).sum(dim=1).mean() / 2
    torch.manual_seed(3)
    found = model.training_step(batch, 0, model.optimizers())
    reconstruction = -float(likelihood.mean()) - 0.5 * math.log(2 * math.pi)
    assert float(found["reconstruction"]) == pytest.approx(reconstruction, rel=1e-5)
    assert float(found["kl"]) == pytest.approx(float(divergence), rel=1e-5)
    assert float(found["loss"]) == pytest.approx(reconstruction + 0.5 * float(divergence), rel=1e-5)


def test_a_sample_of_points_has_the_learned_noise_and_one_of_images_has_none():
    points = VAE(DataSpec((2,), scale=2.0), latent_dim=3, hidden=8, noise_std=0.7).eval()
    images = VAE(DataSpec((1, 8, 8)), latent_dim=3, channels=4).eval()
    for model, deviation in ((points, 2 * 0.7), (images, 0.0)):
        noise = torch.randn(20_000 if deviation else 20, 3, generator=rng())
        with torch.no_grad():
            rest = model.sample(len(noise), rng()) - model.unit * model.network(noise)
        assert float(rest.std()) == pytest.approx(deviation, rel=0.02, abs=1e-5)


def test_vae_finds_a_prior_where_its_data_are():
    """Two clusters, whose latents a Gaussian does not hold: hardly a sample falls between them."""
    data = torch.tensor([1.0, -1.0])[torch.arange(256) % 2, None].expand(-1, 2) + 0.05 * torch.randn(
        256, 2, generator=rng()
    )
    between = {}
    for couplings in (0, 6):
        torch.manual_seed(0)
        model = VAE(DataSpec((2,), scale=1.0), hidden=64, latent_dim=2, lr=3e-3, noise_std=0.1, couplings=couplings)
        fit(model, data, 800)
        between[couplings] = float((sampled(model, count=2000).abs().amin(dim=1) < 0.7).double().mean())
    assert between[6] < 0.3 * between[0]


def test_vae_of_one_latent_has_no_halves_to_couple():
    with pytest.raises(UsageError, match="latent_dim"):
        VAE(POINTS, latent_dim=1)
    assert sampled(VAE(POINTS, latent_dim=1, couplings=0)).shape[1] == 2


def test_vae_learns_the_noise_of_its_data_unless_it_is_fixed():
    data = DataSpec((2,), scale=1.0)
    learned, fixed = (
        VAE(data, hidden=16, latent_dim=2, lr=1e-2, noise_std=1.0, learn_noise=on) for on in (True, False)
    )
    for model in (learned, fixed):
        fit(model, 0.1 * torch.randn(64, 2), 150)
    assert learned.network.log_std.exp() < 0.3
    assert fixed.network.log_std.exp() == 1.0


def test_the_latents_are_drawn_in_float32_under_bf16(monkeypatch):
    """In bfloat16 their noise would have 8 bits, and in some versions of torch be another draw."""
    model, seen = VAE(POINTS, latent_dim=4, hidden=8), []
    network = model.network

    def likelihood(x, latents):
        seen.append(latents)
        return (x - network.decoder(latents)).square().mean()

    monkeypatch.setattr(network, "negative_log_likelihood", likelihood)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        model.training_step(torch.randn(64, 2), 0, model.optimizers())
    assert seen[0].dtype == torch.float32
    assert not torch.equal(seen[0], seen[0].bfloat16().float())
