"""The stages in their order: train → sample → measure → record. Each can be run alone; what is on disk is not redone."""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trilemma_bench import checkpoint, config, registry
from trilemma_bench.contracts import Dataset, FiniteSource, GenerativeModel, Trainable
from trilemma_bench.datasets import open_dataset
from trilemma_bench.environment import command_line, environment, package_version, resolve_device
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.evaluation import Evaluation, Evaluator, content_sha256, resolve_protocol
from trilemma_bench.images import save_grid, save_scatter
from trilemma_bench.protocol import Protocol
from trilemma_bench.record import DatasetPart, ModelPart, ProtocolPart, Record, Speed, Training, write_record
from trilemma_bench.sampling import draw_samples
from trilemma_bench.timing import measure_speed
from trilemma_bench.training import Interrupted, Place, Trainer, seed_everything

TRAIN_SPLIT = "train"


@dataclass(frozen=True)
class Options:
    """What the user asked for, as the command line has it; see `trilemma-bench run --help`."""

    model: str
    dataset: str
    config: Path | None = None
    overrides: Sequence[str] = ()
    checkpoint: Path | None = None
    samples: int | None = None
    seed: int = 0
    budget: str | None = None
    protocol: str | None = None
    device: str = "auto"
    out: Path = Path("results")
    progress: bool = True
    say: Callable[[str], None] = print


@dataclass
class Job:
    """One run, resolved and checked: everything that can be wrong before the work starts has been looked at."""

    options: Options
    settings: config.Settings
    dataset: Dataset
    protocol: Protocol
    device: torch.device
    model_class: type[GenerativeModel]
    id: str = ""
    created: str = ""
    durations: dict[str, float] = field(default_factory=dict)
    training: Training | None = None

    @property
    def trained_as(self) -> str:
        return self.model_class.trained_as or self.options.model

    @property
    def trainable(self) -> bool:
        return issubclass(self.model_class, Trainable)

    @property
    def folder(self) -> Path:
        names = checkpoint.folder_name(self.options.dataset), checkpoint.folder_name(self.options.model)
        return self.options.out.joinpath(*names, self.id)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.durations[stage] = self.durations.get(stage, 0.0) + time.perf_counter() - start


def run(options: Options) -> Record:
    """Trains unless a checkpoint is given or found, samples, measures and writes the run's folder.

    Raises UsageError for a wrong request before anything is written, TrilemmaError when a stage fails: the folder then
    holds a record that says so.
    """
    job = prepare(options)
    evaluator = Evaluator(job.dataset, job.protocol, job.device, options.progress)
    _check_finite_source(job)
    open_folder(job)
    with _recorded_failure(job):
        model = trained_model(job)
        with job.timed("timing"):
            speed = measure_speed(model, job.settings.sampling, job.device, options.seed)
        with job.timed("sampling"):
            samples = _draw(job, model)
        save_preview(samples, job.dataset, job.folder)
        with job.timed("evaluation"):
            evaluation = evaluator.evaluate(samples)
        speed = None if isinstance(model, FiniteSource) else speed
        return write_record_of(job, model_part(job, model), evaluation, speed)


def train(options: Options) -> Path:
    """Trains unless a finished run with the same settings is found; returns the checkpoint's path."""
    job = prepare(options)
    if not job.trainable:
        raise UsageError(f"model '{options.model}' has nothing to train")
    if found := checkpoint.find(options.out, job.dataset.name, training_digest(job), complete=True):
        options.say(f"already trained: {found / checkpoint.WEIGHTS_FILE}")
        return found / checkpoint.WEIGHTS_FILE
    open_folder(job)
    with _recorded_failure(job):
        trained_model(job)
    return job.folder / checkpoint.WEIGHTS_FILE


