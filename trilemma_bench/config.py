"""One run's settings: model signature, TOML and flags → one validated object, with a digest.

Later sources win: the model's defaults, `configs/<dataset>/<model>.toml`, `--config FILE`, `--set key=value`,
`--budget`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from trilemma_bench.errors import UsageError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import torch

COMPILED_FROM_SECONDS, COMPILED_FROM_IMAGES = 1800.0, 2e6  # which take DDGAN 37 minutes on an H200
_UNANNOTATED: dict[type, Any] = {bool: bool, int: int | float, float: float, str: str}
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "img": 1.0, "kimg": 1e3, "Mimg": 1e6}


@dataclass(frozen=True)
class Budget:
    """How long to train: until `seconds` of training have passed, or `images` samples have been seen."""

    text: str
    seconds: float = math.inf
    images: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Budget:
        """'90s', '10m', '2h' or '640img', '500kimg', '2Mimg'. Raises UsageError for anything else, zero included."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|img|kimg|Mimg)", text.strip())
        if match and float(match[1]) == 0:
            raise UsageError(f"budget '{text}' must be more than 0")
        if not match:
            raise UsageError(f"budget '{text}' is not a time (90s, 10m, 2h) or a number of images (500kimg, 2Mimg)")
        amount = float(match[1]) * _UNITS[match[2]]
        return cls(text.strip(), images=amount) if match[2].endswith("img") else cls(text.strip(), seconds=amount)

    @property
    def long(self) -> bool:
        """Whether minutes of compiling pay."""
        if math.isfinite(self.images):
            return self.images >= COMPILED_FROM_IMAGES
        return self.seconds >= COMPILED_FROM_SECONDS

    def progress(self, images: int, seconds: float) -> float:
        """The share of the budget that is used up: 0 at the start, 1 or more at the end."""
        return max(images / self.images, seconds / self.seconds)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingSettings(_Settings):
    """What the training loop needs; a model states its own defaults in `Trainable.training_defaults`.

    batch_size: of all processes together. lr_final: share of each learning rate left at the end of a cosine; lr_floor:
    or this much of it, if that is more. flip: random horizontal flips. precision: of the networks; 'auto' is 'bf16' on
    CUDA devices that have it, else 'float32'. compile: the networks by torch.compile, where that works, which takes
    minutes itself; 'auto' is true on CUDA for budgets from half an hour or two million images on. cuda_graphs: on CUDA,
    in one process, steps that the model says are alike are recorded once and replayed, without gaps between their
    kernels; 'auto' where that works.

    Never changing the result: checkpoint_seconds, the time between two checkpoints; preview_seconds, the time between
    two pictures of samples, or longer where drawing them would take more than 2 % of the time, 0 for none;
    tensorboard, whether to write losses and pictures for it too.
    """

    batch_size: int = Field(default=128, ge=1)
    budget: str = "10m"
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    lr_schedule: Literal["constant", "cosine"] = "cosine"
    lr_final: float = Field(default=0.0, ge=0, le=1)
    lr_floor: float = Field(default=0.0, ge=0)
    lr_warmup_steps: int = Field(default=0, ge=0)
    flip: bool = False
    precision: Literal["auto", "float32", "bf16"] = "auto"
    compile: Literal[True, False, "auto"] = "auto"
    cuda_graphs: Literal[True, False, "auto"] = "auto"
    checkpoint_seconds: float = Field(default=120.0, gt=0)
    preview_seconds: float = Field(default=60.0, ge=0)
    tensorboard: bool = False


class SamplingSettings(_Settings):
    """chunk_size: samples drawn at once, part of what makes samples repeatable. precision: of the networks, as in
    training. compile: the network by torch.compile. cuda_graphs: on CUDA the network's kernels are recorded once and
    replayed, without gaps between them; 'auto' where that works.

    The timing settings: the timed batch (the paper's 100), repetitions, untimed warm-up calls, and the seconds after
    which a slow model is not repeated any more (at least 3 times all the same).
    """

    chunk_size: int = Field(default=1000, ge=1)
    precision: Literal["auto", "float32", "bf16"] = "float32"
    compile: bool = False
    cuda_graphs: Literal[True, False, "auto"] = "auto"
    timing_batch: int = Field(default=100, ge=1)
    timing_repetitions: int = Field(default=20, ge=3)
    timing_warmup: int = Field(default=2, ge=1)
    timing_seconds: float = Field(default=10.0, gt=0)


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's result, resolved."""

    model: dict[str, Any]
    training: TrainingSettings
    sampling: SamplingSettings

    def flat(self) -> dict[str, Any]:
        tables = {"training": self.training.model_dump(), "sampling": self.sampling.model_dump()}
        return {"model": self.model, **tables}

    def on(self, device: torch.device, is_image: bool) -> Settings:
        """The same with what 'auto' means on `device`, for images or for points."""
        from trilemma_bench.precision import resolved

        training, sampling = self.training, self.sampling
        on_cuda = device.type == "cuda"
        compiled = on_cuda and Budget.parse(training.budget).long if training.compile == "auto" else training.compile
        graphs = training.cuda_graphs if on_cuda else False
        decided = {
            "precision": resolved(training.precision, device, is_image),
            "compile": compiled,
            "cuda_graphs": graphs,
        }
        return Settings(
            self.model,
            training.model_copy(update=decided),
            sampling.model_copy(update={"precision": resolved(sampling.precision, device, is_image)}),
        )


