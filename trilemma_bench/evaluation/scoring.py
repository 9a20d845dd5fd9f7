"""A metric's value as a record has it: checked, with its facts and its interval."""

from __future__ import annotations

import math

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.intervals import normal_interval
from trilemma_bench.record import Score


def make_score(metric: Metric, comparison: Comparison) -> Score:
    """The metric's value with its facts. Raises TrilemmaError when value, error or interval is not finite."""
    estimate = metric.estimate(comparison)
    limits = estimate.range or metric.range
    interval = estimate.interval or _normal_interval(estimate, limits)
    _check_finite(metric.name, estimate.value)
    if estimate.standard_error is not None:
        _check_finite(f"the standard error of {metric.name}", estimate.standard_error)
    _check_finite(f"the interval of {metric.name}", *(interval or ()))
    return Score(
        value=estimate.value,
        better=metric.better,
        unit=metric.unit,
        title=metric.title,
        standard_error=estimate.standard_error,
        interval=interval,
        interval_method=(estimate.method or None) if _is_sure(estimate) else None,
        ideal=estimate.ideal,
        floor=estimate.floor,
        range=_bounded(limits),
        note="; ".join(filter(None, (estimate.note, _doubt(estimate)))),
    )


def _normal_interval(estimate: Estimate, limits: tuple[float, float]) -> tuple[float, float] | None:
    if estimate.standard_error is None:
        return None
    return normal_interval(estimate.value, estimate.standard_error, limits)


def _check_finite(what: str, *numbers: float) -> None:
    if not all(map(math.isfinite, numbers)):
        raise TrilemmaError(f"{what} is {', '.join(map(str, numbers))}")


def _is_sure(estimate: Estimate) -> bool:
    return estimate.standard_error is not None or estimate.interval is not None


def _doubt(estimate: Estimate) -> str:
    """Why there is no interval, where there is none."""
    if _is_sure(estimate):
        return ""
    return "too few samples for an interval" if estimate.method else "the metric gives no interval"


def _bounded(limits: tuple[float, float]) -> tuple[float | None, float | None]:
    """As a record has them: None for what is infinite."""
    lowest, highest = (limit if math.isfinite(limit) else None for limit in limits)
    return lowest, highest
