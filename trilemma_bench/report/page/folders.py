"""What a run's folder holds beside its record, as far as a page has room for it: pictures and the training curve.

Files of a stranger: nothing in them is trusted, and what cannot be used is left out with its reason.
"""

from __future__ import annotations

import base64
import io
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from trilemma_bench.record import Record

LOG_NAME = "training.jsonl"
PICTURES = {"samples": "samples.png", "nearest": "nearest.png"}
# bytes that all pictures of a page take together, and that one takes without being made smaller
ALL_PICTURES, ONE_PICTURE = 12_000_000, 80_000
# a shrunk picture takes some ten milliseconds
MOST_SHRUNK, LARGEST_SIDE = 60, 640
LARGEST_FILE = 50_000_000
ALL_LOGS = 64_000_000
POINTS_OF_A_CURVE = 150
_NO_SERIES = ("step", "images", "seconds")


class Folders:
    """Reads run folders until the page's room for them is used up; those asked for first are served first."""

    def __init__(self) -> None:
        self._picture_bytes, self._shrinks, self._log_bytes = ALL_PICTURES, MOST_SHRUNK, ALL_LOGS

    def pictures(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Each picture that is there as {'uri': data URI}, or as {'left_out': why}."""
        return {kind: self._picture(folder / name) for kind, name in PICTURES.items() if (folder / name).is_file()}

    def _picture(self, path: Path) -> dict[str, Any]:
        try:
            kind, data = self._encoded(path)
        except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            return {"left_out": f"{path.name} is not a picture that can be shown"}
        if not data or len(data) > self._picture_bytes:
            return {"left_out": f"left out to keep this page small: {path}"}
        self._picture_bytes -= len(data)
        return {"uri": f"data:image/{kind};base64,{base64.b64encode(data).decode()}"}

    def _encoded(self, path: Path) -> tuple[str, bytes]:
        """A small PNG as it is, a large one shrunk; nothing where there is no room. Raises OSError or ValueError."""
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ValueError(f"{path} has {size} bytes")
        if min(size, ONE_PICTURE) > self._picture_bytes or (size > ONE_PICTURE and not self._shrinks):
            return "png", b""
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=["PNG"])
            if size <= ONE_PICTURE:
                image.verify()
                return "png", data
            self._shrinks -= 1
            return "webp", _shrunk(image)

    def training_curve(self, record: Record, folder: Path) -> dict[str, Any] | None:
        """Losses by step, thinned: {'step': numbers, 'series': {name: numbers or None}}; None where there is no log."""
        for path in _log_files(record, folder):
            size = path.stat().st_size
            if size <= self._log_bytes:
                self._log_bytes -= size
                return _thinned(path.read_text(encoding="utf-8", errors="replace").splitlines())
        return None


def _shrunk(image: Image.Image) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=85)
    return file.getvalue()


def _log_files(record: Record, folder: Path) -> Iterator[Path]:
    """The run's own log, else that of the run that trained it, which lies beside it."""
    names = [folder.name]
    if record.training and Path(record.training.run_id).name == record.training.run_id not in ("", ".", ".."):
        names.append(record.training.run_id)
    yield from (path for name in names if (path := folder.parent / name / LOG_NAME).is_file())


def _thinned(lines: list[str]) -> dict[str, Any] | None:
    every = max(1, math.ceil(len(lines) / POINTS_OF_A_CURVE))
    points = [point for line in [*lines[:-1:every], *lines[-1:]] if (point := _numbers(line))]
    if len(points) < 2:
        return None
    names = [name for name in dict.fromkeys(name for point in points for name in point) if name not in _NO_SERIES]
    series = {name: [point.get(name) for point in points] for name in names[:20]}
    return {"step": [point["step"] for point in points], "series": series}


def _numbers(line: str) -> dict[str, float]:
    """The finite numbers of a line of the log, by name; none of a line without a step."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    numbers = {name: rounded(value) for name, value in found.items() if _is_number(value)}
    return numbers if "step" in numbers else {}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def rounded(value: float) -> float:
    """Six digits: more would only make the page larger."""
    return float(f"{value:.6g}")