def sample(options: Options, path: Path) -> Path:
    """Draws samples from a trained model into `path` (.npz: 'images' uint8 N×H×W×C, or 'points' float32 N×D)."""
    job = prepare(options)
    if path.suffix != ".npz":
        raise UsageError(f"{path}: samples are written as .npz; name the file so")
    _check_finite_source(job)
    model = _existing_model(job)
    samples = _draw(job, model)
    name, array = ("images", samples.permute(0, 2, 3, 1)) if job.dataset.spec.is_image else ("points", samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.atomic(path, lambda temporary: _save_npz(temporary, name, array.contiguous().numpy()))
    return path


def evaluate(options: Options, samples: Tensor, source: str) -> Record:
    """Measures samples that someone else made; the record has no speed and no training."""
    dataset = open_dataset(options.dataset)
    protocol = resolve_protocol(options.protocol, dataset, len(samples))
    device = resolve_device(options.device)
    settings = config.Settings({}, config.TrainingSettings(), config.SamplingSettings())
    job = Job(options, settings, dataset, protocol, device, GenerativeModel)  # type: ignore[type-abstract]
    evaluator = Evaluator(dataset, protocol, device, options.progress)
    open_folder(job)
    part = ModelPart(name=options.model, parameters=0, settings={"samples": source}, plugin="", version="")
    with _recorded_failure(job):
        with job.timed("evaluation"):
            evaluation = evaluator.evaluate(samples)
        save_preview(samples, dataset, job.folder)
        return write_record_of(job, part, evaluation, None)


def prepare(options: Options) -> Job:
    """Resolves every name and setting, without training, sampling or writing anything. Raises UsageError."""
    model_class = registry.models.get(options.model)
    if not (isinstance(model_class, type) and issubclass(model_class, GenerativeModel)):
        raise UsageError(f"model '{options.model}' is not a subclass of trilemma_bench's GenerativeModel")
    dataset = open_dataset(options.dataset)
    settings = config.resolve(
        model_class,
        model=options.model,
        dataset=options.dataset,
        config=options.config,
        overrides=options.overrides,
        budget=options.budget,
    )
    protocol = resolve_protocol(options.protocol, dataset, options.samples)
    return Job(options, settings, dataset, protocol, resolve_device(options.device), model_class)


def open_folder(job: Job) -> None:
    """Makes the run's folder, under an id that no other run has."""
    now = datetime.datetime.now(datetime.timezone.utc)
    job.created = now.isoformat(timespec="seconds")
    facts = {
        **job.settings.flat(),
        "dataset": job.options.dataset,
        "model": job.options.model,
        "seed": job.options.seed,
    }
    stem = f"{now:%Y%m%d-%H%M%S}-{config.digest(facts)[:6]}"
    for attempt in range(1000):
        job.id = stem if attempt == 0 else f"{stem}-{attempt}"
        try:
            job.folder.mkdir(parents=True)
            return
        except FileExistsError:
            if job.folder.is_dir():
                continue
            raise
    raise TrilemmaError(f"could not make a new folder beside {job.folder}")


def training_digest(job: Job) -> str:
    """Hash of everything that decides a training run's result: sampling settings are not part of it."""
    hidden = job.model_class.sampling_settings
    training = job.settings.training.model_dump(exclude={"checkpoint_seconds"})
    facts = {
        "model": job.trained_as,
        "plugin": _plugin_identity(job.trained_as),
        "settings": {key: value for key, value in job.settings.model.items() if key not in hidden},
        "training": training,
        "dataset": job.dataset.fingerprint(),
        "split": TRAIN_SPLIT,
        "seed": job.options.seed,
    }
    return config.digest(facts)


def trained_model(job: Job) -> GenerativeModel:
    """The model with trained weights: from `--checkpoint`, from a run found under results, or trained now."""
    model = build_model(job)
    if not isinstance(model, Trainable):
        return model
    if job.options.checkpoint:
        _use_checkpoint(job, model, job.options.checkpoint)
    elif found := checkpoint.find(job.options.out, job.dataset.name, training_digest(job), complete=True):
        job.options.say(f"using the checkpoint in {found}; nothing is trained")
        _link(found / checkpoint.WEIGHTS_FILE, job.folder / checkpoint.WEIGHTS_FILE)
        _use_checkpoint(job, model, job.folder / checkpoint.WEIGHTS_FILE)
    else:
        _train(job, model)
    return model


def build_model(job: Job) -> GenerativeModel:
    """The model with fresh weights, a function of the seed, on the run's device."""
    seed_everything(job.options.seed)
    model = job.model_class(job.dataset.spec, **job.settings.model).to(job.device)
    if isinstance(model, FiniteSource):
        split = held_out_split(job)
        model.prepare(job.dataset.load(split), split)
    return model


def held_out_split(job: Job) -> str:
    """The split that stands for unseen real data: one that the protocol does not compare against."""
    others = [split for split in job.dataset.splits if split != job.protocol.reference]
    if not others:
        raise UsageError(
            f"dataset '{job.dataset.name}' has no split besides '{job.protocol.reference}': nothing is held out"
        )
    return others[-1]


def model_part(job: Job, model: GenerativeModel) -> ModelPart:
    package, version = registry.models.origin(job.options.model)
    return ModelPart(
        name=checkpoint.folder_name(job.options.model),
        variant=model.describe(),
        parameters=count_parameters(model.network) if model.network is not None else 0,
        settings=job.settings.model,
        plugin=package,
        version=version,
    )


def count_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def write_record_of(job: Job, model: ModelPart, evaluation: Evaluation, speed: Speed | None) -> Record:
    """Writes the finished run's record into its folder."""
    record = _record(
        job,
        model,
        evaluation.protocol,
        status="complete",
        samples=evaluation.protocol.samples,
        samples_sha256=evaluation.samples_sha256,
        scores=evaluation.scores,
        missing=evaluation.missing,
        mode_histogram=evaluation.mode_histogram,
        speed=speed,
        training=job.training,
    )
    write_record(record, job.folder / "record.json")
    return record


def save_preview(samples: Tensor, dataset: Dataset, folder: Path) -> None:
    """samples.png: a grid of images, or a scatter plot of points."""
    if dataset.spec.is_image:
        save_grid(samples, folder / "samples.png")
    else:
        limit = 1.15 * float(dataset.load(TRAIN_SPLIT).samples.abs().max())
        save_scatter(samples, folder / "samples.png", (-limit, limit))


def _train(job: Job, model: Trainable) -> None:
    digest = training_digest(job)
    resume = checkpoint.find(job.options.out, job.dataset.name, digest, complete=False)
    header = checkpoint.Header(
        model=job.trained_as,
        settings=job.settings.model,
        shape=job.dataset.spec.shape,
        dataset=job.dataset.name,
        fingerprint=job.dataset.fingerprint(),
        digest=digest,
        run_id=job.id,
        parameters=count_parameters(model),
        budget=job.settings.training.budget,
        training=job.settings.training.model_dump(),
        device=str(job.device),
    )
    place = Place(job.folder, job.device, resume, job.options.say, job.options.progress)
    data = job.dataset.load(TRAIN_SPLIT).samples
    trainer = Trainer(model, data, job.settings.training, job.options.seed, header, place)
    with job.timed("training"):
        header = trainer.run()
    if resume:
        (resume / checkpoint.STATE_FILE).unlink(missing_ok=True)
    job.training = _training_part(header, job.folder / checkpoint.WEIGHTS_FILE)


def _use_checkpoint(job: Job, model: Trainable, path: Path) -> None:
    """Loads `path` into `model` after checking that it was trained as this model on data of this shape."""
    header = checkpoint.read_header(path)
    if header.model != job.trained_as:
        raise TrilemmaError(f"checkpoint {path} is of model '{header.model}', not '{job.trained_as}': name that model")
    if header.shape != job.dataset.spec.shape:
        raise TrilemmaError(
            f"checkpoint {path} makes samples of shape {header.shape}, dataset '{job.dataset.name}' "
            f"has {job.dataset.spec.shape}: name the dataset it was trained on ('{header.dataset}')"
        )
    if not header.complete:
        job.options.say(f"note: {path} is from an unfinished training run ({header.images:,} images)")
    checkpoint.load_weights(model.network, path)
    job.training = _training_part(header, path)


def _existing_model(job: Job) -> GenerativeModel:
    """The model for `sample`, which never trains."""
    model = build_model(job)
    if isinstance(model, Trainable):
        path = job.options.checkpoint
        if path is None:
            found = checkpoint.find(job.options.out, job.dataset.name, training_digest(job), complete=True)
            if found is None:
                raise TrilemmaError(
                    f"no trained '{job.trained_as}' with these settings under {job.options.out}: "
                    "train it first, or give --checkpoint FILE"
                )
            path = found / checkpoint.WEIGHTS_FILE
        _use_checkpoint(job, model, path)
    return model


def _draw(job: Job, model: GenerativeModel) -> Tensor:
    return draw_samples(
        model,
        job.protocol.samples,
        job.options.seed,
        chunk_size=job.settings.sampling.chunk_size,
        device=job.device,
        progress=job.options.progress,
    )


def _check_finite_source(job: Job) -> None:
    """Real data is finite: too many samples are a wrong request, known before anything is written."""
    model = job.model_class
    if isinstance(model, type) and hasattr(model, "take") and hasattr(model, "prepare"):
        available = len(job.dataset.load(held_out_split(job)))
        if job.protocol.samples > available:
            raise UsageError(
                f"'{job.dataset.name}' has {available} held-out samples, {job.protocol.samples} were asked for: "
                f"use --samples {available}"
            )


@contextmanager
def _recorded_failure(job: Job) -> Iterator[None]:
    """Leaves a record that says what failed, and passes the error on."""
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, (KeyboardInterrupt, Interrupted))
        message = str(error) or type(error).__name__
        if not isinstance(error, (TrilemmaError, KeyboardInterrupt)):
            last = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {message} ({Path(last.filename).name}:{last.lineno})"
        part = ModelPart(
            name=checkpoint.folder_name(job.options.model),
            parameters=0,
            settings=job.settings.model,
            plugin="",
            version="",
        )
        status = "interrupted" if interrupted else "failed"
        try:
            write_record(_record(job, part, None, status=status, samples=0, error=message), job.folder / "record.json")
        except OSError as problem:
            job.options.say(f"the failure could not be recorded in {job.folder}: {problem}")
        raise


