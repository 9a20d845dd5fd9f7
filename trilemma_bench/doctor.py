"""What this machine has: device, versions, data and weights found or missing, and where each would come from."""

from __future__ import annotations

from trilemma_bench import paths, registry, weights
from trilemma_bench.datasets import open_dataset
from trilemma_bench.environment import environment
from trilemma_bench.errors import TrilemmaError


def diagnosis() -> list[str]:
    """The lines that `trilemma-bench doctor` prints."""
    return [*_machine(), "", *_data(), "", *_weights(), "", *_plugins()]


def _machine() -> list[str]:
    facts = environment()
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_bytes'] / 2**30:.0f} GiB)" for gpu in facts["gpus"])
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return [
        "Machine",
        f"  GPU       {gpus or 'none: runs use the CPU'}",
        f"  CPU       {facts['cpu']}, {facts['cpu_cores']} cores, torch uses {facts['torch_threads']} threads",
        f"  memory    {facts['memory_bytes'] / 2**30:.0f} GiB",
        f"  system    {facts['system']}, Python {facts['python']}",
        f"  packages  {packages}",
    ]


def _data() -> list[str]:
    lines = [f"Data in {paths.data_dir()} (TRILEMMA_DATA_DIR)"]
    for name in registry.datasets.names():
        try:
            status = open_dataset(name).available()
        except TrilemmaError as error:
            status = str(error)
        lines.append(f"  {name:16} {status}")
    return lines


def _weights() -> list[str]:
    lines = [f"Weights in {paths.weights_dir()} (TRILEMMA_WEIGHTS_DIR)"]
    for weight in weights.status():
        good = weight.found == weight.sha256
        state = "found, as it should be" if good else "missing" if weight.found is None else "DAMAGED: delete the file"
        lines += [
            f"  {weight.name:16} {state}: {weight.path}",
            f"  {'':16} {weight.size / 1e6:.1f} MB from {weight.url}",
            f"  {'':16} sha256 {weight.sha256}",
        ]
    return lines


def _plugins() -> list[str]:
    lines = ["Plugins"]
    for kind in (registry.models, registry.datasets, registry.extractors, registry.metrics, registry.protocols):
        for name in kind.names():
            try:
                kind.get(name)
            except TrilemmaError as error:
                lines.append(f"  {error}")
    return lines if len(lines) > 1 else ["Plugins: all can be imported"]
