"""Samples in chunks, chunk k seeded by (seed, k): they do not depend on who drew them, nor on an interruption.

Under `torchrun` process r of n draws chunks r, r + n, …; the first process gets them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from trilemma_bench import distributed, seeding
from trilemma_bench.contracts import DataSpec, FiniteSource, GenerativeModel
from trilemma_bench.datasets.arrays import LIKELY_FRACTION, shape_text
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.graphs import Replay, accelerated
from trilemma_bench.images import quantise
from trilemma_bench.precision import arithmetic
from trilemma_bench.settings import SamplingSettings

OVERSHOOT = 0.1  # beyond [−1, 1], 13 of 255 levels: networks without a bound exceed it here and there
NOTED_SHARE = 0.01  # of all values: cutting off more than that changes what is measured


class Outside:
    """Counts the values of float images, in [−1, 1], that lie more than `OVERSHOOT` outside: quantising cuts them off.

    Of many processes each counts its own.
    """

    def __init__(self) -> None:
        self.outside = self.values = 0

    def count(self, samples: Tensor) -> None:
        if samples.is_floating_point():
            self.outside += int((samples.abs() > 1 + OVERSHOOT).sum())
        self.values += samples.numel()

    @property
    def note(self) -> str:
        """What a reader of the scores must know; '' where few values lie outside."""
        share = self.outside / max(self.values, 1)
        if share <= NOTED_SHARE:
            return ""
        return f"{100 * share:.2g} % of the values of its images were beyond ±{1 + OVERSHOOT:g} and cut off at ±1"


def draw_samples(
    model: GenerativeModel,
    count: int,
    seed: int,
    *,
    chunk_size: int,
    device: torch.device,
    progress: bool = True,
    outside: Outside | None = None,
) -> Tensor:
    """`count` samples on the CPU: uint8 N×C×H×W, quantised once for all models alike, or float32 N×D points.

    outside: counts what quantising cuts off. Of many processes only the first returns samples, the others none.
    """
    if isinstance(model, FiniteSource):
        return check_samples(_take(model, count, seed), model.data, count, "real data")
    sizes = [min(chunk_size, count - start) for start in range(0, count, chunk_size)]
    chunks = {}
    with tqdm(total=count, desc="sample", unit="img", disable=not (progress and distributed.is_main())) as bar:
        for index in range(distributed.rank(), len(sizes), distributed.world()):
            chunks[index] = draw_chunk(model, sizes[index], seed, index, device, outside)
            bar.update(sum(sizes[index : index + distributed.world()]))
    return torch.cat(_gathered(chunks, sizes, model.data))


@contextmanager
def drawing(model: GenerativeModel, settings: SamplingSettings, device: torch.device) -> Iterator[Replay | None]:
    """Around draws of `model`: its network computes as the settings say. Gives what is replayed, if anything is."""
    graphs = settings.cuda_graphs if device.type == "cuda" else False
    with arithmetic(settings.precision, device):
        if model.network is None:
            yield None
            return
        with accelerated(model.network, compiled=settings.compile, graphs=graphs) as replay:
            yield replay


@torch.no_grad()
def draw_chunk(
    model: GenerativeModel, count: int, seed: int, index: int, device: torch.device, outside: Outside | None = None
) -> Tensor:
    """`count` samples on the CPU, of the stream (seed, index), in eval mode."""
    model.eval()
    chunk = model.sample(count, seeding.generator(device, "samples", seed, index))
    samples = check_samples(chunk, model.data, count, type(model).__name__)
    if outside and model.data.is_image:
        outside.count(chunk)
    return samples.cpu()


def check_samples(samples: Tensor, data: DataSpec, count: int, source: str) -> Tensor:
    """Quantised samples, `count` of the dataset's shape. Raises TrilemmaError for another number, shape, type or range,
    NaN or infinity.
    """
    check_count(samples, count, source)
    if tuple(samples.shape[1:]) != data.shape:
        raise TrilemmaError(f"{source} returned samples of shape {tuple(samples.shape[1:])}, expected {data.shape}")
    _check_type(samples, data, source)
    if not data.is_image:
        samples = samples.float()  # where large numbers of float64 are infinite
    if samples.is_floating_point() and not bool(torch.isfinite(samples).all()):
        raise TrilemmaError(f"{source} returned NaN or infinite samples: train again, or lower the learning rate")
    if data.is_image and samples.is_floating_point() and len(samples):
        _check_range(samples, source)
    return (quantise(samples) if data.is_image else samples).contiguous()


def check_count(samples: Tensor, count: int, source: str) -> None:
    """Raises TrilemmaError unless they are a tensor of `count` samples."""
    if not isinstance(samples, Tensor):
        raise TrilemmaError(f"{source} returned {type(samples).__name__}, expected a tensor of samples")
    if samples.ndim == 0 or len(samples) != count:
        raise TrilemmaError(
            f"{source} returned {shape_text(tuple(samples.shape))} where {count} samples were asked for: "
            "return as many as `sample` is asked for"
        )


def _check_type(samples: Tensor, data: DataSpec, source: str) -> None:
    if samples.is_floating_point() or (data.is_image and samples.dtype == torch.uint8):
        return
    expected = "images as float in [−1, 1] or uint8 of 0…255" if data.is_image else "points as float"
    raise TrilemmaError(f"{source} returned {str(samples.dtype).removeprefix('torch.')}, expected {expected}")


def _check_range(samples: Tensor, source: str) -> None:
    """A network that has hardly learned leaves [−1, 1] on both sides; whole levels leave it on one."""
    low, levels = float(samples.min()), (samples > LIKELY_FRACTION).float().mean()
    if low >= 0 and float(levels) > NOTED_SHARE:
        high = float(samples.max())
        raise TrilemmaError(f"{source} returned images of {low:.3g}…{high:.3g}, expected float in [−1, 1] or uint8")


def _gathered(chunks: dict[int, Tensor], sizes: list[int], data: DataSpec) -> list[Tensor]:
    """All chunks in their order, in the first process; an empty one in the others."""
    dtype = torch.uint8 if data.is_image else torch.float32
    world = distributed.world()
    for index, size in enumerate(sizes):
        owner = index % world
        if distributed.is_main() and owner:
            chunks[index] = torch.empty((size, *data.shape), dtype=dtype)
            dist.recv(chunks[index], src=owner)
        elif owner == distributed.rank() and owner:
            dist.send(chunks[index], dst=0)
    if not distributed.is_main():
        return [torch.empty((0, *data.shape), dtype=dtype)]
    return [chunks[index] for index in range(len(sizes))]


def check_available(available: int, count: int) -> None:
    """Raises UsageError where more real samples are asked for than are held out."""
    if count > available:
        raise UsageError(
            f"only {available} held-out real samples exist, {count} were asked for: use --samples {available}"
        )


def _take(model: FiniteSource, count: int, seed: int) -> Tensor:
    check_available(model.size(), count)
    return model.take(seeding.permutation(model.size(), "samples", seed)[:count])
