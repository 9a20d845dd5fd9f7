"""The columns of a table: where a value comes from, how it reads, what is better, and why it may be missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from trilemma_bench.record import Record, Score
from trilemma_bench.report import format as fmt
from trilemma_bench.statistics import is_reference

Value = Callable[[Record], "float | None"]


@dataclass(frozen=True)
class Column:
    """key: its name in a record. short: the heading where space is short. better: None where nothing is ranked.

    text: a value of a record, as it is printed. reason: why a record has no value. log: spans orders of magnitude.
    unit: for an axis, where the printed values carry none. meaning: what the number says, in words.
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


_FD = "distance between Gaussians fitted to the features of generated and of real samples"
_KNOWN = {
    "fid": ("FID", "FID", f"Fréchet Inception distance: {_FD}"),
    "fd_": ("FD", "FD", f"Fréchet distance: {_FD}"),
    "precision": ("Precision", "prec", "share of generated samples that lie near real ones"),
    "recall": ("Recall", "recall", "share of real samples that lie near generated ones"),
    "density": ("Density", "dens", "how many real neighbourhoods hold a generated sample, 1 for perfect samples"),
    "coverage": ("Coverage", "cover", "share of real neighbourhoods that hold a generated sample"),
    "modes": ("Modes", "modes", "modes of the data that are covered"),
    "mode_kl": ("Mode KL", "KL", "divergence of the generated modes from equal shares, in nats"),
    "high_quality": ("High quality", "hiq", "share of generated samples that belong to a mode"),
}
_SHARES = {"precision", "recall", "density", "coverage", "high_quality"}


def _family(name: str) -> str:
    return "fd_" if name.startswith("fd_") else name


def _describe(name: str, score: Score | None) -> tuple[str, str, str]:
    """The title, short title and meaning of a score; one that we do not know describes itself."""
    if name.startswith("fd_"):
        return (f"FD ({fmt.plain(name[3:])})", *_KNOWN["fd_"][1:])
    parts = [fmt.plain(part) for part in (score.title, score.unit) if part] if score else []
    return _KNOWN.get(name, (fmt.plain(name), fmt.plain(name), ", ".join(parts)))


def _order(name: str) -> tuple[int, str]:
    known = list(_KNOWN)
    return (known.index(_family(name)) if _family(name) in known else len(known), name)


def _mode_count(record: Record) -> str:
    """The number of modes there are, as '/ 25'; nothing when the record does not say."""
    ideal = record.scores["modes"].ideal
    count = len(record.mode_histogram) if record.mode_histogram else ideal
    return f" / {count:g}" if count else ""


def _score_text(name: str) -> Callable[[float, Record], str]:
    if name == "modes":
        return lambda value, record: f"{value:g}{_mode_count(record)}"
    return lambda value, _: fmt.share(value) if name in _SHARES else fmt.figure(value)


def score_column(name: str, records: Iterable[Record]) -> Column:
    """The column of the score `name`; its direction is the one that the records state."""
    first = next((record.scores[name] for record in records if name in record.scores), None)
    title, short, meaning = _describe(name, first)
    return Column(
        name,
        title,
        short,
        first.better if first else None,
        lambda record: record.scores[name].value if name in record.scores else None,
        _score_text(name),
        lambda record: record.missing.get(name, "not measured in this run"),
        log=_family(name) in ("fid", "fd_"),
        unit=fmt.plain(first.unit) if first and first.unit not in ("share", name) else "",
        meaning=meaning,
    )


def score_columns(records: Iterable[Record]) -> list[Column]:
    """A column for each score that a record has or says is missing, in the usual order, others by name."""
    records = list(records)
    names = {name for record in records for name in (*record.scores, *record.missing)}
    return [score_column(name, records) for name in sorted(names, key=_order)]


def _speed(field: str) -> Value:
    return lambda record: None if record.speed is None or is_reference(record) else getattr(record.speed, field)


def _training(field: str) -> Value:
    return lambda record: None if record.training is None or is_reference(record) else getattr(record.training, field)


def _why_untimed(record: Record) -> str:
    if is_reference(record):
        return "real data: nothing is sampled or trained"
    return "not counted or measured here" if record.speed else "not timed: the samples were made elsewhere"


def _why_untrained(record: Record) -> str:
    return _why_untimed(record) if is_reference(record) else "training is not part of this record"


SECONDS_PER_IMAGE = Column(
    "seconds_per_image", "Time per image", "s/image", "lower", _speed("seconds_per_image"),
    lambda value, _: fmt.seconds(value), _why_untimed, log=True, is_time=True,
    meaning="sampling only, in full batches, median",
)  # fmt: skip

FACTS = (
    Column(
        "nfe", "NFE", "NFE", "lower", _speed("nfe"), lambda value, _: f"{value:,.6g}", _why_untimed,
        meaning="network evaluations per image, counted",
    ),
    SECONDS_PER_IMAGE,
    Column(
        "images_per_second", "Images/s", "images/s", "higher", _speed("images_per_second"),
        lambda value, _: fmt.figure(value), _why_untimed,
    ),
    Column(
        "latency_seconds", "Latency", "latency", "lower", _speed("latency_seconds"),
        lambda value, _: fmt.seconds(value), _why_untimed, log=True, is_time=True,
        meaning="time of a batch of one, median",
    ),
    Column(
        "peak_memory_bytes", "Peak memory", "memory", None, _speed("peak_memory_bytes"),
        lambda value, _: fmt.size(value), _why_untimed, meaning="while sampling",
    ),
    Column(
        "parameters", "Parameters", "params", None,
        lambda record: None if is_reference(record) else record.model.parameters,
        lambda value, _: fmt.count(value), _why_untimed, meaning="of the network that is sampled",
    ),
    Column(
        "training_seconds", "Training", "train", None, _training("seconds"), lambda value, _: fmt.seconds(value),
        _why_untrained, meaning="training time",
    ),
    Column(
        "training_images", "Images seen", "seen", None, _training("images"), lambda value, _: fmt.count(value),
        _why_untrained, meaning="training samples seen",
    ),
)  # fmt: skip


# On raw coordinates a Fréchet distance sees no more than mean and covariance, and a blurred model has good ones: where
# points are measured, the share of high quality and the modes say what a scatter plot shows (Xiao et al. 2022, fig. 6).
_POINTS = "fd_points"


def quality_column(columns: Sequence[Column]) -> Column | None:
    """The score that stands for quality: a Fréchet distance, else the share of high quality, else precision."""
    usual = ("fid", "fd_", "high_quality", "precision")
    return _first(columns, ("high_quality", *usual) if _measures_points(columns) else usual)


def coverage_column(columns: Sequence[Column]) -> Column | None:
    """The score that stands for coverage: recall, else coverage, else the modes; of points the modes first."""
    usual = ("recall", "coverage", "modes")
    return _first(columns, ("modes", *usual) if _measures_points(columns) else usual)


def _measures_points(columns: Sequence[Column]) -> bool:
    return any(column.key == _POINTS for column in columns)


def _first(columns: Iterable[Column], wanted: Iterable[str]) -> Column | None:
    ranked = [column for column in columns if column.better]
    return next((column for name in wanted for column in ranked if _family(column.key) == name), None)
