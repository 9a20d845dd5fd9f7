"""The shipped recipes: those of papers have the papers' figures, and every model builds for every size of data."""

from __future__ import annotations

import pytest
from models import TRAINABLE, millions, of_recipe

from trilemma_bench import registry
from trilemma_bench.config import configs_dir, resolve


@pytest.mark.parametrize("dataset", ["digits", "mnist", "stackedmnist", "cifar10"])
@pytest.mark.parametrize("name", TRAINABLE)
def test_every_model_builds_for_every_size(name, dataset):
    model, _ = of_recipe(name, dataset)
    assert millions(model.network) > 0.01


# model and training settings as the papers, or the programs that they point to, state them
DDGAN = {
    "lr_generator": 1.6e-4, "lr_discriminator": 1e-4, "beta1": 0.5, "beta2": 0.9, "r1_gamma": 0.05, "r1_interval": 15,
    "batch_size": 128, "budget": "51200kimg", "ema_decay": 0.9999, "lr_schedule": "cosine", "lr_floor": 1e-5,
    "flip": True,
}  # fmt: skip
STACKED = {"lr_generator": 1.5e-4, "r1_interval": 1, "mapping_layers": 3, "batch_size": 128, "lr_floor": 1e-5}
WARM = {
    "lr": 2e-4, "dropout": 0.1, "max_grad_norm": 1.0, "batch_size": 128, "ema_decay": 0.9999, "lr_schedule": "constant",
    "lr_warmup_steps": 5000, "flip": True,
}  # fmt: skip
PAPERS = [
    ("ddgan", "cifar10", {**DDGAN, "steps": 4, "latent_dim": 100, "mapping_layers": 4, "style_dim": 256}),
    ("siddm", "cifar10", {**DDGAN, "siddm": 1.0}),
    ("ddgan", "stackedmnist", {**STACKED, "budget": "144000kimg", "flip": False}),
    ("siddm", "stackedmnist", {**STACKED, "siddm": 1.0, "flip": False}),
    ("ddgan", "mnist", {**STACKED, "padding": 2}),
    ("siddm", "mnist", {**STACKED, "padding": 2, "siddm": 1.0}),
    ("ddpm", "cifar10", {**WARM, "budget": "102400kimg", "diffusion_steps": 1000}),
    ("score-sde-vp", "cifar10", {**WARM, "budget": "166400kimg", "sampling_steps": 1000, "snr": 0.16}),
    ("score-sde-ve", "cifar10", {**WARM, "ema_decay": 0.999, "budget": "166400kimg", "snr": 0.16}),
    ("flow-matching", "cifar10", {**WARM, "budget": "51200kimg", "coupling": "ot"}),
    ("edm", "cifar10", {
        "lr": 1e-3, "dropout": 0.13, "max_grad_norm": 0.0, "batch_size": 512, "budget": "200000kimg",
        "ema_decay": 0.99929, "lr_warmup_steps": 19532, "sampling_steps": 18, "sigma_min": 0.002, "sigma_max": 80.0,
        "rho": 7.0,
    }),
    ("meanflow", "cifar10", {
        "architecture": "ddpm++", "channel_multipliers": (2, 2, 2), "res_blocks": 4,
        "lr": 6e-4, "max_grad_norm": 0.0, "two_times": 0.75, "adaptive": 0.75, "time_mean": -0.6, "earlier_mean": -4.0,
        "time_std": 1.6, "batch_size": 1024, "budget": "819200kimg", "ema_decay": 0.99995, "lr_warmup_steps": 10_000,
    }),
    ("stylegan2", "cifar10", {
        "lr": 2.5e-3, "r1_gamma": 0.01, "r1_interval": 16, "mapping_layers": 2, "ada_target": 0.6, "ada_kimg": 500.0,
        "batch_size": 64, "budget": "100000kimg", "ema_decay": 0.99991, "lr_schedule": "constant",
    }),
]  # fmt: skip


@pytest.mark.parametrize(("name", "dataset", "stated"), PAPERS)
def test_a_recipe_has_the_papers_figures(name, dataset, stated):
    assert chosen(resolve(registry.models.get(name), model=name, dataset=dataset), stated) == stated


def chosen(settings, keys):
    """Those of the model's and the training's settings."""
    found = {**settings.model, **settings.training.model_dump()}
    return {key: found[key] for key in keys}


@pytest.mark.parametrize(
    ("folder", "stated"),
    [
        ("celeba-hq-256", {"batch_size": 32, "budget": "24000kimg"}),
        ("lsun-church-256", {"batch_size": 64, "budget": "38400kimg"}),
    ],
)
def test_ddgan_at_256_pixels_has_the_papers_figures(folder, stated):
    stated |= {
        "steps": 4, "channels": 64, "channel_multipliers": (1, 1, 2, 2, 4, 4), "discriminator": "large",
        "lr_generator": 2e-4, "lr_discriminator": 1e-4, "r1_gamma": 1.0, "r1_interval": 10, "ema_decay": 0.999,
    }  # fmt: skip
    config = configs_dir() / folder / "ddgan.toml"
    assert chosen(resolve(registry.models.get("ddgan"), model="ddgan", dataset="own", config=config), stated) == stated


def test_the_relativistic_gan_ends_as_r3gan_does():
    model = registry.models.get("gan")
    settings = resolve(model, model="gan", dataset="cifar10", config=configs_dir() / "cifar10" / "gan-r3gan.toml")
    stated = {
        "loss": "relativistic",
        "lr_generator": 5e-5,
        "beta1": 0.0,
        "beta2": 0.99,
        "r1_gamma": 0.005,
        "r1_interval": 1,
    }
    stated["ema_decay"] = round(0.5 ** (512 / 5e6), 5)  # half of it is forgotten in 5 million images
    assert chosen(settings, stated) == stated
