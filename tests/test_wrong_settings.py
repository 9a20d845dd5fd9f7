"""Settings that make no sense: refused in one line that names them, or harmless, for every model and every number."""

from __future__ import annotations

import math

import pytest
from models import SPECS, TRAINABLE, sampled, tiny_data, tiny_settings
from pydantic import ValidationError

from trilemma_bench import registry
from trilemma_bench.config import model_schema, resolve
from trilemma_bench.errors import UsageError
from trilemma_bench.images import to_float

USUAL = {"fraction": 0.5, "count": 3, "counts": [1, 2]}
ABSURD = {
    "fraction": (-1.0, 0.0, 1.01, math.nan, math.inf, -math.inf),
    "count": (-3, -1, 0),
    "counts": ([], [0], [1, 0], [-1]),
}


def kind_of(schema, setting):
    """The first kind of number that the setting takes; '' for a switch, or a choice between words."""
    for kind, value in USUAL.items():
        try:
            schema(**{setting: value})
        except ValidationError:
            continue
        return kind
    return ""


NUMBERS = [
    (name, setting, kind)
    for name in TRAINABLE
    for schema in [model_schema(registry.models.get(name))]
    for setting in schema.model_fields
    if (kind := kind_of(schema, setting))
]


@pytest.mark.parametrize("data", SPECS)
@pytest.mark.parametrize(("name", "setting", "kind"), NUMBERS)
def test_a_wrong_number_is_refused_or_harmless(name, setting, kind, data):
    for value in ABSURD[kind]:
        model, refusal = attempt(name, SPECS[data], {setting: value})
        if model is None:
            assert setting in refusal
            assert "\n" not in refusal
        else:
            assert works(model, SPECS[data]), value


def attempt(name, spec, overrides):
    """The model, or None and why there is none."""
    model_class = registry.models.get(name)
    try:
        settings = resolve(model_class, model=name, dataset="toy", overrides=tiny_settings(model_class) | overrides)
        return model_class(spec, **settings.model), ""
    except UsageError as error:
        return None, str(error)


def works(model, spec):
    """Whether a step has finite losses, and samples can be drawn after it."""
    losses = model.training_step(to_float(tiny_data(spec, 8)), 0, model.optimizers())
    return all(loss.isfinite() for loss in losses.values()) and sampled(model, 2).shape == (2, *spec.shape)


@pytest.mark.parametrize(("name", "setting", "kind"), NUMBERS)
def test_there_are_no_negative_sizes_and_rates_and_no_momentum_of_1(name, setting, kind):
    """Whatever they would do: Adam ascends with a negative rate."""
    wrong = {"count": [-1], "counts": [[-1]], "fraction": [-0.1] if setting.startswith("lr") else []}[kind]
    for value in [*wrong, *([-0.1, 1.0] if setting in ("beta1", "beta2") else [])]:
        with pytest.raises(UsageError, match=f"setting '{setting}"):
            resolve(registry.models.get(name), model=name, dataset="toy", overrides={setting: value})
