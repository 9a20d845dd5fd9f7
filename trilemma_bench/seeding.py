"""Random streams: each one a pure function of the run's seed and its purpose."""

from __future__ import annotations

import hashlib

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
