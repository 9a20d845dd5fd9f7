"""The run of a record done again, for whoever doubts a number: the same request, and the old record against the new."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trilemma_bench import config, pipeline, registry
from trilemma_bench.comparing import RunComparison, compare
from trilemma_bench.contracts import FiniteSource
from trilemma_bench.distributed import world
from trilemma_bench.environment import device_name, environment
from trilemma_bench.errors import UsageError
from trilemma_bench.evaluation import Evaluator
from trilemma_bench.evaluation.extractors import Extractors
from trilemma_bench.evaluation.facts import protocol_part
from trilemma_bench.grouping import differences, measured_on
from trilemma_bench.job import Job, Options, model_source, prepare, training_digest
from trilemma_bench.protocol import FEATURE_PRECISIONS
from trilemma_bench.record import DatasetPart, JSONDict, ModelPart, ProtocolPart, Record, RecordError, read_record
from trilemma_bench.results import RECORD_NAME
from trilemma_bench.settings import Budget
from trilemma_bench.weights import sha256_of


def rerun(path: Path, *, plugins: Sequence[Path] = (), same_images: bool = False, **options: Any) -> RunComparison:
    """Does the run of the record at `path` again; A is that record, B the new one.

    path: a run's folder, or its record.json. plugins: files to load first. same_images: train on as many images as that
    run saw, whatever its budget. options: those of `Options` that no record decides – dataset (where own images lie),
    checkpoint, references, device, out, progress, say.

    What cannot be the same, or is known to differ, is said before anything is done. Raises UsageError for a record that
    cannot be done again here, or not be compared with what is measured here.
    """
    file = path / RECORD_NAME if path.is_dir() else path
    record = _record_in(file)
    for plugin in plugins:
        registry.load_file(plugin)
    request = _request(record, plugins, same_images, **options)
    job = prepare(request)
    extractors = Extractors(job.device)
    _check_alike(job, record, extractors)
    for note in (*_changes(job, record), *_notes(job, record)):
        job.options.say(note)
    new = pipeline.run(request, extractors)
    same = new.samples_sha256 == record.samples_sha256
    job.options.say(f"the samples are {'the same, bit for bit' if same else 'others than those of the record'}")
    return compare(file, request.out / new.place / RECORD_NAME)


def _record_in(file: Path) -> Record:
    """The record of a run that can be done again. Raises UsageError for anything else."""
    if not file.is_file():
        raise UsageError(f"{file} does not exist: name a run's folder, or its {RECORD_NAME}")
    try:
        record = read_record(file)
    except RecordError as error:
        raise UsageError(" ".join(str(error).split())) from None
    if record.status != "complete" or record.protocol is None:
        command = f" ({record.command})" if record.command else ""
        raise UsageError(f"{file}: the run is {record.status}, without scores: give its own command again{command}")
    if not record.model.plugin:
        raise UsageError(
            f"{file}: its samples were made elsewhere ({record.model.settings.get('samples', 'unknown')}): "
            "`trilemma-bench evaluate` measures them again"
        )
    return record


def _request(
    record: Record, plugins: Sequence[Path], same_images: bool, dataset: str | None = None, **options: Any
) -> Options:
    """What to ask for, so that the record decides all of it. Raises UsageError where parts of it are not here."""
    if same_images and (record.training is None or options.get("checkpoint")):
        raise UsageError("--same-images is about training, and nothing would be trained: leave it out")
    protocol = record.protocol
    assert protocol is not None  # as `_record_in` has seen
    if protocol.references and not options.get("references"):
        names = ", ".join(protocol.references)
        raise UsageError(f"the record was measured against files of {names}: give them with --reference FILE")
    model = _model(record.model, plugins)
    return Options(
        model=model,
        dataset=dataset or _dataset(record.dataset),
        overrides=_settings(record, registry.models.get(model)),
        samples=record.samples,
        seed=record.seed,
        budget=f"{record.training.images}img" if same_images and record.training else None,
        protocol=protocol.name,
        feature_precision=_feature_precision(protocol),
        retrain=True,
        **options,
    )


def _model(part: ModelPart, plugins: Sequence[Path]) -> str:
    """The model as an option names it: of a class that no file registers, only its own name is recorded."""
    if part.name in registry.models.names():
        return part.name
    for file in plugins:
        if file.name == part.plugin:
            return f"{file}:{part.name}"
    how = f"--plugin {part.plugin}" if part.plugin.endswith(".py") else f"install {part.plugin} {part.version}"
    raise UsageError(f"model '{part.name}' of the record is not here: {how}")


def _dataset(part: DatasetPart) -> str:
    if part.name in registry.datasets.names():
        return part.name
    raise UsageError(
        f"dataset '{part.name}' of the record is not registered: say where the images lie with --dataset folder:PATH "
        "or npz:PATH, or load a plugin's with --plugin FILE.py"
    )


def _feature_precision(protocol: ProtocolPart) -> str | None:
    """Of the extractors that have a choice; None where none has."""
    found = (part.precision for part in protocol.extractors.values())
    return next((precision for precision in found if precision in FEATURE_PRECISIONS), None)


def _settings(record: Record, model_class: type) -> dict[str, Any]:
    """Every setting by 'table.name' as recorded, so that no recipe of today decides any. Raises UsageError for one that
    there is no longer.
    """
    recorded, known = _recorded(record), config.schemas(model_class)
    if gone := [name for table, values in recorded.items() for name in values if name not in known[table].model_fields]:
        commit = record.environment.get("commit")
        of_then = f": only the code of its time{f', commit {commit},' if commit else ''} can do it again"
        raise UsageError(
            f"'{record.model.name}' no longer has settings that the record has, {', '.join(gone)}{of_then}"
        )
    defaults = config.defaults(model_class)
    return {
        f"{table}.{name}": value for table in known for name, value in {**defaults[table], **recorded[table]}.items()
    }


def _recorded(record: Record) -> dict[str, JSONDict]:
    training = {**record.training.settings, "budget": record.training.budget} if record.training else {}
    return {"model": record.model.settings, "training": training, "sampling": record.sampling}


def _check_alike(job: Job, record: Record, extractors: Extractors) -> None:
    """Raises UsageError where data or measurement are not the record's: their scores could not be compared."""
    fingerprint = job.dataset.fingerprint()
    if fingerprint != record.dataset.fingerprint:
        raise UsageError(
            f"dataset '{job.dataset_name}' is not the data of the record: its fingerprint is {fingerprint[:12]}…, not "
            f"{record.dataset.fingerprint[:12]}…"
        )
    evaluator = Evaluator(job.dataset, job.protocol, job.device, False, job.options.references, extractors)
    protocol = protocol_part(evaluator.plan, job.protocol.samples)
    dataset = record.dataset.model_copy(update={"name": job.dataset_name})
    here = record.model_copy(update={"dataset": dataset, "protocol": protocol, "samples": protocol.samples})
    if apart := differences(measured_on(here), measured_on(record)):
        raise UsageError(f"it would not be measured as the record was: {'; '.join(apart)}")


