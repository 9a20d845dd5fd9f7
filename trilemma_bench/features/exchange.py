"""References as files that people exchange.

Ours are .safetensors that say what they are: features or moments, of which data, by which extractor. Others' are .npz
that do not: `mu` and `sigma` (pytorch-fid, TTUR, EDM), with `mu_s` and `sigma_s` for spatial features
(guided-diffusion), or the features themselves as `pool_3` (score-SDE). Importing one states what it leaves out.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from trilemma_bench.contracts import Dataset, FeatureExtractor
from trilemma_bench.datasets.arrays import read_arrays, read_outlines, shape_text
from trilemma_bench.datasets.download import reason
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.features import cache
from trilemma_bench.features.reference import FORMAT, NEIGHBOURS, DatasetReference, Kind, code_of, extractor_facts
from trilemma_bench.files import atomic, save_npz
from trilemma_bench.metrics.frechet import Moments
from trilemma_bench.metrics.reference import MomentsReference, Reference
from trilemma_bench.weights import sha256_of

SUFFIX = ".safetensors"
UNKNOWN = "unknown"  # the dataset's fingerprint, where others computed the reference
FACTS = {"dataset", "dataset_name", "split", "samples", "output", "extractor", "weights", "resize", "precision"}
LARGEST = torch.finfo(torch.float32).max
ROUNDING = 1e-5  # of the largest eigenvalue or entry: what a covariance kept in float32 may be off by


@dataclass(frozen=True)
class Claims:
    """What a user says of an .npz that does not say it itself. count: samples, where the file has moments only."""

    dataset: str
    split: str = "train"
    output: str = "features"
    count: int | None = None


def export_reference(reference: DatasetReference, path: Path, kind: Kind = "moments", radii: bool = False) -> Path:
    """Writes the reference into `path`: ours, or for moments an .npz in float64, as `import_npz` reads it; returns it.

    radii: with the features, the distances to the nearest others too, so that nobody computes them again. Raises
    UsageError for what the file cannot hold, and for a subset of more samples than there are.
    """
    if radii and kind == "moments":
        raise UsageError("radii are distances between features: leave them out of moments, or export features")
    if reference.count and reference.count > len(reference):
        raise UsageError(
            f"{reference.count:,} samples were asked for, and the {reference.split} split of {reference.dataset.name} "
            f"has {len(reference):,}: ask for so many, or leave the number out"
        )
    if path.suffix == ".npz" and kind == "features":
        raise UsageError(f"{path}: an .npz takes moments only; name the file {path.stem}{SUFFIX} for features")
    if path.suffix not in (SUFFIX, ".npz"):
        raise UsageError(f"{path}: a reference is written as {SUFFIX} or .npz; name the file so")
    if path.suffix == ".npz":
        mu, sigma = _npz_names(reference.output)
        return save_npz(path, **{mu: reference.moments.mean.numpy(), sigma: reference.moments.covariance.numpy()})
    if kind == "moments":
        tensors = {"mean": reference.moments.mean, "covariance": reference.moments.covariance}
    else:
        tensors = {"features": reference.features}
        if radii and len(reference) > 1:
            tensors["distances"] = reference.nearest(min(NEIGHBOURS, len(reference) - 1))
    return _save(path, reference.facts(kind), tensors)


def import_npz(source: Path, path: Path, claimed: Claims, extractor: FeatureExtractor) -> Path:
    """Writes the moments or features of an .npz into `path` in our format, with what the file leaves out; returns it.

    Nothing in it is ever unpickled. Raises UsageError where the number of samples is not known, TrilemmaError when the
    file does not hold what it should, or not of the extractor's width.
    """
    if source.suffix == SUFFIX:
        raise UsageError(f"{source} says what it is already: use it with --reference {source}")
    if path.suffix != SUFFIX:
        raise UsageError(f"{path}: an imported reference is written as {SUFFIX}; name the file so")
    tensors = _read_npz(source, claimed.output)
    reference = _build(tensors, claimed.count or 0, source)
    _check_width(reference, extractor, claimed.output, source)
    if not len(reference):
        raise UsageError(f"{source} does not say of how many samples it is: add --count N")
    if claimed.count not in (None, len(reference)):
        raise UsageError(f"{source} holds {len(reference)} samples, not {claimed.count}: leave --count out")
    facts = {
        "format": FORMAT,
        "kind": "features" if "features" in tensors else "moments",
        "dataset": UNKNOWN,
        "dataset_name": claimed.dataset,
        "split": claimed.split,
        "samples": str(len(reference)),
        "output": claimed.output,
        "source": f"{source.name} sha256:{sha256_of(source)}",
        **extractor_facts(extractor),
    }
    return _save(path, facts, tensors)


def open_references(
    files: Sequence[Path], extractors: Mapping[str, FeatureExtractor], dataset: Dataset, split: str
) -> dict[tuple[str, str], Reference]:
    """(extractor's name, output) → the reference in each of our `files`; `extractors`: those of the protocol, by name.

    dataset, split: what the protocol compares with; a file of something else is used, with a warning. Features are
    mapped, not read into memory. Raises TrilemmaError for a file that is damaged, or not of these extractors as they
    are, and for two of the same features.
    """
    found: dict[tuple[str, str], Reference] = {}
    for path in files:
        tensors, facts = _load(path)
        name, output = facts["extractor"], facts["output"]
        if name not in extractors:
            raise TrilemmaError(
                f"{path} holds features of extractor '{name}', and the protocol compares those of "
                f"{', '.join(extractors)}: choose another protocol or another file"
            )
        if (name, output) in found:
            raise UsageError(f"{path} is the second reference of {name}'s {output}: give one")
        found[name, output] = _opened(path, tensors, facts, extractors[name])
        if other := _other_data(facts, dataset, split):
            warnings.warn(f"{path} is a reference of {other}: the record says so", stacklevel=2)
    return found


def _other_data(facts: cache.Facts, dataset: Dataset, split: str) -> str:
    """What a file says that it is of, where that is not the dataset's split; '' where it is."""
    name = facts["dataset_name"]
    same = name == dataset.name if facts["dataset"] == UNKNOWN else facts["dataset"] == dataset.fingerprint()
    if not same:
        content = " of other content" if name == dataset.name else ""
        return f"'{name}'{content}, not of '{dataset.name}'"
    return f"the {facts['split']} split, not of the {split} split" if facts["split"] != split else ""


def _opened(path: Path, tensors: cache.Tensors, facts: cache.Facts, extractor: FeatureExtractor) -> Reference:
    """What was loaded from `path` as a reference, with the file's sha256.

    Raises TrilemmaError when it holds values that cannot be, or is of another extractor: its weights, resize and
    precision must be equal, and without weights its code. Other code around equal weights is worth a warning.
    """
    for name, wanted in extractor_facts(extractor).items():
        if facts[name] != wanted:
            raise TrilemmaError(
                f"{path} is of another extractor: its {name} is '{_short(facts[name])}', not '{_short(wanted)}'; "
                "export the reference again with this one"
            )
    _check_code(path, facts, extractor)
    reference = _build(tensors, int(facts["samples"]), path)
    _check_width(reference, extractor, facts["output"], path)
    reference.sha256, reference.stated = sha256_of(path), facts
    return reference


def _check_code(path: Path, facts: cache.Facts, extractor: FeatureExtractor) -> None:
    """An .npz that was imported names no code."""
    if facts.get("code", now := code_of(extractor)) == now:
        return
    problem = f"{path} is of other code of extractor '{extractor.name}'"
    if extractor.weights_sha256 is None:
        raise TrilemmaError(f"{problem}, which may give other features: export the reference again")
    warnings.warn(f"{problem} with equal weights: export the reference again to be sure", stacklevel=4)


def _load(path: Path) -> tuple[cache.Tensors, cache.Facts]:
    """What a file of ours holds and says of itself, verified against each other."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"{path} {what}: give the file that `trilemma-bench reference export` wrote")
    if path.suffix == ".npz":
        raise UsageError(
            f"{path} does not say what it is of: `trilemma-bench reference import {path} --dataset NAME "
            "--extractor NAME --to FILE.safetensors` makes a file that does"
        )
    if path.suffix != SUFFIX:
        raise UsageError(f"{path} is no {SUFFIX}: give the file that `trilemma-bench reference export` wrote")
    try:
        tensors, facts = cache.load(path)
    except (SafetensorError, OSError) as error:
        raise TrilemmaError(f"{path} is damaged or no reference ({reason(error)}): get it again") from error
    known = "features" in tensors or tensors.keys() == {"mean", "covariance"}
    if facts.get("format") != FORMAT or not facts.keys() >= FACTS or not known:
        raise TrilemmaError(f"{path} is no reference of this version: export it again, `trilemma-bench reference -h`")
    if not cache.is_whole(tensors, facts):
        raise TrilemmaError(f"{path} is damaged: its content does not fit its facts; get it again")
    return tensors, facts


def _build(tensors: cache.Tensors, count: int, where: Path) -> Reference:
    """The tensors as a reference, after all that can be checked of them. count: samples, where they are moments."""
    if (features := tensors.get("features")) is not None:
        if features.ndim != 2 or not features.numel():
            raise TrilemmaError(f"{where}: features are {shape_text(features.shape)}, not N×D")
        _check_finite("features", features, where)
        distances = tensors.get("distances")
        if distances is not None and (distances.ndim != 2 or len(distances) != len(features)):
            raise TrilemmaError(f"{where}: distances are {shape_text(distances.shape)}, not a row for each sample")
        return Reference(features.float(), distances)
    mean, covariance = tensors["mean"].double(), tensors["covariance"].double()
    _check_moments(mean, covariance, where)
    return MomentsReference(Moments(mean=mean, covariance=(covariance + covariance.mT) / 2), count)


def _check_moments(mean: Tensor, covariance: Tensor, where: Path) -> None:
    """Raises TrilemmaError unless these can be the mean (D) and covariance (D×D) of samples."""
    if mean.ndim != 1 or not len(mean) or covariance.shape != 2 * mean.shape:
        raise TrilemmaError(
            f"{where}: mu is {shape_text(mean.shape)} and sigma {shape_text(covariance.shape)}, not D and D×D"
        )
    _check_finite("mu", mean, where)
    _check_finite("sigma", covariance, where)
    _check_size("mu", mean, LARGEST, where)
    _check_size("sigma", covariance, LARGEST**2, where)
    if (covariance - covariance.mT).abs().max() > ROUNDING * covariance.abs().max():
        raise TrilemmaError(f"{where}: sigma is not symmetric, so it is no covariance")
    values = torch.linalg.eigvalsh(covariance)
    if values[0] < -ROUNDING * values.abs().max():
        raise TrilemmaError(f"{where}: sigma has the eigenvalue {float(values[0]):.3g} < 0, so it is no covariance")


def _check_finite(name: str, values: Tensor, where: Path) -> None:
    if not values.isfinite().all():
        raise TrilemmaError(f"{where}: {name} holds NaN or infinity")


def _check_size(name: str, values: Tensor, largest: float, where: Path) -> None:
    """What no float32 features have, and float64 arithmetic on their moments would overflow with."""
    if (found := float(values.abs().max())) > largest:
        raise TrilemmaError(f"{where}: {name} holds {found:.3g}, and features in float32 give at most {largest:.3g}")


def _check_width(reference: Reference, extractor: FeatureExtractor, output: str, where: Path) -> None:
    """Only the width of 'features' is known before an extractor has run."""
    if output == "features" and extractor.dim and reference.dim != extractor.dim:
        raise TrilemmaError(
            f"{where} has {reference.dim} features, extractor '{extractor.name}' gives {extractor.dim}: "
            "it is of another extractor"
        )


def _read_npz(path: Path, output: str) -> cache.Tensors:
    """The features, else mean and covariance of `output`, in an .npz; only what is needed of it is read."""
    mu, sigma = _npz_names(output)
    if not path.is_file():
        raise UsageError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: give an .npz file")
    there = read_outlines(path)
    if output == "features" and "pool_3" in there:
        return {"features": _floats(path, np.float32, "pool_3")["pool_3"]}
    if not {mu, sigma} <= there.keys():
        raise TrilemmaError(f"{path} holds {', '.join(there) or 'nothing'}, not {mu} and {sigma} (or pool_3)")
    found = _floats(path, np.float64, mu, sigma)
    return {"mean": found[mu], "covariance": found[sigma]}


def _npz_names(output: str) -> tuple[str, str]:
    """What mean and covariance of `output` are called in an .npz; spatial ones as guided-diffusion has them."""
    return ("mu_s", "sigma_s") if output == "spatial" else ("mu", "sigma")


def _floats(path: Path, dtype: type[np.floating], *names: str) -> cache.Tensors:
    """The arrays of these names, as `dtype`. Raises TrilemmaError for what is not floats."""
    found = read_arrays(path, names)
    for name, array in found.items():
        if array.dtype.kind != "f":
            raise TrilemmaError(f"{path}: {name} is {array.dtype}, not floats")
    return {name: torch.from_numpy(np.asarray(array, dtype)) for name, array in found.items()}


def _save(path: Path, facts: cache.Facts, tensors: cache.Tensors) -> Path:
    return atomic(path, lambda temporary: cache.save(temporary, facts, tensors))


def _short(fact: str) -> str:
    """A hash without most of its digits."""
    return f"{fact[:12]}…" if len(fact) == 64 else fact
