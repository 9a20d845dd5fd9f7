"""What `settings` prints: a recipe that says what it means, and gives the same settings again."""

from __future__ import annotations

import math

import pytest
from commands import succeeds
from models import TRAINABLE

from trilemma_bench import registry
from trilemma_bench.config import resolve
from trilemma_bench.contracts import Trainable
from trilemma_bench.recipe import recipe
from trilemma_bench.settings import SamplingSettings, TrainingSettings


class Odd(Trainable):
    """Has what TOML lacks:\a a bell,

    and a setting without a value. width: "of" \\all layers.
    """

    def __init__(
        self, data, *, width: int | None = None, most: float = math.inf, least: float = -1e-7,
        levels: tuple[int, ...] = (1, 2), name: str = 'a "b" # σ\n', table: dict[str, float] | None = None,
    ) -> None: ...  # fmt: skip


class Kin(Odd):
    """Of two layers."""

    def __init__(self, data, *, depth: int = 2, **settings) -> None: ...


def again(model_class, settings, path):
    """The settings of a run whose recipe is the printed one."""
    path.write_text(recipe(model_class, settings), encoding="utf-8")
    return resolve(model_class, model="another", dataset="none", config=path)


@pytest.mark.parametrize("name", [*TRAINABLE, "real-data"])
def test_what_is_printed_is_a_recipe_for_the_same_run(name, tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(succeeds("settings", "--model", name, "--dataset", "digits").stdout, encoding="utf-8")
    model_class = registry.models.get(name)
    assert resolve(model_class, model="x", dataset="x", config=file) == resolve(
        model_class, model=name, dataset="digits"
    )


@pytest.mark.parametrize("overrides", [{}, {"width": 3, "table": {"a b": 0.5}, "most": 2.0, "levels": (4,)}])
def test_values_that_toml_writes_in_its_own_way(overrides, tmp_path):
    settings = resolve(Odd, model="odd", dataset="none", overrides=overrides)
    assert again(Odd, settings, tmp_path / "odd.toml") == settings


def test_a_model_explains_itself_and_what_it_builds_on():
    lines = recipe(Kin, resolve(Kin, model="kin", dataset="none")).splitlines()
    assert lines[:7] == [
        "[model]",
        "# Of two layers.",
        "#",
        "# Has what TOML lacks:  a bell,",
        "#",
        '# and a setting without a value. width: "of" \\all layers.',
        "#",
    ]
    assert "# width is not given: the model chooses" in lines
    assert "depth = 2" in lines


@pytest.mark.parametrize("schema", [TrainingSettings, SamplingSettings])
def test_every_setting_of_the_harness_says_what_it_is(schema):
    text = recipe(Odd, resolve(Odd, model="odd", dataset="none"))
    for name, field in schema.model_fields.items():
        assert field.description
        assert any(
            line.startswith(f"{name} = ") and line.endswith(f"  # {field.description}") for line in text.splitlines()
        )
    assert max(map(len, text.splitlines())) <= 120
