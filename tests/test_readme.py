"""The documents' own examples of plugins, run as they are written there."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from commands import refuses, succeeds

from trilemma_bench import read_record
from trilemma_bench.cli import main

ROOT = Path(__file__).parent.parent
README, ARCHITECTURE = ROOT / "README.md", ROOT / "docs" / "architecture.md"


def written(document, path):
    (code,) = re.findall(r"<!-- plugin -->\n```python\n(.*?)```", document.read_text("utf-8"), flags=re.DOTALL)
    path.write_text(code, encoding="utf-8")
    return path


@pytest.fixture
def plugin(tmp_path):
    return written(README, tmp_path / "my_flow.py")


@pytest.fixture
def ring(tmp_path):
    return written(ARCHITECTURE, tmp_path / "ring.py")


def run(out, *arguments):
    quick = ["--budget", "20kimg", "--samples", "1000", "--quiet", "--device", "cpu", "--set", "timing_seconds=0.1"]
    succeeds("run", *arguments, *quick, "--out", out)
    return read_record(next(out.rglob("record.json")))


def test_the_plugin_of_the_readme_trains_and_is_measured(plugin, tmp_path):
    record = run(tmp_path / "out", "--model", "my-flow", "--dataset", "gaussians25", "--plugin", plugin)
    assert record.model.plugin == "my_flow.py"
    assert record.model.version == hashlib.sha256(plugin.read_bytes()).hexdigest()[:12]
    assert record.speed.nfe == 20
    assert record.scores["fd_points"].value < 5


@pytest.mark.parametrize(("setting", "words"), [("steps=0", "at least 1"), ("lr=0", "more than 0")])
def test_the_plugin_of_the_readme_refuses_what_makes_no_sense(plugin, setting, words):
    arguments = ["run", "--model", "my-flow", "--dataset", "gaussians25", "--plugin", plugin, "--set", setting]
    name, _, value = setting.partition("=")
    refuses(2, f"model 'my-flow' setting '{name}' = {value}: must be {words}", *arguments)


def test_the_class_in_the_file_is_the_model_that_it_registers(plugin, tmp_path):
    record = run(
        tmp_path / "out", "--model", f"{plugin}:MyFlow", "--dataset", "digits", "--set", "hidden=32", "--samples", "100"
    )
    assert (record.model.name, record.model.plugin) == ("my-flow", "my_flow.py")
    assert record.model.settings["hidden"] == 32
    assert record.protocol.extractor == "digits-cnn"


def test_the_plugin_of_the_architecture_brings_a_dataset_a_metric_and_a_protocol(ring, tmp_path):
    points = np.array([[2.0, 0.0], [0.0, 1.0], [-1.5, 0.0], [0.0, -0.5]] * 5)
    np.save(tmp_path / "points.npy", points)
    arguments = ["--dataset", "ring", "--plugin", ring, "--out", tmp_path / "out", "--device", "cpu", "--quiet"]
    succeeds("evaluate", "--samples", tmp_path / "points.npy", *arguments)
    record = read_record(next((tmp_path / "out").rglob("record.json")))
    score = record.scores["roundness"]
    assert score.value == pytest.approx(0.5)
    assert score.standard_error == pytest.approx(np.std([1, 0, 0.5, 0.5] * 5, ddof=1) / 20**0.5)
    assert set(record.scores) == {"fd_points", "roundness"}
    assert (record.dataset.name, record.dataset.size) == ("ring", 5000)
    listed = json.loads(succeeds("list", "metrics", "--json", "--plugin", ring).output)
    assert [row["package"] for row in listed if row["name"] == "roundness"] == ["ring.py"]


def test_every_command_of_the_readme_is_known():
    commands = re.findall(
        r"^trilemma-bench (\w+)(.*?)(?:#.*)?$", README.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert len(commands) >= 6
    for name, rest in commands:
        known = {option for parameter in main.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", rest)) <= known, (name, rest)


def test_every_module_of_the_harness_is_on_the_map_and_no_other():
    rows = re.findall(r"^\| (`.*)$", ARCHITECTURE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = {Path(name).name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)}
    harness = {path.name for path in (ROOT / "trilemma_bench").rglob("*.py")} - {"__init__.py", "__main__.py"}
    models = {path.name for folder in ("baselines", "ddgan") for path in (ROOT / folder).glob("*.py")}
    assert harness - named == set()
    assert named - harness - models == set()
