"""The Python side of the command line: the same stages, the same words, the same defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilemma_bench import pipeline
from trilemma_bench.datasets import open_dataset
from trilemma_bench.datasets.arrays import check_shape
from trilemma_bench.datasets.folder import array_samples, load_samples

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from trilemma_bench.record import Record


def run(*, model: str, dataset: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Record:
    """Trains if no checkpoint is given or found, samples, measures, writes the run's folder; returns its record.

    settings: what `--set` takes, as a mapping; options: config, checkpoint, samples, seed, budget, protocol,
    feature_precision, device, out, progress. Raises UsageError for a wrong request, TrilemmaError when a stage fails.
    """
    return pipeline.run(options_of(model, dataset, settings, options))


def train(*, model: str, dataset: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Path:
    """Trains unless a finished run with the same settings is found; returns the path of the checkpoint."""
    return pipeline.train(options_of(model, dataset, settings, options))


def sample(
    path: str | Path, *, model: str, dataset: str, settings: Mapping[str, Any] | None = None, **options: Any
) -> Path:
    """Draws samples of a trained model into the .npz at `path`; returns it. Never trains."""
    return pipeline.sample(options_of(model, dataset, settings, options), Path(path))


def evaluate(
    samples: Tensor | np.ndarray | str | Path, *, dataset: str, name: str = "samples", **options: Any
) -> Record:
    """Measures samples that someone else made: a folder of images, an .npz or .npy file, or an array.

    Arrays: uint8 N×H×W×C or N×C×H×W for images, float N×D for points. name: the model's name in the record.
    Raises TrilemmaError when the samples do not fit the dataset.
    """
    spec = open_dataset(dataset).spec
    if isinstance(samples, (str, Path)):
        source, loaded = str(samples), load_samples(Path(samples).expanduser(), spec, dataset)
    else:
        array = samples if not hasattr(samples, "numpy") else samples.numpy()
        source, loaded = "array", array_samples(array, "samples")
        check_shape(loaded, spec, dataset)
    return pipeline.evaluate(options_of(name, dataset, None, options), loaded, source)


def options_of(
    model: str, dataset: str, settings: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> pipeline.Options:
    """The run's options, with paths as paths."""
    options = dict(options)
    for key in ("config", "checkpoint", "out"):
        if options.get(key) is not None:
            options[key] = Path(options[key]).expanduser()
    options["references"] = tuple(Path(path).expanduser() for path in options.get("references", ()))
    return pipeline.Options(model=model, dataset=dataset, overrides=settings or {}, **options)
