"""One run, whole, as the page's dialog shows it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trilemma_bench.record import Record, Speed, Training
from trilemma_bench.report import format as fmt
from trilemma_bench.report.page.folders import Folders, rounded

JSONDict = dict[str, Any]


class Details:
    """The runs that the page knows, each once, in the order in which they were asked for.

    shared: environments and protocols, which many runs have in common.
    """

    def __init__(self, records: Sequence[Record], paths: Sequence[Path | None]) -> None:
        self._paths = {id(record): path for record, path in zip(records, paths, strict=True)}
        self._folders = Folders()
        self._places: dict[int, int] = {}
        self._shared_places: dict[str, int] = {}
        self.runs: list[JSONDict] = []
        self.shared: list[JSONDict] = []

    def add(self, records: Iterable[Record]) -> list[int]:
        """The places of `records` among `runs`."""
        return [self._add(record) for record in records]

    def _add(self, record: Record) -> int:
        if id(record) not in self._places:
            self._places[id(record)] = len(self.runs)
            self.runs.append(self._describe(record))
        return self._places[id(record)]

    def _share(self, facts: JSONDict) -> int:
        key = json.dumps(facts, sort_keys=True)
        if key not in self._shared_places:
            self._shared_places[key] = len(self.shared)
            self.shared.append(facts)
        return self._shared_places[key]

    def _describe(self, record: Record) -> JSONDict:
        path = self._paths[id(record)]
        folder = path.parent if path else None
        facts = json.loads(record.to_json())  # settings may hold what plain JSON has no word for, such as infinity
        return {
            "name": fmt.plain(record.label),
            "run": _run_facts(record, folder),
            "settings": facts["model"]["settings"],
            "dataset": facts["dataset"],
            "protocol": facts["protocol"] and self._share(facts["protocol"]),
            "environment": self._share(facts["environment"]),
            "speed": _speed_facts(record.speed),
            "training": _training_facts(record.training, facts["training"]),
            "raw_seconds": _raw(record.speed, "raw_seconds"),
            "raw_latency_seconds": _raw(record.speed, "raw_latency_seconds"),
            "modes": record.mode_histogram,
            "command": record.command,
            "pictures": self._folders.pictures(folder) if folder else {},
            "curve": self._folders.training_curve(record, folder) if folder else None,
        }


def _run_facts(record: Record, folder: Path | None) -> JSONDict:
    facts = {
        "run": record.id,
        "status": record.status,
        "error": record.error,
        "created": record.created,
        "seed": record.seed,
        "parameters": fmt.count(record.model.parameters),
        "plugin": f"{record.model.plugin} {record.model.version}",
        "samples": record.samples,
        "samples sha256": record.samples_sha256,
        "folder": folder and str(folder),
        **{f"time for {stage}": fmt.seconds(seconds) for stage, seconds in record.durations.items()},
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _speed_facts(speed: Speed | None) -> JSONDict | None:
    if speed is None:
        return None
    facts = speed.model_dump(exclude={"raw_seconds", "raw_latency_seconds", "peak_memory_bytes", "images_per_second"})
    facts["seconds_per_image"] = fmt.seconds(speed.seconds_per_image)
    facts["latency_seconds"] = fmt.seconds(speed.latency_seconds)
    if speed.peak_memory_bytes is not None:
        facts["peak_memory"] = fmt.size(speed.peak_memory_bytes)
    return facts


def _training_facts(training: Training | None, facts: JSONDict) -> JSONDict | None:
    return None if training is None else {**facts, "seconds": fmt.seconds(training.seconds)}


def _raw(speed: Speed | None, field: str) -> list[float]:
    return [rounded(value) for value in getattr(speed, field, [])]
