"""Runs of several seeds as one row, with the errors of training and of sampling."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from trilemma_bench.record import Record, Score, Speed, Training
from trilemma_bench.statistics import Z95, geometric_mean, half_width


@dataclass(frozen=True)
class Runs:
    """Runs that differ in nothing but the seed (one or more): a row of a table."""

    records: tuple[Record, ...]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def covers(self) -> str:
        """What the errors of these runs take into account, in words."""
        if len(self) > 1:
            return f"{self._varied} ({len(self)} seeds)"
        return "sampling only: the same trained model" if self.records[0].training else "sampling only"

    @property
    def _varied(self) -> str:
        """What another seed changes. Of samples made elsewhere their maker knows."""
        if any(record.made_elsewhere for record in self.records):
            return "the samples' making"
        return "training and sampling" if all(record.training for record in self.records) else "sampling"

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the standard errors; those of a single run come from its many samples."""
        return len(self) - 1 if len(self) > 1 else math.inf

    def sampling_error(self, name: str, up: bool) -> float:
        """The error of a score, or of its mean over seeds, by sampling alone, towards more (up) or less; 0 if unknown.

        Where a run's interval is not symmetric it follows that, so that a share of 1 has an error too.
        """
        errors = [_side_error(record.scores[name], up) for record in self.records]
        return math.hypot(*errors) / len(errors)

    @cached_property
    def record(self) -> Record:
        """The run itself; of several the first, with the means over all of them in the place of its values.

        A score has the interval of Student's t over the runs, or of their sampling errors where that is the wider one,
        within the values it can take; one that a run lacks is missing. Times are the geometric means of the runs'
        medians; memory is the highest.
        """
        first = self.records[0]
        if len(self) == 1:
            return first
        names = dict.fromkeys(name for record in self.records for name in (*record.scores, *record.missing))
        missing = {name: reason for name in names if (reason := self._why_missing(name))}
        changes: dict[str, Any] = {
            "scores": {name: self._score(name) for name in names if name not in missing},
            "missing": missing,
            "mode_histogram": self._mode_histogram(),
            "speed": _pooled_speed([record.speed for record in self.records if record.speed]),
            "training": _mean_training([record.training for record in self.records if record.training]),
        }
        return first.model_copy(update=changes)

    def _why_missing(self, name: str) -> str:
        lacking = [record for record in self.records if name not in record.scores]
        reasons = [f"seed {record.seed}: {record.missing.get(name, 'not measured')}" for record in lacking]
        return "; ".join(reasons)

    def _score(self, name: str) -> Score:
        scores = [record.scores[name] for record in self.records]
        values = np.array([score.value for score in scores])
        spread = float(values.std(ddof=1) / math.sqrt(len(values)))
        sampling = math.hypot(*(score.standard_error or 0.0 for score in scores)) / len(scores)
        low, high = (
            half_width((spread, self.freedom), (self.sampling_error(name, up), math.inf)) for up in (False, True)
        )
        mean = float(values.mean())
        lowest, highest = max(score.limits[0] for score in scores), min(score.limits[1] for score in scores)
        changes = {
            "value": mean,
            "standard_error": max(spread, sampling),
            "interval": (max(mean - low, lowest), min(mean + high, highest)),
            "interval_method": f"Student's t over seeds of {self._varied}, no narrower than by sampling alone",
            "note": "; ".join(dict.fromkeys(score.note for score in scores if score.note)),
        }
        return scores[0].model_copy(update=changes)

    def _mode_histogram(self) -> list[int] | None:
        histograms = [record.mode_histogram for record in self.records if record.mode_histogram]
        together = [sum(counts) for counts in zip(*histograms, strict=True)]
        return together if len(histograms) == len(self) else None


def _side_error(score: Score, up: bool) -> float:
    """A run's error on one side: by its interval, which need not be symmetric. Where that has no room on this side, as
    upwards of modes of which none was narrowly missed, its standard error.
    """
    side = 0.0 if score.interval is None else abs(score.interval[up] - score.value) / Z95
    return side or score.standard_error or 0.0


def _pooled_speed(speeds: Sequence[Speed]) -> Speed | None:
    """The raw times of all `speeds`, which were measured in the same way, and the geometric means of their medians; the
    smallest share of the processor, and the most that others held of the GPU.
    """
    if not speeds:
        return None
    raw, latency = (
        [seconds for speed in speeds for seconds in getattr(speed, name)]
        for name in ("raw_seconds", "raw_latency_seconds")
    )
    first = speeds[0]
    evaluations = [speed.nfe for speed in speeds if speed.nfe is not None]
    each = geometric_mean([speed.seconds_per_image for speed in speeds])
    changes = {
        "raw_seconds": raw,
        "raw_latency_seconds": latency,
        "seconds_per_image": each,
        "images_per_second": 1 / each if each else first.images_per_second,
        "latency_seconds": geometric_mean([speed.latency_seconds for speed in speeds]),
        "nfe": float(np.mean(evaluations)) if evaluations else None,
        "peak_memory_bytes": _most(speed.peak_memory_bytes for speed in speeds),
        "others_memory_bytes": _most(speed.others_memory_bytes for speed in speeds),
        "processor_share": min((s.processor_share for s in speeds if s.processor_share is not None), default=None),
    }
    return first.model_copy(update=changes)


def _mean_training(trainings: Sequence[Training]) -> Training | None:
    if not trainings:
        return None
    means = {
        "seconds": float(np.mean([training.seconds for training in trainings])),
        "images": round(float(np.mean([training.images for training in trainings]))),
        "others_memory_bytes": _most(training.others_memory_bytes for training in trainings),
    }
    return trainings[0].model_copy(update=means)


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
