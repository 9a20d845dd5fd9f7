"""The Python side of the command line: the same stages, the same words, the same defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from trilemma_bench import pipeline, registry, rerunning
from trilemma_bench.config import setting_names
from trilemma_bench.errors import UsageError, unknown_name
from trilemma_bench.job import Options

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from typing_extensions import Unpack

    from trilemma_bench.comparing import RunComparison
    from trilemma_bench.record import Record


class CommonOptions(TypedDict, total=False):
    """The options that `trilemma-bench run` and `evaluate` share, by the same names.

    protocol: its name, the dataset's own if not given. feature_precision: 'float32', 'tf32' or 'bf16'. references:
    files to compare with instead of the dataset. seed: of all random draws; in `evaluate` that which made the samples.
    device: 'auto', 'cpu' or 'cuda'. out: where results go. progress: whether to show bars. say: takes each line that
    there is to say, `print` by default.
    """

    protocol: str | None
    feature_precision: str | None
    references: Sequence[str | Path]
    seed: int
    device: str
    out: str | Path
    progress: bool
    say: Callable[[str], None]


class EvaluateOptions(CommonOptions, total=False):
    """The options of `trilemma-bench evaluate`, by the same names.

    reference_split: the split to compare with; by default the protocol's, or 'all' of own images without splits.
    """

    reference_split: str | None


class RunOptions(CommonOptions, total=False):
    """The options of `trilemma-bench run`, by the same names.

    config: TOML over the shipped one. checkpoint: trained weights to use. samples: how many, the protocol's number if
    not given. budget: how long to train ('90s', '500kimg').
    """

    config: str | Path | None
    checkpoint: str | Path | None
    samples: int | None
    budget: str | None


class RerunOptions(TypedDict, total=False):
    """The options of `trilemma-bench rerun`, by the same names.

    dataset: where own images lie. checkpoint: trained weights to use, instead of training. same_images: train on as
    many images as the recorded run saw. plugins: files to load first. Others: see `CommonOptions`.
    """

    dataset: str | None
    checkpoint: str | Path | None
    same_images: bool
    references: Sequence[str | Path]
    plugins: Sequence[str | Path]
    device: str
    out: str | Path
    progress: bool
    say: Callable[[str], None]


def run(
    *, model: str, dataset: str, settings: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]
) -> Record:
    """Trains if no checkpoint is given or found, samples, measures, writes the run's folder; returns its record.

    settings: what `--set` takes, by name. options: config, checkpoint, samples, budget, protocol, feature_precision,
    references, seed, device, out, progress, say; see `RunOptions`. Raises UsageError for a wrong request,
    TrilemmaError when a stage fails.
    """
    return pipeline.run(options_of(model, dataset, settings, options))


def train(
    *, model: str, dataset: str, settings: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]
) -> Path:
    """Trains unless a finished run with the same settings is found; returns the path of the checkpoint.

    settings, options, errors: as in `run`. Raises UsageError for a checkpoint, which is trained already.
    """
    return pipeline.train(options_of(model, dataset, settings, options))


def sample(
    path: str | Path,
    *,
    model: str,
    dataset: str,
    settings: Mapping[str, Any] | None = None,
    **options: Unpack[RunOptions],
) -> Path:
    """Draws samples of a trained model into the .npz at `path`; returns it. Never trains.

    The file has 'images', uint8 N×H×W×C, or 'points', float32 N×D. settings, options, errors: as in `run`; raises
    TrilemmaError where nothing trained with the same settings, budget and seed is below `out`, and no checkpoint given.
    """
    return pipeline.sample(options_of(model, dataset, settings, options), Path(path))


def evaluate(
    samples: Tensor | np.ndarray | str | Path,
    *,
    dataset: str,
    name: str = "samples",
    real: bool = False,
    **options: Unpack[EvaluateOptions],
) -> Record:
    """Measures samples that someone else made: a folder of images, an .npz or .npy file, an array or a tensor.

    Arrays: uint8 N×H×W×C or N×C×H×W for images, float N×D for points. name: the model's name in the record; several
    sets of one name, each with its own seed, are one row over seeds.
    real: these are real data, such as a test split: a table shows them as its ceiling and ranks them with nobody.
    options: see `EvaluateOptions`. Raises TrilemmaError when the samples do not fit the dataset.
    """
    given = Path(samples) if isinstance(samples, str) else samples
    return pipeline.evaluate(options_of(name, dataset, None, options, EvaluateOptions), given, real)


def rerun(record: str | Path, **options: Unpack[RerunOptions]) -> RunComparison:
    """Does the run of a record again, by nothing but what that says, and compares: A is that record, B the new one.

    record: a run's folder, or its record.json. options: see `RerunOptions`. The new record is `.b.record` of what is
    returned. Raises UsageError for a record that cannot be done again here, TrilemmaError when a stage fails.
    """
    return rerunning.rerun(Path(record).expanduser(), **_checked("", options, RerunOptions))


def options_of(
    model: str,
    dataset: str,
    settings: Mapping[str, Any] | None,
    options: Mapping[str, object],
    kind: type = RunOptions,
) -> Options:
    """The run's options. Raises UsageError for one that `kind` does not have."""
    return Options(model=model, dataset=dataset, overrides=settings or {}, **_checked(model, options, kind))


def _checked(model: str, options: Mapping[str, object], kind: type) -> dict[str, Any]:
    """The options, with paths as paths. Raises UsageError for one that `kind` does not have."""
    for name in sorted(set(options) - set(kind.__annotations__)):
        raise _unknown_option(name, model, kind)
    known: dict[str, Any] = dict(options)
    for key in ("config", "checkpoint", "out"):
        if known.get(key) is not None:
            known[key] = Path(known[key]).expanduser()
    for key in known.keys() & {"references", "plugins"}:
        files = (known[key],) if isinstance(known[key], (str, Path)) else known[key]
        known[key] = tuple(Path(path).expanduser() for path in files)
    return known


def _unknown_option(name: str, model: str, kind: type) -> UsageError:
    """The error that suggests the nearest option, or that says of a setting where it goes."""
    if kind is RunOptions and name in setting_names(registry.models.get(model)):
        return UsageError(f"'{name}' is a setting, not an option: write settings={{'{name}': …}}")
    return unknown_name("option", name, kind.__annotations__)
