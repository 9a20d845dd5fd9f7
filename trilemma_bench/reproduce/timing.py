"""Sampling times of systems whose weights do not matter: nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trilemma_bench import config, registry
from trilemma_bench.datasets import open_dataset
from trilemma_bench.record import Speed
from trilemma_bench.seeding import seed_everything
from trilemma_bench.statistics import geometric_mean, time_interval
from trilemma_bench.timing import measure_speed
from trilemma_bench.trained import count_parameters, placed


@dataclass(frozen=True)
class System:
    """A model and what of its recipe's settings is changed."""

    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TimedSystem:
    """What was found of a system: a speed for each seed."""

    speeds: Sequence[Speed]
    parameters: int

    def facts(self) -> dict[str, Any]:
        """Seconds of 100 samples with their interval, NFE and parameters."""
        interval = time_interval(self.speeds, "seconds_per_image")
        return {
            "seconds": 100 * geometric_mean([speed.seconds_per_image for speed in self.speeds]),
            "interval": interval and [100 * end for end in interval],
            "nfe": self.speeds[0].nfe or 0.0,
            "parameters": float(self.parameters),
        }


def untrained_speed(
    system: System, dataset: str, device: torch.device, seed: int, more: Mapping[str, Any] | None = None
) -> tuple[Speed, int]:
    """Speed and parameters of a model as its recipe for `dataset` has it, with fresh weights drawn from `seed`."""
    model_class = registry.models.get(system.model)
    overrides = {**system.settings, **(more or {})}
    spec = open_dataset(dataset).spec
    resolved = config.resolve(model_class, model=system.model, dataset=dataset, overrides=overrides)
    settings = resolved.on(device, spec.is_image)
    seed_everything(seed)
    model = placed(model_class(spec, **settings.model), device)
    return measure_speed(model, settings.sampling, device, seed), count_parameters(model.network)
