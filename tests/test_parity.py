"""Our scores against torch-fidelity's of the same real images with the same weights, each through its front door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from seeded_weights import install_inception
from torch.utils.data import Dataset

import trilemma_bench as tb
from trilemma_bench import registry, weights
from trilemma_bench.protocol import Protocol

SAMPLE = Path(__file__).parent / "data" / "cifar10-sample.npz"
SUBSETS, SUBSET_SIZE = 20, 50


class Images(Dataset):
    """uint8 N×H×W×C as torch-fidelity takes it: a C×H×W tensor each."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """(ours, torch-fidelity's): scores of CIFAR-10 test images against training images."""
    folder = tmp_path_factory.mktemp("parity")
    arrays = np.load(SAMPLE)
    (folder / "splits").mkdir()
    for split in ("train", "test"):
        np.savez(folder / "splits" / f"{split}.npz", images=arrays[split])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRILEMMA_CACHE_DIR", str(folder / "cache"))
        patch.setenv("TRILEMMA_WEIGHTS_DIR", str(folder))
        install_inception(patch)
        metrics = ("fd", "kid", "inception_score", "precision", "recall")
        protocol = Protocol(
            "parity", "inception", samples=80, metrics=metrics, kid_subsets=SUBSETS, kid_subset_size=SUBSET_SIZE
        )
        patch.setattr(registry.protocols, "_local", {})
        registry.register_protocol("parity")(protocol)
        ours = tb.evaluate(
            arrays["test"], dataset=f"npz:{folder / 'splits'}", protocol="parity", out=folder, progress=False
        )
        theirs = torch_fidelity.calculate_metrics(
            input1=Images(arrays["test"]),
            input2=Images(arrays["train"]),
            fid=True,
            kid=True,
            isc=True,
            prc=True,
            feature_extractor="inception-v3-compat",
            feature_extractor_weights_path=str(weights.WEIGHTS["inception"].path),
            kid_subsets=SUBSETS,
            kid_subset_size=SUBSET_SIZE,
            cuda=False,
            cache=False,
            verbose=False,
        )
    return ours.scores, theirs


@pytest.mark.parametrize(
    ("name", "theirs", "tolerance"),
    [
        ("fid", "frechet_inception_distance", 1e-4),
        ("kid", "kernel_inception_distance_mean", 1e-4),
        ("inception_score", "inception_score_mean", 1e-6),
        ("precision", "precision", 1e-7),  # theirs is a float32 mean; one sample more or less would be 1e-2
        ("recall", "recall", 1e-7),
    ],
)
def test_scores_are_torch_fidelitys(sides, name, theirs, tolerance):
    ours, peer = sides
    assert ours[name].value == pytest.approx(peer[theirs], rel=tolerance)
    assert ours[name].value != 0


def test_every_score_says_how_sure_it_is(sides):
    for name, score in sides[0].items():
        assert score.interval is not None, name
        assert score.interval[0] <= score.value <= score.interval[1]
        assert score.interval_method
