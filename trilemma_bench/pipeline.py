"""The stages in their order: train → sample → measure → record; each can be run alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trilemma_bench.contracts import Dataset, DataSpec, FiniteSource, GenerativeModel
from trilemma_bench.datasets import open_dataset
from trilemma_bench.datasets.arrays import check_shape
from trilemma_bench.datasets.folder import WHOLE, OwnImages, array_samples, load_samples
from trilemma_bench.datasets.splits import TRAIN_SPLIT, check_split
from trilemma_bench.distributed import is_main, on_main
from trilemma_bench.environment import resolve_device
from trilemma_bench.errors import UsageError
from trilemma_bench.evaluation import Evaluation, Evaluator
from trilemma_bench.evaluation.extractors import Extractors
from trilemma_bench.evaluation.uses import resolve_protocol
from trilemma_bench.features.extraction import Samples
from trilemma_bench.files import save_npz
from trilemma_bench.finished import find_finished
from trilemma_bench.images import save_grid, save_pairs, save_scatter
from trilemma_bench.job import Job, Options, held_out_split, open_folder, prepare
from trilemma_bench.paths import as_text
from trilemma_bench.protocol import Protocol
from trilemma_bench.record import ModelPart, Record, Speed
from trilemma_bench.recording import model_part, recorded_failure, write_record_of
from trilemma_bench.sampling import Outside, check_available, draw_samples, drawing
from trilemma_bench.settings import SamplingSettings, Settings, TrainingSettings
from trilemma_bench.timing import measure_speed
from trilemma_bench.trained import build_model, existing_model, find_trained, give_weights
from trilemma_bench.training import checkpoint


def run(options: Options, extractors: Extractors | None = None, anew: bool = True) -> Record:
    """Trains unless a checkpoint is given or found, samples, measures and writes the run's folder.

    extractors: shared with other evaluations, which may have loaded them. anew: False takes the record of a finished
    run of the same request, where the same code has made it on this machine. Raises UsageError for a wrong request
    before anything is written, TrilemmaError when a stage fails: the folder then holds a record that says so.
    """
    job = prepare(options)
    evaluator = Evaluator(job.dataset, job.protocol, job.device, options.progress, options.references, extractors)
    if not anew and (found := on_main(lambda: find_finished(job, evaluator))):
        options.say(f"done before: {options.out / found.place}")
        return found
    _check_finite_source(job)
    model = build_model(job)
    open_folder(job)
    with recorded_failure(job):
        give_weights(job, model)
        speed = None
        if not isinstance(model, FiniteSource):
            with job.timed("timing"):
                speed = on_main(lambda: measure_speed(model, job.settings.sampling, job.device, options.seed))
            if speed.busy_note:
                options.say(f"note: {speed.busy_note}")
        with job.timed("sampling"):
            samples, note = _draw(job, model)
        return on_main(lambda: _measure(job, evaluator, samples, model_part(job, model), speed, note))


def train(options: Options) -> Path:
    """Trains unless a finished run with the same settings is found; returns the checkpoint's path."""
    job = prepare(options)
    if not job.trainable:
        raise UsageError(f"model '{options.model}' has nothing to train")
    if options.checkpoint:
        raise UsageError(f"{options.checkpoint} is trained already: leave it out, or `run` or `sample` with it")
    if found := find_trained(job, complete=True):
        options.say(f"already trained: {found / checkpoint.WEIGHTS_FILE}")
        return found / checkpoint.WEIGHTS_FILE
    model = build_model(job)
    open_folder(job)
    with recorded_failure(job):
        give_weights(job, model)
    return job.folder / checkpoint.WEIGHTS_FILE


def sample(options: Options, path: Path) -> Path:
    """Draws samples from a trained model into `path` (.npz: 'images' uint8 N×H×W×C, or 'points' float32 N×D)."""
    job = prepare(options)
    if path.suffix != ".npz":
        raise UsageError(f"{path}: samples are written as .npz; name the file so")
    _check_finite_source(job)
    model = existing_model(job)
    with job.timed("sampling"):
        samples, _ = _draw(job, model)
    name, array = ("images", samples.permute(0, 2, 3, 1)) if job.dataset.spec.is_image else ("points", samples)
    if is_main():
        save_npz(path, **{name: array.contiguous().numpy()})
    return path


