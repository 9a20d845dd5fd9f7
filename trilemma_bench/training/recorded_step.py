"""A training step replayed as a CUDA graph: launched one by one, its thousands of kernels leave a fast GPU idle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.graphs import CannotRecordError, Graphs, Work, noticing_waits

REHEARSALS = 2  # steps of a kind before it is recorded: optimisers make their state, libraries choose algorithms
MOST = 16  # kinds that are recorded: each has memory of its own
LACK = "the GPU's memory does not hold plain steps beside recorded ones: set training.cuda_graphs = false"


class RecordedStep:
    """Steps of each kind are done as they are twice, then recorded, and replayed from there on, with the same result
    but for the rounding of learning rates to float32.

    The optimisers' learning rates may change from step to step. must: a step that cannot be recorded raises
    TrilemmaError; otherwise `say` is told, and all further steps are done as they are.
    """

    def __init__(
        self, optimizers: Iterable[torch.optim.Optimizer], device: torch.device, must: bool, say: Callable[[str], None]
    ) -> None:
        self.works, self.replays, self._must, self._say = True, 0, must, say
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._rates = [torch.zeros((), device=device) for _ in self._groups]
        self._graphs, self._met = Graphs(), Counter[Hashable]()
        self._waits: dict[Hashable, list[str]] = {}  # of each kind's last rehearsal

    def __call__(self, kind: Hashable, work: Work, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The result of `work`, a whole step of this kind, on the values of `inputs`."""
        tensors, kind = [*inputs.values()], (kind, *((name, x.shape, x.dtype) for name, x in inputs.items()))
        if self.works and kind not in self._graphs and len(self._graphs) < MOST:
            if self._met[kind] < REHEARSALS:
                return self._rehearsed(kind, work, tensors)
            self._try_to_record(kind, work, tensors)
        if not self.works or kind not in self._graphs:
            return work(*tensors)
        for group, rate in zip(self._groups, self._rates, strict=True):
            rate.fill_(group["lr"])
        self.replays += 1
        return self._graphs.replay(kind, tensors)

    def _rehearsed(self, kind: Hashable, work: Work, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        self._met[kind] += 1
        try:
            with noticing_waits() as self._waits[kind]:
                return self._graphs.rehearse(work, inputs)
        except torch.OutOfMemoryError as error:
            if not len(self._graphs):
                raise
            raise TrilemmaError(LACK) from error

    def _try_to_record(self, kind: Hashable, work: Work, inputs: Sequence[Tensor]) -> None:
        def with_rates_on_the_device(*tensors: Tensor) -> dict[str, Tensor]:
            with recordable(self._groups, self._rates):
                return work(*tensors)

        gradients = [(parameter, parameter.grad) for group in self._groups for parameter in group["params"]]
        try:
            self._check(kind)
            self._graphs.record(kind, with_rates_on_the_device, inputs)
        except CannotRecordError as error:
            for parameter, gradient in gradients:  # those of the recording were never computed
                parameter.grad = gradient
            if self._must:
                raise TrilemmaError(
                    f"training.cuda_graphs = true: this step cannot be recorded ({error}): set it to false"
                ) from error
            self._say(f"training steps are not replayed as CUDA graphs here ({error})")
            self.works, self._graphs = False, Graphs()

    def _check(self, kind: Hashable) -> None:
        """Raises CannotRecordError for what a recording would fail at, or freeze."""
        if not all(group.get("fused") or group.get("capturable") for group in self._groups):
            raise CannotRecordError("an optimiser is neither fused nor capturable, so it keeps numbers on the host")
        if self._waits[kind]:
            raise CannotRecordError(f"it waits for the device in {self._waits[kind][0]}")


@contextmanager
def recordable(groups: Sequence[dict[str, Any]], rates: Sequence[Tensor]) -> Iterator[None]:
    """Inside, the optimisers of these groups read their learning rates from the device, and do not wait for it."""
    before = [dict(group) for group in groups]
    for group, rate in zip(groups, rates, strict=True):
        group.update(lr=rate, capturable=True)
    try:
        yield
    finally:
        for group, old in zip(groups, before, strict=True):
            group.clear()
            group.update(old)
