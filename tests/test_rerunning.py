"""A record is enough to do its run again; what keeps it from being the same is said before, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call, refuses, succeeds
from inputs import fails, images

import trilemma_bench as tb
from trilemma_bench import config
from trilemma_bench.environment import command_line
from trilemma_bench.errors import UsageError
from trilemma_bench.record import read_record
from trilemma_bench.results import find_records
from trilemma_bench.settings import Budget

ROOT = Path(__file__).parent.parent
QUICK = {"timing_repetitions": 3, "timing_batch": 4, "timing_seconds": 0.1}
TINY = {"hidden": 16, "layers": 1, "batch_size": 32, "diffusion_steps": 10, "sampling_steps": 3, **QUICK}
SAME = {"device": "cpu", "progress": False}


def run(out, model="ddim", dataset="gaussians25", settings=TINY, **options):
    facts = {"samples": 300, "budget": "1kimg", "seed": 3, **SAME, **options}
    record = tb.run(model=model, dataset=dataset, settings=settings, out=out, **facts)
    return out / record.place


def again(folder, out, **options):
    said = []
    found = tb.rerun(folder, out=out, say=said.append, **SAME, **options)
    return found, said


def changed(folder, target, **changes):
    """A copy of the record in `folder` that says something else; 'table.name' is inside `table`."""
    data = json.loads((folder / "record.json").read_text())
    for key, value in changes.items():
        *tables, name = key.split("__")
        part = data
        for table in tables:
            part = part[table]
        part[name] = value
    target.mkdir()
    (target / "record.json").write_text(json.dumps(data))
    return target


class Started(Exception):
    """In place of a run."""


def start(*_):
    raise Started


def values(record):
    return {name: score.value for name, score in record.scores.items()}


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    return run(tmp_path_factory.mktemp("points"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    settings = {"channels": 8, "latent_dim": 8, "batch_size": 32, **QUICK}
    return run(tmp_path_factory.mktemp("digits"), "vae", "digits", settings, samples=100, budget="0.5kimg")


@pytest.mark.parametrize("which", ["points", "digits"])
def test_it_is_trained_anew_and_scores_the_same_to_the_last_digit(which, tmp_path, request):
    """Also where the finished run lies in the same folder."""
    folder = request.getfixturevalue(which)
    old = read_record(folder / "record.json")
    found, said = again(folder, folder.parents[2])
    new = found.b.record
    assert found.a.record.id == old.id
    assert new.training.run_id == new.id != old.id
    assert (new.training.digest, new.training.settings) == (old.training.digest, old.training.settings)
    assert (new.model, new.sampling, new.protocol, new.seed) == (old.model, old.sampling, old.protocol, old.seed)
    assert new.samples_sha256 == old.samples_sha256
    assert values(new) == values(old)
    assert said[-1] == "the samples are the same, bit for bit"
    assert not [line for line in said if line.startswith(("differs:", "note:")) and "busy machine" not in line]
    assert read_record(folder.parents[2] / new.place / "record.json").id == new.id


def test_a_changed_recipe_changes_nothing(points, tmp_path, monkeypatch):
    recipes = tmp_path / "configs" / "gaussians25"
    recipes.mkdir(parents=True)
    (recipes / "ddim.toml").write_text(
        "[model]\nhidden = 24\neta = 0.5\n[training]\nema_decay = 0.5\n[sampling]\nchunk_size = 7\n"
    )
    monkeypatch.setattr(config, "configs_dir", lambda: tmp_path / "configs")
    found, _ = again(points, tmp_path / "out")
    assert found.b.record.samples_sha256 == found.a.record.samples_sha256


def test_a_setting_that_the_record_does_not_have_is_at_its_default_and_named(points, tmp_path, monkeypatch):
    data = json.loads((points / "record.json").read_text())
    del data["model"]["settings"]["eta"]
    old = changed(points, tmp_path / "old", model__settings=data["model"]["settings"], sampling={})
    recipes = tmp_path / "configs" / "gaussians25"
    recipes.mkdir(parents=True)
    (recipes / "ddim.toml").write_text("[model]\neta = 0.5\n")
    monkeypatch.setattr(config, "configs_dir", lambda: tmp_path / "configs")
    found, said = again(old, tmp_path / "out", checkpoint=points / "checkpoint.safetensors")
    assert found.b.record.model.settings["eta"] == 0.0
    (line,) = [line for line in said if "at their defaults" in line]
    assert "eta = 0.0" in line
    assert "chunk_size = 1000" in line


def test_a_checkpoint_is_sampled_and_measured_without_training(points, tmp_path):
    found, said = again(points / "record.json", tmp_path, checkpoint=points / "checkpoint.safetensors")
    assert found.b.record.training == found.a.record.training
    assert values(found.b.record) == values(found.a.record)
    assert not any("checkpoint" in line for line in said)
    other = run(tmp_path / "other", seed=4)
    _, said = again(points, tmp_path, checkpoint=other / "checkpoint.safetensors")
    assert any("is not the checkpoint of the record" in line for line in said)
    assert said[-1] == "the samples are others than those of the record"


def test_what_is_known_to_differ_is_said_before_it_trains(points, tmp_path, monkeypatch):
    code = {"model__source_sha256": "ab" * 32, "environment__commit": "0123456789ab"}
    there = {
        "speed__device": "NVIDIA H100",
        "training__device": "4 × cuda",
        "environment__packages": {"torch": "2.6.0"},
    }
    old = changed(points, tmp_path / "old", **code, **there)
    monkeypatch.setattr("trilemma_bench.pipeline.run", start)
    said = []
    with pytest.raises(Started):
        tb.rerun(old, out=tmp_path / "out", say=said.append, **SAME)
    differing = "\n".join(line for line in said if line.startswith("differs: "))
    version = torch.__version__.partition("+")[0]
    assert "the model's code is " in differing
    for part in ("was abababababab", "was 0123456789ab", "was NVIDIA H100", "processes is 1, was 4"):
        assert part in differing
    assert f"torch is {version}, was 2.6.0" in differing
    assert "scipy is " in differing
    assert "was not recorded" in differing


@pytest.mark.parametrize(
    ("commit", "but"), [("0123456789ab", ""), ("0123456789ab+", ", but for changes that were not")]
)
def test_other_code_of_the_harness_has_a_way_back(commit, but, points, tmp_path, monkeypatch):
    here = json.loads((points / "record.json").read_text())["environment"]
    old = changed(points, tmp_path / "old", environment={**here, "commit": commit, "source_sha256": "ab" * 32})
    monkeypatch.setattr("trilemma_bench.pipeline.run", start)
    said = []
    with pytest.raises(Started):
        tb.rerun(old, out=tmp_path / "out", say=said.append, **SAME)
    (note,) = [line for line in said if "git checkout" in line]
    assert note.startswith("note: `git checkout 0123456789ab` ")
    assert note.endswith("has the code of then") if not but else but in note


def test_a_budget_of_time_is_said_to_give_another_number_of_steps(points, tmp_path):
    training = json.loads((points / "record.json").read_text())["training"]
    settings = {**training["settings"], "budget": "0.2s"}
    old = changed(points, tmp_path / "old", training={**training, "settings": settings, "budget": "0.2s"})
    found, said = again(old, tmp_path / "out")
    assert (
        "note: in 0.2s it saw 1,024 images in 32 steps, here that may be another number; --same-images trains as many"
        in said
    )
    assert found.b.record.training.budget == "0.2s"
    found, said = again(old, tmp_path / "out", same_images=True)
    assert (found.b.record.training.images, found.b.record.training.steps) == (1024, 32)
    assert any("the learning rate follows the images now" in line for line in said)


@pytest.mark.parametrize("count", [32, 1056, 33600, 100_000_032])
def test_a_number_of_images_is_a_budget_to_the_last_one(count):
    budget = Budget.parse(f"{count}img")
    assert budget.progress(count, 0) == 1
    assert budget.progress(count - 1, 0) < 1


def test_the_weights_of_another_run_are_trained_again_with_a_word_of_caution(points, tmp_path):
    sampled = run(tmp_path / "sampled", seed=5, checkpoint=points / "checkpoint.safetensors")
    found, said = again(sampled, tmp_path / "out")
    assert any(f"sampled what run {points.name} trained" in line for line in said)
    assert found.b.record.training.run_id == found.b.record.id


def test_real_data_is_drawn_again(tmp_path):
    folder = run(tmp_path / "old", "real-data", settings={}, samples=500, budget=None)
    _, said = again(folder, tmp_path / "new")
    assert said == [
        "note: real data: nothing is trained, held-out samples are drawn and measured again",
        "the samples are the same, bit for bit",
    ]
    with fails("--same-images", "nothing would be trained", kind=UsageError):
        again(folder, tmp_path / "new", same_images=True)


def test_own_images_are_found_where_they_are_said_to_lie(tmp_path):
    np.savez(tmp_path / "own.npz", images=images(100, 8, 1))
    settings = {"channels": 8, "latent_dim": 8, "batch_size": 32, **QUICK}
    folder = run(tmp_path / "old", "vae", f"npz:{tmp_path / 'own.npz'}", settings, samples=60, budget="0.1kimg")
    with fails("dataset 'npz-own.npz-", "--dataset folder:PATH or npz:PATH", kind=UsageError):
        again(folder, tmp_path / "new")
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "own.npz").rename(tmp_path / "moved" / "own.npz")
    found, _ = again(folder, tmp_path / "new", dataset=f"npz:{moved}")
    assert values(found.b.record) == values(found.a.record)
    np.savez(moved, images=images(100, 8, 1))
    with fails("is not the data of the record", kind=UsageError):
        again(folder, tmp_path / "new", dataset=f"npz:{moved}")


def test_a_model_of_a_plugin_file_needs_the_file(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("from baselines.vae import VAE\n\n\nclass Mine(VAE):\n    pass\n")
    folder = run(tmp_path / "old", f"{plugin}:Mine", settings={"hidden": 16, "batch_size": 32, **QUICK})
    with fails("model 'Mine' of the record is not here: --plugin mine.py", kind=UsageError):
        again(folder, tmp_path / "new")
    found, _ = again(folder, tmp_path / "new", plugins=plugin)
    assert found.b.record.model == found.a.record.model
    assert values(found.b.record) == values(found.a.record)


def test_a_reference_that_was_a_file_is_asked_for(digits, tmp_path):
    file = tmp_path / "digits.safetensors"
    arguments = ["--dataset", "digits", "--extractor", "digits-cnn", "--kind", "features", "--to", file]
    succeeds("reference", "export", *arguments, "--device", "cpu")
    old = tmp_path / "old"
    settings = {"channels": 8, "latent_dim": 8, "batch_size": 32, **QUICK}
    folder = run(old, "vae", "digits", settings, samples=100, budget="0.5kimg", references=[file])
    with fails("against files of digits-cnn: give them with --reference FILE", kind=UsageError):
        again(folder, tmp_path / "new")
    found, _ = again(folder, tmp_path / "new", references=file)
    assert values(found.b.record) == values(found.a.record)
    with fails("would not be measured as the record was", "reference_split: given file, not train", kind=UsageError):
        again(digits, tmp_path / "new", references=file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "failed", "error": "loss is NaN", "command": "trilemma-bench run"}, "is failed, without scores"),
        ({"model__plugin": "", "model__settings": {"samples": "mine.npz"}}, "made elsewhere (mine.npz): `tri"),
        ({"model__name": "foo", "model__plugin": "foos"}, "model 'foo' of the record is not here: install foos"),
        ({"dataset__fingerprint": "cd" * 32}, "not cdcdcdcdcdcd…"),
        ({"protocol__k_precision_recall": 4}, "k_precision_recall: 3, not 4"),
        ({"protocol__name": "mine"}, "unknown protocol 'mine'"),
        ({"schema": "other"}, "schema 'other' is not the known"),
        ({"model__settings__latent": 8, "environment__commit": "0123abc"}, "latent: only the code of its time, commit"),
        ({"sampling__speed": 8, "environment__commit": None}, "speed: only the code of its time can"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_again_is_refused_in_one_line(changes, words, points, tmp_path):
    old = changed(points, tmp_path / "old", **changes)
    with fails(words, kind=UsageError):
        again(old, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_record_and_an_option_that_there_is_not(points, tmp_path):
    with fails("does not exist: name a run's folder", kind=UsageError):
        again(tmp_path, tmp_path / "out")
    with fails("unknown option 'seed'", kind=UsageError):
        again(points, tmp_path / "out", seed=1)


def test_committed_records_can_be_done_again_or_it_is_said_why_not(monkeypatch):
    """Up to where the run would start: one of each model on data that come with a library."""
    monkeypatch.setattr("trilemma_bench.pipeline.run", start)
    rows = {record.model.name: path for path, record in find_records([ROOT / "results" / "digits"]).records}
    refusals = [refusal for path in rows.values() if (refusal := refusal_of(path))]
    assert len(rows) - len(refusals) >= 9
    assert all("no longer has settings that the record has" in refusal for refusal in refusals)


def refusal_of(path):
    try:
        tb.rerun(path, say=lambda line: None, **SAME)
    except Started:
        return ""
    except UsageError as error:
        return str(error)


def test_the_command_ends_with_the_comparison_and_its_record_says_how_to_do_it_again(points, tmp_path, monkeypatch):
    arguments = ["rerun", str(points), "--out", str(tmp_path), "--device", "cpu", "--quiet"]
    monkeypatch.setattr("sys.argv", ["/usr/bin/trilemma-bench", *arguments])
    result = succeeds(*arguments)
    (file,) = tmp_path.rglob("record.json")
    assert str(tb.compare(points, file)) in result.stdout
    assert result.stdout.splitlines()[-1] == str(file.parent)
    assert read_record(file).command == f"trilemma-bench {' '.join(arguments)}"


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("/usr/bin/trilemma-bench", "trilemma-bench rerun 'my runs/x'"),
        ("/lib/trilemma_bench/__main__.py", "trilemma-bench rerun 'my runs/x'"),
        ("/home/me/study.py", ""),
    ],
)
def test_the_command_is_known_however_it_was_called(program, command, monkeypatch):
    """By its name, or as `python -m trilemma_bench`; a script of one's own is no command."""
    monkeypatch.setattr("sys.argv", [program, "rerun", "my runs/x"])
    assert command_line() == command


def test_a_limit_is_checked_before_and_after(points, tmp_path):
    rerun = ["rerun", points, "--out", tmp_path / "out", "--device", "cpu", "--quiet"]
    refuses(2, "unknown score 'fid'", *rerun, "--fail-if", "fid>0")
    assert not (tmp_path / "out").exists()
    weights = ["--checkpoint", points / "checkpoint.safetensors"]
    succeeds(*rerun, *weights, "--fail-if", "fd_points>+0.5")
    broken = call(*rerun, *weights, "--fail-if", "fd_points>-0.5", "--fail-on", "value")
    assert broken.exit_code == 1
    assert "fd_points>-0.5: B − A is 0" in broken.stderr
