"""Where things live: one settable folder for data, one for weights, one for cached features."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_dir


def cache_dir() -> Path:
    """The user's cache folder, or `TRILEMMA_CACHE_DIR`."""
    return Path(os.environ.get("TRILEMMA_CACHE_DIR") or user_cache_dir("trilemma-bench"))


def data_dir() -> Path:
    """Where data sets are looked for and downloaded to: `TRILEMMA_DATA_DIR`, or a folder in the cache."""
    return Path(os.environ.get("TRILEMMA_DATA_DIR") or cache_dir() / "data")


def weights_dir() -> Path:
    """Where weights are looked for and downloaded to: `TRILEMMA_WEIGHTS_DIR`, or a folder in the cache."""
    return Path(os.environ.get("TRILEMMA_WEIGHTS_DIR") or cache_dir() / "weights")