def _record(job: Job, model: ModelPart, protocol: ProtocolPart | None, **facts: Any) -> Record:
    dataset = job.dataset
    train_size = len(dataset.load(TRAIN_SPLIT)) if facts["status"] == "complete" else 0
    part = DatasetPart(
        name=checkpoint.folder_name(dataset.name),
        split=TRAIN_SPLIT,
        fingerprint=dataset.fingerprint() if facts["status"] == "complete" else "",
        size=train_size,
        official=dataset.official,
        note=dataset.note,
    )
    return Record(
        id=job.id,
        model=model,
        dataset=part,
        protocol=protocol,
        seed=job.options.seed,
        environment=environment(),
        command=command_line(),
        created=job.created,
        durations=job.durations,
        **facts,
    )


def _training_part(header: checkpoint.Header, path: Path) -> Training:
    return Training(
        images=header.images,
        seconds=header.seconds,
        steps=header.steps,
        parameters=header.parameters,
        budget=header.budget,
        digest=header.digest,
        settings=header.training or {},
        checkpoint=path.name,
        checkpoint_sha256=checkpoint.file_sha256(path),
        run_id=header.run_id,
        device=header.device,
    )


def _plugin_identity(model: str) -> str:
    """The package and version of a model's code; for a plugin file the hash of its content."""
    package, version = registry.models.origin(model)
    path = Path(package)
    if path.suffix == ".py" and path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{package} {version or package_version(package)}"


def _link(source: Path, target: Path) -> None:
    """The same checkpoint in two folders: a hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _save_npz(path: str, name: str, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, **{name: array})


__all__ = ["Job", "Options", "content_sha256", "evaluate", "prepare", "run", "sample", "train"]
