"""The GAN: it finds the data by every loss, and its penalties on critics of a known slope."""

from __future__ import annotations

import pytest
import torch
from models import POINTS, sampled

from baselines.gan import GAN
from trilemma_bench.contracts import DataSpec


def test_gan_moves_to_the_data():
    torch.manual_seed(0)
    model = GAN(DataSpec((2,), scale=1.0), latent_dim=2, hidden=32, layers=2, lr_generator=2e-3, lr_discriminator=2e-3)
    optimizers = model.optimizers()
    for step in range(300):
        model.training_step(torch.tensor([2.0, -1.0]) + 0.2 * torch.randn(64, 2), step, optimizers)
    assert sampled(model).mean(dim=0).tolist() == pytest.approx([2.0, -1.0], abs=0.5)


def test_the_r1_penalty_is_that_of_a_known_slope():
    """On D(x) = w·x the penalty is γ/2 |w|²; lazily, every k-th step and k times as strong."""
    model = GAN(DataSpec((2,), scale=1.0), r1_gamma=0.3, r1_interval=4)
    model.discriminator = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.discriminator.weight.copy_(torch.tensor([[3.0, 4.0]]))
    real = torch.randn(8, 2)
    for step, strength in ((0, 4), (1, 0), (4, 4)):
        _, penalty = model._discriminator_losses(real, step)
        assert penalty.item() == pytest.approx(strength * 0.3 / 2 * 25, rel=1e-5)


def test_the_relativistic_loss_penalises_fakes_too_and_the_critics_slope_is_drawn_to_one():
    """On D(x) = w·x R1 and R2 are alike; WGAN-GP's penalty is (|w| − 1)², at every step."""
    for loss, expected in (("relativistic", 2 * 4 * 0.3 / 2 * 25), ("wgan-gp", 10 * (5 - 1) ** 2)):
        model = GAN(DataSpec((2,), scale=1.0), loss=loss, r1_gamma=0.3, r1_interval=4)
        model.discriminator = torch.nn.Linear(2, 1)
        with torch.no_grad():
            model.discriminator.weight.copy_(torch.tensor([[3.0, 4.0]]))
        _, penalty = model._discriminator_losses(torch.randn(8, 2), 0)
        assert penalty.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("loss", "settings", "steps"), [("wgan-gp", {"gp": 1.0}, 500), ("relativistic", {}, 300)])
def test_every_gan_loss_finds_the_mean(loss, settings, steps):
    model = GAN(
        DataSpec((2,), scale=1.0),
        hidden=32,
        latent_dim=2,
        layers=2,
        loss=loss,
        lr_generator=2e-3,
        lr_discriminator=2e-3,
        **settings,
    )
    optimizers = model.optimizers()
    for step in range(steps):
        model.training_step(torch.tensor([2.0, -1.0]) + 0.2 * torch.randn(64, 2), step, optimizers)
    assert sampled(model, 500).mean(dim=0).tolist() == pytest.approx([2.0, -1.0], abs=0.5)


def test_the_critics_steps_come_before_the_generators():
    model = GAN(POINTS, loss="wgan-gp", hidden=8, critic_steps=3)
    optimizers = model.optimizers()
    moved = ["generator" in model.training_step(torch.randn(4, 2), step, optimizers) for step in range(6)]
    assert moved == [False, False, True, False, False, True]


def test_the_row_says_which_loss_unless_it_is_the_usual_one():
    described = [GAN(POINTS, loss=loss, hidden=8).describe() for loss in ("non-saturating", "wgan-gp", "relativistic")]
    assert described == ["", "wgan-gp", "relativistic"]


def test_what_is_not_given_is_the_losss_papers():
    plain, wgan, relativistic = (
        GAN(POINTS, loss=loss, hidden=8) for loss in ("non-saturating", "wgan-gp", "relativistic")
    )
    assert [(each.r1_interval, each.betas[0]) for each in (plain, relativistic)] == [(16, 0.5), (1, 0.0)]
    assert [each.critic_steps for each in (plain, wgan, relativistic)] == [1, 5, 1]
    assert wgan.betas == (0.0, 0.9)
    assert GAN(POINTS, loss="wgan-gp", hidden=8, critic_steps=2, beta1=0.5).betas[0] == 0.5
