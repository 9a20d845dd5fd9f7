"""What an evaluation keeps when a metric fails, and what it refuses before there are samples."""

from __future__ import annotations

import math

import pytest
from inputs import images

import trilemma_bench as tb
from trilemma_bench import registry
from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.protocol import Protocol
from trilemma_bench.record import read_record

GENERATED = images(20, 8, 1)


def use_protocol(*metrics, **fields):
    tb.register_protocol("own")(Protocol("own", **{"extractor": "pixels", "samples": 20, "metrics": metrics, **fields}))


def use_metric(result):
    """The metric 'mine', which gives what `result` is or returns."""
    compute = result if callable(result) else lambda comparison: result
    tb.register_metric("mine")(Metric("mine", compute, "higher", "samples", "", "Mine", (-math.inf, math.inf), "here"))


def measure(tmp_path, **options):
    facts = {"dataset": "digits", "protocol": "own", "device": "cpu", "out": tmp_path / "out", "progress": False}
    return tb.evaluate(GENERATED, **{**facts, **options})


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (lambda comparison: None, "TypeError: "),
        (lambda comparison: "one\ntwo", "TypeError: "),
        (math.nan, "mine is nan"),
        (Estimate(math.inf), "mine is inf"),
        (Estimate(1.0, math.nan), "the standard error of mine is nan"),
        (Estimate(1.0, math.inf), "the standard error of mine is inf"),
        (Estimate(1.0, 1e308), "the interval of mine is -inf, inf"),
        (Estimate(1.0, 0.5, interval=(0.0, math.nan)), "the interval of mine is 0.0, nan"),
    ],
)
def test_a_metric_that_fails_leaves_the_other_scores(result, why, tmp_path):
    use_metric(result)
    use_protocol("fd", "mine", "precision")
    record = measure(tmp_path)
    assert record.scores.keys() == {"fd_pixels", "precision"}
    assert record.missing["mine"].startswith(why)
    assert "\n" not in record.missing["mine"]
    assert record.status == "complete"


def test_an_exception_in_a_metric_is_told_with_its_place(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("def compute(comparison):\n    raise ValueError('two\\nlines')\n")
    use_metric(registry.load_file(plugin).compute)
    use_protocol("mine", "fd")
    record = measure(tmp_path)
    assert record.missing == {"mine": "ValueError: two lines (mine.py:2, compute)"}
    assert "fd_pixels" in record.scores


def test_a_run_without_any_score_has_failed(tmp_path):
    use_metric(math.nan)
    use_protocol("mine")
    with pytest.raises(TrilemmaError, match="no score could be computed: mine is nan"):
        measure(tmp_path)
    (file,) = (tmp_path / "out").rglob("record.json")
    record = read_record(file)
    assert (record.status, record.error) == ("failed", "no score could be computed: mine is nan")
