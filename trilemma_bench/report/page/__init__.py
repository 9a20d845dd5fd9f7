"""The interactive page: one file that opens from disk, without network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("dom.js", "axes.js", "plot.js", "table.js", "details.js", "main.js")


def page_html(content: Mapping[str, Any]) -> str:
    """The page that shows `content` (see `content.page_content`).

    What records say is data, which scripts put into text nodes; by its Content-Security-Policy the page runs no script
    but its own two, and loads nothing.
    """
    template = Environment(loader=FileSystemLoader(STATIC), undefined=StrictUndefined, autoescape=True)
    scripts = [_library(), _own_script()]
    return template.get_template("index.html").render(
        hashes=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        style=Markup((STATIC / "page.css").read_text(encoding="utf-8")),
        data=Markup(_script_safe(content)),
        scripts=[Markup(script) for script in scripts],
    )


def _library() -> str:
    """plotly.js, which the Python package carries."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _own_script() -> str:
    parts = [(STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _script_safe(content: Mapping[str, Any]) -> str:
    """JSON without the one character that could end or open a tag."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
