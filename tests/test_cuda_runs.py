"""Whole runs on a GPU: their records, finding them again, their failures, and scores as a CPU gives them."""

from __future__ import annotations

import math

import pytest
import torch
from test_pipeline import go

import trilemma_bench as tb
from trilemma_bench.datasets import open_dataset
from trilemma_bench.record import read_record

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
GPU = "cuda"


def go_on_gpu(out, model="ddgan", dataset="gaussians25", **settings):
    """The record, and what the run said."""
    said: list[str] = []
    settings = {"training.compile": False, **settings}
    return go(out, model, dataset, device=GPU, say=said.append, settings=settings), "\n".join(said)


@pytest.mark.parametrize(("model", "dataset"), [("ddgan", "gaussians25"), ("gan", "digits")])
def test_a_run_is_measured_recorded_and_found_again(model, dataset, tmp_path):
    record, said = go_on_gpu(tmp_path, model, dataset)
    assert "not replayed" not in said
    assert record.scores
    assert record.missing.keys() <= {"mode_kl"}  # of no sample, where so short a training gives none of high quality
    for score in record.scores.values():
        assert all(map(math.isfinite, (score.value, *(score.interval or ()))))
    speed, training = record.speed, record.training
    assert (speed.device, speed.cuda_graphs, speed.compiled) == (torch.cuda.get_device_name(), True, False)
    assert speed.peak_memory_kind == "device memory allocated"
    assert (torch.device(training.device).type, training.cuda_graphs) == (GPU, True)
    again, said = go_on_gpu(tmp_path, model, dataset)
    assert "nothing is trained" in said
    assert again.training.run_id == record.id
    assert again.scores.keys() == record.scores.keys()
    if dataset == "gaussians25":  # without convolutions, whose algorithms are chosen by trial
        assert again.samples_sha256 == record.samples_sha256
        assert {name: each.value for name, each in again.scores.items()} == {
            name: each.value for name, each in record.scores.items()
        }


@pytest.mark.parametrize("dataset", ["gaussians25", "digits"])
def test_samples_have_the_scores_that_the_cpu_gives_them(dataset, tmp_path, monkeypatch):
    """From nothing on either device: what one leaves in its cache, the other does not read."""
    samples, records = open_dataset(dataset).load("test").samples[:500], {}
    array = samples.permute(0, 2, 3, 1).numpy() if samples.ndim == 4 else samples.numpy()
    for device in ("cpu", GPU):
        monkeypatch.setenv("TRILEMMA_CACHE_DIR", str(tmp_path / f"cache-{device}"))
        records[device] = tb.evaluate(array, dataset=dataset, out=tmp_path, device=device, progress=False)
    scores = records[GPU].scores
    assert scores.keys() == records["cpu"].scores.keys()
    assert not records[GPU].missing
    for name, expected in records["cpu"].scores.items():
        assert scores[name].value == pytest.approx(expected.value, rel=1e-5, abs=1e-6), name
        assert scores[name].interval == pytest.approx(expected.interval, rel=1e-4, abs=1e-6), name


def test_a_loss_that_is_nan_stops_the_run_and_is_recorded(tmp_path):
    with pytest.raises(tb.TrilemmaError, match=r"became NaN or infinite in step 2"):
        go_on_gpu(tmp_path, lr_generator=1e30)
    (folder,) = (tmp_path / "gaussians25" / "ddgan").iterdir()
    assert read_record(folder / "record.json").status == "failed"


def test_a_batch_that_the_memory_does_not_hold_fails_in_one_line_and_harms_no_later_run(tmp_path):
    with pytest.raises(tb.TrilemmaError, match=r"lower sampling\.timing_batch, now 10{11}$"):
        go_on_gpu(tmp_path, timing_batch=10**11)
    (file,) = tmp_path.rglob("record.json")
    failed = read_record(file)
    assert failed.status == "failed"
    assert failed.error.startswith("timing: cuda has too little memory (")
    assert "\n" not in failed.error
    again, said = go_on_gpu(tmp_path)
    assert "nothing is trained" in said
    assert again.training.run_id == failed.id
