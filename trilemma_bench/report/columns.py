"""The columns of a table: where a value comes from, how it reads, what is better, and why it may be missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from trilemma_bench.contrasts import Contrast, difference, time_ratio
from trilemma_bench.grouping import is_reference
from trilemma_bench.record import Record, Score
from trilemma_bench.report import format as fmt
from trilemma_bench.runs import Runs
from trilemma_bench.statistics import Time, time_interval

# an axis whose values span more than this factor is logarithmic where its column says that it may be
LOG_FROM = 10

# with fewer raw times the slowest alone would be their 95th percentile
LEAST_FOR_P95 = 20

Value = Callable[[Record], "float | None"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Column:
    """key: its name in a record. short: the heading where space is short. better: None where nothing is ranked.

    text: a value of a record, as it is printed; detail: its interval, likewise. reason: why a record has no value. log:
    may span orders of magnitude. unit: for an axis, where the printed values carry none. meaning: what the number says,
    in words. interval: 95 %. contrast: what two rows differ by; None where their values are exact.
    """

    key: str
    title: str
    short: str
    better: Literal["higher", "lower"] | None
    value: Value
    text: Callable[[float, Record], str]
    reason: Callable[[Record], str]
    log: bool = False
    is_time: bool = False
    unit: str = ""
    meaning: str = ""
    interval: Callable[[Runs], Interval | None] = lambda runs: None
    detail: Callable[[Runs], str] = lambda runs: ""
    contrast: Callable[[Runs, Runs], Contrast] | None = None


@dataclass(frozen=True)
class _Known:
    title: str
    short: str
    meaning: str


_FD = "distance between Gaussians fitted to the features of generated and of real samples"
_AT_INFINITY = "extrapolated to infinitely many samples: less biased, and too low of few samples for each feature"
_SPATIAL = "of features that keep the place in the image: it sees a wrong layout"
_KNOWN = {
    "fid": _Known("FID", "FID", f"Fréchet Inception distance: {_FD}"),
    "fid_infinity": _Known("FID∞", "FID∞", f"FID {_AT_INFINITY}"),
    "fd": _Known("FD", "FD", f"Fréchet distance: {_FD}"),
    "fd_infinity": _Known("FD∞", "FD∞", f"Fréchet distance {_AT_INFINITY}"),
    "sfid": _Known("sFID", "sFID", f"FID {_SPATIAL}"),
    "sfd": _Known("sFD", "sFD", f"Fréchet distance {_SPATIAL}"),
    "kid": _Known(
        "KID",
        "KID",
        "kernel Inception distance (squared MMD, cubic kernel): unbiased, 0 if perfect but for the real samples' error",
    ),
    "cmmd": _Known("CMMD", "CMMD", "distance (MMD, Gaussian kernel) of CLIP features of generated and real samples"),
    "inception_score": _Known(
        "Inception score",
        "IS",
        "whether images look like one class each and like all classes together; sees no real data",
    ),
    "precision": _Known("Precision", "prec", "share of generated samples that lie near real ones"),
    "recall": _Known("Recall", "recall", "share of real samples that lie near generated ones"),
    "density": _Known("Density", "dens", "how many real neighbourhoods hold a generated sample, 1 for perfect samples"),
    "coverage": _Known("Coverage", "cover", "share of real neighbourhoods that hold a generated sample"),
    "modes": _Known("Modes", "modes", "modes of the data that are covered"),
    "mode_kl": _Known("Mode KL", "KL", "divergence of the generated modes from equal shares, in nats"),
    "high_quality": _Known("High quality", "hiq", "share of generated samples that belong to a mode"),
    "vendi": _Known(
        "Vendi score", "Vendi", "how many samples that have nothing in common would be as diverse as these"
    ),
    "authenticity": _Known(
        "Authenticity",
        "auth",
        "share of generated samples that are no near copy of a training sample, 1 for noise: see what real data have",
    ),
}
# with more scores than this a table is split
MOST_SCORES = 5
_DISTANCES = {"fid", "fid_infinity", "fd", "fd_infinity", "sfid", "sfd", "cmmd"}


def family(name: str) -> str:
    """The metric of a score: of 'fd_infinity_dinov2' it is 'fd_infinity', of 'precision_vgg16' 'precision'."""
    fitting = [known for known in _KNOWN if name == known or name.startswith(f"{known}_")]
    return max(fitting, key=len, default=name)


def _describe(name: str, score: Score | None) -> _Known:
    """Titles and meaning of a score; one that we do not know describes itself."""
    metric = family(name)
    if metric not in _KNOWN:
        parts = [fmt.plain(part) for part in (score.title, score.unit) if part] if score else []
        return _Known(fmt.plain(name), fmt.plain(name), ", ".join(parts))
    known, features = _KNOWN[metric], fmt.plain(name[len(metric) + 1 :])
    return replace(known, title=f"{known.title} ({features})") if features else known


def score_title(name: str) -> str:
    """How tables call a score: 'Mode KL' for 'mode_kl'."""
    return _describe(name, None).title


def _order(name: str) -> tuple[int, str]:
    known = list(_KNOWN)
    return (known.index(family(name)) if family(name) in known else len(known), name)


def _mode_count(record: Record) -> str:
    """The number of modes there are, as '/ 25'; nothing when the record does not say."""
    ideal = record.scores["modes"].ideal
    count = len(record.mode_histogram) if record.mode_histogram else ideal
    return f" / {count:g}" if count else ""


# of a share no more decimals than one of ten thousand samples has, of the mean number of modes a tenth
_FINEST = {"share": 4, "modes": 1}


def _shown(score: Score) -> tuple[str, str]:
    """The value and its interval, as they are printed."""
    if score.interval and score.interval[0] < score.interval[1]:
        return fmt.measured(score.value, score.interval, _FINEST.get(score.unit))
    return (fmt.share(score.value) if score.unit == "share" else fmt.figure(score.value)), ""


def _score_text(name: str) -> Callable[[float, Record], str]:
    if name == "modes":
        return lambda value, record: (
            (f"{value:g}" if value.is_integer() else _shown(record.scores[name])[0]) + _mode_count(record)
        )
    return lambda value, record: _shown(record.scores[name])[0]


def score_column(name: str, records: Iterable[Record]) -> Column:
    """The column of the score `name`; its direction is the one that the records state."""
    first = next((record.scores[name] for record in records if name in record.scores), None)
    known = _describe(name, first)
    return Column(
        name,
        known.title,
        known.short,
        first.better if first else None,
        lambda record: record.scores[name].value if name in record.scores else None,
        _score_text(name),
        lambda record: record.missing.get(name, "not measured in this run"),
        log=family(name) in _DISTANCES,
        unit=fmt.plain(first.unit) if first and first.unit not in ("share", name) else "",
        meaning=known.meaning,
        interval=lambda runs: score.interval if (score := runs.record.scores.get(name)) else None,
        detail=lambda runs: _shown(score)[1] if (score := runs.record.scores.get(name)) else "",
        contrast=lambda a, b: difference(a, b, name),
    )


def score_columns(records: Iterable[Record]) -> list[Column]:
    """A column for each score that a record has or says is missing, in the usual order, others by name."""
    records = list(records)
    names = {name for record in records for name in (*record.scores, *record.missing)}
    columns = [score_column(name, records) for name in sorted(names, key=_order)]
    count = Counter(column.short for column in columns)
    return [replace(column, short=column.title) if count[column.short] > 1 else column for column in columns]


def _speed(field: str) -> Value:
    return lambda record: None if record.speed is None or is_reference(record) else getattr(record.speed, field)


def _time_interval(field: Time) -> Callable[[Runs], Interval | None]:
    return lambda runs: time_interval([record.speed for record in runs.records if record.speed], field)


def _time_detail(field: Time) -> Callable[[Runs], str]:
    def detail(runs: Runs) -> str:
        interval = _time_interval(field)(runs)
        return fmt.seconds_interval(getattr(runs.record.speed, field), interval) if interval else ""

    return detail


def _latency_p95(record: Record) -> float | None:
    raw = [] if record.speed is None or is_reference(record) else record.speed.raw_latency_seconds
    return float(np.quantile(raw, 0.95)) if len(raw) >= LEAST_FOR_P95 else None


def _training(field: str) -> Value:
    return lambda record: None if record.training is None or is_reference(record) else getattr(record.training, field)


def _why_untimed(record: Record) -> str:
    if is_reference(record):
        return "real data: nothing is sampled or trained"
    return "not counted or measured here" if record.speed else "not timed: the samples were made elsewhere"


def _why_no_p95(record: Record) -> str:
    timed = record.speed is not None and not is_reference(record)
    return f"fewer than {LEAST_FOR_P95} raw times" if timed else _why_untimed(record)


def _why_untrained(record: Record) -> str:
    return _why_untimed(record) if is_reference(record) else "training is not part of this record"


SECONDS_PER_IMAGE = Column(
    "seconds_per_image", "Time per image", "s/image", "lower", _speed("seconds_per_image"),
    lambda value, _: fmt.seconds(value), _why_untimed, log=True, is_time=True,
    meaning="sampling only, in full batches, median", interval=_time_interval("seconds_per_image"),
    detail=_time_detail("seconds_per_image"), contrast=lambda a, b: time_ratio(a, b, "seconds_per_image"),
)  # fmt: skip

FACTS = (
    Column(
        "nfe", "NFE", "NFE", "lower", _speed("nfe"), lambda value, _: f"{value:,.6g}", _why_untimed, log=True,
        meaning="network evaluations per image, counted in a full batch",
    ),
    SECONDS_PER_IMAGE,
    Column(
        "images_per_second", "Images/s", "images/s", "higher", _speed("images_per_second"),
        lambda value, _: fmt.figure(value), _why_untimed, log=True,
        contrast=lambda a, b: time_ratio(a, b, "seconds_per_image"),
    ),
    Column(
        "latency_seconds", "Latency", "latency", "lower", _speed("latency_seconds"),
        lambda value, _: fmt.seconds(value), _why_untimed, log=True, is_time=True,
        meaning="time of a batch of one, median", interval=_time_interval("latency_seconds"),
        detail=_time_detail("latency_seconds"), contrast=lambda a, b: time_ratio(a, b, "latency_seconds"),
    ),
    Column(
        "latency_p95_seconds", "Latency p95", "p95", "lower", _latency_p95, lambda value, _: fmt.seconds(value),
        _why_no_p95, log=True, is_time=True, meaning="time of a batch of one that 95 % of the raw times do not exceed",
    ),
    Column(
        "peak_memory_bytes", "Peak memory", "memory", None, _speed("peak_memory_bytes"),
        lambda value, _: fmt.size(value), _why_untimed, log=True, unit="bytes", meaning="while sampling",
    ),
    Column(
        "parameters", "Parameters", "params", None,
        lambda record: None if is_reference(record) else record.model.parameters or None,
        lambda value, _: fmt.count(value), _why_untimed, log=True, meaning="of the network that is sampled",
    ),
    Column(
        "training_seconds", "Training", "train", None, _training("seconds"), lambda value, _: fmt.seconds(value),
        _why_untrained, log=True, is_time=True, meaning="training time",
    ),
    Column(
        "training_images", "Images seen", "seen", None, _training("images"), lambda value, _: fmt.count(value),
        _why_untrained, log=True, meaning="training samples seen",
    ),
)  # fmt: skip


_CLOCKED = {"seconds_per_image", "images_per_second", "latency_seconds", "latency_p95_seconds"}


def busy_note(record: Record, column: Column) -> str:
    """What to say of a record's time that others on the machine made longer; '' where nothing shows that they did."""
    timed = record.speed is not None and not is_reference(record) and column.key in _CLOCKED
    return record.speed.busy_note if record.speed and timed else ""


