"""The command line as people script against it: options, exit codes, one line for every error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import call, refuses, succeeds

from trilemma_bench.cli import main

FAST = [
    *("--device", "cpu", "--samples", "200", "--budget", "1kimg", "--quiet"),
    *("--set", "hidden=16", "--set", "timing_seconds=0.1", "--set", "timing_repetitions=3"),
]


def test_run_prints_the_row_and_the_report_reads_it(tmp_path):
    out = tmp_path / "results"
    result = succeeds("run", "--model", "ddgan", "--dataset", "gaussians25", *FAST, "--out", out)
    assert "ddgan (T=4)" in result.stdout
    (folder,) = (out / "gaussians25" / "ddgan").iterdir()
    assert result.stdout.splitlines()[-1] == str(folder)
    succeeds("report", out, "--out", tmp_path / "report")
    assert (tmp_path / "report" / "index.html").is_file()
    assert succeeds("report", out).stdout.strip() == str(out / "report" / "index.html")
    assert (tmp_path / "report" / "results.csv").read_text().count("ddgan") >= 1


def test_each_stage_alone(tmp_path):
    common = ["--dataset", "gaussians25", "--device", "cpu", "--quiet", "--out", tmp_path]
    training = ["--budget", "1kimg", "--set", "hidden=16"]
    succeeds("train", "--model", "ddgan", *training, *common)
    again = call("train", "--model", "ddgan", *training, *common)
    assert "already trained" in again.stdout
    path = tmp_path / "samples.npz"
    succeeds("sample", "--model", "ddgan", "--samples", "300", *training, *common, "--to", path)
    measured = succeeds("evaluate", "--samples", path, "--name", "mine", "--real", *common)
    assert "mine" in measured.stdout
    assert json.loads((Path(measured.stdout.splitlines()[-1]) / "record.json").read_text())["model"]["reference"]


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "Did you mean 'ddgan'?", ["run", "--model", "ddgn", "--dataset", "digits"]),
        (2, "Did you mean 'digits'?", ["run", "--model", "ddgan", "--dataset", "digit"]),
        (2, "Did you mean 'points'?", ["run", "--model", "ddgan", "--dataset", "digits", "--protocol", "point"]),
        (2, "budget '10x' is not", ["run", "--model", "ddgan", "--dataset", "digits", "--budget", "10x"]),
        (2, "Did you mean 'steps'?", ["run", "--model", "ddgan", "--dataset", "digits", "--set", "stepz=2"]),
        (2, "device 'gpu'", ["run", "--model", "ddgan", "--dataset", "digits", "--device", "gpu"]),
        (2, "No such option", ["run", "--model", "ddgan", "--dataset", "digits", "--bugdet", "1s"]),
        (2, "No such option", ["--bugdet"]),
        (2, "No such command 'runn'.", ["runn"]),
        (2, "Missing argument 'B'. See `", ["compare", "a"]),
        (2, "does not exist", ["run", "--model", "ddgan", "--dataset", "digits", "--plugin", "absent.py"]),
        (2, "does not exist", ["suite", "absent.toml"]),
        (2, "no records below", ["report", "absent", "--out", "r"]),
        (2, "absent does not exist", ["evaluate", "--samples", "absent", "--dataset", "digits"]),
        (2, "budget '0s' must be more than 0", ["run", "--model", "ddgan", "--dataset", "digits", "--budget", "0s"]),
        (1, "absent", ["run", "--model", "ddgan", "--dataset", "digits", "--checkpoint", "absent"]),
        (2, "absent does not exist", ["run", "--model", "vae", "--dataset", "digits", "--reference", "absent"]),
        (2, "Did you mean 'models'?", ["list", "model"]),
        (2, "CUDA devices; use cpu", ["run", "--model", "ddgan", "--dataset", "digits", "--device", "cuda:99"]),
    ],
)
def test_a_wrong_request_gets_one_clear_line(code, message, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuses(code, message, *arguments)
    assert not list(tmp_path.glob("runs"))


def test_missing_weights_are_reported_before_anything_is_done(tmp_path, monkeypatch):
    images = tmp_path / "images.npz"
    np.savez(images, images=np.zeros((20, 32, 32, 3), dtype=np.uint8))
    monkeypatch.setattr("trilemma_bench.weights._fetch", offline)
    arguments = ["run", "--model", "vae", "--dataset", f"npz:{images}", "--protocol", "paper", "--out", tmp_path / "r"]
    lines = refuses(1, "weights-inception", *arguments)
    assert len(lines) == 1
    assert not (tmp_path / "r").exists()


def offline(weight):
    from trilemma_bench.errors import TrilemmaError

    raise TrilemmaError(f"{weight.filename} is missing: get it from {weight.url} and put it at {weight.path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    refuses(1, "Permission denied", "run", "--model", "real-data", "--dataset", "gaussians25", "--out", tmp_path / "r")


def test_an_output_folder_that_is_a_file_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    arguments = ["run", "--model", "real-data", "--dataset", "gaussians25", "--out", file / "below"]
    refuses(1, "Not a directory", *arguments)


def test_help_answers_without_importing_torch():
    code = """
