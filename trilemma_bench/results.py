"""The store of records: written once, found on disk, read as a pandas frame."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from trilemma_bench.errors import UsageError
from trilemma_bench.files import atomic, save_text
from trilemma_bench.record import Record, RecordError, Score, Speed, Training, read_record

RECORD_NAME = "record.json"
_SET = "set."  # before the names of settings, among the columns


class Found(NamedTuple):
    """records: each with its file, oldest first. skipped: a line for each file or folder that could not be used."""

    records: list[tuple[Path, Record]]
    skipped: list[str]


def write_record(record: Record, path: Path) -> Path:
    """Writes `record` to `path`, whole or not at all. Raises FileExistsError when one is there: it is written once."""
    if path.exists():
        raise FileExistsError(f"{path}: a record is written once and never changed")
    return save_text(path, record.to_json())


def _candidates(path: Path) -> Iterator[Path]:
    """The record files below `path`, or `path` itself when it is a file."""
    if path.is_file():
        yield path
    seen = set()
    for folder, below, names in os.walk(path, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            below.clear()  # links may lead in circles
            continue
        seen.add(real)
        if RECORD_NAME in names:
            yield Path(folder, RECORD_NAME)


def _read(path: Path) -> Record | str:
    """The record, or the line that says why it is none."""
    try:
        return read_record(path)
    except RecordError as error:
        return " ".join(str(error).split())


def find_records(dirs: Iterable[Path | str]) -> Found:
    """Every record below `dirs`, each once however often it is reached. What is no record is skipped and reported; an
    interrupted run that another one went on from is left out.
    """
    found: dict[str, tuple[Path, Record]] = {}
    skipped: dict[str, None] = {}
    for top in map(Path, dirs):
        if not top.exists():
            skipped[f"{top}: no such folder"] = None
        for path in sorted(_candidates(top)):
            record = _read(path)
            if isinstance(record, str):
                skipped[record] = None
            else:
                found.setdefault(record.to_json(), (path, record))
    continued = {record.continues for _, record in found.values()}
    last = [item for item in found.values() if item[1].status != "interrupted" or item[1].id not in continued]
    return Found(sorted(last, key=lambda item: (item[1].created, item[1].id)), list(skipped))


def load_results(folder: Path | str) -> pd.DataFrame:
    """The runs below `folder`, a row each: what was run, each score by its name, speed, cost, the record's path, and
    every setting of model and training as set.<name>.

    A score has the columns <score>_se, its standard error, and <score>_low and <score>_high, its 95 % interval. Times
    are in seconds, memory in bytes; what a run does not have is NaN or None. See `find_records` for what is left out,
    and why. Raises UsageError when there is no such folder.
    """
    if not Path(folder).exists():
        raise UsageError(f"{folder}: no such folder")
    found = find_records([folder]).records
    return to_frame([record for _, record in found], [path for path, _ in found])


def to_frame(records: Iterable[Record], paths: Sequence[Path | None] | None = None) -> pd.DataFrame:
    """A row for each record, as `load_results` returns it; without `paths` the path column is empty."""
    records = list(records)
    names = list(dict.fromkeys(name for record in records for name in (*record.scores, *record.missing)))
    files = [None if path is None else str(path) for path in paths or [None] * len(records)]
    rows = [_row(record, names, file) for record, file in zip(records, files, strict=True)]
    columns = dict.fromkeys([*_row(None, names, None), *(name for row in rows for name in row)])
    frame = pd.DataFrame(rows, columns=list(columns))
    numbers = [column for name in names for column in _numbers(name, None)]
    return frame.astype(dict.fromkeys(numbers, "float64"))


def _row(record: Record | None, names: list[str], path: str | None) -> dict[str, Any]:
    facts, costs = _facts(record), _costs(record)
    scores = {} if record is None else record.scores
    numbers = [_numbers(name, scores.get(name)) for name in names]
    values = dict(item for columns in numbers for item in columns.items())
    return {**facts, **values, **costs, "path": path, **_settings(record)}


def _settings(record: Record | None) -> dict[str, Any]:
    """What `--set` could have changed, as set.<name>; the budget has a column of its own."""
    if record is None:
        return {}
    training = record.training.settings if record.training else {}
    settings = {**{name: value for name, value in training.items() if name != "budget"}, **record.model.settings}
    return {f"{_SET}{name}": value for name, value in settings.items()}


def _numbers(name: str, score: Score | None) -> dict[str, float | None]:
    """A score's columns: its value, standard error, and the ends of its 95 % interval."""
    column = _score_column(name)
    low, high = score.interval if score and score.interval else (None, None)
    value, error = (score.value, score.standard_error) if score else (None, None)
    return {column: value, f"{column}_se": error, f"{column}_low": low, f"{column}_high": high}


def _score_column(name: str) -> str:
    """A plugin's score that is called like a fact of the run must not replace the fact."""
    taken = name in {*_facts(None), *_costs(None), "path"} or name.startswith(_SET)
    return f"score_{name}" if taken else name


def write_csv(records: Iterable[Record], path: Path, paths: Sequence[Path | None] | None = None) -> None:
    """`to_frame` as a CSV file."""
    save_csv(to_frame(records, paths), path)


def save_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes `frame` so that a spreadsheet opens it without running anything: no name in it begins a formula."""
    frame = frame.copy()
    texts = frame.select_dtypes(exclude="number").columns
    frame[texts] = frame[texts].map(_no_formula)
    atomic(path, partial(frame.rename(columns=_no_formula).to_csv, index=False))


def _no_formula(value: Any) -> Any:
    starts = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if starts else value


def _facts(record: Record | None) -> dict[str, Any]:
    names = ("id", "created", "status", "error", "dataset", "model", "variant", "label", "protocol", "samples", "seed")
    if record is None:
        return dict.fromkeys(names)
    protocol = record.protocol.name if record.protocol else None
    model, dataset = record.model, record.dataset
    values = (record.id, record.created, record.status, record.error, dataset.name, model.name, model.variant)
    return dict(zip(names, (*values, record.label, protocol, record.samples, record.seed), strict=True))


SPEED_COLUMNS = (
    "nfe",
    "seconds_per_image",
    "images_per_second",
    "latency_seconds",
    "peak_memory_bytes",
    "batch_size",
    "device",
    "processor_share",
)


def _costs(record: Record | None) -> dict[str, Any]:
    speed: Speed | None = record.speed if record else None
    training: Training | None = record.training if record else None
    return {
        **{name: getattr(speed, name, None) for name in SPEED_COLUMNS},
        "dtype": speed.precision if speed else None,
        "parameters": record.model.parameters if record else None,
        "training_seconds": training.seconds if training else None,
        "training_images": training.images if training else None,
        "budget": training.budget if training else None,
        "commit": record.environment.get("commit") if record else None,
        "fingerprint": record.dataset.fingerprint if record else None,
    }
