"""Our scores against torch-fidelity's of the same real images with the same weights, each through its front door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
import torchvision
from seeded_weights import install, install_inception, vgg16_state
from torch.utils.data import Dataset

import trilemma_bench as tb
from trilemma_bench import registry, weights
from trilemma_bench.protocol import Protocol

SAMPLE = Path(__file__).parent / "data" / "cifar10-sample.npz"
SUBSETS, SUBSET_SIZE = 20, 50
SHARED = [
    ("fid", "frechet_inception_distance", 1e-4),
    ("kid", "kernel_inception_distance_mean", 1e-4),
    ("inception_score", "inception_score_mean", 1e-6),
    ("precision", "precision", 1e-7),  # theirs is a float32 mean; one sample more or less would be 1e-2
    ("recall", "recall", 1e-7),
]


class Images(Dataset):
    """uint8 N×H×W×C as torch-fidelity takes it: a C×H×W tensor each."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def both(tmp_path, protocol, extractor, count, **asked):
    """(ours, torch-fidelity's): scores of `count` CIFAR-10 test images against as many training images."""
    arrays = {split: images[:count] for split, images in np.load(SAMPLE).items()}
    for split, images in arrays.items():
        (tmp_path / "splits").mkdir(exist_ok=True)
        np.savez(tmp_path / "splits" / f"{split}.npz", images=images)
    registry.register_protocol("parity")(protocol)
    ours = tb.evaluate(
        arrays["test"], dataset=f"npz:{tmp_path / 'splits'}", protocol="parity", out=tmp_path, progress=False
    )
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(arrays["test"]),
        input2=Images(arrays["train"]),
        feature_extractor=extractor,
        cuda=False,
        cache=False,
        verbose=False,
        **asked,
    )
    return ours.scores, theirs


def test_scores_are_torch_fidelitys(tmp_path):
    install_inception()
    metrics = ("fd", "kid", "inception_score", "precision", "recall")
    protocol = Protocol(
        "parity", "inception", samples=80, metrics=metrics, kid_subsets=SUBSETS, kid_subset_size=SUBSET_SIZE
    )
    ours, theirs = both(
        tmp_path, protocol, "inception-v3-compat", 80,
        fid=True, kid=True, isc=True, prc=True, kid_subsets=SUBSETS, kid_subset_size=SUBSET_SIZE,
        feature_extractor_weights_path=str(weights.WEIGHTS["inception"].path),
    )  # fmt: skip
    for name, their_name, tolerance in SHARED:
        assert ours[name].value == pytest.approx(theirs[their_name], rel=tolerance), name
        assert ours[name].value != 0, name
    for name, score in ours.items():
        assert score.interval is not None, name
        assert score.interval[0] <= score.value <= score.interval[1]
        assert score.interval_method


def test_precision_and_recall_of_vgg16_are_torch_fidelitys(tmp_path, monkeypatch):
    """As the DDGAN paper's table has them."""
    build = torchvision.models.vgg16
    monkeypatch.setattr(torchvision.models, "vgg16", lambda **_: build(init_weights=False))  # as slow as all the rest
    install("vgg16", vgg16_state())
    protocol = Protocol("parity", "vgg16", samples=40, metrics=("precision", "recall"))
    ours, theirs = both(
        tmp_path, protocol, "vgg16", 40, prc=True, prc_batch_size=20,
        feature_extractor_weights_path=str(weights.WEIGHTS["vgg16"].path),
    )  # fmt: skip
    for name in ("precision", "recall"):
        assert 0 < ours[name].value < 1
        assert ours[name].value == pytest.approx(theirs[name], rel=1e-6)
