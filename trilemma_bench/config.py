"""One run's settings: model signature, TOML and flags → one validated object, with a digest.

Later sources win: the model's defaults, `configs/<dataset>/<model>.toml`, `--config FILE`, `--set key=value`,
`--budget`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from trilemma_bench.errors import UsageError, unknown_name
from trilemma_bench.settings import Budget, SamplingSettings, Settings, TrainingSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_UNANNOTATED: dict[type, Any] = {bool: bool, int: int | float, float: float, str: str}

# what a setting must be, by pydantic's names of errors
_MUST_BE = {
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "less than {lt:g}",
    "finite_number": "finite",
    "literal_error": "{expected}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} or fewer",
    "missing": "a longer list",
    "dict_type": "a table",
}


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
    for owner, parameters in _owners(model_class):
        hints = typing.get_type_hints(vars(owner)["__init__"], include_extras=True)
        for parameter in parameters:
            if parameter.name not in fields:
                default = ... if parameter.default is inspect.Parameter.empty else parameter.default
                fields[parameter.name] = (hints.get(parameter.name, _UNANNOTATED.get(type(default), Any)), default)
    strict = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)
    return create_model(f"{model_class.__name__}Settings", __config__=strict, **fields)


def _owners(model_class: type) -> Iterator[tuple[type, list[inspect.Parameter]]]:
    """The classes that a model's settings belong to, each with its own keyword-only arguments."""
    for owner in [each for each in model_class.__mro__ if "__init__" in vars(each)]:
        parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
        yield owner, [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
        if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
            return


def explanations(model_class: type) -> list[str]:
    """What the model and those that it builds on say of themselves and of their settings: docstrings, in its order."""
    owners = [model_class, *(owner for owner, parameters in _owners(model_class) if parameters)]
    texts = (vars(owner).get("__doc__") for owner in dict.fromkeys(owners))
    return [inspect.cleandoc(text) for text in texts if text]


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
        if not isinstance(values, Mapping):
            raise UsageError(f"{where}: '{table}' stands in no table: write [model], [training] or [sampling] above it")
        if table not in tables:
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
        raise _refusal(values, error, where) from None


def _refusal(values: Mapping[str, Any], error: ValidationError, where: str) -> UsageError:
    """The first setting that is wrong: its value, which part of that, and what this must be."""
    first, *others = error.errors()
    name, wrong = first["loc"][0], repr(first["input"])
    if name not in values:
        return UsageError(f"{where} setting '{name}' has no default: give it a value")
    whole = repr(values[str(name)])
    kinds = [first, *(each for each in others if each["loc"][0] == name and repr(each["input"]) == wrong)]  # of a union
    choices = [_MUST_BE[each["type"]].format(**each.get("ctx", {})) for each in kinds if each["type"] in _MUST_BE]
    what = f"must be {_as_toml(' or '.join(dict.fromkeys(choices)))}" if choices else first["msg"]
    return UsageError(f"{where} setting '{name}' = {whole}: {'' if wrong == whole else f'{wrong} '}{what}")


def _as_toml(choices: str) -> str:
    """With `true` and `false` as they are to be written; words in quotes stay."""
    return re.sub(r"\b(?<!')(True|False)\b(?!')", lambda word: word[0].lower(), choices)