# On raw coordinates a Fréchet distance sees no more than mean and covariance, and a blurred model has good ones: where
# points are measured, the share of high quality and the modes say what a scatter plot shows (Xiao et al. 2022, fig. 6).
_POINTS = "fd_points"


def quality_column(columns: Sequence[Column]) -> Column | None:
    """The score that stands for quality: a Fréchet distance, else the share of high quality, else precision."""
    usual = ("fid", "fd", "fid_infinity", "fd_infinity", "cmmd", "kid", "high_quality", "precision")
    return _first(columns, ("high_quality", *usual) if _measures_points(columns) else usual)


def coverage_column(columns: Sequence[Column]) -> Column | None:
    """The score that stands for coverage: recall, else coverage, else the modes; of points the modes first."""
    usual = ("recall", "coverage", "modes")
    return _first(columns, ("modes", *usual) if _measures_points(columns) else usual)


def main_scores(columns: Sequence[Column]) -> list[Column]:
    """The scores that a table shows beside speed and cost; of many, the others have a table of their own."""
    if len(columns) <= MOST_SCORES:
        return list(columns)
    kept = {column.key for column in (quality_column(columns), coverage_column(columns)) if column}
    return [column for column in columns if column.key in {*kept, "precision", "recall"}]


def _measures_points(columns: Sequence[Column]) -> bool:
    return any(column.key == _POINTS for column in columns)


def _first(columns: Iterable[Column], wanted: Iterable[str]) -> Column | None:
    ranked = [column for column in columns if column.better]
    return next((column for name in wanted for column in ranked if family(column.key) == name), None)
