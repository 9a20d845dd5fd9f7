"""Features of many samples: batch by batch, in full float32 precision on every device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from trilemma_bench.contracts import FeatureExtractor
from trilemma_bench.errors import TrilemmaError


def extract(
    extractor: FeatureExtractor,
    samples: Tensor,
    batch_size: int = 256,
    progress: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Features of `samples` (uint8 N×C×H×W or float N×D): float32 N×D on the CPU.

    device: where the extractor lives; one batch is there at a time. Raises TrilemmaError when there are no samples,
    or the extractor does not return one row of floats for each.
    """
    features = in_batches(extractor, samples, batch_size, progress, device, extractor.name)
    if features.ndim != 2 or len(features) != len(samples) or not features.is_floating_point():
        raise TrilemmaError(
            f"extractor '{extractor.name}' must return floats N×D, "
            f"but gave {features.dtype} {tuple(features.shape)} for {len(samples)} samples"
        )
    return features.float()


def in_batches(
    function: Callable[[Tensor], Tensor],
    samples: Tensor,
    batch_size: int = 256,
    progress: bool = False,
    device: torch.device | str = "cpu",
    title: str = "",
) -> Tensor:
    """`function` of all samples, computed `batch_size` at a time on `device`, gathered on the CPU.

    TensorFloat-32 is off, as features would differ between devices in the third digit. Raises TrilemmaError when
    there are no samples.
    """
    if not len(samples):
        raise TrilemmaError("there are no samples to extract features from")
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    bar = tqdm(total=len(samples), unit="sample", desc=f"features {title}".strip(), disable=not progress, leave=False)
    outputs = []
    with torch.inference_mode(), exact, bar:
        for batch in samples.split(batch_size):
            outputs.append(function(batch.to(device)).cpu())
            bar.update(len(batch))
    # Leaving inference mode first makes the result an ordinary tensor.
    return torch.cat(outputs)
