"""`trilemma-bench reference`: what is cached, and files of it to exchange."""

from __future__ import annotations

import os

import commands
import numpy as np
import pytest
import torch

from trilemma_bench.datasets import open_dataset
from trilemma_bench.features import cache
from trilemma_bench.features.digit_classifier import DigitsCNN
from trilemma_bench.features.exchange import open_references
from trilemma_bench.features.extraction import extract

DIGITS = ["--dataset", "digits", "--extractor", "digits-cnn"]


def succeeds(*arguments):
    return commands.succeeds("reference", *arguments).stdout


def opened(path):
    (found,) = open_references([path], {"digits-cnn": DigitsCNN()}, open_dataset("digits"), "train").values()
    return found


@pytest.fixture(scope="module")
def features():
    return extract(DigitsCNN(), open_dataset("digits").load("train").samples).double().numpy()


def test_moments_go_out_as_npz_and_come_back(tmp_path, features):
    stats, ours = tmp_path / "stats.npz", tmp_path / "ours.safetensors"
    assert str(stats) in succeeds("export", *DIGITS, "--device", "cpu", "--to", stats)
    with np.load(stats) as file:
        np.testing.assert_allclose(file["mu"], features.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(file["sigma"], np.cov(features, rowvar=False), rtol=1e-9, atol=1e-12)
    assert str(ours) in succeeds("import", stats, *DIGITS, "--count", len(features), "--to", ours)
    found = opened(ours)
    assert len(found) == len(features)
    np.testing.assert_allclose(found.moments.mean, features.mean(axis=0), rtol=1e-9)


def test_features_go_out_with_their_radii(tmp_path, features):
    path = tmp_path / "ours.safetensors"
    succeeds("export", *DIGITS, "--kind", "features", "--radii", "--count", "300", "--device", "cpu", "--to", path)
    tensors, facts = cache.load(path)
    assert tensors["features"].shape == (300, 64)
    assert tensors["distances"].shape == (300, 5)
    assert facts["samples"] == "300"
    assert torch.equal(tensors["features"], opened(path).features)


def test_list_shows_what_is_cached(tmp_path):
    assert "KINDS" in succeeds("list")
    assert "digits" not in succeeds("list")
    succeeds("export", *DIGITS, "--device", "cpu", "--to", tmp_path / "a.npz")
    succeeds("export", *DIGITS, "--split", "test", "--count", "200", "--device", "cpu", "--to", tmp_path / "b.npz")
    weights = DigitsCNN().weights_sha256[:12]
    sizes = [entry.size for entry in cache.entries()]
    rows = succeeds("list").splitlines()[1:-1]
    assert len(rows) == 2
    for row, split, samples, size in zip(rows, ("test", "train"), ("200", "1297"), sizes, strict=True):
        known = open_dataset("digits").fingerprint()[:12], split, "digits-cnn", weights, "float32", samples, "moments"
        for word in ("digits", *known):
            assert word in row.split()
        assert f"{size:,}" in row


def test_prune_deletes_what_was_not_used_for_long(tmp_path):
    for split in ("train", "test"):
        succeeds("export", *DIGITS, "--split", split, "--device", "cpu", "--to", tmp_path / f"{split}.npz")
    (old,) = [entry for entry in cache.entries() if entry.facts["split"] == "train"]
    for path in old.paths:
        os.utime(path, (0, 0))
    assert "1970-01-01" in next(row for row in succeeds("list").splitlines() if " train " in row)
    again = tmp_path / "again.npz"
    succeeds("export", *DIGITS, "--device", "cpu", "--to", again)
    assert "deleted 0 references" in succeeds("prune", "--days", "30")
    for path in old.paths:
        os.utime(path, (0, 0))
    assert "deleted 1 references" in succeeds("prune", "--days", "30")
    assert [entry.facts["split"] for entry in cache.entries()] == ["test"]
    succeeds("prune", "--all")
    assert not cache.entries()
    commands.refuses(2, "--days", "reference", "prune")


def test_list_survives_a_file_that_cannot_be_read(tmp_path):
    cache.folder().mkdir(parents=True)
    (cache.folder() / "pixels-train-features-0.features.safetensors").write_bytes(b"nothing")
    assert "unreadable" in succeeds("list")


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "Did you mean 'train'?", ["export", *DIGITS, "--split", "trian", "--to", "a.npz"]),
        (
            2,
            "Did you mean 'digits-cnn'?",
            ["export", "--dataset", "digits", "--extractor", "digit-cnn", "--to", "a.npz"],
        ),
        (2, "Did you mean 'features'?", ["export", *DIGITS, "--output", "feature", "--to", "a.npz"]),
        (2, "moments only", ["export", *DIGITS, "--kind", "features", "--to", "a.npz"]),
        (2, "radii are distances between features", ["export", *DIGITS, "--radii", "--to", "a.npz"]),
        (2, "the train split of digits has 1,297", ["export", *DIGITS, "--count", "999999", "--to", "a.npz"]),
        (2, "written as .safetensors or .npz", ["export", *DIGITS, "--to", "a.pkl"]),
        (2, "absent.npz does not exist", ["import", "absent.npz", *DIGITS, "--count", "5", "--to", "a.safetensors"]),
        (2, "--count N", ["import", "stats.npz", *DIGITS, "--to", "a.safetensors"]),
        (1, "64", ["import", "narrow.npz", *DIGITS, "--count", "9", "--to", "a.safetensors"]),
        (1, "measures points", ["export", "--dataset", "digits", "--extractor", "points", "--to", "a.npz"]),
    ],
)
def test_a_wrong_request_gets_one_clear_line(tmp_path, monkeypatch, code, message, arguments):
    monkeypatch.chdir(tmp_path)
    np.savez("stats.npz", mu=np.zeros(64), sigma=np.eye(64))
    np.savez("narrow.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert len(commands.refuses(code, message, "reference", *arguments)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["narrow.npz", "stats.npz"]
