"""A sweep is one training run and a record for each value of the knob."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import call, refuses

from trilemma_bench.results import find_records

TINY = [
    "--dataset", "gaussians25", "--budget", "0.5kimg", "--samples", "40", "--quiet", "--device", "cpu",
    "--set", "hidden=8", "--set", "layers=1", "--set", "diffusion_steps=20", "--set", "batch_size=50",
    "--set", "timing_repetitions=3", "--set", "timing_batch=4",
]  # fmt: skip


def sweep(out, *arguments):
    return call("sweep", *TINY, "--out", out, *arguments)


def test_one_checkpoint_gives_a_row_for_each_number_of_steps(tmp_path):
    result = sweep(tmp_path, "--model", "ddim", "--steps", "2,5,10")
    assert result.exit_code == 0, result.output
    records = [record for _, record in find_records([tmp_path]).records]
    assert sorted(record.speed.nfe for record in records) == [2, 5, 10]
    assert len({record.training.run_id for record in records}) == 1
    assert all(f"{steps} steps" in result.output for steps in (2, 5, 10))
    assert {tmp_path / record.place for record in records} == set(map(Path, result.stdout.splitlines()[-3:]))


def test_a_sweep_goes_on_with_what_was_not_done_and_not_with_another_checkpoints_samples(tmp_path):
    sweep(tmp_path, "--model", "ddim", "--steps", "2,5")
    result = sweep(tmp_path, "--model", "ddim", "--steps", "2,5,10")
    assert result.output.count("done before") == 2
    checkpoint = next(tmp_path.rglob("checkpoint.safetensors"))
    given = sweep(tmp_path, "--model", "ddim", "--steps", "2", "--checkpoint", checkpoint)
    assert "done before" not in given.output
    assert sorted(record.speed.nfe for _, record in find_records([tmp_path]).records) == [2, 2, 5, 10]


def test_any_sampling_setting_can_be_varied(tmp_path):
    result = sweep(tmp_path, "--model", "ddim", "--vary", "eta=0,1", "--set", "sampling_steps=4")
    assert result.exit_code == 0, result.output
    settings = [json.loads(path.read_text())["model"]["settings"] for path in tmp_path.rglob("record.json")]
    assert sorted(each["eta"] for each in settings) == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "ddim"], "say what to sweep over"),
        (["--model", "ddim", "--steps", "2", "--vary", "eta=1"], "say what to sweep over"),
        (["--model", "ddim", "--steps", "2,,3"], "expected KEY=VALUE"),
        (["--model", "ddim", "--vary", "eta"], "expected KEY=VALUE"),
        (["--model", "ddim", "--vary", "hidden=8,16"], "sweep over eta, guidance, sampling_steps, spacing"),
        (["--model", "ddim", "--steps", "4,999"], "sampling_steps = 999"),
    ],
)
def test_a_wrong_sweep_is_one_line_and_does_nothing(arguments, message, tmp_path):
    result = sweep(tmp_path, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_knob_cannot_be_swept(tmp_path):
    refuses(2, "nothing to sweep", "sweep", "--model", "vae", "--dataset", "digits", "--steps", "4", "--out", tmp_path)
