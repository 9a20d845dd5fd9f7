"""CUDA graphs as a CPU can have them: work that is done again, seeing of Python what it saw when it was recorded."""

from __future__ import annotations

from contextlib import contextmanager

from trilemma_bench.graphs import CannotRecordError


class FakeGraphs:
    """Like `graphs.Graphs`. waits: of each rehearsal, by its number; refusal: why nothing can be recorded."""

    refusal = ""

    def __init__(self):
        self.recorded, self.replays = {}, []

    def __contains__(self, kind):
        return kind in self.recorded

    def rehearse(self, work, inputs):
        return work(*inputs)

    def record(self, kind, work, inputs):
        if self.refusal:
            raise CannotRecordError(self.refusal)
        self.recorded[kind] = work, [x.clone() for x in inputs]

    def replay(self, kind, inputs):
        work, held = self.recorded[kind]
        for place, value in zip(held, inputs, strict=True):
            place.copy_(value)
        self.replays.append(kind)
        return {name: value.clone() for name, value in work(*held).items()}


class RefusingGraphs(FakeGraphs):
    refusal = "operation not permitted when stream is capturing"


@contextmanager
def no_waits():
    yield []
