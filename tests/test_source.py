"""Changed code is other code: the digest follows what a model imports, and nothing else."""

from __future__ import annotations

import importlib
import sys

import pytest

from trilemma_bench.source import source_digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a model, a part that it imports through another, and a module that it does not."""
    folder = tmp_path / "outside_models"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "parts").mkdir()
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "model.py").write_text("from outside_models import block\nfrom trilemma_bench.nn.mlp import nn\n")
    (folder / "block.py").write_text("from .parts import deep\n")
    (folder / "parts" / "deep.py").write_text("VALUE = 1\n")
    (folder / "other.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("outside_models.model")
    importlib.import_module("outside_models.other")
    yield folder
    for name in [name for name in sys.modules if name.startswith("outside_models")]:
        del sys.modules[name]


@pytest.mark.parametrize("changed", ["model.py", "block.py", "parts/deep.py"])
def test_a_change_anywhere_below_a_model_changes_its_digest(package, changed):
    before = source_digest("outside_models.model")
    with (package / changed).open("a") as file:
        file.write("OTHER = 2\n")
    assert before != source_digest("outside_models.model")


def test_a_change_beside_a_model_leaves_its_digest(package):
    before = source_digest("outside_models.model")
    (package / "other.py").write_text("VALUE = 2\n")
    assert before == source_digest("outside_models.model")


def test_the_shared_blocks_and_the_training_loop_count(package, monkeypatch):
    digests = [source_digest("outside_models.model")]
    for module in ("trilemma_bench.nn.mlp", "trilemma_bench.training"):
        copy = package / f"{module}.py"
        copy.write_text("CHANGED = True\n")
        with monkeypatch.context() as patch:
            changed = importlib.util.module_from_spec(importlib.util.spec_from_file_location(module, copy))
            patch.setitem(sys.modules, module, changed)
            digests.append(source_digest("outside_models.model"))
    assert len(set(digests)) == 3


def test_code_without_a_source_has_no_digest():
    assert source_digest("math") is None
    assert source_digest("not_loaded") is None
