"""DDGAN's and SIDDM's shipped recipes: the papers' networks, and the rows of the ablation."""

from __future__ import annotations

import pytest
import torch
from models import millions, of_recipe

from ddgan.model import DDGAN
from trilemma_bench.config import configs_dir
from trilemma_bench.contracts import DataSpec
from trilemma_bench.training.trainer import learning_rate


def test_cifar10_has_the_papers_networks():
    model, settings = of_recipe("ddgan", "cifar10")
    assert millions(model.network) == 48.43
    assert millions(model.discriminator) == 12.74
    assert settings.training.batch_size == 128


@pytest.mark.parametrize("dataset", ["celeba-hq-256", "lsun-church-256"])
def test_256_pixels_have_the_papers_networks(dataset):
    model, _ = of_recipe(
        "ddgan", "folder:somewhere", DataSpec((3, 256, 256)), config=configs_dir() / dataset / "ddgan.toml"
    )
    assert millions(model.network) == 39.73
    assert millions(model.discriminator) == 27.74


@pytest.mark.parametrize(("channels", "expected"), [(64, 3.38), (32, 0.99)])
def test_narrower_discriminators_have_the_published_sizes(channels, expected):
    with torch.device("meta"):
        model = DDGAN(DataSpec((3, 32, 32)), discriminator_channels=channels)
    assert millions(model.discriminator) == expected


def test_both_learning_rates_end_where_the_papers_do():
    training = of_recipe("ddgan", "cifar10")[1].training
    assert [learning_rate(training, full, 10**6, 1.0) for full in (1.6e-4, 1e-4)] == pytest.approx([1e-5, 1e-5])


def test_the_defaults_are_cifar10s():
    _, settings = of_recipe("ddgan", "nothing", DataSpec((3, 32, 32)))
    recipe = of_recipe("ddgan", "cifar10")[1].model
    assert settings.model == recipe | {"discriminator": "auto"}


@pytest.mark.parametrize(
    ("row", "text", "nfe"),
    [
        ("t1", "T=1", 1),
        ("t2", "T=2", 2),
        ("t4", "T=4", 4),
        ("t8", "T=8", 8),
        ("direct", "T=4, direct", 4),
        ("noise", "T=4, noise", 4),
        ("no-z", "T=4, no z", 4),
        ("one-shot", "T=4, one-shot", 1),
    ],
)
def test_each_row_of_the_papers_ablation_is_a_config(row, text, nfe):
    model, settings = of_recipe("ddgan", "cifar10", config=configs_dir() / "cifar10" / f"ddgan-{row}.toml")
    assert model.describe() == text
    assert model.evaluations() == nfe
    assert settings.training == of_recipe("ddgan", "cifar10")[1].training


@pytest.mark.parametrize(
    ("dataset", "shape"),
    [
        ("gaussians25", (2,)),
        ("digits", (1, 8, 8)),
        ("stacked_digits", (3, 8, 8)),
        ("mnist", (1, 28, 28)),
        ("stackedmnist", (3, 32, 32)),
    ],
)
def test_recipes_build(dataset, shape):
    model, _ = of_recipe("ddgan", dataset)
    assert model.data.shape == shape


@pytest.mark.parametrize("dataset", ["gaussians25", "digits", "stacked_digits", "cifar10"])
def test_siddm_has_ddgans_networks(dataset):
    model, settings = of_recipe("siddm", dataset)
    ddgan, _ = of_recipe("ddgan", dataset)
    assert millions(model.network) == millions(ddgan.network)
    assert settings.model["siddm"] > 0
