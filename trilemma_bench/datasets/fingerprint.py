"""What a dataset contains, as one hash: independent of the files it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from trilemma_bench.contracts import Dataset


def content_fingerprint(dataset: Dataset, splits: Iterable[str] | None = None) -> str:
    """sha256 (hex) over names, shapes, types, samples and labels of all splits; computed once for each object.

    splits: those that hold all there is, where some are parts of others.
    """
    known: str | None = vars(dataset).get("_content_fingerprint")
    if known is None:
        known = _digest(dataset, dataset.splits if splits is None else splits)
        vars(dataset)["_content_fingerprint"] = known
    return known


def _digest(dataset: Dataset, splits: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in splits:
        split = dataset.load(name)
        _update(digest, f"{name}/samples", split.samples)
        if split.labels is not None:
            _update(digest, f"{name}/labels", split.labels)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    array = tensor.cpu().contiguous().numpy()
    digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
    digest.update(array.data)
