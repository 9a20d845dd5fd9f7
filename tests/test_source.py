"""Changed code is other code: the digest follows what a model or an extractor imports, and nothing else."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from trilemma_bench import source
from trilemma_bench.environment import environment
from trilemma_bench.job import Options, prepare
from trilemma_bench.registry import load_file
from trilemma_bench.source import features_digest, harness_digest, source_digest


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
    for module in ("trilemma_bench.nn.mlp", "trilemma_bench.training.trainer"):
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


PLUGIN = """
from trilemma_bench.contracts import FeatureExtractor
from nearby import scale


class Mine(FeatureExtractor):
    name, dim = "mine", 1

    def __call__(self, samples):
        return scale(samples.flatten(1).float().sum(dim=1, keepdim=True))
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plugin file that imports a module beside it, which imports one of a package beside both."""
    siblings = {"nearby.py": "import beside.deep\ndef scale(x):\n    return x\n", "beside/deep.py": "VALUE = 1\n"}
    (tmp_path / "beside").mkdir()
    for name, text in siblings.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "unrelated.py").write_text("VALUE = 1\n")
    (tmp_path / "plug.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    yield load_file(tmp_path / "plug.py")
    for name in ("nearby", "beside", "beside.deep"):
        sys.modules.pop(name, None)


def test_a_sampler_and_what_it_samples_are_both_hashed(plugin, package, tmp_path):
    modules = "outside_models.model", plugin.__name__
    alone, together = source_digest(*modules[:1]), source_digest(*modules)
    assert together not in (None, alone)
    assert source_digest(*reversed(modules)) == together
    with (tmp_path / "nearby.py").open("a") as file:
        file.write("OTHER = 2\n")
    assert source_digest(*modules) != together
    assert source_digest(*modules[:1]) == alone


@pytest.mark.parametrize("digest", [source_digest, lambda module: features_digest([module])])
def test_a_plugin_file_is_followed_to_the_files_beside_it(plugin, tmp_path, digest):
    digests = [digest(plugin.__name__)]
    for changed in ("plug.py", "nearby.py", "beside/deep.py"):
        with (tmp_path / changed).open("a") as file:
            file.write("OTHER = 2\n")
        digests.append(digest(plugin.__name__))
    assert len(set(digests)) == 4
    (tmp_path / "unrelated.py").write_text("VALUE = 2\n")
    assert digest(plugin.__name__) == digests[-1]


def test_what_is_installed_beside_a_module_is_not_its_own(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "installed_one.py").write_text("import installed_other\n")
    (folder / "installed_other.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(folder)
    before = features_digest(["installed_one"])
    assert before
    (folder / "installed_other.py").write_text("VALUE = 2\n")
    assert features_digest(["installed_one"]) == before


def test_an_extractor_of_a_package_is_followed_through_the_whole_of_it(package):
    (package / "parts" / "extractor.py").write_text("from outside_models.block import deep\n")
    before = features_digest(["outside_models.parts.extractor"])
    (package / "block.py").write_text("from .parts import deep\nVALUE = 2\n")
    assert features_digest(["outside_models.parts.extractor"]) != before


def test_a_script_is_read_and_what_is_typed_is_not(tmp_path, monkeypatch):
    script = ModuleType("a_script")
    script.__spec__, script.__file__ = None, str(tmp_path / "script.py")
    typed = ModuleType("typed")
    monkeypatch.setitem(sys.modules, "a_script", script)
    monkeypatch.setitem(sys.modules, "typed", typed)
    (tmp_path / "script.py").write_text("VALUE = 1\n")
    before = features_digest(["a_script"])
    assert before
    (tmp_path / "script.py").write_text("VALUE = 2\n")
    assert features_digest(["a_script"]) not in (None, before)
    assert features_digest(["typed"]) is None
    assert source_digest("typed") is None


def test_a_relative_import_outside_any_package_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "lonely.py").write_text("try:\n    from .x import y\nexcept ImportError:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert source_digest("lonely")


def test_every_file_of_the_harness_is_hashed_by_name_and_content(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    first, second = tmp_path / "first.py", tmp_path / "inner" / "second.py"
    first.write_text("a = 1")
    second.write_text("b = 2")
    monkeypatch.setattr(source, "__file__", str(tmp_path / "source.py"))
    digest = harness_digest.__wrapped__
    found = [digest()]
    (tmp_path / "notes.md").write_text("no code")
    assert digest() == found[0]
    for change in (lambda: second.write_text("b = 3"), lambda: second.rename(tmp_path / "second.py"), first.unlink):
        change()
        found.append(digest())
    assert len(set(found)) == 4


def test_the_code_that_a_run_began_with_is_what_its_record_names(tmp_path, monkeypatch):
    """As the modules that it has loaded are, whatever is edited while it trains."""
    harness_digest.cache_clear()
    prepare(Options("real-data", "gaussians25", device="cpu"))
    now = harness_digest()
    with monkeypatch.context() as edited:
        edited.setattr(source, "__file__", str(tmp_path / "source.py"))
        assert harness_digest.__wrapped__() != now
        assert environment()["source_sha256"] == now
