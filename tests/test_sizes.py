"""Every model at the papers' image sizes, with tiny widths: it trains a step, lazy penalties included, and samples."""

from __future__ import annotations

import pytest
import torch
from models import TRAINABLE, tiny_data, tiny_settings

from trilemma_bench import registry
from trilemma_bench.config import model_schema
from trilemma_bench.contracts import DataSpec
from trilemma_bench.images import to_float

SPECS = [DataSpec((1, 8, 8)), DataSpec((1, 28, 28)), DataSpec((3, 64, 64)), DataSpec((3, 256, 256))]


def small_settings(model_class, size):
    """Networks that halve images to 4 pixels or an odd size, as wide on the way as at full size; two steps."""
    levels = 1
    while size > 4 and size % 2 == 0:
        size, levels = size // 2, levels + 1
    smaller = {"multipliers": (1,) * levels, "channel_multipliers": (1,) * levels, "sampling_steps": 2}
    fields = model_schema(model_class).model_fields
    return tiny_settings(model_class) | {name: value for name, value in smaller.items() if name in fields}


@pytest.mark.parametrize("data", SPECS, ids=lambda data: f"{data.shape[-1]} px")
@pytest.mark.parametrize("name", TRAINABLE)
def test_every_model_trains_a_step_and_samples(name, data):
    model_class = registry.models.get(name)
    model = model_class(data, **small_settings(model_class, data.shape[-1]))
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    losses = model.training_step(to_float(tiny_data(data, 2)), 0, model.optimizers())
    assert all(loss.isfinite() for loss in losses.values())
    moved = {key.partition(".")[0] for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert moved == {key.partition(".")[0] for key in before}
    model.eval()
    with torch.no_grad():
        samples = model.sample(1, torch.Generator().manual_seed(0))
    assert samples.shape == (1, *data.shape)
    assert samples.isfinite().all()
