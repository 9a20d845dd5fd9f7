"""Random streams: each one a pure function of the run's seed and its purpose."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch


def stream_seed(*parts: int | str) -> int:
    """A 63-bit seed for the stream named by `parts`, for example ('samples', seed, chunk)."""
    name = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "little") >> 1


def generator(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """A generator on `device`, seeded by the stream's name."""
    return torch.Generator(device).manual_seed(stream_seed(*parts))


def permutation(size: int, *parts: int | str) -> torch.Tensor:
    """A random permutation of 0…size−1 (int64, CPU), a function of the stream's name."""
    return torch.randperm(size, generator=generator("cpu", *parts))


def seed_everything(seed: int) -> None:
    """Seeds torch (all devices), NumPy and Python for building and training a model."""
    value = stream_seed("training", seed)
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of all that `seed_everything` seeds, in types that a checkpoint may hold."""
    numpy_state: Any = np.random.get_state(legacy=True)  # a name, an array and three numbers
    parts = [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy_state]
    state = {"cpu": torch.get_rng_state(), "numpy": parts, "python": random.getstate()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    np.random.set_state(tuple(state["numpy"]))
    random.setstate(state["python"])
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
