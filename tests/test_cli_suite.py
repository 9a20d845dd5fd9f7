"""Suites from the command line: what is checked first, what a failure costs, which runs are done."""

from __future__ import annotations

import shutil

import pytest
from commands import call, refuses, succeeds

from trilemma_bench.environment import environment
from trilemma_bench.record import read_record
from trilemma_bench.results import find_records, load_results


def test_weights_that_a_suites_last_run_lacks_are_found_before_its_first_starts(tmp_path):
    """All of them in one line: Inception's and VGG16's."""
    suite = tmp_path / "mine.toml"
    suite.write_text(
        '[[run]]\nmodel = "real-data"\ndataset = "gaussians25"\nsamples = 100\n'
        '[[run]]\nmodel = "real-data"\ndataset = "cifar10"\nprotocol = "paper"\n'
    )
    result = call("suite", suite, "--out", tmp_path / "out", "--device", "cpu", "--weights-dir", tmp_path / "none")
    assert result.exit_code == 1
    assert "'inception'" in result.stderr
    assert "'vgg16'" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[[run]]\nmodel = "gan"\ndataset = "digits"\nseeds = [0]',
            "unknown key of a run in {}: 'seeds'. Did you mean 'seed'?",
        ),
        (
            '[defaults]\n[[run]]\nmodel = "gan"\ndataset = "digits"',
            "unknown key of a suite in {}: 'defaults'. Available: run, title",
        ),
        (
            '[[run]]\nmodel = "gan"\ndataset = "digits"\n[[run]]\nmodel = "vae"',
            "suite {}: run 2: dataset: Field required",
        ),
        ('title = "nothing"', "suite {}: run: Field required"),
    ],
)
def test_what_is_wrong_in_a_suite_is_named(text, words, tmp_path):
    suite = tmp_path / "mine.toml"
    suite.write_text(text)
    result = call("suite", suite)
    assert result.exit_code == 2
    assert words.format(suite) in result.stderr


def test_a_suite_goes_on_after_a_failure_and_says_so(tmp_path):
    suite = tmp_path / "mine.toml"
    suite.write_text(
        '[[run]]\nmodel = "ddgan"\ndataset = "gaussians25"\nbudget = "1kimg"\n'
        "set = {hidden = 16, lr_generator = 1e30}\n"
        '[[run]]\nmodel = "real-data"\ndataset = "gaussians25"\nsamples = 100\n'
    )
    result = call("suite", suite, "--out", tmp_path / "out", "--quiet", "--device", "cpu")
    assert result.exit_code == 1
    assert "1 of 2 runs failed: ddgan on gaussians25" in result.stderr
    assert "real-data" in result.stdout
    assert (tmp_path / "out" / "report" / "index.html").is_file()


BROKEN = """
from trilemma_bench import GenerativeModel, register_model

@register_model("broken-plugin")
class Broken(GenerativeModel):
    def sample(self, count, rng):
        return [][0]
"""


