"""CUDA graphs as a CPU can have them: work that is done again, with what Python knew when it was recorded."""

from __future__ import annotations

from contextlib import contextmanager

from trilemma_bench.graphs import CannotRecordError

PLAIN = (bool, int, float, str)


class FakeGraphs:
    """Like `graphs.Graphs`. refusal: why nothing can be recorded; owner: a module whose plain attributes are frozen."""

    refusal = ""
    owner = None

    def __init__(self):
        self.recorded, self.replays = {}, []

    def __contains__(self, kind):
        return kind in self.recorded

    def __len__(self):
        return len(self.recorded)

    def clear(self):
        self.recorded.clear()

    def rehearse(self, work, inputs):
        return work(*inputs)

    def record(self, kind, work, inputs):
        if self.refusal:
            raise CannotRecordError(self.refusal)
        self.recorded[kind] = work, [x.clone() for x in inputs], self._state()

    def replay(self, kind, inputs):
        work, held, then = self.recorded[kind]
        for place, value in zip(held, inputs, strict=True):
            place.copy_(value)
        self.replays.append(kind)
        with self._as_it_was(then):
            return {name: value.clone() for name, value in work(*held).items()}

    def _state(self):
        modules = self.owner.modules() if self.owner is not None else []
        return [(each, {k: v for k, v in vars(each).items() if isinstance(v, PLAIN)}) for each in modules]

    @contextmanager
    def _as_it_was(self, then):
        now = self._state()
        for module, state in then:
            vars(module).update(state)
        yield
        for module, state in now:
            vars(module).update(state)


class RefusingGraphs(FakeGraphs):
    refusal = "operation not permitted when stream is capturing"


@contextmanager
def no_waits():
    yield []
