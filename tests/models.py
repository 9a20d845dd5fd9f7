"""Tiny settings for every registered model, so that the contract tests take seconds."""

from __future__ import annotations

from typing import Any

import torch

from trilemma_bench import registry
from trilemma_bench.config import model_schema
from trilemma_bench.contracts import DataSpec, FiniteSource, GenerativeModel, Split, Trainable

TRAINABLE = [name for name in registry.models.names() if issubclass(registry.models.get(name), Trainable)]
POINTS = DataSpec((2,), None, 2.83)
IMAGES = DataSpec((1, 8, 8))
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
def wake(model: torch.nn.Module) -> None:
    """Moves all weights, so that layers which start as zero do something."""
    rng = torch.Generator().manual_seed(0)
    for value in model.parameters():
        value += 0.05 * torch.randn(value.shape, generator=rng)
