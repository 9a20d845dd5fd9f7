"""A run's settings as a recipe: a TOML file that `--config` takes, with what each setting means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from trilemma_bench.config import explanations, schemas
from trilemma_bench.settings import Settings


def recipe(model_class: type, settings: Settings) -> str:
    """`settings` of a model as TOML. A model explains its settings in its docstring, which stands above them; each
    setting of the harness has its meaning beside it. What is None, for which TOML has no word, is only a comment.
    """
    tables = schemas(model_class)
    parts = [[f"[{name}]", *_lines(tables[name], values)] for name, values in settings.flat().items()]
    parts[0][1:1] = [line for text in explanations(model_class) for line in _comment(text)]
    return "\n\n".join("\n".join(part) for part in parts)


def _comment(text: str) -> Iterator[str]:
    """Lines of TOML, which forbids control characters in them."""
    for line in [*text.splitlines(), ""]:
        yield "".join(char if char.isprintable() else " " for char in f"# {line}").rstrip()


def _lines(schema: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    lines = {
        name: f"# {name} is not given: the model chooses" if value is None else f"{name} = {_toml(value)}"
        for name, value in values.items()
    }
    width = max(map(len, lines.values()), default=0)
    meanings = {name: schema.model_fields[name].description for name in lines}
    return [f"{line:{width}}  # {meaning}" if (meaning := meanings[name]) else line for name, line in lines.items()]


def _toml(value: Any) -> str:
    """As TOML writes it; numbers, text and lists are JSON's, but for infinity."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(key)} = {_toml(item)}' for key, item in value.items())}}}"
    return json.dumps(value)
