"""One thread for every test: tiny networks on a busy machine are fastest that way, and results repeat."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import pytest
import torch
from records import demo_records

from trilemma_bench import weights
from trilemma_bench.catalogue import KINDS
from trilemma_bench.errors import PLUGIN
from trilemma_bench.report.table import Table, tables

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    """The same draws in every run, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _private_folders(tmp_path, monkeypatch):
    """No test reads or writes the user's own data, weights or cache."""
    monkeypatch.setenv("TRILEMMA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TRILEMMA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TRILEMMA_WEIGHTS_DIR", str(tmp_path / "weights"))


@pytest.fixture(autouse=True)
def _private_weights(monkeypatch):
    """The weights that a test makes from a seed are expected by that test alone."""
    monkeypatch.setattr(weights, "WEIGHTS", dict(weights.WEIGHTS))


@pytest.fixture(autouse=True)
def _private_plugins():
    """What a test registers is gone after it, and so are the plugin files that it loaded."""
    before = set(sys.modules)
    with ExitStack() as stack:
        for kind in KINDS.values():
            stack.enter_context(kind.isolated())
        yield
    for name in [name for name in set(sys.modules) - before if name.startswith(PLUGIN)]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def toy() -> Table:
    """The paper's toy experiment, of the demo."""
    return tables(demo_records())[0]


@pytest.fixture
def impatient(monkeypatch):
    """A log line, and what follows it, after every step."""
    monkeypatch.setattr("trilemma_bench.training.trainer.LOG_SECONDS", 0.0)
