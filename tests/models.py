"""Every registered model: tiny, so that a test takes seconds, or as in its recipe, without memory for weights."""

from __future__ import annotations

from typing import Any

import torch

from trilemma_bench import registry
from trilemma_bench.config import model_schema, resolve
from trilemma_bench.contracts import DataSpec, FiniteSource, GenerativeModel, Split, Trainable
from trilemma_bench.datasets import open_dataset
from trilemma_bench.settings import Settings
from trilemma_bench.trained import count_parameters

CPU = torch.device("cpu")
TRAINABLE = [name for name in registry.models.names() if issubclass(registry.models.get(name), Trainable)]
POINTS = DataSpec((2,), None, 2.83)
IMAGES = DataSpec((1, 8, 8))
SPECS = {"points": POINTS, "images": IMAGES}
TINY: dict[str, Any] = {
    "hidden": 16,
    "channels": 8,
    "multipliers": (1, 2),
    "channel_multipliers": (1, 2),
    "blocks": 1,
    "res_blocks": 1,
    "style_dim": 8,
    "discriminator_channels": 8,
    "time_dim": 8,
    "diffusion_steps": 10,
    "fourier_features": 8,
    "latent_dim": 8,
    "channel_base": 64,
    "r1_interval": 3,
}


def tiny_settings(model_class: type) -> dict[str, Any]:
    """The settings in TINY that this model has; a sampler takes few steps."""
    fields = model_schema(model_class).model_fields
    settings = {name: value for name, value in TINY.items() if name in fields}
    settings |= {name: 3e-3 for name in fields if name.startswith("lr")}
    if "sampling_steps" in fields:
        settings["sampling_steps"] = 4
    return settings


def tiny_model(name: str, spec: DataSpec, seed: int = 0) -> GenerativeModel:
    model_class = registry.models.get(name)
    torch.manual_seed(seed)
    model = model_class(spec, **tiny_settings(model_class))
    if isinstance(model, FiniteSource):
        model.prepare(Split(tiny_data(spec)), "test")
    return model


def tiny_data(spec: DataSpec, count: int = 64) -> torch.Tensor:
    """Images of two kinds, or points around two centres."""
    rng = torch.Generator().manual_seed(0)
    side = torch.randint(2, (count, *[1] * len(spec.shape)), generator=rng)
    if spec.is_image:
        ramp = torch.linspace(0, 255, spec.shape[-1]).expand(spec.shape)
        return torch.where(side == 0, ramp, 255 - ramp).round().to(torch.uint8)
    return (2.0 * side - 1) * 3 + 0.1 * torch.randn(count, *spec.shape, generator=rng)


@torch.no_grad()
def wake(model: torch.nn.Module, by: float = 0.05) -> torch.nn.Module:
    """The model with all weights moved, so that layers which start as zero do something. by: standard deviation."""
    rng = torch.Generator().manual_seed(0)
    for value in model.parameters():
        value += by * torch.randn(value.shape, generator=rng)
    return model


@torch.no_grad()
def sampled(model: GenerativeModel, count: int = 5, seed: int = 0) -> torch.Tensor:
    """What the model returns, before anything is checked or quantised."""
    return model.eval().sample(count, torch.Generator().manual_seed(seed))


def fit(model: Trainable, batch: torch.Tensor, steps: int) -> None:
    """Steps of training on one batch, in the model's own range."""
    optimizers = model.optimizers()
    for step in range(steps):
        model.training_step(batch, step, optimizers)


def of_recipe(name: str, dataset: str, spec: DataSpec | None = None, **options: Any) -> tuple[Any, Settings]:
    """The model of a recipe at full size, without memory for weights, and its settings.

    spec: unless it is the dataset's; options: of `config.resolve`.
    """
    model_class = registry.models.get(name)
    settings, spec = resolve(model_class, model=name, dataset=dataset, **options), spec or open_dataset(dataset).spec
    with torch.device("meta"):
        return model_class(spec, **settings.model), settings


def millions(module: torch.nn.Module) -> float:
    """Of parameters, to two digits as papers state them."""
    return round(count_parameters(module) / 1e6, 2)
