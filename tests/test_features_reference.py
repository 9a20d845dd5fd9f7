"""The cache of reference features: computed once, never believed blindly, never in the way."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors import safe_open

from trilemma_bench import paths
from trilemma_bench.contracts import Dataset, DataSpec, Split
from trilemma_bench.features import reference
from trilemma_bench.features.extraction import extract
from trilemma_bench.features.raw import Pixels
from trilemma_bench.features.reference import reference_features


class Toy(Dataset):
    name = "toy"
    spec = DataSpec((3, 4, 4))

    def __init__(self, seed=0):
        self.seed = seed

    def load(self, split):
        rng = torch.Generator().manual_seed(self.seed + (split == "test"))
        return Split(torch.randint(256, (6, 3, 4, 4), generator=rng, dtype=torch.uint8))


class Counting(Pixels):
    calls = 0

    def __call__(self, samples):
        Counting.calls += 1
        return super().__call__(samples)


@pytest.fixture
def counting():
    Counting.calls = 0
    return Counting()


def cached_file():
    (path,) = (paths.cache_dir() / "features").glob("*.safetensors")
    return path


def test_reference_features_are_computed_once(counting):
    first, second = (reference_features(Toy(), "train", counting) for _ in range(2))
    assert torch.equal(first, Toy().load("train").samples.flatten(1) / 255)
    assert torch.equal(first, second)
    assert counting.calls == 1
    with safe_open(cached_file(), framework="pt") as file:
        facts = file.metadata()
    assert facts["dataset"] == Toy().fingerprint()
    assert (facts["split"], facts["extractor"], facts["weights"], facts["resize"]) == (
        "train",
        "pixels",
        "none",
        "none",
    )


def test_whatever_changes_the_features_changes_the_key(counting):
    reference_features(Toy(), "train", counting)
    reference_features(Toy(seed=5), "train", counting)
    reference_features(Toy(), "test", counting)
    for fact in ("weights_sha256", "resize", "name"):
        changed = Counting()
        setattr(changed, fact, "another")
        reference_features(Toy(), "train", changed)
    assert counting.calls == 6


@pytest.mark.parametrize("damage", ["cut", "bit", "text"])
def test_a_damaged_cache_is_computed_again_with_a_warning(counting, damage):
    expected = reference_features(Toy(), "train", counting)
    path = cached_file()
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[-3] ^= 1
    path.write_bytes({"cut": content[: len(content) // 2], "bit": content, "text": b"not this"}[damage])
    with pytest.warns(UserWarning, match="damaged"):
        found = reference_features(Toy(), "train", counting)
    assert torch.equal(found, expected)
    assert torch.equal(reference_features(Toy(), "train", counting), expected)
    assert counting.calls == 2


def test_another_files_facts_are_not_believed(counting):
    reference_features(Toy(seed=9), "train", counting)
    other = cached_file()
    path = reference.cache_path(reference._facts(Toy(), "train", counting))
    other.rename(path)
    with pytest.warns(UserWarning, match="damaged"):
        features = reference_features(Toy(), "train", counting)
    assert torch.equal(features, extract(Pixels(), Toy().load("train").samples))


def test_no_place_for_the_cache_is_a_warning(counting, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRILEMMA_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not cached"):
        features = reference_features(Toy(), "train", counting)
    assert len(features) == 6


def test_a_cache_that_cannot_be_written_is_a_warning(counting, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="No space left"):
        features = reference_features(Toy(), "train", counting)
    assert len(features) == 6
    assert not list((paths.cache_dir() / "features").glob("*.tmp"))