import sys
from pathlib import Path
from trilemma_bench.cli import main
try:
    main(["--help"])
except SystemExit:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Quality, coverage and speed" in done.stdout


def test_help_shows_every_command_once_and_run_first():
    shown = [line.split()[0] for line in call("--help").stdout.splitlines() if line.startswith("  ")]
    commands = [word for word in shown if word in main.commands]
    assert sorted(commands) == sorted(main.commands)
    assert commands[0] == "run"


@pytest.mark.parametrize("kind", ["models", "datasets", "metrics", "protocols", "extractors", "suites"])
def test_lists_are_readable_by_people_and_programs(kind):
    rows = json.loads(call("list", kind, "--json").stdout)
    assert all(row["about"] for row in rows if not row["error"])
    text = call("list", kind).stdout
    assert all(row["name"] in text for row in rows)


def test_doctor_says_where_missing_things_would_come_from():
    text = call("doctor").stdout
    places = "missing: /", "MB from https://", "sha256 ", "TRILEMMA_DATA_DIR"
    for part in ("GPU", "torch 2", "bundled", *places, "all can be imported"):
        assert part in text


def test_settings_are_shown_as_set_takes_them():
    result = succeeds("settings", "--model", "ddgan", "--dataset", "digits")
    lines = result.stdout.splitlines()
    assert "[model]" in lines
    assert "steps = 4" in lines
    assert any(line.startswith('lr_schedule = "cosine" ') for line in lines)


BUGGY = """
import torch
from trilemma_bench import Trainable, register_model

@register_model("buggy")
class Buggy(Trainable):
    def __init__(self, data):
        super().__init__(data)
        self.network = torch.nn.Linear(2, 2)

    def optimizers(self):
        return {"network": torch.optim.Adam(self.network.parameters(), lr=LR)}

    def training_step(self, batch, step, optimizers):
        RESULT

    def sample(self, count, rng):
        return self.network(torch.randn(count, 2))
"""


