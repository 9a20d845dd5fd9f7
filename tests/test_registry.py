"""Names, plugins and what happens when they go wrong."""

from __future__ import annotations

import hashlib
import sys

import pytest
from inputs import fails

from trilemma_bench.catalogue import KINDS, _about
from trilemma_bench.contracts import GenerativeModel
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.registry import REGISTRIES, Registry, load_file, models


class Thing:
    pass


@pytest.fixture
def registry():
    return Registry("toy", "builtins:object", classes=False)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package of one module, whose object is registered under a name."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(package, name, code="class Thing: pass"):
        monkeypatch.delitem(sys.modules, f"{package}_module", raising=False)
        (tmp_path / f"{package}_module.py").write_text(code)
        facts = tmp_path / f"{package}-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[trilemma_bench.toys]\n{name} = {package}_module:Thing\n")

    return install


def register_from(file: str, registry: Registry, name: str) -> None:
    """Registers a thing as a plugin file of this name would."""
    exec("register(name)(thing)", {"__file__": file, "register": registry.register, "name": name, "thing": Thing()})


def test_the_projects_own_models_register_by_entry_points():
    assert {"ddgan", "ddpm", "ddim", "gan", "vae", "real-data"} <= set(models.names())
    assert models.origin("ddgan")[0] == "trilemma-bench"


def test_a_decorated_class_is_found_by_its_name(registry):
    registry.register("thing")(Thing)
    assert registry.get("thing") is Thing


def test_a_file_without_the_name_of_what_is_in_it_says_how_it_is_named(registry):
    with fails("toy 'mine.py' is a file", "'mine.py:NAME'", kind=UsageError):
        registry.get("mine.py")


@pytest.mark.parametrize(("register", "name"), [("@models.register('mine')", "mine"), ("", "{file}:Mine")])
def test_a_model_has_one_name_however_its_file_is_named(register, name, tmp_path):
    file = tmp_path / "file.py"
    base = "from trilemma_bench.contracts import GenerativeModel\nfrom trilemma_bench.registry import models\n"
    file.write_text(f"{base}{register}\nclass Mine(GenerativeModel):\n    def sample(self, count, rng): ...\n")
    with models.isolated():
        assert models.registered(f"{file}:Mine") == name.format(file=file)
        assert models.registered("ddgan") == "ddgan"


def test_an_unknown_name_suggests_the_nearest_and_lists_what_there_is(registry):
    registry.register("ddgan")(Thing)
    with pytest.raises(UsageError, match=r"unknown toy 'ddgn'. Did you mean 'ddgan'\? Available: ddgan; what"):
        registry.get("ddgn")


@pytest.mark.parametrize("parts", REGISTRIES, ids=[parts.kind for parts in REGISTRIES])
def test_an_unknown_name_may_be_that_of_a_plugin_not_loaded(parts):
    with pytest.raises(UsageError, match=rf"^unknown {parts.kind} 'absent'\..* Available: .*; .*--plugin FILE\.py$"):
        parts.get("absent")


def test_an_installed_package_is_imported_when_its_name_is_asked_for(registry, install):
    install("lazy", "thing")
    assert registry.names() == ["thing"]
    assert registry.origin("thing") == ("lazy", "1.0")
    assert "lazy_module" not in sys.modules
    assert registry.get("thing").__module__ == "lazy_module"


def test_two_packages_that_claim_a_name_are_both_named(registry, install):
    install("first", "thing")
    install("second", "thing")
    with fails("first_module:Thing (from first)", "second_module:Thing (from second)", kind=UsageError):
        registry.get("thing")


def test_a_file_cannot_silently_replace_an_installed_name(registry, install):
    install("installed", "thing")
    register_from("mine.py", registry, "thing")
    with pytest.raises(UsageError, match=r"installed.*mine\.py"):
        registry.get("thing")


def test_a_broken_package_is_named_and_breaks_nothing_else(registry, install):
    install("broken", "bad", "import absent_module")
    install("fine", "good")
    assert registry.names() == ["bad", "good"]
    with fails("'bad' from package broken failed to import (broken_module:Thing)", "absent_module"):
        registry.get("bad")
    assert registry.get("good").__module__ == "fine_module"


def test_what_is_registered_in_isolation_is_forgotten(registry):
    registry.register("kept")(Thing)
    with registry.isolated():
        registry.register("passing")(Thing)
        assert registry.get("passing") is Thing
    assert registry.names() == ["kept"]
    with fails("unknown toy 'passing'", kind=UsageError):
        registry.get("passing")


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


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("wrong", [lambda c: 1.0, Thing, Thing()], ids=["function", "class", "object"])
def test_what_is_not_of_its_kind_is_refused_when_it_is_registered(kind, wrong):
    with fails(f"{kind.kind} 'lonely' in", "test_registry.py", kind.contract.partition(":")[2], kind=UsageError):
        kind.register("lonely")(wrong)
    assert "lonely" not in kind.names()


def test_a_class_that_lacks_a_method_is_refused_with_its_name():
    with fails("does not define sample", kind=UsageError):

        @models.register("unfinished")
        class Unfinished(GenerativeModel):
            pass


def test_a_decorator_without_a_name_says_how_to_write_it():
    with fails("@register_model('name')", kind=UsageError):
        models.register(Thing)


def test_two_files_that_register_a_name_are_both_named(registry):
    register_from("first.py", registry, "gap")
    with fails("first.py", "second.py", kind=UsageError):
        register_from("second.py", registry, "gap")


def test_a_class_without_words_of_its_own_is_not_listed_with_those_of_its_base():
    class Silent(GenerativeModel):
        pass

    assert _about(Silent) == ""
    assert _about(models.get("ddpm"))
