"""Sampling times of systems whose weights do not matter: nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trilemma_bench import config, registry
from trilemma_bench.datasets import open_dataset
from trilemma_bench.record import Speed
from trilemma_bench.seeding import seed_everything
from trilemma_bench.timing import measure_speed
from trilemma_bench.trained import count_parameters


@dataclass(frozen=True)
class System:
    """A model with its settings, as `--set` takes them."""

    model: str
    overrides: tuple[str, ...] = ()


def untrained_speed(system: System, dataset: str, device: torch.device, more: Sequence[str] = ()) -> tuple[Speed, int]:
    """Speed and parameters of a model as its recipe for `dataset` has it, with fresh weights."""
    model_class = registry.models.get(system.model)
    overrides = [*system.overrides, *more]
    settings = config.resolve(model_class, model=system.model, dataset=dataset, overrides=overrides).on(device)
    seed_everything(0)
    model = model_class(open_dataset(dataset).spec, **settings.model).to(device)
    return measure_speed(model, settings.sampling, device, seed=0), count_parameters(model.network)
