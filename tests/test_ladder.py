"""The hierarchical VAE's ladder: its divergence is the closed form, its order is coarse to fine, and it learns."""

from __future__ import annotations

import math

import pytest
import torch
from models import IMAGES, tiny_data, tiny_model

from baselines.vae import VAE
from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import UsageError
from trilemma_bench.images import to_float
from trilemma_bench.nn.ladder import LOG_STD_LIMIT, Ladder, LadderEncoder, Rung, limited, relative_kl


def shaken(module, std=0.3):
    """The module with weights that are nowhere zero."""
    rng = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std, generator=rng)
    return module


def test_the_divergence_is_that_of_two_gaussians():
    rng = torch.Generator().manual_seed(0)
    mean, log_std, shift, change = torch.randn(4, 3, 2, 4, 4, generator=rng, dtype=torch.float64)
    prior = torch.distributions.Normal(mean, log_std.exp())
    posterior = torch.distributions.Normal(mean + log_std.exp() * shift, (log_std + change).exp())
    expected = torch.distributions.kl_divergence(posterior, prior).flatten(1).sum(dim=1)
    torch.testing.assert_close(relative_kl(shift, change), expected)


def test_a_rungs_divergence_is_the_mean_log_ratio_of_its_densities():
    """KL(q ‖ p) = E_q[log q − log p], by the latents that a rung draws: q's with what was seen, p's without."""
    rung = shaken(Rung(4, 3)).double()
    h, seen = torch.randn(2, 1, 4, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = []
    rung.project.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[0]))
    zero, one = (torch.full((1, 3, 2, 2), value, dtype=torch.float64) for value in (0.0, 1.0))
    for noise, given in ((zero, seen), (one, seen), (zero, None), (one, None)):
        rung(h, noise, given)
    q, p = (torch.distributions.Normal(drawn[i], drawn[i + 1] - drawn[i]) for i in (0, 2))
    torch.manual_seed(0)
    z = q.sample((40_000,))
    ratio = (q.log_prob(z) - p.log_prob(z)).flatten(1).sum(dim=1)
    _, nats = rung(h, zero, seen)
    assert float(nats) > 0.1
    assert float(ratio.mean()) == pytest.approx(float(nats), abs=5 * float(ratio.std()) / math.sqrt(len(ratio)))


def test_deviations_stay_within_limits():
    assert limited(torch.tensor([-1e4, 0.0, 1e4])).tolist() == [-LOG_STD_LIMIT, 0.0, LOG_STD_LIMIT]
    assert float(limited(torch.tensor(0.1))) == pytest.approx(0.1, rel=1e-3)


def test_every_number_of_the_noise_is_drawn_by_its_own_rung_from_coarse_to_fine():
    ladder = shaken(Ladder(3, [2, 4, 8], rungs=2, channels=4, width=3), 0.5)
    assert ladder.latents == 2 * 3 * (2**2 + 4**2 + 8**2)
    drawn = []
    for level in ladder.levels:
        for rung in level:
            rung.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[1]))
    noise = torch.randn(2, ladder.latents, generator=torch.Generator().manual_seed(0))
    images = ladder(noise)
    assert images.shape == (2, 3, 8, 8)
    assert [tuple(each.shape) for each in drawn] == [(2, 3, size, size) for size in (2, 2, 4, 4, 8, 8)]
    again = torch.cat([each.permute(0, 2, 3, 1).flatten(1) for each in drawn], dim=1)
    assert torch.equal(again, noise)


def test_an_encoder_gives_maps_from_coarse_to_fine():
    maps = LadderEncoder(3, [2, 4, 8], channels=4)(torch.zeros(2, 3, 8, 8))
    assert [tuple(each.shape) for each in maps] == [(2, 4, size, size) for size in (2, 4, 8)]


def test_a_new_ladders_posterior_is_its_prior():
    model = tiny_model("vae", IMAGES, rungs=1)
    x = torch.rand(4, *IMAGES.shape)
    noise = torch.randn(4, model.latents)
    image, nats = model.reconstructed(x, noise)
    assert nats.tolist() == [0.0] * 4
    assert torch.equal(image, model.network(noise))


def test_a_ladder_learns_to_tell_its_images_apart_and_draws_both_kinds():
    """The two kinds of the tiny set, a ramp and its mirror, within a fraction of their size."""
    model = tiny_model("vae", IMAGES, rungs=1, channels=16)
    batch, optimizers = to_float(tiny_data(IMAGES)), model.optimizers()
    torch.manual_seed(0)
    losses = [model.training_step(batch, step, optimizers) for step in range(300)]
    assert float(losses[-1]["loss"]) < float(losses[0]["loss"]) - 1
    assert 0.3 * math.log(2) < float(losses[-1]["kl"]) * 64 < 30 * math.log(2)  # one bit tells the kinds apart
    samples = model.sample(64, torch.Generator().manual_seed(0)).flatten(1)
    kinds = batch.flatten(1).unique(dim=0)
    distances = torch.cdist(samples, kinds) / 8  # root mean square over 64 pixels
    assert float(distances.amin(dim=1).median()) < 0.3
    assert set(distances.argmin(dim=1).tolist()) == {0, 1}


@pytest.mark.parametrize(("data", "rungs"), [(DataSpec((2,), scale=1.0), 1), (IMAGES, -1)])
def test_rungs_are_for_images(data, rungs):
    with pytest.raises(UsageError, match=f"rungs = {rungs}"):
        VAE(data, rungs=rungs)
