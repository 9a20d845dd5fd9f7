"""Settings: where they come from, which source wins, and what a wrong one says."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import ValidationError

from baselines.ddpm import DDIM
from ddgan.model import DDGAN
from trilemma_bench.config import (
    builtin_configs,
    configs_dir,
    digest,
    model_schema,
    parse_overrides,
    read_toml,
    resolve,
)
from trilemma_bench.contracts import Count, Counts, Momentum, Positive, Share
from trilemma_bench.errors import UsageError
from trilemma_bench.settings import Budget


def ddgan(**sources):
    return resolve(DDGAN, model="ddgan", dataset="gaussians25", **sources)


@pytest.mark.parametrize(
    ("text", "seconds", "images"),
    [
        ("90s", 90, None),
        ("10m", 600, None),
        ("2h", 7200, None),
        ("640img", None, 640),
        ("500kimg", None, 500_000),
        ("1.5Mimg", None, 1_500_000),
    ],
)
def test_budgets(text, seconds, images):
    budget = Budget.parse(text)
    assert budget.progress(images or 0, seconds or 0) == 1
    assert budget.progress((images or 0) // 2, (seconds or 0) / 2) == 0.5


@pytest.mark.parametrize("text", ["10x", "", "s", "-5s", "10", "1e3s", "ten minutes"])
def test_a_budget_that_is_none_says_what_one_looks_like(text):
    with pytest.raises(UsageError, match="90s, 10m, 2h"):
        Budget.parse(text)


def test_the_shipped_config_is_the_recipe_and_flags_win_over_it(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[model]\nsteps = 2\nhidden = 64\n[training]\nbatch_size = 8\n")
    assert ddgan().training.batch_size == 512
    assert ddgan(config=file).training.batch_size == 8
    both = ddgan(config=file, overrides={"hidden": 32, "training.budget": "1m"}, budget="5s")
    assert (both.model["steps"], both.model["hidden"], both.training.budget) == (2, 32, "5s")


def test_a_sampler_is_trained_by_the_config_of_the_model_it_samples():
    names = [path.name for path in builtin_configs(DDIM, "ddim", "gaussians25")]
    assert names[0] == "ddpm.toml"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=3", "unknown setting 'stepz'. Did you mean 'steps'"),
        ("model.batch_size=3", "unknown setting 'model.batch_size'"),
        ("trainin.batch_size=3", "Did you mean 'training'"),
        ("steps", "expected key=value"),
        ("steps=four", "steps.*'four'"),
        ("batch_size=0", "batch_size"),
        ("ema_decay=1.5", "ema_decay"),
    ],
)
def test_a_wrong_setting_is_named(override, message):
    with pytest.raises(UsageError, match=message):
        ddgan(overrides=parse_overrides([override]))


@pytest.mark.parametrize(
    ("text", "message"),
    [("[model\n", "not valid TOML"), ("[modell]\nsteps = 1", "Did you mean 'model'"), ("[model]\nstep = 1", "'steps'")],
)
def test_a_wrong_config_file_is_named(tmp_path, text, message):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        ddgan(config=file)


def test_a_missing_config_file_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        ddgan(config=tmp_path / "absent.toml")


def test_every_shipped_config_is_valid():
    from trilemma_bench import registry

    files = sorted(path for path in configs_dir().glob("*/*.toml") if path.parent.name != "suites")
    assert files
    for path in files:
        model = model_of(path.stem, registry.models.names())
        resolve(registry.models.get(model), model=model, dataset=path.parent.name, config=path)
        assert read_toml(path)


def model_of(stem, models):
    """'ddgan-t2', a variant's file for --config, is the model 'ddgan'."""
    return max((name for name in models if stem == name or stem.startswith(f"{name}-")), key=len)


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})


class TestSettingsHandedOn:
    class Base:
        def __init__(self, data, *, width: int = 3, depth: int = 1) -> None: ...

    class Open(Base):
        def __init__(self, data, *, depth: int = 2, **settings: int) -> None: ...

    class Closed(Base):
        def __init__(self, data, *, depth: int = 2) -> None: ...

    def test_settings_that_are_handed_on_belong_to_the_model(self):
        assert model_schema(self.Open)().model_dump() == {"depth": 2, "width": 3}

    def test_settings_that_are_not_handed_on_do_not(self):
        assert model_schema(self.Closed)().model_dump() == {"depth": 2}


class Unannotated:
    def __init__(self, data, *, steps=2, sigma=1, rate=1e-3, kind="a", deep=True, other=None): ...


def test_a_setting_without_an_annotation_takes_what_its_default_is():
    schema = model_schema(Unannotated)
    found = schema(steps=3, sigma=0.5, rate=1, kind="b", deep=False, other="x").model_dump()
    assert found == {"steps": 3, "sigma": 0.5, "rate": 1.0, "kind": "b", "deep": False, "other": "x"}
    for wrong in ({"steps": "x"}, {"rate": "fast"}, {"kind": 3}, {"deep": "maybe"}):
        with pytest.raises(ValidationError):
            schema(**wrong)


