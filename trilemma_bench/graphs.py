"""A network's calls made faster without changing what it computes: compiled, and replayed as CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trilemma_bench.errors import TrilemmaError

WARM_UP = 3  # calls before recording, in which libraries choose their algorithms


@contextmanager
def accelerated(network: nn.Module, *, compiled: bool, graphs: Literal[True, False, "auto"]) -> Iterator[Replay | None]:
    """Inside, calls of `network` are compiled, and those without gradients replayed; hooks still see every call.

    compiled: by torch.compile, once for each shape of its inputs. graphs: the kernels are recorded once and replayed
    together, without the gaps of launching each; where they cannot, true raises TrilemmaError, 'auto' does without.
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
        self._graphs: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if options or torch.is_grad_enabled() or not all(isinstance(x, Tensor) and x.is_cuda for x in inputs):
            return self._forward(*inputs, **options)
        kind = tuple((x.shape, x.stride(), x.dtype) for x in inputs)
        if self.works and kind not in self._graphs:
            self._try_to_record(kind, inputs)
        if not self.works:
            return self._forward(*inputs)
        graph, held, output = self._graphs[kind]
        for place, value in zip(held, inputs, strict=True):
            place.copy_(value)
        graph.replay()
        return output.clone()

    def _try_to_record(self, kind: Any, inputs: tuple[Tensor, ...]) -> None:
        try:
            self._graphs[kind] = self._record(inputs)
        except RuntimeError as error:
            if self._must:
                raise TrilemmaError(
                    f"sampling.cuda_graphs = true: this network cannot be recorded ({error}): set it to false"
                ) from error
            self.works = False

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        """Autocast keeps no copies of the weights here: they would be freed while the graph still reads them."""
        held, graph = [x.clone() for x in inputs], torch.cuda.CUDAGraph()
        lower, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        with torch.autocast("cuda", dtype, enabled=lower, cache_enabled=False):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self._forward(*held)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph):
                output = self._forward(*held)
        return graph, held, output
