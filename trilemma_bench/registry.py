"""Names → objects: models, datasets, metrics, extractors and protocols, from entry points, decorators and files.

The project's own models register by entry points, exactly as an outside package does. A plugin is imported only when
its name is asked for; one that fails to import is reported by name and breaks nothing else.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from trilemma_bench.errors import PLUGIN, TrilemmaError, UsageError, unknown_name

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A registered name: where it comes from, and how to load it. target: 'module:Object', for messages."""

    name: str
    package: str
    version: str
    target: str
    load: Callable[[], Any]


class Registry:
    """The objects of one kind, such as 'model'; packages declare them under the entry points 'trilemma_bench.models'.

    contract: 'module:Class', imported when the first object is there, of which objects are; classes: whether they are
    subclasses of it, rather than instances.
    """

    def __init__(self, kind: str, contract: str, classes: bool = True) -> None:
        self.kind = kind
        self.contract = contract
        self.classes = classes
        self._local: dict[str, Entry] = {}
        self._installed: dict[str, list[Entry]] | None = None
        self._loaded: dict[str, Any] = {}

    def names(self) -> list[str]:
        """Every registered name, sorted; importing nothing."""
        return sorted({*self._entry_points(), *self._local})

    def register(self, name: str) -> Callable[[T], T]:
        """The decorator that registers a class or an object under `name`, as of the file that calls this.

        Raises UsageError for an object of another kind, and a name that another file has registered.
        """
        if not isinstance(name, str):
            raise UsageError(f"register_{self.kind} takes the name first: write @register_{self.kind}('name')")
        caller = sys._getframe(1).f_globals  # an object does not know which module made it
        origin = caller.get("__file__") or caller["__name__"]

        def decorate(target: T) -> T:
            self._check(target, name, origin)
            package, version = _origin_of(Path(origin))
            self._add(Entry(name, package, version, f"{origin}:{getattr(target, '__name__', name)}", lambda: target))
            return target

        return decorate

    def entry(self, name: str) -> Entry:
        """The entry for `name`. Raises UsageError for an unknown name, or one that two plugins claim."""
        claims = [*self._entry_points().get(name, [])]
        if name in self._local:
            claims.append(self._local[name])
        if not claims:
            raise UsageError(f"{unknown_name(self.kind, name, self.names())}; what a file registers: --plugin FILE.py")
        if len(claims) > 1:
            both = " and ".join(f"{claim.target} (from {claim.package})" for claim in claims)
            raise UsageError(f"{self.kind} '{name}' is claimed by {both}: uninstall or rename one of them")
        return claims[0]

    def get(self, name: str) -> Any:
        """The object called `name`, or the one that 'file.py:Object' points to. Raises UsageError, TrilemmaError."""
        if ".py:" in name:
            path, _, attribute = name.rpartition(":")
            return self._check(_attribute(load_file(Path(path)), attribute, path), attribute, path)
        if name.endswith(".py"):
            raise UsageError(f"{self.kind} '{name}' is a file: name what is in it, '{name}:NAME'")
        if name not in self._loaded:
            entry = self.entry(name)
            try:
                self._loaded[name] = self._check(entry.load(), name, entry.target)
            except TrilemmaError:
                raise
            except Exception as error:
                raise TrilemmaError(
                    f"{self.kind} '{name}' from package {entry.package} failed to import ({entry.target}): "
                    f"{type(error).__name__}: {error}"
                ) from error
        return self._loaded[name]

    def registered(self, name: str) -> str:
        """The name that a file registers its object under, given 'file.py:Object'; else `name` itself."""
        if ".py:" not in name:
            return name
        target = self.get(name)
        return next((known for known, entry in self._local.items() if entry.load() is target), name)

    def origin(self, name: str) -> tuple[str, str]:
        """(package, version) that `name` comes from; of a plugin file its name and the start of its sha256."""
        if ".py:" in name:
            return _origin_of(Path(name.rpartition(":")[0]))
        entry = self.entry(name)
        return entry.package, entry.version

    @property
    def is_extended(self) -> bool:
        """Whether anything was registered here by decorator, as plugin files do."""
        return bool(self._local)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """What is registered in the block is forgotten after it."""
        before = dict(self._local), dict(self._loaded)
        try:
            yield
        finally:
            self._local, self._loaded = before

    def _check(self, target: Any, name: str, where: str) -> Any:
        """`target`, which is of this registry's kind. Raises UsageError for anything else."""
        module, _, contract = self.contract.partition(":")
        base = getattr(importlib.import_module(module), contract)
        fits = isinstance(target, type) and issubclass(target, base) if self.classes else isinstance(target, base)
        if not fits:
            wanted = f"a subclass of trilemma_bench's {contract}" if self.classes else f"trilemma_bench.{contract}(…)"
            found = f"the class {target.__name__}" if isinstance(target, type) else f"a {type(target).__name__}"
            raise UsageError(f"{self.kind} '{name}' in {where} is {found}: it has to be {wanted}")
        if missing := sorted(getattr(target, "__abstractmethods__", ())):
            raise UsageError(f"{self.kind} '{name}' in {where} does not define {', '.join(missing)}: add it")
        return target

    def _add(self, entry: Entry) -> None:
        other = self._local.get(entry.name)
        if other and other.target != entry.target:
            raise UsageError(
                f"{self.kind} '{entry.name}' is claimed by {other.target} and {entry.target}: rename one of them"
            )
        self._local[entry.name] = entry
        self._loaded.pop(entry.name, None)

    def _entry_points(self) -> dict[str, list[Entry]]:
        if self._installed is None:
            self._installed = {}
            seen = set()
            for point in metadata.entry_points(group=f"trilemma_bench.{self.kind}s"):
                package = point.dist.name if point.dist else "unknown"
                if (key := (point.name, package, point.value)) not in seen:
                    seen.add(key)
                    version = point.dist.version if point.dist else ""
                    entry = Entry(point.name, package, version, point.value, point.load)
                    self._installed.setdefault(point.name, []).append(entry)
        return self._installed


def load_file(path: Path) -> Any:
    """The module in a plugin file, executed once. Raises UsageError when missing, TrilemmaError on failure."""
    if not path.is_file():
        raise UsageError(f"plugin file {path} does not exist")
    name = f"{PLUGIN}{abs(hash(path.resolve())):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"plugin file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except TrilemmaError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise TrilemmaError(f"plugin {path} failed to import: {type(error).__name__}: {error}") from error
    return module


def _origin_of(file: Path) -> tuple[str, str]:
    """A plugin file's name and the first 12 digits of its sha256: where it lies says nothing on another machine."""
    return file.name, hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else ""


def _attribute(module: Any, attribute: str, path: str) -> Any:
    if not hasattr(module, attribute):
        own = [name for name, item in vars(module).items() if getattr(item, "__module__", "") == module.__name__]
        public = [name for name in own if not name.startswith("_")]
        raise unknown_name(f"object in {path}", attribute, public)
    return getattr(module, attribute)


CONTRACTS = "trilemma_bench.contracts"
models = Registry("model", f"{CONTRACTS}:GenerativeModel")
datasets = Registry("dataset", f"{CONTRACTS}:Dataset")
extractors = Registry("extractor", f"{CONTRACTS}:FeatureExtractor")
metrics = Registry("metric", f"{CONTRACTS}:Metric", classes=False)
protocols = Registry("protocol", "trilemma_bench.protocol:Protocol", classes=False)
REGISTRIES = (models, datasets, extractors, metrics, protocols)

register_model = models.register
register_dataset = datasets.register
register_extractor = extractors.register
register_metric = metrics.register
register_protocol = protocols.register
