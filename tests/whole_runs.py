"""Runs of the whole pipeline that take a second."""

from __future__ import annotations

import trilemma_bench as tb
from trilemma_bench import registry
from trilemma_bench.config import model_schema
from trilemma_bench.settings import SamplingSettings

FAST = {"hidden": 16, "batch_size": 32, "timing_repetitions": 3, "timing_seconds": 0.1, "diffusion_steps": 10}
BUDGET = "1kimg"


def go(out, model="ddgan", dataset="gaussians25", **options):
    """The run's record. options: of `tb.run`; settings beside those of FAST that the model knows."""
    known = {*model_schema(registry.models.get(model)).model_fields, "batch_size", *SamplingSettings.model_fields}
    settings = {key: value for key, value in FAST.items() if key in known} | options.pop("settings", {})
    facts = {"samples": 500, "budget": BUDGET, "progress": False, "device": "cpu", **options}
    return tb.run(model=model, dataset=dataset, settings=settings, out=out, **facts)
