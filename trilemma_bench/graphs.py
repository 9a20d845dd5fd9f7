"""A network's calls made faster without changing what it computes: compiled, and replayed as CUDA graphs."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trilemma_bench.errors import TrilemmaError

WARM_UP = 3  # calls before recording, in which libraries choose their algorithms
Work = Callable[..., dict[str, Tensor]]  # tensors on a CUDA device → tensors


class CannotRecordError(Exception):
    """Why some work cannot be a CUDA graph."""


class Graphs:
    """CUDA graphs of some work, one for every kind of it: its kernels are recorded once, then replayed together,
    without the gaps of launching each.

    Work may change what lives outside of it, such as weights, as long as it stays at its place in memory. Random
    numbers are those that it would have drawn. One memory serves all graphs, which never run at once.
    """

    def __init__(self) -> None:
        self._recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], dict[str, Tensor]]] = {}
        self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def __contains__(self, kind: Hashable) -> bool:
        return kind in self._recorded

    def __len__(self) -> int:
        return len(self._recorded)

    def rehearse(self, work: Work, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The result of `work`, done as it is, on the stream where it will be recorded."""
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            result = work(*inputs)
        here.wait_stream(self._stream)
        return result

    def record(self, kind: Hashable, work: Work, inputs: Sequence[Tensor]) -> None:
        """Records `work` without doing it. Raises CannotRecordError where it waits for the device, or lacks memory."""
        held, graph = [x.clone() for x in inputs], torch.cuda.CUDAGraph()
        inside: list[BaseException] = []
        try:
            # The outer context brings the stream back: the inner one does not where it fails at its end.
            with torch.cuda.stream(self._stream), _keeping_garbage(), self._recording(graph), _noting(inside):
                result = work(*held)
        except BaseException as error:
            _forget_failure()
            self._pool = torch.cuda.graph_pool_handle()
            cause = inside[0] if inside else error  # what fails inside makes the end fail too
            if not isinstance(cause, Exception):
                raise cause from None
            raise CannotRecordError(_first_line(cause)) from error
        self._recorded[kind] = graph, held, result

    def replay(self, kind: Hashable, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The result of recorded work on these inputs, of the same shapes."""
        graph, held, result = self._recorded[kind]
        for place, value in zip(held, inputs, strict=True):
            place.copy_(value)
        graph.replay()
        return {name: value.clone() for name, value in result.items()}

    def clear(self) -> None:
        """Forgets what is recorded, whose memory is free again."""
        self._recorded.clear()
        self._pool = torch.cuda.graph_pool_handle()

    def _recording(self, graph: torch.cuda.CUDAGraph) -> torch.cuda.graph:
        return torch.cuda.graph(graph, pool=self._pool, stream=self._stream)


@contextmanager
def noticing_waits() -> Iterator[list[str]]:
    """Inside, places that wait for the device are noted in the list that this gives: they could not be recorded."""
    waits: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for each in caught:
        if "synchronizing CUDA operation" in str(each.message):
            waits.append(f"{Path(each.filename).name}, line {each.lineno}")
        elif "Synchronization debug mode" not in str(each.message):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _forget_failure() -> None:
    """After a failure torch's random generator believes that it is still recorded, until a recording ends well."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with suppress(RuntimeError), torch.cuda.stream(torch.cuda.Stream()), _keeping_garbage():
        graph.capture_begin()
        torch.zeros(1, device="cuda")
        graph.capture_end()


@contextmanager
def _keeping_garbage() -> Iterator[None]:
    """Inside, no garbage is collected: the end of a graph or of a compiled kernel is a call of the driver's, at which a
    recording that is under way fails.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextmanager
def _noting(errors: list[BaseException]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        errors.append(error)
        raise


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split("\n")[0].split())


@contextmanager
def accelerated(network: nn.Module, *, compiled: bool, graphs: Literal[True, False, "auto"]) -> Iterator[Replay | None]:
    """Inside, calls of `network` are compiled, and those without gradients replayed; hooks still see every call.

    compiled: by torch.compile, once for each shape of its inputs. graphs: where the network cannot be recorded, true
    raises TrilemmaError, 'auto' does without.
    """
    if compiled:
        network.forward = torch.compile(network.forward, dynamic=False)
    replay = None
    if graphs:
        network.forward = replay = Replay(network, must=graphs is True)
    try:
        yield replay
    finally:
        if compiled or graphs:
            del network.forward


class Replay:
    """A network's `forward` with a graph for every kind of inputs that it has met; others go the usual way.

    works: whether all that was to be recorded could be.
    """

    def __init__(self, network: nn.Module, must: bool) -> None:
        self.works, self._must = True, must
        self._forward = network.forward
        self._graphs: Graphs | None = None

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if options or torch.is_grad_enabled() or not all(isinstance(x, Tensor) and x.is_cuda for x in inputs):
            return self._forward(*inputs, **options)
        kind = tuple((x.shape, x.stride(), x.dtype) for x in inputs)
        if self.works:
            self._record_if_new(kind, inputs)
        return self._graphs.replay(kind, inputs)["output"] if self.works and self._graphs else self._forward(*inputs)

    def forget(self) -> None:
        """From now on what it has met is recorded anew."""
        if self._graphs:
            self._graphs.clear()

    def _record_if_new(self, kind: Hashable, inputs: tuple[Tensor, ...]) -> None:
        self._graphs = self._graphs or Graphs()
        if kind in self._graphs:
            return
        for _ in range(WARM_UP):
            self._graphs.rehearse(self._output, inputs)
        try:
            self._graphs.record(kind, self._output, inputs)
        except CannotRecordError as error:
            if self._must:
                raise TrilemmaError(
                    f"sampling.cuda_graphs = true: this network cannot be recorded ({error}): set it to false"
                ) from error
            self.works, self._graphs = False, None

    def _output(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Autocast keeps no copies of the weights here: they would be freed while a graph still reads them."""
        lower, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        with torch.autocast("cuda", dtype, enabled=lower, cache_enabled=False):
            return {"output": self._forward(*inputs)}
