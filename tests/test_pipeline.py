"""The whole way from one call to a record: found checkpoints, equal scores, wrong requests that leave nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from inputs import fails
from whole_runs import BUDGET, FAST, go

import trilemma_bench as tb
from trilemma_bench import pipeline
from trilemma_bench.job import Options, open_folder, prepare
from trilemma_bench.protocol import Protocol
from trilemma_bench.record import read_record
from trilemma_bench.settings import SamplingSettings

PROMISED = {
    "record": {
        *("schema", "id", "status", "model", "dataset", "protocol", "seed", "samples", "scores", "speed"),
        *("training", "environment", "created", "durations"),
    },
    "model": {"name", "parameters", "settings", "plugin", "version", "source_sha256"},
    "speed": {
        *("nfe", "seconds_per_image", "images_per_second", "latency_seconds", "raw_seconds", "batch_size"),
        *("device", "precision", "peak_memory_bytes"),
    },
}


def folder_of(record, out):
    return out / record.place


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    return go(out), out


def test_a_run_leaves_its_folder_whole(first):
    record, out = first
    folder = folder_of(record, out)
    names = {path.name for path in folder.iterdir()}
    assert names == {"record.json", "samples.png", "checkpoint.safetensors", "training.jsonl"}
    assert read_record(folder / "record.json").to_json() == record.to_json()
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_the_record_says_what_was_done(first):
    record, _ = first
    assert record.status == "complete"
    assert record.speed.nfe == 4
    assert len(record.speed.raw_seconds) >= 3
    assert (record.training.images, record.training.steps) == (1024, 32)
    assert record.protocol.samples == record.samples == 500
    assert record.sampling.keys() == SamplingSettings.model_fields.keys()
    assert (record.sampling["chunk_size"], record.sampling["timing_repetitions"]) == (1000, 3)
    assert sum(record.mode_histogram) / 500 == record.scores["high_quality"].value
    names = {"fd_points", "precision", "recall", "density", "coverage", "modes", "mode_kl", "high_quality"}
    assert set(record.scores) | set(record.missing) == names
    assert len(record.dataset.fingerprint) == len(record.model.source_sha256) == 64
    assert record.environment["packages"]["torch"] == torch.__version__.partition("+")[0]


def test_a_second_run_trains_nothing_and_scores_the_same_to_the_last_digit(first):
    record, out = first
    said = []
    again = go(out, say=said.append)
    assert any("nothing is trained" in line for line in said)
    assert again.id != record.id
    assert again.training.run_id == record.id
    assert again.samples_sha256 == record.samples_sha256
    assert {name: score.value for name, score in again.scores.items()} == {
        name: score.value for name, score in record.scores.items()
    }


def test_another_seed_gives_other_samples(first):
    record, out = first
    assert go(out, seed=1).samples_sha256 != record.samples_sha256


def test_results_load_as_a_frame_with_a_row_a_run(first):
    record, out = first
    frame = tb.load_results(out)
    row = frame[frame["id"] == record.id].iloc[0]
    assert row["fd_points"] == record.scores["fd_points"].value
    assert row["nfe"] == 4


def test_a_sampler_uses_the_training_run_of_its_model(tmp_path):
    ddpm = go(tmp_path, model="ddpm")
    ddim = go(tmp_path, model="ddim", settings={"sampling_steps": 5})
    assert ddim.training.run_id == ddpm.id
    assert (ddpm.speed.nfe, ddim.speed.nfe) == (10, 5)


def test_real_data_is_the_held_out_split(tmp_path):
    record = go(tmp_path, model="real-data", samples=2000, budget=None)
    assert record.model.reference
    assert record.scores["high_quality"].value > 0.99
    assert record.scores["modes"].value == 25
    assert record.speed is None
    assert record.training is None


def test_more_real_samples_than_there_are_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(tb.UsageError, match="--samples 500"):
        tb.run(model="real-data", dataset="digits", samples=501, out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("bugdet", "Did you mean 'budget'?"),
        ("steps", "'steps' is a setting, not an option: write settings={'steps': …}"),
        ("batch_size", "write settings={'batch_size': …}"),
    ],
)
def test_an_option_that_there_is_not_is_wrong_usage(option, message, tmp_path):
    with fails(message, kind=tb.UsageError):
        tb.run(model="ddgan", dataset="gaussians25", out=tmp_path, **{option: 2})
    with fails("unknown option", kind=tb.UsageError):
        tb.evaluate(np.zeros((3, 2), np.float32), dataset="gaussians25", out=tmp_path, budget="1s")
    assert not list(tmp_path.iterdir())


def test_settings_that_the_model_refuses_are_wrong_usage_and_leave_nothing(tmp_path):
    with pytest.raises(tb.UsageError, match="model 'ddgan' cannot be built with these settings"):
        tb.run(model="ddgan", dataset="digits", settings={"channels": 2**60}, out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["a/b", "../../evil/x", "/x", "..", ".", "", "a\\b", "a\nb", "\x1b[31m", "x" * 300, "é" * 101]
)
def test_a_name_that_no_folder_can_have_is_wrong_usage(name, tmp_path):
    with pytest.raises(tb.UsageError, match="cannot be a name"):
        tb.evaluate(np.zeros((3, 2), np.float32), dataset="gaussians25", name=name, out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_sampling_alone_gives_the_samples_that_a_run_measures(first, tmp_path):
    record, out = first
    options = {
        "settings": {key: value for key, value in FAST.items() if key != "diffusion_steps"},
        "budget": BUDGET,
        "out": out,
    }
    facts = {"samples": 500, "progress": False, "device": "cpu", **options}
    path = tb.sample(tmp_path / "s.npz", model="ddgan", dataset="gaussians25", **facts)
    points = np.load(path)["points"]
    again = tb.evaluate(path, dataset="gaussians25", out=tmp_path, progress=False, device="cpu")
    assert points.shape == (500, 2)
    assert again.samples_sha256 == record.samples_sha256
    assert again.sampling == {}
    assert again.scores["fd_points"].value == record.scores["fd_points"].value
    array = tb.evaluate(points, dataset="gaussians25", out=tmp_path, progress=False, device="cpu", real=True)
    assert array.samples_sha256 == record.samples_sha256
    assert (array.model.reference, again.model.reference) == (True, False)


def test_a_tensor_is_measured_wherever_it_comes_from(tmp_path):
    tb.register_protocol("quick")(Protocol("quick", "points", 300, metrics=("fd",), quantisation="none"))
    points = torch.randn(300, 2)
    options = {"dataset": "gaussians25", "protocol": "quick", "out": tmp_path, "progress": False, "device": "cpu"}
    plain = tb.evaluate(points.numpy(), **options)
    for each in (points, points.clone().requires_grad_(), *([points.cuda()] if torch.cuda.is_available() else [])):
        assert tb.evaluate(each, **options).samples_sha256 == plain.samples_sha256


def test_sampling_without_a_trained_model_says_what_to_do(tmp_path):
    with pytest.raises(tb.TrilemmaError, match="train it first, or give --checkpoint"):
        tb.sample(tmp_path / "s.npz", model="ddgan", dataset="gaussians25", out=tmp_path, device="cpu")


def test_a_checkpoint_of_another_model_is_refused(first, tmp_path):
    record, out = first
    path = folder_of(record, out) / "checkpoint.safetensors"
    with pytest.raises(tb.TrilemmaError, match="is of model 'ddgan', not 'gan'"):
        go(tmp_path, model="gan", checkpoint=path)
    with pytest.raises(tb.TrilemmaError, match=r"makes samples of shape \(2,\).*'digits'"):
        go(tmp_path, dataset="digits", checkpoint=path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(tb.TrilemmaError, match="does not fit this model's settings"):
        go(tmp_path, checkpoint=path, settings={"hidden": 17})


def test_training_from_a_checkpoint_is_refused(first, tmp_path):
    """Nothing would be trained, nor would the checkpoint be where its path says."""
    record, out = first
    path = folder_of(record, out) / "checkpoint.safetensors"
    with fails("is trained already", kind=tb.UsageError):
        tb.train(model="ddgan", dataset="gaussians25", checkpoint=path, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_a_checkpoint_cut_in_half_is_refused(first, tmp_path, keep):
    record, out = first
    content = (folder_of(record, out) / "checkpoint.safetensors").read_bytes()
    path = tmp_path / "half.safetensors"
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(tb.TrilemmaError, match="damaged"):
        go(tmp_path, checkpoint=path)


def test_a_checkpoint_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(tb.TrilemmaError, match=r"absent\.safetensors does not exist"):
        go(tmp_path, checkpoint=tmp_path / "absent.safetensors")


def test_samples_of_another_size_are_refused_with_both_sizes(tmp_path):
    images = np.zeros((10, 16, 16, 1), dtype=np.uint8)
    with pytest.raises(tb.TrilemmaError, match=r"1×16×16.*digits.*1×8×8"):
        tb.evaluate(images, dataset="digits", out=tmp_path, progress=False)


def test_fewer_samples_than_a_metric_needs_leaves_a_reason_not_a_number(tmp_path):
    with pytest.warns(UserWarning, match="not measured: recall: needs at least 4 generated samples, got 3"):
        record = tb.evaluate(np.zeros((3, 2), dtype=np.float32), dataset="gaussians25", out=tmp_path, progress=False)
    assert "recall" in record.missing
    assert "recall" not in record.scores


def test_images_of_digits_score_as_real_ones(tmp_path):
    from trilemma_bench.datasets import open_dataset

    images = open_dataset("digits").load("test").samples.permute(0, 2, 3, 1).numpy()
    record = tb.evaluate(images, dataset="digits", out=tmp_path, progress=False, device="cpu")
    real = go(tmp_path, model="real-data", dataset="digits", samples=None, budget=None)
    for name in ("fd_digits-cnn", "precision", "recall"):
        assert record.scores[name].value == pytest.approx(real.scores[name].value, abs=1e-9)


def test_a_record_is_valid_json_with_the_promised_fields(first):
    record, _ = first
    data = json.loads(record.to_json())
    assert set(data) >= PROMISED["record"]
    assert set(data["model"]) >= PROMISED["model"]
    assert set(data["speed"]) >= PROMISED["speed"]


def test_a_run_id_is_never_used_twice(tmp_path):
    options = Options("real-data", "gaussians25", samples=10, out=tmp_path, progress=False, say=lambda text: None)
    ids = {pipeline.run(options).id for _ in range(3)}
    assert len(ids) == 3


def test_a_record_says_how_many_runs_its_process_had_begun_before(tmp_path):
    """Failed ones count: they, too, leave something in memory."""
    first = go(tmp_path, model="real-data", samples=10, budget=None)
    with pytest.raises(tb.TrilemmaError):
        go(tmp_path, settings={"lr_generator": 1e30})
    assert go(tmp_path, model="real-data", samples=10, budget=None).runs_before == first.runs_before + 2


def test_one_reference_needs_no_list(tmp_path):
    with fails("gone.safetensors does not exist"):
        tb.evaluate(
            np.zeros((9, 2)), dataset="gaussians25", references=str(tmp_path / "gone.safetensors"), out=tmp_path
        )


def test_the_id_of_a_run_tells_its_settings(tmp_path):
    """Not its model's name alone, as two runs of one second would otherwise show."""
    ids = set()
    for hidden in (8, 9):
        job = prepare(Options("vae", "gaussians25", overrides={"hidden": hidden}, out=tmp_path, device="cpu"))
        open_folder(job)
        ids.add(job.id.split("-")[2])
    assert len(ids) == 2
