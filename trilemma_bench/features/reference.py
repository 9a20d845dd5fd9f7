"""The cache of a dataset's features: computed once by one process, verified whenever it is read."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trilemma_bench import paths, seeding
from trilemma_bench.contracts import Dataset, FeatureExtractor
from trilemma_bench.features.extraction import extract
from trilemma_bench.metrics.reference import Reference

FORMAT = "1"


def reference_features(
    dataset: Dataset,
    split: str,
    extractor: FeatureExtractor,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Tensor:
    """Features of a whole split, in its order: float32 N×D on the CPU, from the cache where they are.

    device: where the extractor lives. A cache file that is damaged is made again, with a warning; so is one that
    cannot be written. Raises TrilemmaError when the data is missing.
    """
    facts = _facts(dataset, split, extractor)
    path = cache_path(facts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(f"{path}.lock").acquire()
    except OSError as error:
        warnings.warn(f"features are not cached: {error}", stacklevel=2)
        return extract(extractor, dataset.load(split).samples, progress=progress, device=device)
    with held:
        if (cached := _read(path, facts)) is not None:
            return cached
        features = extract(extractor, dataset.load(split).samples, progress=progress, device=device)
        _write(path, features, facts)
        return features


def reference(
    dataset: Dataset,
    split: str,
    extractor: FeatureExtractor,
    output: str = "features",
    count: int | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Reference:
    """The reference that a protocol compares with: all of the split, or a fixed random subset of `count` samples."""
    features = reference_features(dataset, split, extractor, device, progress)
    if count is not None and count < len(features):
        features = features[seeding.permutation(len(features), "reference")[:count]]
    return Reference(features)


def cache_path(facts: dict[str, str]) -> Path:
    """The file for features with these facts."""
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return paths.cache_dir() / "features" / f"{facts['extractor']}-{facts['split']}-{key}.safetensors"


def _facts(dataset: Dataset, split: str, extractor: FeatureExtractor) -> dict[str, str]:
    """Everything that the features depend on."""
    return {
        "format": FORMAT,
        "dataset": dataset.fingerprint(),
        "split": split,
        "extractor": extractor.name,
        "weights": extractor.weights_sha256 or "none",
        "resize": extractor.resize,
        "code": _code(extractor),
    }


def _code(extractor: FeatureExtractor) -> str:
    """A hash of the source file of an extractor's class, so that who edits a plugin gets new features."""
    with suppress(OSError, TypeError):
        source = inspect.getsource(inspect.getmodule(type(extractor)) or type(extractor))
        return hashlib.sha256(source.encode()).hexdigest()
    return type(extractor).__qualname__


def _read(path: Path, facts: dict[str, str]) -> Tensor | None:
    """The features in `path`; None when there is no such file, or with a warning when it is not what it should be."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            features, found = file.get_tensor("features"), file.metadata()
        if found == {**facts, "content": _content(features)}:
            return features
        problem = "its content does not fit its facts"
    except (SafetensorError, OSError) as error:
        problem = str(error)
    warnings.warn(f"cached features {path} are damaged ({problem}): computing them again", stacklevel=3)
    return None


def _write(path: Path, features: Tensor, facts: dict[str, str]) -> None:
    """Writes the file whole or not at all; a cache that cannot be written is worth a warning, no more."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file({"features": features.contiguous()}, temporary, {**facts, "content": _content(features)})
        os.replace(temporary, path)
    except (SafetensorError, OSError) as error:
        temporary.unlink(missing_ok=True)
        warnings.warn(f"features are not cached: {error}", stacklevel=3)


def _content(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy()).hexdigest()
