"""Features of many samples: one pass feeds every extractor, batch by batch, each in the precision that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from trilemma_bench.contracts import FeatureExtractor
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.precision import feature_arithmetic, resolved

BATCH = 256  # samples read at once, and computed at once on anything but a CPU
Request = tuple[FeatureExtractor, Sequence[str]]
Outputs = dict[tuple[str, str], Tensor]


class Samples(Protocol):
    """What features can be extracted from: a tensor, or whatever gives one when it is sliced, such as image files."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> Tensor:
        """The samples of a slice: uint8 n×C×H×W or float n×D."""


class HashedSamples:
    """Samples whose bytes are hashed as they are read: slice after slice, each once."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.digest = hashlib.sha256()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: slice, /) -> Tensor:
        part = self.samples[index]
        self.digest.update(part.cpu().contiguous().numpy())
        return part


def extract(
    extractor: FeatureExtractor,
    samples: Samples,
    batch_size: int = BATCH,
    progress: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The extractor's 'features' of `samples`: float32 N×D on the CPU. See `extract_all`."""
    outputs = extract_all([(extractor, ("features",))], samples, batch_size, progress, device)
    return outputs[extractor.name, "features"]


def extract_all(
    requests: Sequence[Request],
    samples: Samples,
    batch_size: int = BATCH,
    progress: bool = False,
    device: torch.device | str = "cpu",
) -> Outputs:
    """Every asked output of every extractor, in one pass: (extractor's name, output) → float32 N×D on the CPU.

    samples: uint8 N×C×H×W or float N×D, in memory or read slice by slice, `batch_size` at a time; features do not
    depend on it. device: where the extractors live; one batch is there at a time, while the next is being read.
    Raises TrilemmaError when there are no samples, or an extractor does not return one row of floats for each, or of
    another width than it says, and whatever reading raises.
    """
    gathered: Outputs = {}
    title = ", ".join(extractor.name for extractor, _ in requests)
    for start, batch in _batches(samples, batch_size, progress, device, title):
        for extractor, outputs in requests:
            for output, values in _computed(extractor, outputs, batch).items():
                key = extractor.name, output
                if key not in gathered:  # one allocation of the final size: gathering parts would need it twice
                    gathered[key] = torch.empty(len(samples), values.shape[1])
                gathered[key][start : start + len(batch)] = values
    return gathered


def _computed(extractor: FeatureExtractor, outputs: Sequence[str], batch: Tensor) -> dict[str, Tensor]:
    """The asked outputs of a batch, in the extractor's precision, block by block."""
    parts = []
    for count, block in _blocks(batch, extractor.cpu_block):
        with feature_arithmetic(extractor.precision, batch.device):
            found = extractor.compute(block, outputs)
        for output, values in found.items():
            _check(extractor, output, values, len(block))
        parts.append({output: values[:count] for output, values in found.items()})
    return {output: torch.cat([part[output] for part in parts]) for output in parts[0]}


def in_blocks(
    function: Callable[[Tensor], Tensor], samples: Samples, cpu_block: int, device: torch.device | str = "cpu"
) -> Tensor:
    """`function`, one row a sample, of all samples on `device`, gathered on the CPU: see `extract_all`, `cpu_block`.

    Raises TrilemmaError when there are no samples.
    """
    batches = (batch for _, batch in _batches(samples, BATCH, False, device, ""))
    return torch.cat([function(block)[:count].cpu() for batch in batches for count, block in _blocks(batch, cpu_block)])


def _blocks(batch: Tensor, cpu_block: int) -> Iterator[tuple[int, Tensor]]:
    """The batch in blocks of one size, each with how many of its samples count.

    A network's last digits depend on how many samples it sees at once, not on which: a smaller rest is filled up with
    copies of its last sample, so that a sample's features do not depend on how many others there are.
    """
    size = cpu_block if batch.device.type == "cpu" else BATCH
    for part in batch.split(size):
        missing = size - len(part)
        yield len(part), torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part


def _batches(
    samples: Samples, batch_size: int, progress: bool, device: torch.device | str, title: str
) -> Iterator[tuple[int, Tensor]]:
    """Batches on the device with the index of their first sample; what is done between two of them needs no gradient.

    A thread reads the next batch while this one is computed, so that decoding and copying take no time of their own.
    """
    if not len(samples):
        raise TrilemmaError("there are no samples to extract features from")
    on_gpu = torch.device(device).type == "cuda"

    def read(start: int) -> Tensor:
        batch = samples[start : start + batch_size]
        return batch.pin_memory() if on_gpu and batch.device.type == "cpu" else batch

    bar = tqdm(total=len(samples), unit="sample", desc=f"features {title}".strip(), disable=not progress, leave=False)
    with torch.no_grad(), feature_arithmetic("float32", device), bar, ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, 0)
        for start in range(0, len(samples), batch_size):
            batch = coming.result().to(device, non_blocking=True)
            if start + batch_size < len(samples):
                coming = reader.submit(read, start + batch_size)
            yield start, batch
            bar.update(len(batch))


def use_precision(extractor: FeatureExtractor, precision: str, device: torch.device) -> None:
    """Lets the extractor compute in 'tf32' or 'bf16' from now on; raises UsageError where `device` cannot."""
    if precision == "tf32" and device.type != "cuda":
        raise UsageError(f"features in tf32 need a CUDA device, this is {device.type}: choose float32 or bf16")
    if precision == "bf16" and device.type == "cuda" and resolved("auto", device) != "bf16":
        raise UsageError("features in bf16: this CUDA device does not compute in it: choose float32 or tf32")
    extractor.precision = precision


def _check(extractor: FeatureExtractor, output: str, values: Tensor, count: int) -> None:
    if values.ndim != 2 or len(values) != count or not values.is_floating_point():
        raise TrilemmaError(
            f"extractor '{extractor.name}' must return floats N×D, "
            f"but gave {values.dtype} {tuple(values.shape)} for {count} samples"
        )
    if output == "features" and extractor.dim not in (0, values.shape[1]):
        raise TrilemmaError(
            f"extractor '{extractor.name}' says dim = {extractor.dim}, but gave {values.shape[1]} features: correct it"
        )
