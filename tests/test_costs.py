"""What the papers' networks cost, without weights: parameters, operations of a forward pass and of DDGAN's step."""

from __future__ import annotations

import pytest
import torch
from ddgan_step import SIZES, Naive
from models import millions, of_recipe
from torch.utils.flop_counter import FlopCounterMode

from ddgan.model import DDGAN
from trilemma_bench.config import configs_dir
from trilemma_bench.contracts import DataSpec

CIFAR, HIGH = DataSpec((3, 32, 32)), DataSpec((3, 256, 256))
HIGH_CONFIG = configs_dir() / "celeba-hq-256" / "ddgan.toml"
TOLERANCE = 0.01  # of stated operations, which count filters and products of vectors in one way or another


def giga_flops(work):
    """Of what `work` computes, 10⁹ operations: two of each multiplication and addition."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def image(size):
    return torch.empty(1, 3, size, size)


def test_edm_has_the_papers_size():
    model, _ = of_recipe("edm", "cifar10")
    assert millions(model.network) == 55.73


def test_ddpms_network_costs_what_is_stated():
    model, _ = of_recipe("ddpm", "cifar10")
    assert giga_flops(lambda: model.network(image(32), torch.zeros(1))) == pytest.approx(12.4, rel=TOLERANCE)


def test_ddgans_discriminator_costs_what_is_stated():
    model, _ = of_recipe("ddgan", "cifar10")
    cost = giga_flops(lambda: model.discriminator(image(32), image(32), torch.zeros(1)))
    assert cost == pytest.approx(2.97, rel=TOLERANCE)


def test_ddgans_generator_at_256_pixels_costs_what_is_stated():
    """70.8 · 10⁹ multiplications and additions."""
    model, _ = of_recipe("ddgan", "folder:somewhere", HIGH, config=HIGH_CONFIG)
    cost = giga_flops(lambda: model.network(image(256), torch.empty(1, model.latent_dim), torch.zeros(1)))
    assert cost / 2 == pytest.approx(70.8, rel=TOLERANCE)


def test_stylegan2s_networks_cost_what_is_stated():
    model, _ = of_recipe("stylegan2", "cifar10")
    noise = model.network.noise_dim
    generator = giga_flops(lambda: model.network(torch.empty(1, model.latent_dim), torch.empty(1, noise)))
    discriminator = giga_flops(lambda: model.discriminator(image(32)))
    assert (generator, discriminator) == pytest.approx((8.0, 8.0), rel=TOLERANCE)


@pytest.mark.parametrize("size", SIZES)
def test_ddgans_step_saves_a_fifth_of_the_naive_ones_operations(size):
    """The naive one carries the discriminator's gradients on into the generator, where nobody needs them."""
    assert step_cost(Naive, size) >= 1.25 * step_cost(DDGAN, size)


def step_cost(model_class, size):
    with torch.device("meta"):
        model = model_class(CIFAR, r1_gamma=0.0, **SIZES[size])
    networks = {"generator": model.network, "discriminator": model.discriminator}
    optimizers = {name: torch.optim.SGD(network.parameters(), lr=0.1) for name, network in networks.items()}
    return giga_flops(lambda: model.training_step(torch.empty(4, *CIFAR.shape), 1, optimizers))
