"""A training step replayed as a CUDA graph: launched one by one, its thousands of kernels leave a fast GPU idle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.graphs import CannotRecordError, Graphs, Work, noticing_waits

REHEARSALS = 2  # steps of a kind before it is recorded: optimisers make their state, libraries choose algorithms


class RecordedStep:
    """Steps of each kind are done as they are twice, then recorded, and replayed from there on, with the same result
    but for the rounding of learning rates to float32.

    The optimisers' learning rates may change from step to step. must: a step that cannot be recorded raises
    TrilemmaError; otherwise `say` is told, and all further steps are done as they are.
    """

    def __init__(
        self, optimizers: Iterable[torch.optim.Optimizer], device: torch.device, must: bool, say: Callable[[str], None]
    ) -> None:
        self.works, self._must, self._say = True, must, say
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._rates = [torch.zeros((), device=device) for _ in self._groups]
        self._graphs, self._met = Graphs(), Counter[Hashable]()
        self._waits: dict[Hashable, list[str]] = {}  # of each kind's last rehearsal

    def __call__(self, kind: Hashable, work: Work, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The result of `work`, a whole step of this kind."""
        if not self.works:
            return work(*inputs)
        if kind not in self._graphs:
            if self._met[kind] < REHEARSALS:
                return self._rehearsed(kind, work, inputs)
            self._try_to_record(kind, work, inputs)
            if not self.works:
                return work(*inputs)
        for group, rate in zip(self._groups, self._rates, strict=True):
            rate.fill_(group["lr"])
        return self._graphs.replay(kind, inputs)

    def _rehearsed(self, kind: Hashable, work: Work, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        self._met[kind] += 1
        with noticing_waits() as self._waits[kind]:
            return self._graphs.rehearse(work, inputs)

    def _try_to_record(self, kind: Hashable, work: Work, inputs: Sequence[Tensor]) -> None:
        try:
            if self._waits[kind]:
                raise CannotRecordError("it waits for the device")
            with recordable(self._groups, self._rates):
                self._graphs.record(kind, work, inputs)
        except CannotRecordError as error:
            if self._must:
                raise TrilemmaError(
                    f"training.cuda_graphs = true: this step cannot be recorded ({error}): set it to false"
                ) from error
            self._say(f"training steps are not replayed as CUDA graphs here ({error})")
            self.works = False
            del self._graphs


@contextmanager
def recordable(groups: Sequence[dict], rates: Sequence[Tensor]) -> Iterator[None]:
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
