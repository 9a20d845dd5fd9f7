"""A suite: many runs from one TOML file, one after the other, and a report of them all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trilemma_bench.config import configs_dir, read_toml
from trilemma_bench.errors import TrilemmaError, UsageError, described, unknown_name

if TYPE_CHECKING:
    from trilemma_bench.evaluation.extractors import Extractors
    from trilemma_bench.job import Job
    from trilemma_bench.record import Record


class SuiteRun(BaseModel):
    """One run of a suite: the options of `trilemma-bench run`; `set` is a table of settings; `name` tells it apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    model: str
    dataset: str
    config: Path | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    samples: int | None = None
    seed: int = 0
    budget: str | None = None
    protocol: str | None = None
    feature_precision: str | None = None


class Suite(BaseModel):
    """title: what the suite shows; run: its runs, in the order in which they are done."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = ""
    run: list[SuiteRun] = Field(min_length=1)

    def of_models(self, names: Collection[str]) -> Suite:
        """The runs of these models alone. Raises UsageError for one that has none."""
        known = {run.model for run in self.run}
        for name in names:
            if name not in known:
                raise unknown_name("model of the suite", name, known)
        return self.model_copy(update={"run": [run for run in self.run if run.model in names]})

    def with_seeds(self, seeds: Sequence[int]) -> Suite:
        """All runs with the first seed instead of their own, then all with the next: an end before time leaves whole
        tables. What is not trained is run once: other samples of it are what intervals are of already.
        """
        first, *others = seeds
        trained = [run for run in self.run if _is_trained(run.model)]
        rounds = [(first, self.run), *((seed, trained) for seed in others)]
        return self.model_copy(
            update={"run": [run.model_copy(update={"seed": seed}) for seed, runs in rounds for run in runs]}
        )


@dataclass(frozen=True)
class SuiteResult:
    """records of the runs that were completed; named: those with a name, by it, one for each seed; failures: 'model on
    dataset: message' of the others.
    """

    records: list[Record]
    named: dict[str, list[Record]]
    failures: list[str]


def read_suite(path: Path) -> Suite:
    """The suite in `path`, or the shipped suite of that name. Raises UsageError with the key that is wrong."""
    shipped = configs_dir() / "suites" / (path.name if path.suffix else f"{path.name}.toml")
    if not path.is_file() and shipped.is_file() and path.parent in (Path("."), Path("configs/suites")):
        path = shipped
    if not path.is_file() and not path.suffix:
        raise unknown_name("suite", path.name, [file.stem for file in (configs_dir() / "suites").glob("*.toml")])
    try:
        return Suite.model_validate(read_toml(path))
    except ValidationError as error:
        raise _wrong_key(path, error) from None


def _wrong_key(path: Path, error: ValidationError) -> UsageError:
    """The first fault; of several an unknown key, which may be a typo of one that is missing."""
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    *within, key = first["loc"]
    if first["type"] == "extra_forbidden":
        what, schema = ("run", SuiteRun) if within else ("suite", Suite)
        return unknown_name(f"key of a {what} in {path}:", str(key), schema.model_fields)
    place = f"run {int(within[-1]) + 1}: " if within and isinstance(within[-1], int) else ""
    return UsageError(f"suite {path}: {place}{key}: {first['msg']}")


def run_suite(suite: Suite, say: Callable[[str], None], **common: Any) -> SuiteResult:
    """Runs all that has not been run before; one that fails, whatever the reason, is reported and does not stop the
    others. An interruption does.

    common: device, out, progress.
    """
    from trilemma_bench import api, pipeline
    from trilemma_bench.job import prepare
    from trilemma_bench.training.trainer import Interrupted

    common = {**common, "say": say}
    requests = [api.options_of(i.model, i.dataset, i.set, {**_options(i), **common}) for i in suite.run]
    extractors = _load_extractors([prepare(request) for request in requests])
    records, failures = [], []
    named: dict[str, list[Record]] = {}
    for number, (item, request) in enumerate(zip(suite.run, requests, strict=True), 1):
        say(f"[{number}/{len(requests)}] {item.model} on {item.dataset}, seed {item.seed}")
        try:
            record = pipeline.run(request, extractors, anew=False)
            records.append(record)
            if item.name:
                named.setdefault(item.name, []).append(record)
        except Interrupted:
            raise
        except Exception as error:  # a plugin's mistake must not cost the night
            failures.append(f"{item.model} on {item.dataset}: {described(error)}")
            say(f"failed: {described(error)}")
    return SuiteResult(records, named, failures)


def _load_extractors(jobs: Sequence[Job]) -> Extractors:
    """Those of all jobs. Raises TrilemmaError that names everything which keeps some job from measuring: as a typo in
    the last one, missing weights are found before the first one starts.
    """
    from trilemma_bench.evaluation import Evaluator
    from trilemma_bench.evaluation.extractors import Extractors

    extractors = Extractors(jobs[0].device)
    faults: dict[str, None] = {}
    for job in {(job.options.dataset, job.protocol): job for job in jobs}.values():
        try:
            Evaluator(job.dataset, job.protocol, job.device, progress=False, extractors=extractors)
        except TrilemmaError as error:
            faults[str(error)] = None
    if faults:
        raise TrilemmaError("; ".join(faults))
    return extractors


def _is_trained(model: str) -> bool:
    from trilemma_bench.contracts import Trainable
    from trilemma_bench.registry import models

    return issubclass(models.get(model), Trainable)


def _options(item: SuiteRun) -> dict[str, Any]:
    return item.model_dump(exclude={"name", "model", "dataset", "set"})
