"""CUDA graphs: a network's kernels recorded once and replayed together, without the gaps of launching each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trilemma_bench.errors import TrilemmaError

WARM_UP = 3  # calls before recording, in which libraries choose their algorithms


@contextmanager
def replayed(network: nn.Module) -> Iterator[None]:
    """Inside, calls of `network` without gradients are replayed. Hooks still see every call."""
    network.forward = _Replay(network)
    try:
        yield
    finally:
        del network.forward


class _Replay:
    """A network's `forward` with a graph for every kind of inputs that it has met; others go the usual way."""

    def __init__(self, network: nn.Module) -> None:
        self._forward = network.forward
        self._graphs: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if options or torch.is_grad_enabled() or not all(isinstance(x, Tensor) and x.is_cuda for x in inputs):
            return self._forward(*inputs, **options)
        kind = tuple((x.shape, x.stride(), x.dtype) for x in inputs)
        if kind not in self._graphs:
            self._graphs[kind] = self._record(inputs)
        graph, held, output = self._graphs[kind]
        for place, value in zip(held, inputs, strict=True):
            place.copy_(value)
        graph.replay()
        return output.clone()

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        """Autocast keeps no copies of the weights here: they would be freed while the graph still reads them."""
        held, graph = [x.clone() for x in inputs], torch.cuda.CUDAGraph()
        lower, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        try:
            with torch.autocast("cuda", dtype, enabled=lower, cache_enabled=False):
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(WARM_UP):
                        self._forward(*held)
                torch.cuda.current_stream().wait_stream(side)
                with torch.cuda.graph(graph):
                    output = self._forward(*held)
        except RuntimeError as error:
            raise TrilemmaError(
                f"sampling.cuda_graphs = true: this network cannot be recorded ({error}): set it to false"
            ) from error
        return graph, held, output