def resolve(
    model_class: type,
    *,
    model: str,
    dataset: str,
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    budget: str | None = None,
) -> Settings:
    """The run's settings from all sources. Raises UsageError that names the key, the value and what is allowed.

    overrides: by the name of a setting, or by 'table.name'.
    """
    tables: dict[str, dict[str, Any]] = {"model": {}, "training": {}, "sampling": {}}
    tables["training"].update(getattr(model_class, "training_defaults", {}))
    for path in [*builtin_configs(model_class, model, dataset), *([config] if config else [])]:
        _merge(tables, read_toml(path), str(path))
    known = schemas(model_class)
    _override(tables, overrides or {}, known)
    if budget is not None:
        tables["training"]["budget"] = budget
    settings = Settings(
        _validate(known["model"], tables["model"], f"model '{model}'").model_dump(),
        _validate(TrainingSettings, tables["training"], "training"),  # type: ignore[arg-type]
        _validate(SamplingSettings, tables["sampling"], "sampling"),  # type: ignore[arg-type]
    )
    Budget.parse(settings.training.budget)
    return settings


def model_schema(model_class: type) -> type[BaseModel]:
    """The keyword-only arguments of the class's `__init__`, as a validating schema.

    An `__init__` that ends in `**settings` hands them on: those of the next class in the method order belong to it too.
    One without an annotation takes what its default is.
    """
    fields: dict[str, Any] = {}
    for owner in [each for each in model_class.__mro__ if "__init__" in vars(each)]:
        hints = typing.get_type_hints(vars(owner)["__init__"])
        parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
        for parameter in parameters:
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name not in fields:
                default = ... if parameter.default is inspect.Parameter.empty else parameter.default
                fields[parameter.name] = (hints.get(parameter.name, _UNANNOTATED.get(type(default), Any)), default)
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    forbid = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)
    return create_model(f"{model_class.__name__}Settings", __config__=forbid, **fields)


def schemas(model_class: type) -> dict[str, type[BaseModel]]:
    """What each table of settings may hold, by the table's name."""
    return {"model": model_schema(model_class), "training": TrainingSettings, "sampling": SamplingSettings}


def setting_names(model_class: type) -> set[str]:
    """Every name that `--set` takes without its table."""
    return {name for schema in schemas(model_class).values() for name in schema.model_fields}


def defaults(model_class: type) -> dict[str, dict[str, Any]]:
    """Table → setting → its value where no config and no flag gives one; without those that have none."""
    found = {
        table: {name: field.get_default() for name, field in schema.model_fields.items() if not field.is_required()}
        for table, schema in schemas(model_class).items()
    }
    found["training"] |= getattr(model_class, "training_defaults", {})
    return found


def configs_dir() -> Path:
    """The shipped configs: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def builtin_configs(model_class: type, model: str, dataset: str) -> list[Path]:
    """The shipped configs of this run: a sampler reads the config of the model that it samples first."""
    folder = configs_dir() / dataset
    names = [getattr(model_class, "trained_as", None), model]
    return [path for name in dict.fromkeys(names) if name and (path := folder / f"{name}.toml").is_file()]


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML file at `path`. Raises UsageError when missing or malformed, with the line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"config file {path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None


def digest(value: Mapping[str, Any]) -> str:
    """sha256 (hex) of a JSON-able mapping, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _merge(tables: dict[str, dict[str, Any]], more: Mapping[str, Any], where: str) -> None:
    for table, values in more.items():
        if table not in tables or not isinstance(values, Mapping):
            raise UsageError(f"{where}: {unknown_name('config table', table, tables)}")
        tables[table].update(values)


def _override(
    tables: dict[str, dict[str, Any]], overrides: Mapping[str, Any], known: Mapping[str, type[BaseModel]]
) -> None:
    given: dict[tuple[str, str], str] = {}
    for key, value in overrides.items():
        table, name = place = _place_of(key, known)
        if (first := given.setdefault(place, key)) != key:
            raise UsageError(f"'{first}' and '{key}' are the same setting: give it once")
        tables[table][name] = value


def _place_of(key: str, schemas: Mapping[str, type[BaseModel]]) -> tuple[str, str]:
    """The table and the name of the setting that 'name' or 'table.name' means."""
    table, _, name = key.rpartition(".")
    known = {table: set(schema.model_fields) for table, schema in schemas.items()}
    if table and table not in known:
        raise unknown_name("config table", table, known)
    owners = [owner for owner in ([table] if table else known) if name in known[owner]]
    if not owners:
        raise unknown_name("setting", key, set().union(*known.values()) if not table else known[table])
    if len(owners) > 1:
        raise UsageError(f"setting '{name}' can mean {' or '.join(f'{owner}.{name}' for owner in owners)}: say which")
    return owners[0], name


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """'key=value', as `--set` takes it → settings: values are TOML's, or text where they are not; the last one wins."""
    found = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"--set '{text}': expected key=value, for example --set batch_size=64")
        found[key.strip()] = parse_value(value.strip())
    return found


def parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _validate(schema: type[BaseModel], values: Mapping[str, Any], where: str) -> BaseModel:
    unknown = set(values) - set(schema.model_fields)
    if unknown:
        raise unknown_name(f"{where} setting", min(unknown), schema.model_fields)
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where} setting '{key}' = {first['input']!r}: {first['msg']}") from None