class Bounded:
    def __init__(
        self, data, *, width: Count = 1, sizes: Counts = (1,), keep: Share = 0.5, rate: Positive = 1.0,
        beta: Momentum = 0.5, mode: Literal["a"] | float = "a", pair: tuple[int, float] = (1, 1.0),
        nested: tuple[Counts, ...] = ((1,),), deep: bool = False, plain=1, names: dict[str, str] | None = None,
    ): ...  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("width=0", "'width' = 0: must be at least 1"),
        ("width=1.5", "'width' = 1.5: must be a whole number"),
        ("width=wide", "'width' = 'wide': must be a whole number"),
        ("keep=1.5", "'keep' = 1.5: must be at most 1"),
        ("rate=0", "'rate' = 0: must be more than 0"),
        ("rate=nan", "'rate' = nan: must be finite"),
        ("beta=1", "'beta' = 1: must be less than 1"),
        ("sizes=2", "'sizes' = 2: must be a list"),
        ("sizes=[]", "'sizes' = []: must be a list of 1 or more"),
        ("sizes=[2, 0]", "'sizes' = [2, 0]: 0 must be at least 1"),
        ("nested=[[1], [2, 'x']]", "'nested' = [[1], [2, 'x']]: 'x' must be a whole number"),
        ("pair=[1]", "'pair' = [1]: must be a longer list"),
        ("pair=[1, 2, 3]", "'pair' = [1, 2, 3]: must be a list of 2 or fewer"),
        ("mode=b", "'mode' = 'b': must be 'a' or a number"),
        ("plain=x", "'plain' = 'x': must be a whole number or a number"),
        ("deep=maybe", "'deep' = 'maybe': must be true or false"),
        ("names={a = 1}", "'names' = {'a': 1}: 1 must be text"),
        ("names=a", "'names' = 'a': must be a table"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_must_be(setting, message):
    with pytest.raises(UsageError) as refused:
        resolve(Bounded, model="mine", dataset="none", overrides=parse_overrides([setting]))
    assert str(refused.value) == f"model 'mine' setting {message}"


class Needy:
    def __init__(self, data, *, depth: Count): ...


def test_a_setting_without_a_default_has_to_be_given():
    assert resolve(Needy, model="needy", dataset="none", overrides={"depth": 2}).model == {"depth": 2}
    with pytest.raises(UsageError, match="'needy' setting 'depth' has no default: give it a value"):
        resolve(Needy, model="needy", dataset="none")


@pytest.mark.parametrize("text", ["steps = 3", "model = 3"])
def test_a_setting_outside_of_the_tables_is_told_where_it_belongs(text, tmp_path):
    (tmp_path / "mine.toml").write_text(text)
    name = text.partition(" ")[0]
    with pytest.raises(UsageError, match=rf"mine\.toml: '{name}' stands in no table: write \[model\]"):
        ddgan(config=tmp_path / "mine.toml")


@pytest.mark.parametrize("key", ["training.compile", "sampling.cuda_graphs"])
def test_a_switch_with_a_third_position_names_all_three(key):
    assert ddgan(overrides={key: True}) != ddgan(overrides={key: False}) != ddgan()
    with pytest.raises(UsageError, match=r"= 'maybe': must be true, false or 'auto'"):
        ddgan(overrides={key: "maybe"})


@pytest.mark.parametrize("name", ["precision", "compile", "cuda_graphs"])
def test_a_name_that_training_and_sampling_share_has_to_say_which(name):
    with pytest.raises(UsageError, match=rf"'{name}' can mean training\.{name} or sampling\.{name}: say which"):
        ddgan(overrides={name: False})


def test_a_setting_is_given_once_under_one_name():
    assert ddgan(overrides=parse_overrides(["hidden=32", "hidden = 64"])).model["hidden"] == 64
    with pytest.raises(UsageError, match=r"'hidden' and 'model\.hidden' are the same setting"):
        ddgan(overrides={"hidden": 32, "model.hidden": 64})


def test_set_takes_the_values_of_toml_and_anything_else_as_text():
    found = parse_overrides(["a=1", "b = 1e3", "c=true", "d=[1, 2]", "e='1'", "f=none", "g=x=y", "h="])
    assert found == {"a": 1, "b": 1000.0, "c": True, "d": [1, 2], "e": "1", "f": "none", "g": "x=y", "h": ""}


class AnyKind:
    def __init__(self, data, *, maybe: int | None = 1, text: str = "", names: tuple[str, ...] = (), **rest: Any): ...


def test_a_setting_from_python_is_taken_as_it_is():
    values = {"maybe": None, "text": "1e3", "names": ["x", "true"]}
    settings = resolve(AnyKind, model="any-kind", dataset="gaussians25", overrides=values)
    assert settings.model == {"maybe": None, "text": "1e3", "names": ("x", "true")}


def test_a_budget_of_nothing_says_so():
    with pytest.raises(UsageError, match="budget '0s' must be more than 0"):
        Budget.parse("0s")
