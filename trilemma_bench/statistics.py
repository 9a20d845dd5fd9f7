"""What may be ranked together, and which runs make one row: those of several seeds, with the errors of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special  # not scipy.stats, which takes a second to import

from trilemma_bench.record import Record, Score, Speed, Training

Z95 = float(special.ndtri(0.975))  # a normal distribution lies in mean ± Z95 standard deviations in 95 % of cases
BELOW = " · "  # between the names of nested conditions
UNRECORDED = "not recorded"

Conditions = tuple[tuple[str, Any], ...]
Error = tuple[float, float]  # a standard error and its degrees of freedom
Time = Literal["seconds_per_image", "latency_seconds"]

# the logarithms of the times of runs that differ only in the seed: their standard deviation before any of these runs is
# seen, and the degrees of freedom that it counts for; how both were found is in docs/metrics.md, "Intervals"
RUNS_SD = 0.12
RUNS_FREEDOM = 3.0
MANY = 1e9  # degrees of freedom of a normal distribution, where Student's t takes a number


def half_width(*errors: Error) -> float:
    """Half of the 95 % interval of Student's t; of several errors, by what says the least."""
    return max(error * float(special.stdtrit(min(freedom, MANY), 0.975)) for error, freedom in errors)


def is_reference(record: Record) -> bool:
    """Whether this row is the ceiling that real data reach: shown, never ranked."""
    return record.model.reference


@dataclass(frozen=True)
class Group:
    """Records that share a ranking: one dataset, one protocol in every field, and one device (None: nothing timed)."""

    conditions: Conditions
    records: tuple[Record, ...]

    def __getitem__(self, field: str) -> Any:
        return self._fields.get(field)

    @cached_property
    def _fields(self) -> dict[str, Any]:
        return dict(self.conditions)

    def names_below(self, field: str) -> list[str]:
        """The names that the nested `field` has entries for, in their order."""
        inside = [name.split(BELOW) for name, _ in self.conditions if name.startswith(f"{field}{BELOW}")]
        return list(dict.fromkeys(parts[1] for parts in inside))

    def differences(self, other: Group) -> list[str]:
        """The fields that keep the two apart, each as `field: this value, not that value`."""
        return differences(self.conditions, other.conditions)


def differences(one: Conditions, other: Conditions) -> list[str]:
    """The fields in which `one` differs from `other`, each as `field: this value, not that value`."""
    mine, theirs = dict(one), dict(other)
    fields = [field for field in {**mine, **theirs} if mine.get(field) != theirs.get(field)]
    return [f"{field}: {_show(mine, field)}, not {_show(theirs, field)}" for field in fields]


def _show(conditions: dict[str, Any], field: str) -> str:
    value = conditions.get(field)
    text = "absent" if field not in conditions else "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def measured_on(record: Record) -> Conditions:
    """What must be equal before two records' scores may be compared: data, samples, and every field of the protocol."""
    protocol = {} if record.protocol is None else record.protocol.model_dump()
    name = protocol.pop("name", None)
    fields = {"dataset": record.dataset.name, "data": record.dataset.fingerprint, "protocol": name, **protocol}
    return (*_flat(fields), ("samples measured", record.samples))


