"""What is left of a run that was interrupted or failed, and how the next one goes on."""

from __future__ import annotations

import re
import signal

import pytest
import torch
from whole_runs import go

import trilemma_bench as tb
from trilemma_bench import pipeline
from trilemma_bench.datasets.points import Gaussians25
from trilemma_bench.job import STAGES, Options, prepare
from trilemma_bench.record import read_record
from trilemma_bench.results import find_records
from trilemma_bench.training.checkpoint import STATE_FILE
from trilemma_bench.training.trainer import Interrupted, Trainer


def interrupt(out, monkeypatch, at):
    """A run into `out` that Ctrl-C ends after step `at`; returns its folder."""
    step, folders = Trainer._step, []

    def stopping(self, progress):
        step(self, progress)
        if self.step == at:
            folders.append(self.place.folder)
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", stopping)
        with pytest.raises(Interrupted):
            go(out)
    return folders[0]


def test_interrupted_training_is_recorded_and_the_next_run_goes_on(tmp_path, monkeypatch):
    folder = interrupt(tmp_path, monkeypatch, at=9)
    assert read_record(folder / "record.json").status == "interrupted"
    said = []
    record = go(tmp_path, say=said.append)
    assert any("resuming from step 9" in line for line in said)
    assert record.continues == folder.name
    assert [found.id for _, found in find_records([tmp_path]).records] == [record.id]
    assert record.samples_sha256 == go(tmp_path / "whole").samples_sha256


def test_a_run_that_goes_on_after_one_that_was_killed_supersedes_the_one_before_it(tmp_path, monkeypatch):
    """Who is killed leaves a checkpoint, and no record."""
    recorded, killed = (interrupt(tmp_path, monkeypatch, at) for at in (5, 9))
    (killed / "record.json").unlink()
    record = go(tmp_path)
    assert record.continues == recorded.name
    assert [found.id for _, found in find_records([tmp_path]).records] == [record.id]


def test_a_run_that_was_interrupted_twice_leaves_no_state_behind(tmp_path, monkeypatch):
    for at in (9, 12):
        interrupt(tmp_path, monkeypatch, at)
    assert len(list(tmp_path.rglob(STATE_FILE))) == 2
    assert go(tmp_path).training.steps == 32
    assert not list(tmp_path.rglob(STATE_FILE))


def test_a_loss_that_is_nan_stops_the_run_and_is_recorded(tmp_path):
    with pytest.raises(tb.TrilemmaError, match=r"became NaN or infinite in step 2"):
        go(tmp_path, settings={"lr_generator": 1e30})
    (folder,) = (tmp_path / "gaussians25" / "ddgan").iterdir()
    assert read_record(folder / "record.json").status == "failed"


def test_a_lack_of_memory_says_what_to_lower(tmp_path):
    """10¹⁴ samples are more than addresses reach."""
    with pytest.raises(tb.TrilemmaError) as failure:
        go(tmp_path, settings={"timing_batch": 10**14})
    (file,) = tmp_path.rglob("record.json")
    assert read_record(file).error == str(failure.value)
    assert re.fullmatch(
        r"timing: cpu has too little memory \(\d+ bytes more were asked for\): lower sampling.timing_batch, now 10{14}",
        str(failure.value),
    )


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("lacks", [lambda: torch.empty(10**15), lambda: bytearray(10**15)], ids=["torch", "python"])
def test_every_stage_says_what_needs_less_memory(stage, lacks):
    job = prepare(Options(model="ddgan", dataset="gaussians25"))
    message = rf"^{stage}: cpu has too little memory.*: (lower \w|measure fewer)"
    with pytest.raises(tb.TrilemmaError, match=message), job.timed(stage):
        lacks()
    assert stage in job.durations


@pytest.fixture
def other_name():
    """A dataset that is registered by another name than its class has, and whose content cannot be read."""

    class Unreadable(Gaussians25):
        readable = True

        def load(self, split):
            if not self.readable:
                raise tb.TrilemmaError("the disk is broken")
            return super().load(split)

        @property
        def official(self):
            return bool(self.load("train"))

    return tb.register_dataset("registered")(Unreadable)


def test_a_dataset_has_the_name_that_it_is_registered_by(other_name, tmp_path):
    record = go(tmp_path, model="real-data", dataset="registered", samples=100, budget=None)
    assert record.dataset.name == "registered"
    assert (tmp_path / record.place / "record.json").is_file()


def test_a_run_that_fails_on_its_data_is_recorded(other_name, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "give_weights", lambda *_: monkeypatch.setattr(other_name, "readable", False))
    with pytest.raises(tb.TrilemmaError, match="the disk is broken"):
        go(tmp_path, dataset="registered", settings={"preview_seconds": 0})
    (path,) = tmp_path.rglob("record.json")
    assert path.parts[-4] == "registered"
    assert (read_record(path).status, read_record(path).error) == ("failed", "the disk is broken")
