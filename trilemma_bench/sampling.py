"""Samples in chunks, chunk k seeded by (seed, k): they do not depend on who drew them, nor on an interruption."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from trilemma_bench import seeding
from trilemma_bench.contracts import DataSpec, FiniteSource, GenerativeModel
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.images import quantise


def draw_samples(
    model: GenerativeModel, count: int, seed: int, *, chunk_size: int, device: torch.device, progress: bool = True
) -> Tensor:
    """`count` samples on the CPU: uint8 N×C×H×W, quantised once for all models alike, or float32 N×D points."""
    if isinstance(model, FiniteSource):
        return check_samples(_take(model, count, seed), model.data, "real data")
    model.eval()
    chunks = []
    with torch.no_grad(), tqdm(total=count, desc="sample", unit="img", disable=not progress) as bar:
        for index, start in enumerate(range(0, count, chunk_size)):
            rng = seeding.generator(device, "samples", seed, index)
            chunk = model.sample(min(chunk_size, count - start), rng)
            chunks.append(check_samples(chunk, model.data, type(model).__name__).cpu())
            bar.update(len(chunks[-1]))
    return torch.cat(chunks)


def check_samples(samples: Tensor, data: DataSpec, source: str) -> Tensor:
    """Quantised samples of the dataset's shape. Raises TrilemmaError for another shape, NaN or infinity."""
    if tuple(samples.shape[1:]) != data.shape:
        raise TrilemmaError(f"{source} returned samples of shape {tuple(samples.shape[1:])}, expected {data.shape}")
    if samples.is_floating_point() and not bool(torch.isfinite(samples).all()):
        raise TrilemmaError(f"{source} returned NaN or infinite samples: train again, or lower the learning rate")
    return quantise(samples) if data.is_image else samples.float()


def _take(model: FiniteSource, count: int, seed: int) -> Tensor:
    if count > model.size():
        raise UsageError(
            f"only {model.size()} held-out real samples exist, {count} were asked for: use --samples {model.size()}"
        )
    return model.take(seeding.permutation(model.size(), "samples", seed)[:count])