def evaluate(options: Options, given: Tensor | np.ndarray | Path, real: bool = False) -> Record:
    """Measures samples that someone else made, a file, a folder or an array; no speed, no training in the record.

    real: they are real data.
    """
    dataset = open_dataset(options.dataset)
    samples = _samples_of(given, dataset.spec, options.dataset)
    protocol = resolve_protocol(options.protocol, dataset, len(samples), options.feature_precision)
    protocol = replace(protocol, reference=_compared_split(options, dataset, protocol))
    _note_few_samples(options, dataset, len(samples))
    device = resolve_device(options.device)
    settings = Settings({}, TrainingSettings(), SamplingSettings())
    job = Job(options, settings, dataset, protocol, device, GenerativeModel)  # type: ignore[type-abstract]
    evaluator = Evaluator(dataset, protocol, device, options.progress, options.references)
    open_folder(job)
    source = as_text(str(given)) if isinstance(given, Path) else "array"
    part = ModelPart(
        name=job.model_name, parameters=0, settings={"samples": source}, plugin="", version="", reference=real
    )
    with recorded_failure(job):
        return _measure(job, evaluator, samples, part, None)


def _compared_split(options: Options, dataset: Dataset, protocol: Protocol) -> str:
    """What samples made elsewhere are compared with: all of a set without splits, where nothing else is asked for."""
    if options.reference_split is not None:
        check_split(dataset, options.reference_split)
        return options.reference_split
    undivided = isinstance(dataset, OwnImages) and WHOLE in dataset.splits and not options.references
    return WHOLE if undivided else protocol.reference


def _note_few_samples(options: Options, dataset: Dataset, count: int) -> None:
    wanted = resolve_protocol(options.protocol, dataset, None, None)
    if count < wanted.samples:
        options.say(
            f"note: {count:,} samples, and protocol '{wanted.name}' has {wanted.samples:,}: distances, recall and "
            "coverage depend on their number, so compare them at equal numbers only"
        )


def _samples_of(given: Tensor | np.ndarray | Path, spec: DataSpec, dataset: str) -> Samples:
    """Raises TrilemmaError when they are not samples, or none of the dataset's shape."""
    if isinstance(given, Path):
        return load_samples(given.expanduser(), spec, dataset)
    samples = array_samples(given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given))
    check_shape(samples, spec, dataset)
    return samples


def _measure(
    job: Job, evaluator: Evaluator, samples: Samples, part: ModelPart, speed: Speed | None, note: str = ""
) -> Record:
    """Scores of the samples and their pictures, into the run's folder; returns the record."""
    with job.timed("evaluation"):
        evaluation = evaluator.evaluate(samples)
    _save_preview(samples, job.dataset, job.folder)
    _save_copies(samples, evaluation, job.dataset, job.folder)
    return write_record_of(job, part, evaluation, speed, note)


def _save_preview(samples: Samples, dataset: Dataset, folder: Path) -> None:
    """samples.png: a grid of images, or a scatter plot of points."""
    if dataset.spec.is_image:
        save_grid(samples[:100], folder / "samples.png")
    else:
        limit = 1.15 * float(dataset.load(TRAIN_SPLIT).samples.abs().max())
        save_scatter(samples[:], folder / "samples.png", (-limit, limit))


def _save_copies(samples: Samples, evaluation: Evaluation, dataset: Dataset, folder: Path) -> None:
    """nearest.png: the generated images nearest to training images, each above its own, the nearest first."""
    pairs = evaluation.copies
    if pairs is None or not dataset.spec.is_image:
        return
    chosen = torch.cat([samples[i : i + 1] for i in pairs.generated.tolist()])
    save_pairs(chosen, dataset.load(TRAIN_SPLIT).samples[pairs.training.cpu()], folder / "nearest.png")


def _draw(job: Job, model: GenerativeModel) -> tuple[Tensor, str]:
    """The samples, and a note on them where there is one, which is said too."""
    settings, outside = job.settings.sampling, Outside()
    with drawing(model, settings, job.device):
        samples = draw_samples(
            model,
            job.protocol.samples,
            job.options.seed,
            chunk_size=settings.chunk_size,
            device=job.device,
            progress=job.options.progress,
            outside=outside,
        )
    if outside.note:
        job.options.say(f"note: {job.model_name}: {outside.note}")
    return samples, outside.note


def _check_finite_source(job: Job) -> None:
    """Real data is finite: too many samples are a wrong request, known before anything is written."""
    if issubclass(job.model_class, FiniteSource):
        check_available(len(job.dataset.load(held_out_split(job))), job.protocol.samples)