def _flat(fields: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested fields under the names of all they are in, so that each can be named when it differs."""
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}{BELOW}")
        else:
            yield f"{prefix}{key}", value


def comparable(records: Iterable[Record]) -> list[Group]:
    """The complete records in groups within which ranking is fair, in order of first appearance.

    A record that was not timed, and the real-data reference, belong to every device's group of their dataset and
    protocol: no device had a part in their scores.
    """
    complete = [record for record in records if record.status == "complete"]
    groups: dict[Conditions, list[Record]] = {}
    for record in complete:
        if record.speed is not None and not is_reference(record):
            groups.setdefault((*measured_on(record), ("device", record.speed.device)), []).append(record)
    timed = list(groups)
    for record in complete:
        if record.speed is None or is_reference(record):
            measured = measured_on(record)
            for key in [key for key in timed if key[:-1] == measured] or [(*measured, ("device", None))]:
                groups.setdefault(key, []).append(record)
    return [Group(key, tuple(members)) for key, members in groups.items()]


@dataclass(frozen=True)
class Runs:
    """Runs that differ in nothing but the seed (one or more): a row of a table."""

    records: tuple[Record, ...]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def covers(self) -> str:
        """What the standard errors of these runs take into account, in words."""
        return f"{self._varied} ({len(self)} seeds)" if len(self) > 1 else "sampling only: the same trained model"

    @property
    def _varied(self) -> str:
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
    """A run's standard error on one side; an interval may be cut off where the score's range ends."""
    error = score.standard_error or 0.0
    return error if score.interval is None else max(error, abs(score.interval[up] - score.value) / Z95)


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
    each = _geometric_mean([speed.seconds_per_image for speed in speeds])
    changes = {
        "raw_seconds": raw,
        "raw_latency_seconds": latency,
        "seconds_per_image": each,
        "images_per_second": 1 / each if each else first.images_per_second,
        "latency_seconds": _geometric_mean([speed.latency_seconds for speed in speeds]),
        "nfe": float(np.mean(evaluations)) if evaluations else None,
        "peak_memory_bytes": max((s.peak_memory_bytes for s in speeds if s.peak_memory_bytes), default=None),
        "others_memory_bytes": max((s.others_memory_bytes for s in speeds if s.others_memory_bytes), default=None),
        "processor_share": min((s.processor_share for s in speeds if s.processor_share is not None), default=None),
    }
    return first.model_copy(update=changes)


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(float(np.mean(np.log(values)))) if min(values) > 0 else 0.0


def raw_times(speed: Speed, field: Time) -> list[float]:
    """The raw times of which `field` is the median, in its unit."""
    if field == "latency_seconds":
        return speed.raw_latency_seconds or [speed.latency_seconds]
    return [seconds / speed.batch_size for seconds in speed.raw_seconds] or [speed.seconds_per_image]


def too_coarse(speeds: Iterable[Speed], field: Time) -> bool:
    """Whether a time is 0, which has no logarithm."""
    return any(min(getattr(speed, field), *raw_times(speed, field)) <= 0 for speed in speeds)


def time_interval(speeds: Sequence[Speed], field: Time) -> tuple[float, float] | None:
    """The 95 % interval of the geometric mean of the medians of one run or several; None without any, or with a 0."""
    if not speeds or too_coarse(speeds, field):
        return None
    value = _geometric_mean([getattr(speed, field) for speed in speeds])
    factor = math.exp(min(half_width(*time_errors(field, speeds)), 300.0))  # what a float can hold
    return value / factor, value * factor


def time_errors(field: Time, *sides: Sequence[Speed]) -> list[Error]:
    """Of the mean over runs of the logarithm of a time, or of the difference of two such means: between runs, and by
    the raw times alone.

    Between runs by a moderated variance (Smyth 2004): that of the runs about the mean of their side, s² with d degrees
    of freedom, together with what is known of other runs, (d₀s₀² + d·s²)/(d₀ + d) with d₀ + d. Pooled over the sides,
    because it is the machine's. A run a side is the case of d = 0.
    """
    logs = [np.log([getattr(speed, field) for speed in speeds]) for speeds in sides]
    squares = sum(float(np.square(side - side.mean()).sum()) for side in logs)
    freedom = RUNS_FREEDOM + sum(len(side) - 1 for side in logs)
    sd = math.sqrt((RUNS_FREEDOM * RUNS_SD**2 + squares) / freedom)
    raw = (median_error(np.log(raw_times(speed, field))) / len(speeds) for speeds in sides for speed in speeds)
    return [(sd * math.sqrt(sum(1 / len(side) for side in logs)), freedom), (math.hypot(*raw), math.inf)]


def median_error(values: ArrayLike) -> float:
    """The standard error of a median, from two order statistics and how often they hold it (Price & Bonett 2001): up to
    a quarter too wide of few values; 0 for a single one.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    rank = max(1, round((n + 1) / 2 - math.sqrt(n)))
    beyond = float(special.bdtr(rank - 1, n, 0.5))  # the chance that the median lies below that rank
    return float(ordered[-rank] - ordered[rank - 1]) / (-2 * float(special.ndtri(beyond))) if n > 1 else 0.0


def _mean_training(trainings: Sequence[Training]) -> Training | None:
    if not trainings:
        return None
    means = {
        "seconds": float(np.mean([training.seconds for training in trainings])),
        "images": round(float(np.mean([training.images for training in trainings]))),
    }
    return trainings[0].model_copy(update=means)


def over_seeds(records: Iterable[Record]) -> list[Runs]:
    """`records` (complete ones) in sets that differ only in the seed, in order of first appearance.

    A seed counts once, and so does a trained model: repetitions say nothing about other trainings, and stand apart.
    """
    sets = [runs for same in _alike(records) for runs in _without_repeats(same)]
    return [Runs(tuple(sorted(runs, key=lambda record: record.seed))) for runs in sets]


def _without_repeats(same: Iterable[Record]) -> list[list[Record]]:
    sets: list[list[Record]] = []
    for record in same:
        open_set = next((runs for runs in sets if not _repeats(record, runs)), None)
        if open_set is None:
            sets.append([record])
        else:
            open_set.append(record)
    return sets


def repeats(records: Iterable[Record]) -> list[list[Record]]:
    """`records` in sets that are the same in all, weights and seed included, each oldest first."""
    sets: list[list[Record]] = []
    for same in _alike(sorted(records, key=lambda record: (record.created, record.id))):
        repeated: dict[tuple[int, str | None], list[Record]] = {}
        for record in same:
            weights = record.training.checkpoint_sha256 if record.training else None
            repeated.setdefault((record.seed, weights), []).append(record)
        sets += repeated.values()
    return sets


def _alike(records: Iterable[Record]) -> list[list[Record]]:
    """`records` in sets of equal seed conditions, in order of first appearance. What a record does not say is taken to
    be what the others of its set say, as long as these say the same.
    """
    sets: dict[str, list[Record]] = {}
    for record in records:
        sets.setdefault(repr(_always_recorded(record)), []).append(record)
    return [part for same in sets.values() for part in _parted(same)]


def _parted(same: list[Record]) -> list[list[Record]]:
    said = [_recorded_lately(record) for record in same]
    if all(len({str(value) for _, value in field} - {UNRECORDED}) < 2 for field in zip(*said, strict=True)):
        return [same]
    parts: dict[str, list[Record]] = {}
    for record, facts in zip(same, said, strict=True):
        parts.setdefault(repr(facts), []).append(record)
    return list(parts.values())


def _repeats(record: Record, runs: Sequence[Record]) -> bool:
    """Whether the seed of `record`, or its trained model, is already among `runs`."""
    weights = record.training.checkpoint_sha256 if record.training else None
    return any(
        record.seed == other.seed
        or (weights is not None and other.training is not None and weights == other.training.checkpoint_sha256)
        for other in runs
    )


def seed_conditions(record: Record) -> Conditions:
    """All that is equal in runs that differ only in the seed: model and its code, settings, data, protocol, training,
    sampling and timing.
    """
    return (*_always_recorded(record), *_recorded_lately(record))


def _recorded_lately(record: Record) -> Conditions:
    """The conditions that some records do not say; how else was sampled is among the conditions of the timing."""
    chunk_size = record.sampling.get("chunk_size", UNRECORDED)
    return (("code", record.model.source_sha256 or UNRECORDED), (f"sampling{BELOW}chunk_size", chunk_size))


def _always_recorded(record: Record) -> Conditions:
    trained, speed = record.training, record.speed
    fields = {
        "model": record.model.model_dump(exclude={"source_sha256", "settings"}),
        "settings": record.model.settings,
        "trained on": record.dataset.split,
        "training": None if trained is None else trained.model_dump(include={"budget", "settings", "device"}),
        "timing": None
        if speed is None
        else speed.model_dump(include={"device", "batch_size", "precision", "compiled", "cuda_graphs"}),
    }
    return (*measured_on(record), *_flat(fields))
