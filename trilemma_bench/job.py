"""A run before it starts: what the user asked for, resolved and checked, and the folder that its results go to."""

from __future__ import annotations

import datetime
import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from trilemma_bench import config, distributed, registry
from trilemma_bench.contracts import Dataset, GenerativeModel, Trainable
from trilemma_bench.datasets import open_dataset
from trilemma_bench.datasets.folder import OwnImages
from trilemma_bench.datasets.splits import TRAIN_SPLIT
from trilemma_bench.environment import package_version, resolve_device
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.evaluation.uses import resolve_protocol
from trilemma_bench.paths import RUNS, folder_name
from trilemma_bench.protocol import Protocol
from trilemma_bench.record import Training
from trilemma_bench.settings import Settings
from trilemma_bench.source import harness_digest, source_digest
from trilemma_bench.training import checkpoint

# The stages of a run, and the setting that decides its memory, or what else to do.
STAGES = {
    "training": "training.batch_size",
    "timing": "sampling.timing_batch",
    "sampling": "sampling.chunk_size",
    "evaluation": "measure fewer samples, or choose --device cpu",
}
_BEGUN = itertools.count()  # a number for each run of this process


@dataclass(frozen=True)
class Options:
    """What the user asked for, as the command line has it; see `trilemma-bench run --help`.

    retrain: train even where a finished run with the same settings is found.
    """

    model: str
    dataset: str
    config: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    samples: int | None = None
    seed: int = 0
    budget: str | None = None
    protocol: str | None = None
    feature_precision: str | None = None
    references: Sequence[Path] = ()
    reference_split: str | None = None
    retrain: bool = False
    device: str = "auto"
    out: Path = RUNS
    progress: bool = True
    say: Callable[[str], None] = print


@dataclass
class Job:
    """One run, resolved and checked: everything that can be wrong before the work starts has been looked at."""

    options: Options
    settings: Settings
    dataset: Dataset
    protocol: Protocol
    device: torch.device
    model_class: type[GenerativeModel]
    id: str = ""
    created: str = ""
    runs_before: int = 0
    durations: dict[str, float] = field(default_factory=dict)
    training: Training | None = None
    continues: str = ""

    def __post_init__(self) -> None:
        """Raises UsageError where the results could not lie in folders of these names."""
        _plain_name(self.options.model)
        if not isinstance(self.dataset, OwnImages):
            _plain_name(self.options.dataset)

    @property
    def trained_as(self) -> str:
        return self.model_class.trained_as or self.options.model

    @property
    def trainable(self) -> bool:
        return issubclass(self.model_class, Trainable)

    @cached_property
    def dataset_name(self) -> str:
        """The dataset in folder and record; own images by their content, wherever they lie: 'npz-own.npz-3f2a91'."""
        if isinstance(self.dataset, OwnImages):
            return folder_name(f"{self.dataset.name.replace(':', '-')}-{self.dataset.fingerprint()[:6]}")
        return _plain_name(self.options.dataset)

    @property
    def model_name(self) -> str:
        """The model in folder and record."""
        return _plain_name(self.options.model)

    @property
    def folder(self) -> Path:
        return self.options.out / self.dataset_name / self.model_name / self.id

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Around one of `STAGES`. Raises TrilemmaError where the memory does not hold what it does."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            if not _lacks_memory(error):
                raise
            asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
            more = f" ({asked[1]} more were asked for)" if asked else ""
            raise TrilemmaError(f"{stage}: {self.device} has too little memory{more}: {self._less(stage)}") from error
        finally:
            self.durations[stage] = self.durations.get(stage, 0.0) + time.perf_counter() - start

    def _less(self, stage: str) -> str:
        """What a stage needs less memory with."""
        table, _, key = STAGES[stage].partition(".")
        return f"lower {table}.{key}, now {getattr(getattr(self.settings, table), key)}" if key else STAGES[stage]


def _lacks_memory(error: Exception) -> bool:
    """Whether it says that memory is lacking; torch has no type of its own for a CPU's."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def prepare(options: Options) -> Job:
    """Resolves every name and setting, without training, sampling or writing anything. Raises UsageError."""
    harness_digest()  # kept: of the code as it is now, whatever is edited while this runs
    options = replace(options, model=registry.models.registered(options.model))
    model_class = registry.models.get(options.model)
    dataset = open_dataset(options.dataset)
    settings = config.resolve(
        model_class,
        model=options.model,
        dataset=options.dataset,
        config=options.config,
        overrides=options.overrides,
        budget=options.budget,
    )
    protocol = resolve_protocol(options.protocol, dataset, options.samples, options.feature_precision)
    device = resolve_device(options.device)
    distributed.start(device)
    if not distributed.is_main():
        options = replace(options, progress=False, say=lambda text: None)
    job = Job(options, settings.on(device, dataset.spec.is_image), dataset, protocol, device, model_class)
    if options.checkpoint:
        _check_checkpoint(job, options.checkpoint)
    return job


def _check_checkpoint(job: Job, path: Path) -> None:
    header = checkpoint.read_header(path)
    if header.model != job.trained_as:
        raise UsageError(f"checkpoint {path} is of model '{header.model}', not '{job.trained_as}': name that model")
    if header.shape != job.dataset.spec.shape:
        raise UsageError(
            f"checkpoint {path} makes samples of shape {header.shape}, dataset '{job.dataset.name}' "
            f"has {job.dataset.spec.shape}: name the dataset it was trained on ('{header.dataset}')"
        )


def open_folder(job: Job) -> None:
    """Makes the run's folder, under an id that no other run has; of many processes, the first makes it."""
    job.runs_before = next(_BEGUN)
    distributed.on_main(lambda: _make_folder(job))
    job.id, job.created = distributed.on_main(lambda: (job.id, job.created))


def _make_folder(job: Job) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    job.created = now.isoformat(timespec="seconds")
    facts = {
        "settings": job.settings.flat(),
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


def _plain_name(name: str) -> str:
    """A name that a folder can have: of 'file.py:Name' the last part. Raises UsageError where it cannot."""
    return folder_name(name.rpartition(":")[2] if ".py:" in name else name)


def training_digest(job: Job) -> str:
    """Hash of everything that decides a training run's result: sampling settings are not part of it."""
    hidden = job.model_class.sampling_settings
    training = job.settings.training.model_dump(exclude={"checkpoint_seconds", "preview_seconds", "tensorboard"})
    facts = {
        "model": job.trained_as,
        "code": _code_identity(job.trained_as),
        "settings": {key: value for key, value in job.settings.model.items() if key not in hidden},
        "training": training,
        "dataset": job.dataset.fingerprint(),
        "split": TRAIN_SPLIT,
        "seed": job.options.seed,
    }
    return config.digest(facts)


def model_source(job: Job) -> str:
    """sha256 (hex) of the source of the model, and of the one that it samples; '' where there is none to read."""
    names = dict.fromkeys((job.options.model, job.trained_as))
    return source_digest(*(registry.models.get(name).__module__ for name in names)) or ""


def held_out_split(job: Job) -> str:
    """The split that stands for unseen real data: one that the protocol does not compare against."""
    others = [split for split in job.dataset.splits if split != job.protocol.reference]
    if not others:
        raise UsageError(
            f"dataset '{job.dataset.name}' has no split besides '{job.protocol.reference}': nothing is held out"
        )
    return others[-1]


def _code_identity(model: str) -> str:
    """The hash of the model's source; for code without one, its package and version."""
    package, version = registry.models.origin(model)
    return source_digest(registry.models.get(model).__module__) or f"{package} {version or package_version(package)}"
