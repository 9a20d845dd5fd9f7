"""Adversarial losses and penalties against closed forms and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from trilemma_bench.nn import adversarial
from trilemma_bench.nn.adversarial import frozen, logits_and_r1, r1_penalty, update, wgan_penalty

REAL = torch.tensor([1.3, -0.4, 0.0, 30.0], dtype=torch.float64)
FAKE = torch.tensor([-0.2, 0.9, 2.0, -25.0], dtype=torch.float64)
LOSSES_OF_BOTH = [
    adversarial.nonsaturating_discriminator_loss,
    adversarial.wasserstein_critic_loss,
    adversarial.relativistic_discriminator_loss,
    adversarial.relativistic_generator_loss,
]
LOSSES_OF_FAKES = [adversarial.nonsaturating_generator_loss, adversarial.wasserstein_generator_loss]


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


class TestLosses:
    @pytest.mark.parametrize("loss", LOSSES_OF_BOTH, ids=lambda loss: loss.__name__)
    def test_gradients_are_finite_differences(self, loss):
        assert torch.autograd.gradcheck(loss, (REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()))

    @pytest.mark.parametrize("loss", LOSSES_OF_FAKES, ids=lambda loss: loss.__name__)
    def test_gradients_for_the_generator_are_finite_differences(self, loss):
        assert torch.autograd.gradcheck(loss, (FAKE.clone().requires_grad_(),))

    def test_values_by_the_definition(self):
        real, fake = REAL[:3], FAKE[:3]
        expected = {
            adversarial.nonsaturating_discriminator_loss: -torch.log(sigmoid(real)) - torch.log(1 - sigmoid(fake)),
            adversarial.relativistic_discriminator_loss: -torch.log(sigmoid(real - fake)),
            adversarial.relativistic_generator_loss: -torch.log(sigmoid(fake - real)),
        }
        for loss, value in expected.items():
            assert loss(real, fake).item() == pytest.approx(value.mean().item())
        value = -torch.log(sigmoid(fake)).mean()
        assert adversarial.nonsaturating_generator_loss(fake).item() == pytest.approx(value.item())
        assert adversarial.wasserstein_critic_loss(real, fake).item() == pytest.approx((2.7 - 0.9) / 3)
        assert adversarial.wasserstein_generator_loss(fake).item() == pytest.approx(-0.9)

    def test_logits_that_cannot_tell_cost_log_two_each(self):
        zero = torch.zeros(5, 1)
        assert adversarial.nonsaturating_discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
        assert adversarial.relativistic_discriminator_loss(zero, zero).item() == pytest.approx(math.log(2))

    def test_the_nonsaturating_gradient_does_not_vanish_where_the_discriminator_is_sure(self):
        logits = torch.tensor([-80.0], requires_grad=True)
        adversarial.nonsaturating_generator_loss(logits).backward()
        assert logits.grad.item() == pytest.approx(-1)

    @pytest.mark.parametrize("loss", LOSSES_OF_BOTH, ids=lambda loss: loss.__name__)
    def test_low_precision_logits_give_a_float32_loss(self, loss):
        assert loss(REAL.bfloat16(), FAKE.bfloat16()).dtype == torch.float32


def linear(weight: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weight]))
    return layer


class TestPenalties:
    def test_r1_of_a_linear_function_is_its_squared_slope(self):
        assert r1_penalty(linear([3.0, 4.0]), torch.randn(7, 2)).item() == pytest.approx(25)

    def test_r1_is_the_mean_over_samples_not_over_coordinates(self):
        """D(x) = |x|²/2 has the slope x."""
        x = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        assert r1_penalty(lambda x: x.square().sum(dim=1) / 2, x).item() == pytest.approx((5 + 9) / 2)

    def test_logits_and_r1_are_what_each_is_alone(self):
        layer, x, seen = linear([3.0, 4.0]), torch.randn(7, 2), []
        logits, penalty = logits_and_r1(lambda x: seen.append(x) or layer(x), x)
        assert len(seen) == 1
        assert torch.equal(logits, layer(x))
        assert torch.equal(penalty, r1_penalty(layer, x))

    def test_r1_of_images_sums_over_channels_and_pixels(self):
        images = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
        assert r1_penalty(lambda x: 2 * x.flatten(1).sum(dim=1), images).item() == pytest.approx(4 * 75)

    def test_wgan_penalty_of_a_linear_critic(self):
        critic = linear([3.0, 4.0])
        penalty = wgan_penalty(critic, torch.randn(7, 2), torch.randn(7, 2))
        assert penalty.item() == pytest.approx((5 - 1) ** 2)
        penalty.backward()
        # ∂(|w| − 1)²/∂w = 2 (|w| − 1) w/|w|
        assert critic.weight.grad[0].tolist() == pytest.approx([2 * 4 * 3 / 5, 2 * 4 * 4 / 5])

    def test_wgan_penalty_is_taken_evenly_between_real_and_fake(self):
        """D(x) = x²/2 has the slope x: between 0 and 1, E(x − 1)² = 1/3; all coordinates share one place."""
        real, fake = torch.zeros(200_000, 1), torch.ones(200_000, 1)
        torch.manual_seed(0)
        penalty = wgan_penalty(lambda x: x.square().sum(dim=1) / 2, real, fake)
        assert penalty.item() == pytest.approx(1 / 3, abs=4 * (4 / 45 / 200_000) ** 0.5)
        seen = []
        wgan_penalty(lambda x: seen.append(x) or x.sum(dim=1), torch.zeros(9, 3), torch.ones(9, 3))
        assert torch.equal(seen[0], seen[0][:, :1].expand(9, 3))
        assert len(seen[0][:, 0].unique()) == 9

    def test_a_flat_critic_has_the_penalty_one_and_a_finite_gradient(self):
        critic = linear([0.0, 0.0])
        penalty = wgan_penalty(critic, torch.randn(3, 2), torch.randn(3, 2))
        penalty.backward()
        assert penalty.item() == 1
        assert critic.weight.grad.isfinite().all()

    @pytest.mark.parametrize("penalty", [r1_penalty, lambda critic, x: wgan_penalty(critic, x, x + 1)])
    def test_gradients_for_the_discriminator_are_finite_differences(self, penalty):
        x = torch.randn(4, 2, dtype=torch.float64)

        def of_weights(weight: Tensor) -> Tensor:
            torch.manual_seed(0)
            return penalty(lambda x: torch.tanh(x @ weight).sum(dim=1), x)

        assert torch.autograd.gradcheck(of_weights, (torch.randn(2, 3, dtype=torch.float64, requires_grad=True),))

    def test_nothing_flows_to_the_inputs(self):
        x = torch.randn(4, 2, requires_grad=True)
        (r1_penalty(linear([1.0, 2.0]), x) + wgan_penalty(linear([1.0, 2.0]), x, x)).backward()
        assert x.grad is None

    @pytest.mark.parametrize("penalty", [r1_penalty, lambda critic, x: wgan_penalty(critic, x, 2 * x)])
    def test_autocast_changes_nothing(self, penalty):
        torch.manual_seed(0)
        critic, x = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 1)), torch.randn(16, 5)
        torch.manual_seed(1)
        expected = penalty(critic, x)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(penalty(critic, x), expected)


class TestUpdate:
    def test_weights_seen_under_autocast_are_the_new_ones(self):
        layer = linear([1.0, 1.0])
        x = torch.ones(1, 2)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                layer(x)
            update(torch.optim.SGD(layer.parameters(), lr=1.0), layer(x).float().sum())
            assert layer(x).item() == pytest.approx(layer.bias.item(), abs=0.01)  # weights are zero now

    def test_frozen_passes_gradients_on_and_thaws(self):
        layer, x = linear([3.0, 4.0]), torch.ones(1, 2, requires_grad=True)
        with frozen(layer):
            layer(x).sum().backward()
        assert x.grad.tolist() == [[3.0, 4.0]]
        assert layer.weight.grad is None
        assert layer.weight.requires_grad
