"""What a CPU can tell of replayed networks: that one which cannot be recorded runs all the same, or is an error."""

from __future__ import annotations

import gc
from contextlib import nullcontext

import pytest
import torch
from recording import FakeGraphs, RefusingGraphs
from torch import nn

from trilemma_bench import graphs
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.graphs import Graphs, accelerated


class OnGPU(torch.Tensor):
    """A tensor that says so."""

    is_cuda = True


@pytest.fixture
def network():
    return nn.Linear(3, 2)


@pytest.fixture
def refusing(monkeypatch):
    monkeypatch.setattr(graphs, "Graphs", RefusingGraphs)


@torch.no_grad()
def test_a_network_is_replayed_for_each_kind_of_inputs(network, monkeypatch):
    monkeypatch.setattr(graphs, "Graphs", FakeGraphs)
    with accelerated(network, compiled=False, graphs="auto") as replay:
        for count in (4, 4, 6, 4):
            x = torch.randn(count, 3)
            assert torch.equal(network(x.as_subclass(OnGPU)), nn.functional.linear(x, network.weight, network.bias))
        assert replay.works
        assert [kind[0][0][0] for kind in replay._graphs.replays] == [4, 4, 6, 4]
        assert len(replay._graphs.recorded) == 2


@torch.no_grad()
def test_what_is_forgotten_is_recorded_anew(network, monkeypatch):
    monkeypatch.setattr(graphs, "Graphs", FakeGraphs)
    x = torch.randn(4, 3)
    with accelerated(network, compiled=False, graphs="auto") as replay:
        replay.forget()
        first = network(x.as_subclass(OnGPU))
        replay.forget()
        assert not replay._graphs.recorded
        network.weight.zero_()
        assert not torch.equal(network(x.as_subclass(OnGPU)), first)
        assert len(replay._graphs.recorded) == 1


class Garbage:
    """Refers to itself, so that only a collection ends it."""

    ends = 0

    def __init__(self):
        self.itself = self

    def __del__(self):
        Garbage.ends += 1


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_ends_while_work_is_recorded(enabled, monkeypatch):
    for name in ("Stream", "CUDAGraph", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, object)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *arguments, **options: nullcontext())
    monkeypatch.setattr(Garbage, "ends", 0)
    ends = []

    def littering(x):
        for _ in range(50_000):
            Garbage()
        ends.append(Garbage.ends)
        return {"sum": x.sum()}

    (gc.enable if enabled else gc.disable)()
    try:
        Graphs().record("kind", littering, [torch.zeros(3)])
        assert ends == [0]
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
    gc.collect()
    assert Garbage.ends == 50_000


@torch.no_grad()
def test_auto_does_without_where_a_network_cannot_be_recorded(network, refusing):
    x = torch.randn(4, 3)
    expected = network(x)
    with accelerated(network, compiled=False, graphs="auto") as replay:
        assert replay.works
        assert torch.equal(network(x.as_subclass(OnGPU)), expected)
        assert not replay.works
        assert torch.equal(network(x.as_subclass(OnGPU)), expected)
    assert "forward" not in vars(network)


@torch.no_grad()
def test_what_was_asked_for_and_does_not_work_is_an_error(network, refusing):
    with (
        accelerated(network, compiled=False, graphs=True),
        pytest.raises(TrilemmaError, match=r"cuda_graphs = true: .* set it to false"),
    ):
        network(torch.randn(4, 3).as_subclass(OnGPU))


def test_what_needs_gradients_or_is_on_the_cpu_is_never_recorded(network, refusing):
    with accelerated(network, compiled=False, graphs=True) as replay:
        network(torch.randn(4, 3).as_subclass(OnGPU)).sum().backward()
        with torch.no_grad():
            network(torch.randn(4, 3))
        assert replay.works
    with accelerated(network, compiled=False, graphs=False) as replay:
        assert replay is None


@torch.no_grad()
def test_a_compiled_network_is_called_with_its_hooks(monkeypatch, network):
    """The compiler is replaced: hooks stay outside of what it compiles."""
    seen, compiled = [], []
    monkeypatch.setattr(torch, "compile", lambda call, dynamic: compiled.append(call) or call)
    network.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    with accelerated(network, compiled=True, graphs=False):
        network(torch.randn(4, 3))
    assert seen == [4]
    assert len(compiled) == 1
