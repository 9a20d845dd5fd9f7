"""Scores that must come out, from images to record: real digits, and what is done to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import load_file

import trilemma_bench as tb
from trilemma_bench.datasets import open_dataset
from trilemma_bench.metrics.frechet import frechet_distance
from trilemma_bench.record import read_record

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def real():
    split = open_dataset("digits").load("train")
    return split.samples, split.labels


def scores(samples, out, **options):
    array = samples.permute(0, 2, 3, 1).numpy() if isinstance(samples, torch.Tensor) else samples
    record = tb.evaluate(array, dataset="digits", out=out, progress=False, device="cpu", **options)
    return {name: score.value for name, score in record.scores.items()}


def noisy(images, sigma):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images.float() + sigma * noise).round().clamp(0, 255).to(torch.uint8)


def test_the_reference_itself_is_perfect(real, tmp_path):
    found = scores(real[0], tmp_path)
    assert 0 <= found["fd_digits-cnn"] < 1e-9
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    assert found["modes"] == 10


def test_a_copy_without_some_modes_keeps_its_precision_and_loses_recall(real, tmp_path):
    images, labels = real
    found = scores(images[labels < 5], tmp_path)
    assert found["precision"] == 1
    assert found["recall"] < 0.7
    assert found["coverage"] < 0.6
    assert found["modes"] == 5


def test_noise_moves_the_frechet_distance_up_step_by_step(real, tmp_path):
    distances = [scores(noisy(real[0], sigma), tmp_path)["fd_digits-cnn"] for sigma in (0, 16, 32, 64, 128)]
    assert distances == sorted(distances)
    assert distances[-1] > 10 * distances[1] > 0


def test_one_image_many_times_is_neither_covering_nor_close(real, tmp_path):
    found = scores(real[0][:1].expand(500, -1, -1, -1), tmp_path)
    perfect = scores(real[0][:500], tmp_path)
    assert found["coverage"] < 0.1
    assert found["recall"] < 0.1
    assert found["fd_digits-cnn"] > 10 * perfect["fd_digits-cnn"]


def test_scores_do_not_depend_on_the_order_of_the_samples(real, tmp_path):
    images = noisy(real[0], 40)
    order = np.random.default_rng(0).permutation(len(images))
    first, second = scores(images, tmp_path), scores(images[order], tmp_path)
    for name in ("precision", "recall", "density", "coverage", "modes"):
        assert first[name] == second[name], name
    assert first["fd_digits-cnn"] == pytest.approx(second["fd_digits-cnn"], rel=1e-9)


def test_scores_do_not_depend_on_the_number_of_threads(real, tmp_path, monkeypatch):
    """Shares to the last bit; sums of floats in another order move the rest by roundings of the features."""
    found = {}
    for threads in (1, 2, 3):
        monkeypatch.setenv("TRILEMMA_CACHE_DIR", str(tmp_path / str(threads)))  # the reference's side is computed, too
        torch.set_num_threads(threads)
        try:
            found[threads] = scores(noisy(real[0], 16), tmp_path)
        finally:
            torch.set_num_threads(1)
    shares = ("precision", "recall", "density", "coverage", "authenticity", "modes")
    for threads in (2, 3):
        assert {name: found[threads][name] for name in shares} == {name: found[1][name] for name in shares}
        assert found[threads] == {name: pytest.approx(value, rel=1e-5) for name, value in found[1].items()}


def test_the_distance_between_cifar10s_splits_is_the_committed_one():
    """Test against train with ResNet-56: the features' moments are committed, the record is of the whole evaluation."""
    found = load_file(TESTS / "data" / "cifar10-resnet56-moments.safetensors")
    train, test = ((found[f"{split}_mean"], found[f"{split}_covariance"]) for split in ("train", "test"))
    committed = read_record(next((TESTS.parent / "results" / "cifar10" / "test-split").glob("*/record.json")))
    expected = committed.scores["fd_cifar-resnet56"].value
    assert frechet_distance(*train, *test) == pytest.approx(expected, rel=1e-8)
    root = scipy.linalg.sqrtm((train[1] @ test[1]).numpy()).real
    by_sqrtm = (train[0] - test[0]).square().sum() + train[1].trace() + test[1].trace() - 2 * np.trace(root)
    assert float(by_sqrtm) == pytest.approx(expected, rel=1e-8)