def test_a_suite_goes_on_after_a_plugins_mistake(tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    suite = tmp_path / "mine.toml"
    runs = (
        f'[[run]]\nmodel = "{name}"\ndataset = "gaussians25"\nsamples = 100\n'
        for name in ("broken-plugin", "real-data")
    )
    suite.write_text("".join(runs))
    options = "--plugin", tmp_path / "broken.py", "--out", tmp_path / "out", "--quiet", "--device", "cpu"
    result = call("suite", suite, *options)
    assert result.exit_code == 1
    assert "1 of 2 runs failed: broken-plugin on gaussians25: IndexError: list index out of range" in result.stderr
    assert "real-data" in result.stdout


def test_an_interrupted_suite_ends_with_the_run_that_it_was_at(tmp_path, monkeypatch):
    def interrupt(trainer):
        trainer._stop = True
        return False

    monkeypatch.setattr("trilemma_bench.training.trainer.Trainer._tick", interrupt)
    suite = tmp_path / "mine.toml"
    suite.write_text(
        '[[run]]\nmodel = "vae"\ndataset = "gaussians25"\nbudget = "10kimg"\nset = {hidden = 8}\n'
        '[[run]]\nmodel = "real-data"\ndataset = "gaussians25"\nsamples = 100\n'
    )
    result = call("suite", suite, "--out", tmp_path / "out", "--quiet", "--device", "cpu")
    assert result.exit_code == 1
    assert "interrupted after 1 step;" in result.stderr
    assert "real-data" not in result.stdout


def test_a_suite_of_several_seeds_trains_all_with_one_before_the_next(tmp_path):
    suite = tmp_path / "mine.toml"
    tiny = 'dataset = "gaussians25"\nsamples = 200\nseed = 7\n'
    trained = [f'[[run]]\nmodel = "{name}"\nbudget = "1kimg"\nset = {{hidden = 8}}\n{tiny}' for name in ("vae", "gan")]
    suite.write_text(f'[[run]]\nmodel = "real-data"\n{tiny}' + "".join(trained))
    result = succeeds("suite", suite, "--seeds", "3,1", "--out", tmp_path / "out", "--quiet", "--device", "cpu")
    said = [line.partition("] ")[2] for line in result.output.splitlines() if line.startswith("[")]
    runs = [("real-data", 3), ("vae", 3), ("gan", 3), ("vae", 1), ("gan", 1)]
    assert said == [f"{name} on gaussians25, seed {seed}" for name, seed in runs]
    records = [record for _, record in find_records([tmp_path / "out"]).records]
    assert sorted((record.model.name, record.seed) for record in records) == sorted(runs)


def _records(out):
    return [record for _, record in find_records([out]).records]


TINY = """
[[run]]
model = "real-data"
dataset = "gaussians25"
samples = 200
[[run]]
model = "ddim"
dataset = "gaussians25"
samples = 200
budget = "1kimg"
set = {hidden = 8, sampling_steps = 2}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a suite that was run to its end."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "mine.toml").write_text(TINY)
    succeeds("suite", folder / "mine.toml", "--out", folder / "out", "--quiet", "--device", "cpu")
    return folder


@pytest.fixture
def again(done, tmp_path):
    """Runs a suite of this text where the other was run before; what it says, and all records that there are then."""
    shutil.copytree(done / "out", tmp_path / "out")

    def run(text):
        (tmp_path / "mine.toml").write_text(text)
        command = ("suite", tmp_path / "mine.toml", "--out", tmp_path / "out", "--quiet", "--device", "cpu")
        return succeeds(*command).output, _records(tmp_path / "out")

    return run


def test_a_suite_that_was_done_is_not_done_again_and_is_reported_whole(done, again, tmp_path):
    said, records = again(TINY)
    assert records == _records(done / "out")
    for record in records:
        assert f"done before: {tmp_path / 'out' / record.place}\n" in said
    assert len(load_results(tmp_path / "out")) == 2
    assert "real-data" in said.rpartition("done before")[2]
    assert "ddim (2 steps)" in said.rpartition("done before")[2]


@pytest.mark.parametrize(
    ("old", "new"),
    [("sampling_steps = 2", "sampling_steps = 3"), ('budget = "1kimg"', 'budget = "1kimg"\nseed = 1'), ("200", "201")],
)
def test_a_suite_does_what_is_asked_otherwise_than_it_was_done(old, new, again):
    _, records = again(new.join(TINY.rsplit(old, 1)))
    assert sorted(record.model.name for record in records) == ["ddim", "ddim", "real-data"]


@pytest.mark.parametrize(
    "fact",
    [{"source_sha256": "0" * 64}, {"packages": {"torch": "0.4"}}, {"cpu": "another one"}],
    ids=lambda f: next(iter(f)),
)
def test_a_suite_is_done_again_by_other_code_and_on_another_machine(fact, again, monkeypatch):
    here = environment()
    monkeypatch.setattr("trilemma_bench.finished.environment", lambda: here | fact)
    assert len(again(TINY)[1]) == 4


def test_another_commit_with_the_same_code_and_other_memory_do_not_count(done, again, monkeypatch):
    here = environment() | {"commit": "0123456789ab", "memory_bytes": 1}
    monkeypatch.setattr("trilemma_bench.finished.environment", lambda: here)
    assert again(TINY)[1] == _records(done / "out")


def test_a_run_that_failed_is_tried_again(again, tmp_path):
    path = next((tmp_path / "out" / "gaussians25" / "ddim").glob("*/record.json"))
    record = read_record(path)
    path.write_text(record.model_copy(update={"status": "failed", "error": "the lights went out"}).to_json())
    said, records = again(TINY)
    assert said.count("done before") == 1
    assert sorted(record.status for record in records) == ["complete", "complete", "failed"]


def test_a_suite_does_the_runs_of_some_of_its_models(tmp_path):
    suite = tmp_path / "mine.toml"
    suite.write_text(
        "".join(
            f'[[run]]\nmodel = "{name}"\ndataset = "{data}"\nsamples = 200\nbudget = "1kimg"\n'
            for data in ("digits", "gaussians25")
            for name in ("real-data", "vae")
        )
    )
    result = succeeds("suite", suite, "--only", "real-data", "--out", tmp_path / "out", "--quiet", "--device", "cpu")
    said = [line for line in result.output.splitlines() if line.startswith("[")]
    assert said == ["[1/2] real-data on digits, seed 0", "[2/2] real-data on gaussians25, seed 0"]
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert page.count('"samples":{"uri":"data:image/png') == 2
    refuses(2, "Did you mean 'vae'?", "suite", suite, "--only", "vea")


@pytest.mark.parametrize("seeds", ["", "a", "0,,1", "1,1", "-1"])
def test_seeds_that_are_none_are_refused(seeds):
    for command in (("suite", "demo"), ("reproduce", "ddgan-paper")):
        refuses(2, "Invalid value for '--seeds'", *command, "--seeds", seeds)


def test_a_typo_in_a_suites_last_run_is_found_before_its_first_starts(tmp_path):
    suite = tmp_path / "mine.toml"
    suite.write_text('[[run]]\nmodel = "vae"\ndataset = "digits"\n[[run]]\nmodel = "vea"\ndataset = "digits"\n')
    refuses(2, "Did you mean 'vae'?", "suite", suite, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "run"), ("[[run]]\nmodel='vae'\n", "dataset"), ("[[rnu]]\n", "run")],
)
def test_a_wrong_suite_file_is_named(tmp_path, text, message):
    suite = tmp_path / "bad.toml"
    suite.write_text(text)
    refuses(2, message, "suite", suite)
