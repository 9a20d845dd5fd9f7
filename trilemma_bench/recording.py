"""The record of a job: of one that was completed, and of one that failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trilemma_bench import registry
from trilemma_bench.contracts import FiniteSource, GenerativeModel
from trilemma_bench.datasets.splits import TRAIN_SPLIT
from trilemma_bench.distributed import is_main
from trilemma_bench.environment import command_line, environment
from trilemma_bench.errors import TrilemmaError, described
from trilemma_bench.evaluation import Evaluation
from trilemma_bench.job import Job, model_source
from trilemma_bench.paths import as_text
from trilemma_bench.record import DatasetPart, ModelPart, ProtocolPart, Record, Speed
from trilemma_bench.results import RECORD_NAME, write_record
from trilemma_bench.trained import count_parameters
from trilemma_bench.training.trainer import Interrupted


def write_record_of(
    job: Job, model: ModelPart, evaluation: Evaluation, speed: Speed | None, samples_note: str = ""
) -> Record:
    """Writes the finished run's record into its folder."""
    record = _record(
        job,
        model,
        evaluation.protocol,
        status="complete",
        samples=evaluation.protocol.samples,
        sampling=job.settings.sampling.model_dump() if speed else {},
        samples_sha256=evaluation.samples_sha256,
        samples_note=samples_note,
        scores=evaluation.scores,
        missing=evaluation.missing,
        mode_histogram=evaluation.mode_histogram,
        speed=speed,
        training=job.training,
    )
    write_record(record, job.folder / RECORD_NAME)
    return record


def model_part(job: Job, model: GenerativeModel) -> ModelPart:
    package, version = registry.models.origin(job.options.model)
    return ModelPart(
        name=job.model_name,
        variant=model.describe(),
        parameters=count_parameters(model.network) if model.network is not None else 0,
        settings=job.settings.model,
        plugin=package,
        version=version,
        reference=isinstance(model, FiniteSource),
        source_sha256=model_source(job),
    )


@contextmanager
def recorded_failure(job: Job) -> Iterator[None]:
    """Leaves a record that says what failed, and passes the error on."""
    try:
        yield
    except BaseException as error:
        if not is_main():
            raise
        interrupted = isinstance(error, (KeyboardInterrupt, Interrupted))
        message = "KeyboardInterrupt" if isinstance(error, KeyboardInterrupt) else as_text(described(error))
        part = ModelPart(name=job.model_name, parameters=0, settings=job.settings.model, plugin="", version="")
        status = "interrupted" if interrupted else "failed"
        try:
            write_record(_record(job, part, None, status=status, samples=0, error=message), job.folder / RECORD_NAME)
        except (OSError, TrilemmaError) as problem:
            job.options.say(f"the failure could not be recorded in {job.folder}: {problem}")
        raise


def _record(job: Job, model: ModelPart, protocol: ProtocolPart | None, **facts: Any) -> Record:
    return Record(
        id=job.id,
        model=model,
        dataset=_dataset_part(job, whole=facts["status"] == "complete"),
        protocol=protocol,
        seed=job.options.seed,
        environment=environment(),
        command=command_line(),
        created=job.created,
        runs_before=job.runs_before,
        durations=job.durations,
        continues=job.continues,
        **facts,
    )


def _dataset_part(job: Job, whole: bool) -> DatasetPart:
    """whole: with what only the data can tell; they may be what a run failed on."""
    dataset = job.dataset
    if not whole:
        return DatasetPart(name=job.dataset_name, split=TRAIN_SPLIT, fingerprint="", size=0)
    return DatasetPart(
        name=job.dataset_name,
        split=TRAIN_SPLIT,
        fingerprint=dataset.fingerprint(),
        size=len(dataset.load(TRAIN_SPLIT)),
        official=dataset.official,
        note=dataset.note,
    )
