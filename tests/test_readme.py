"""The README's own example of a model, run as it is written there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from trilemma_bench import read_record
from trilemma_bench.cli import main

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def plugin(tmp_path):
    text = README.read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- plugin -->\n```python\n(.*?)```", text, flags=re.DOTALL)
    path = tmp_path / "my_flow.py"
    path.write_text(code, encoding="utf-8")
    return path


def run(out, *arguments):
    quick = ["--budget", "20kimg", "--samples", "1000", "--quiet", "--device", "cpu", "--set", "timing_seconds=0.1"]
    result = CliRunner().invoke(main, [*map(str, ["run", *arguments, *quick, "--out", out])])
    assert result.exit_code == 0, result.output
    return read_record(next(out.rglob("record.json")))


def test_the_plugin_of_the_readme_trains_and_is_measured(plugin, tmp_path):
    record = run(tmp_path / "out", "--model", "my-flow", "--dataset", "gaussians25", "--plugin", plugin)
    assert record.model.plugin == str(plugin)
    assert record.speed.nfe == 20
    assert record.scores["fd_points"].value < 5


def test_the_class_in_the_file_is_taken_as_a_name(plugin, tmp_path):
    record = run(
        tmp_path / "out", "--model", f"{plugin}:MyFlow", "--dataset", "digits", "--set", "hidden=32", "--samples", "100"
    )
    assert record.model.name == "MyFlow"
    assert record.model.settings["hidden"] == 32
    assert record.protocol.extractor == "digits-cnn"


def test_every_command_of_the_readme_is_known():
    commands = re.findall(
        r"^trilemma-bench (\w+)(.*?)(?:#.*)?$", README.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert len(commands) >= 6
    for name, rest in commands:
        known = {option for parameter in main.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", rest)) <= known, (name, rest)
