"""The cache's files: never believed blindly, never in the way, written by one process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from filelock import FileLock
from toys import SIZE, Counting, Toy, cached_file, pixels, replace

from trilemma_bench.features import cache
from trilemma_bench.features.reference import DatasetReference
from trilemma_bench.metrics.frechet import moments
from trilemma_bench.metrics.search import nearest_distances


@pytest.fixture
def counting():
    return Counting.of_toys()


@pytest.mark.parametrize("kind", ["features", "moments", "nearest"])
@pytest.mark.parametrize("damage", ["cut", "bit", "header", "text", "empty"])
def test_a_damaged_file_is_made_again_with_a_warning(counting, kind, damage):
    def ask():
        found = DatasetReference(Toy(), "train", counting)
        return {"features": lambda: found.features, "moments": lambda: found.moments.covariance}.get(
            kind, lambda: found.nearest(3)
        )()

    expected = ask().clone()
    path = cached_file(kind)
    whole = path.read_bytes()
    flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
    contents = {
        "cut": whole[: len(whole) // 2],
        "bit": flipped,
        "header": whole.replace(b'"split":"train"', b'"split":"tests"'),
        "text": b"not this",
        "empty": b"",
    }
    assert contents[damage] != whole
    replace(path, contents[damage])
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(ask(), expected)
    assert torch.equal(ask(), expected)
    assert path.read_bytes()[-8:] == whole[-8:]
    assert counting.seen == (2 * SIZE if kind == "features" else SIZE)


def test_another_files_facts_are_not_believed(counting):
    _ = DatasetReference(Toy(seed=9), "train", counting).features
    wanted = DatasetReference(Toy(), "train", counting)
    cached_file("features").rename(cache.path_of(wanted.facts("features")))
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(wanted.features, pixels())


def test_no_place_for_the_cache_is_a_warning(counting, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRILEMMA_CACHE_DIR", str(tmp_path / "file"))
    found = DatasetReference(Toy(), "train", counting)
    with pytest.warns(UserWarning, match="not cached") as first:
        assert torch.equal(found.moments.mean, moments(pixels()).mean)
    with pytest.warns(UserWarning, match="not cached") as then:
        assert torch.equal(found.nearest(3), nearest_distances(pixels(), 3))
    assert counting.seen == SIZE
    assert len({str(warning.message) for warning in (*first, *then)}) == 1  # which Python shows once


def test_a_cache_that_cannot_be_written_is_a_warning(counting, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert torch.equal(DatasetReference(Toy(), "train", counting).features, pixels())
    assert not list(cache.folder().glob("*.partial"))


def test_a_cache_that_may_only_be_read_is_read(counting, monkeypatch):
    _ = DatasetReference(Toy(), "train", counting).moments

    def refused(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr(cache.FileLock, "acquire", refused)
    assert torch.equal(DatasetReference(Toy(), "train", counting).moments.mean, moments(pixels()).mean)
    assert counting.seen == SIZE


def test_what_a_crash_left_behind_is_written_over(counting):
    wanted = DatasetReference(Toy(), "train", counting)
    partial = cache.path_of(wanted.facts("features")).with_suffix(".partial")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"half of it")
    assert torch.equal(wanted.features, pixels())
    assert not partial.exists()
    assert [(entry.facts["dataset_name"], entry.kinds) for entry in cache.entries()] == [("toy", ["features"])]


def test_who_waits_says_so(counting, capsys, monkeypatch):
    monkeypatch.setattr(cache, "SECONDS_BEFORE_NOTICE", 0)
    wanted = DatasetReference(Toy(), "train", counting)
    path = wanted._lock
    path.parent.mkdir(parents=True)
    holding = threading.Event()

    def hold():
        with FileLock(f"{path}.lock"):
            holding.set()
            time.sleep(0.3)

    threading.Thread(target=hold).start()
    holding.wait()
    assert torch.equal(wanted.moments.mean, moments(pixels()).mean)
    assert capsys.readouterr().err == f"waiting for another process to finish {path.name}\n"


PROCESS = """
import os, sys, time
from pathlib import Path
import toys
from trilemma_bench.features.reference import DatasetReference

class Slow(toys.Counting):
    def compute(self, samples, outputs):
        Path(sys.argv[1], f"pass-{os.getpid()}").touch()
        if sys.argv[2] == "hang":
            time.sleep(60)
        time.sleep(1)
        return super().compute(samples, outputs)

wanted = {"features": "features", "squares": "features"}
found = DatasetReference(toys.Toy(), "train", Slow(), wanted=wanted, output=sys.argv[2])
print(float(found.features.double().sum()), float(found.moments.mean.sum()), float(found.nearest(3).sum()))
"""


def start(folder, asked):
    script = folder / "process.py"
    script.write_text(PROCESS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(folder), asked]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_of_two_processes_one_computes_and_the_other_reads(tmp_path):
    processes = [start(tmp_path, asked) for asked in ("features", "squares")]
    answers = [process.communicate(timeout=100)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("pass-*"))) == 1
    for features, answer in zip((pixels(), pixels().square()), answers, strict=True):
        sums = features.double().sum(), moments(features).mean.sum(), nearest_distances(features, 3).sum()
        assert [float(word) for word in answer] == pytest.approx([float(value) for value in sums])


def test_a_process_that_dies_blocks_no_other(tmp_path):
    dying = start(tmp_path, "hang")
    while not list(tmp_path.glob("pass-*")):
        assert dying.poll() is None
    waiting = start(tmp_path, "features")
    dying.kill()
    dying.communicate()
    assert waiting.communicate(timeout=100)[0]
    assert waiting.returncode == 0