@pytest.mark.parametrize(
    ("lr", "result", "message"),
    [
        ("1e-3", "return self.netwrok(batch)", "has no attribute 'netwrok', in flow.py:15, training_step (--debug"),
        ("1e-3", "return batch.mean()", "Buggy.training_step must return its losses by name, a dict"),
        (
            "1e-3",
            "return {}\n\n    def before_step(self, *_):\n        return 3",
            "(this is a bug, ours or of flow.py",
        ),
        (
            "1e-3",
            "return {}\n\n    def optimizers(self):\n        return []",
            "returned list, expected {name: opt",
        ),
        ("float('nan')", "return {}", "has no optimisers with these settings (Invalid learning rate: nan)"),
    ],
)
def test_a_plugins_mistake_is_shown_where_it_is(lr, result, message, tmp_path):
    plugin = tmp_path / "flow.py"
    plugin.write_text(BUGGY.replace("LR", lr).replace("RESULT", result))
    model = f"{plugin}:Buggy"
    arguments = ["run", "--model", model, "--dataset", "gaussians25", *FAST[:7], "--out", tmp_path / "out"]
    lines = refuses(2 if "nan" in lr or "opt" in message else 1, message, *arguments)
    assert not any("(this is a bug;" in line for line in lines)
    assert "Traceback" in call(*arguments, "--debug").stderr


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("self.x = 1", "its __init__ does not call super().__init__(data)"),
        ("self.network = torch.nn.Linear(2, 2)", "its __init__ does not call super().__init__(data)"),
        ("super().__init__(data)", "its __init__ has to set self.network"),
        ("super().__init__(data); next(iter(()))", "(StopIteration, in flow.py:7, __init__)"),
    ],
)
def test_a_plugin_that_is_built_wrong_is_told_what_is_missing(init, message, tmp_path):
    plugin = tmp_path / "flow.py"
    lines = BUGGY.replace("LR", "1e-3").replace("RESULT", "return {}").split("\n")
    plugin.write_text("\n".join([*lines[:4], *lines[5:7], f"        {init}", *lines[9:]]))
    arguments = ["run", "--model", f"{plugin}:Buggy", "--dataset", "gaussians25", "--out", tmp_path / "out"]
    assert len(refuses(2, message, *arguments)) == 1
    assert not (tmp_path / "out").exists()


def test_more_samples_in_a_batch_than_there_are_is_refused(tmp_path):
    arguments = ["run", "--model", "vae", "--dataset", "digits", "--set", "batch_size=5000", "--budget", "1kimg"]
    refuses(
        2, "batch_size = 5000: there are 1297 samples, choose that at most", *arguments, "--out", tmp_path, "--quiet"
    )


def test_a_warning_is_one_line(tmp_path, monkeypatch):
    """Of a damaged file in the cache, without Python's file names and source; with --debug as Python has it."""
    np.save(tmp_path / "digits.npy", np.zeros((10, 8, 8), dtype=np.uint8))
    common = ["--dataset", "digits", "--device", "cpu", "--quiet", "--out", tmp_path / "out"]
    measuring = ["evaluate", "--samples", tmp_path / "digits.npy", *common]
    assert call(*measuring).stderr == ""

    def damage():
        (features,) = (tmp_path / "cache" / "features").glob("*.features.safetensors")
        features.write_bytes(features.read_bytes()[:-1])

    damage()
    (line,) = call(*measuring).stderr.splitlines()
    assert line.startswith("warning: cached features /")
    assert line.endswith("computing them again")
    damage()
    monkeypatch.setenv("RANK", "1")
    assert call(*measuring).stderr == ""
    monkeypatch.delenv("RANK")
    damage()
    with pytest.warns(UserWarning, match="computing them again"):
        call(*measuring, "--debug")


def test_a_report_replaces_a_report_and_nothing_else(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "index.html").write_text("my page")
    records = ["report", "results/digits/vae"]
    refuses(2, "holds index.html of something else", *records, "--out", mine)
    assert (mine / "index.html").read_text() == "my page"
    for _ in range(2):
        succeeds(*records, "--out", tmp_path / "report")


def test_settings_of_an_unknown_dataset_are_none_of_another(tmp_path):
    """The defaults would look like its recipe."""
    refuses(2, "unknown dataset 'digit'. Did you mean 'digits'?", "settings", "--model", "gan", "--dataset", "digit")


def test_a_plugin_file_that_registers_nothing_is_noticed(tmp_path):
    (tmp_path / "flow.py").write_text("class Flow: pass\n")
    arguments = ["settings", "--model", "flow", "--dataset", "digits", "--plugin", tmp_path / "flow.py"]
    lines = refuses(2, "unknown model 'flow'", *arguments)
    assert lines[0].startswith("warning: ")
    assert "flow.py registers nothing: @register_model" in lines[0]


def test_a_reader_who_closes_the_pipe_hears_nothing():
    process = subprocess.Popen(
        [sys.executable, "-m", "trilemma_bench", "list", "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_a_folder_in_a_variable_may_begin_with_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRILEMMA_DATA_DIR", "~/kept")
    assert f"Data in {tmp_path}/kept " in succeeds("doctor").stdout
