"""trilemma-bench: quality, coverage and speed of generative models, measured alike.

    import trilemma_bench as tb
    record = tb.run(model="ddgan", dataset="digits", budget="2m")
    frame = tb.load_results("runs")

Nothing heavy is imported before it is used: reading records never imports torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "run": "api",
    "train": "api",
    "sample": "api",
    "evaluate": "api",
    "rerun": "api",
    "RunOptions": "api",
    "compare": "comparing",
    "load_results": "results",
    "find_records": "results",
    "write_report": "report",
    "Record": "record",
    "read_record": "record",
    "TrilemmaError": "errors",
    "UsageError": "errors",
    "register_model": "registry",
    "register_dataset": "registry",
    "register_extractor": "registry",
    "register_metric": "registry",
    "register_protocol": "registry",
    "GenerativeModel": "contracts",
    "Trainable": "contracts",
    "Dataset": "contracts",
    "DataSpec": "contracts",
    "Split": "contracts",
    "ModeRule": "contracts",
    "FeatureExtractor": "contracts",
    "FiniteSource": "contracts",
    "Metric": "contracts",
    "Estimate": "contracts",
    "Comparison": "metrics.comparison",
    "Protocol": "protocol",
    "Use": "protocol",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trilemma_bench' has no attribute '{name}'")
    return getattr(importlib.import_module(f"trilemma_bench.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