def _changes(job: Job, record: Record) -> Iterator[str]:
    """A line for each fact of code, machine and software that is not the record's."""
    here, then = environment(), record.environment
    package = " ".join(registry.models.origin(job.options.model))
    facts: dict[str, tuple[str | None, str | None]] = {
        "the model's code": (model_source(job)[:12], record.model.source_sha256[:12]),
        "the model's package": (package, f"{record.model.plugin} {record.model.version}"),
        "the commit": (here["commit"], then.get("commit")),
        "the harness's code": (here["source_sha256"][:12], then.get("source_sha256", "")[:12]),
    }
    if record.speed:
        facts["the device"] = device_name(job.device), record.speed.device
    if record.training:
        facts["the number of processes"] = str(world()), _processes(record.training.device)
    packages = then.get("packages", {})
    facts |= {name: (version, packages.get(name)) for name, version in here["packages"].items()}
    for fact, (now, before) in facts.items():
        if now != before:
            yield f"differs: {fact} is {now or 'unknown'}, was {before or 'not recorded'}"
    if then.get("commit") and then.get("source_sha256") != here["source_sha256"]:
        yield _way_back(then["commit"])


def _way_back(commit: str) -> str:
    """How to have the code of then. commit: as recorded, with '+' where files had been changed."""
    clean, changed, _ = commit.partition("+")
    but = ", but for changes that were not committed" if changed else ""
    return f"note: `git checkout {clean}` in a clone of this project, installed, has the code of then{but}"


def _processes(device: str) -> str:
    """Of '8 × cuda' the '8'."""
    count, times, _ = device.partition(" × ")
    return count if times else "1"


def _notes(job: Job, record: Record) -> Iterator[str]:
    """A line for each thing that cannot be the same, or that the record does not tell."""
    if issubclass(job.model_class, FiniteSource):
        yield "note: real data: nothing is trained, held-out samples are drawn and measured again"
    if unknown := _unrecorded(job, record):
        yield f"note: settings that the record does not have are at their defaults: {', '.join(unknown)}"
    if record.training is None:
        return
    if checkpoint := job.options.checkpoint:
        if sha256_of(checkpoint) != record.training.checkpoint_sha256:
            yield f"note: {checkpoint} is not the checkpoint of the record, by its sha256"
        return
    yield from _training_notes(job, record)


def _unrecorded(job: Job, record: Record) -> list[str]:
    """'name = value' of the settings of what was done that are not in the record."""
    here, recorded = job.settings.flat(), _recorded(record)
    done = {"model": True, "training": record.training is not None, "sampling": record.speed is not None}
    tables = [table for table in here if done[table]]
    return [f"{name} = {here[table][name]}" for table in tables for name in here[table] if name not in recorded[table]]


def _training_notes(job: Job, record: Record) -> Iterator[str]:
    training = record.training
    assert training is not None
    if training.run_id != record.id and training.digest != training_digest(job):
        yield (
            f"note: the record sampled what run {training.run_id} trained, whose seed and settings of the model may be "
            "others than its own; --checkpoint FILE takes those weights"
        )
    if math.isinf(Budget.parse(training.budget).seconds):
        return
    seen = f"{training.images:,} images in {training.steps:,} steps"
    if math.isinf(Budget.parse(job.settings.training.budget).seconds):
        yield f"note: {seen} again; the learning rate follows the images now, and followed the time, {training.budget}"
    else:
        yield f"note: in {training.budget} it saw {seen}, here that may be another number; --same-images trains as many"
