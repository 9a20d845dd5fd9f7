"""What a training run leaves besides weights: a line of losses now and then, pictures, and TensorBoard's files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma_bench import distributed
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.files import atomic
from trilemma_bench.images import save_grid, save_scatter

LOG_FILE = "training.jsonl"
PREVIEW_FILE = "training-samples.png"
TENSORBOARD_FOLDER = "tensorboard"
NEVER = torch.iinfo(torch.int64).max


class TrainingLog:
    """Writes into a run's folder: training.jsonl, training-samples.png and, if asked for, TensorBoard's events.

    Only the first of many processes writes. Raises UsageError where TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool) -> None:
        self.folder = folder
        self._writer = _event_writer(folder) if tensorboard and distributed.is_main() else None

    def write(self, line: Mapping[str, Any]) -> None:
        """Appends `line`, which has 'step', 'images' and numbers."""
        if not distributed.is_main():
            return
        with (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer:
            for name, value in line.items():
                if isinstance(value, (int, float)):
                    self._writer.add_scalar(name, value, line["step"])
            self._writer.flush()

    def picture(self, samples: Tensor, step: int, limit: float) -> None:
        """Samples as they are now: uint8 images as a grid, points (N×D) as a scatter plot within ±limit."""
        path = self.folder / PREVIEW_FILE
        if samples.dtype == torch.uint8:
            atomic(path, lambda unfinished: save_grid(samples, unfinished))
        else:
            atomic(path, lambda unfinished: save_scatter(samples, unfinished, (-limit, limit)))
        if self._writer:
            self._writer.add_image("samples", _pixels(path), step, dataformats="HWC")

    def close(self) -> None:
        if self._writer:
            self._writer.close()


class Trace:
    """Scalars of the last steps, kept on the device: it is waited for only when they are read.

    folder: where the run's checkpoints are, for the error's text.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clear()

    def clear(self) -> None:
        self._values: dict[str, list[Tensor]] = {}
        self._steps: dict[str, list[int]] = {}

    def add(self, name: str, value: Tensor, step: int) -> None:
        self._values.setdefault(name, []).append(value)
        self._steps.setdefault(name, []).append(step)

    def check(self) -> dict[str, list[float]]:
        """All values. Raises TrilemmaError that names the first step in which one, in any process, is not finite."""
        values = {name: torch.stack(each).tolist() for name, each in self._values.items()}
        bad = [
            (step, name)
            for name, each in values.items()
            for step, value in zip(self._steps[name], each, strict=True)
            if not math.isfinite(value)
        ]
        step, name = min(bad, default=(NEVER, ""))
        (first,) = distributed.least(torch.tensor([step])).tolist()
        if first != NEVER:
            what = f"'{name}'" if first == step else "a loss or gradient in another process"
            raise TrilemmaError(
                f"{what} became NaN or infinite in step {first}; "
                f"the last good checkpoint, if any, is kept in {self.folder}: lower the learning rate"
            )
        return values

    def take(self) -> dict[str, float]:
        """The means since the last call, over all processes. Raises TrilemmaError as `check` does."""
        values = self.check()
        means = torch.tensor([sum(each) / len(each) for each in values.values()], dtype=torch.float64)
        distributed.average([means])
        self.clear()
        return dict(zip(values, means.tolist(), strict=True))


def _event_writer(folder: Path) -> Any:
    """TensorBoard's writer, from an optional package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "training.tensorboard = true needs the package tensorboard: pip install 'trilemma-bench[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder / TENSORBOARD_FOLDER))


def _pixels(path: Path) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
