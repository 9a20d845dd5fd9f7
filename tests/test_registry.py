"""Names, plugins and what happens when they go wrong."""

from __future__ import annotations

import hashlib

import pytest

from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.registry import Entry, Registry, load_file, models


class Thing:
    pass


def entry(name: str, package: str, load=lambda: Thing) -> Entry:
    return Entry(name, package, "1.0", f"{package}.module:Thing", load)


@pytest.fixture
def registry(monkeypatch):
    made = Registry("model", "trilemma_bench.nothing_registers_here")
    made._installed = {}
    return made


def test_the_projects_own_models_register_by_entry_points():
    assert {"ddgan", "ddpm", "ddim", "gan", "vae", "real-data"} <= set(models.names())
    assert models.origin("ddgan")[0] == "trilemma-bench"


def test_a_decorated_class_is_found_by_its_name(registry):
    registry.register("thing")(Thing)
    assert registry.get("thing") is Thing


def test_an_unknown_name_suggests_the_nearest_and_lists_what_there_is(registry):
    registry.register("ddgan")(Thing)
    with pytest.raises(UsageError, match=r"unknown model 'ddgn'. Did you mean 'ddgan'\? Available: ddgan"):
        registry.get("ddgn")


def test_two_packages_that_claim_a_name_are_both_named(registry):
    registry._installed = {"thing": [entry("thing", "first"), entry("thing", "second")]}
    with pytest.raises(UsageError, match=r"first\.module:Thing.*second\.module:Thing"):
        registry.get("thing")


def test_a_file_cannot_silently_replace_an_installed_name(registry):
    registry._installed = {"thing": [entry("thing", "installed")]}
    registry.register("thing", source="mine.py")(Thing)
    with pytest.raises(UsageError, match=r"installed.*mine\.py"):
        registry.get("thing")


def test_a_broken_package_is_named_and_breaks_nothing_else(registry):
    def fail():
        raise ImportError("no module named 'absent'")

    registry._installed = {"bad": [entry("bad", "broken-package", fail)], "good": [entry("good", "fine")]}
    assert registry.names() == ["bad", "good"]
    with pytest.raises(TrilemmaError, match=r"'bad' from package broken-package failed to import.*absent"):
        registry.get("bad")
    assert registry.get("good") is Thing


def test_an_object_in_a_file_is_taken_where_a_name_is(registry, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Mine: pass\n")
    assert registry.get(f"{path}:Mine").__name__ == "Mine"
    with pytest.raises(UsageError, match=r"unknown object in .* 'Mien'. Did you mean 'Mine'"):
        registry.get(f"{path}:Mien")


def test_a_plugin_is_named_by_its_file_and_its_content_wherever_it_lies(registry, tmp_path):
    code = "class Mine: pass\n"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(code)
    origins = [registry.origin(f"{tmp_path / folder / 'mine.py'}:Mine") for folder in ("a", "b")]
    assert origins == [("mine.py", hashlib.sha256(code.encode()).hexdigest()[:12])] * 2
    registry.register("thing")(Thing())
    assert registry.origin("thing")[0] == "test_registry.py"


@pytest.mark.parametrize(("text", "message"), [("1/0", "ZeroDivisionError"), ("import absent_module", "absent_module")])
def test_a_plugin_file_that_fails_is_named(tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(TrilemmaError, match=rf"broken\.py failed to import.*{message}"):
        load_file(path)


def test_a_missing_plugin_file_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_file(tmp_path / "absent.py")
