"""Training batches: shuffled epochs, from the device's memory where the data fits there."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma_bench import distributed, seeding
from trilemma_bench.contracts import Split
from trilemma_bench.images import to_float
from trilemma_bench.precision import in_fast_format
from trilemma_bench.settings import TrainingSettings

SHARE_OF_FREE_MEMORY = 0.4


class Batches:
    """Shuffled epochs of a split, each order a function of (seed, epoch): the position is the only state.

    Of many processes, each gets its share of every batch, from the same orders and the same flips.
    """

    def __init__(self, split: Split, settings: TrainingSettings, seed: int, device: torch.device) -> None:
        self.data = split.samples.to(device) if fits(split.samples.nbytes, device) else split.samples
        self.labels = None if split.labels is None else split.labels.to(self.data.device)
        self.device = device
        self.batch_size = settings.batch_size
        self.flip = settings.flip
        self.seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def at(self, position: int) -> Split:
        """The batch that starts at sample `position` of the endless stream: float, with its labels, on the device."""
        indices, need = [], self.batch_size
        while need:
            epoch, offset = divmod(position, len(self.data))
            part = self._epoch_order(epoch)[offset : offset + need]
            indices.append(part)
            position, need = position + len(part), need - len(part)
        chosen = distributed.share(torch.cat(indices))
        batch = to_float(self._on_device(self.data[chosen]))
        labels = None if self.labels is None else self._on_device(self.labels[chosen])
        return Split(in_fast_format(self._flipped(batch) if self.flip else batch), labels)

    def _on_device(self, chosen: Tensor) -> Tensor:
        """From pinned memory where the data stays on the host, so that the copy does not stop the device."""
        if chosen.device.type == self.device.type:
            return chosen
        return chosen.pin_memory().to(self.device, non_blocking=True)

    def _epoch_order(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            order = seeding.permutation(len(self.data), "epoch", self.seed, epoch)
            self._epoch, self._order = epoch, order.to(self.data.device)
        return self._order

    def _flipped(self, batch: Tensor) -> Tensor:
        chosen = distributed.share(torch.rand(self.batch_size, 1, 1, 1, device=batch.device) < 0.5)
        return torch.where(chosen, batch.flip(-1), batch)


def fits(size: int, device: torch.device) -> bool:
    """Whether `size` bytes of data may live on the device: networks and activations need most of a GPU."""
    return device.type != "cuda" or size <= SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]
