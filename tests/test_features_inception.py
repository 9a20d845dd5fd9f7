"""Inception: torch-fidelity's features, logits and spatial maps from the same weights, and clean-fid's."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from cleanfid.fid import frechet_distance as cleanfid_distance
from cleanfid.fid import get_batch_features
from cleanfid.resize import build_resizer
from inputs import scene
from seeded_weights import install_inception, relative_error

from trilemma_bench import weights
from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.features import inception
from trilemma_bench.features.extraction import extract, extract_all, use_precision
from trilemma_bench.features.inception import Inception, InceptionClean
from trilemma_bench.metrics.frechet import frechet_distance, moments

SAMPLE = Path(__file__).parent / "data" / "cifar10-sample.npz"


@pytest.fixture
def oracle():
    return install_inception()


@pytest.fixture
def scenes():
    return torch.stack([scene(32, 32, seed) for seed in range(3)])


def test_features_and_logits_are_torch_fidelitys(oracle, scenes):
    extractor = Inception()
    features, logits = oracle(scenes)
    found = extract_all([(extractor, ("logits", "features"))], scenes)
    assert relative_error(found["inception", "features"], features) < 1e-5
    assert relative_error(found["inception", "logits"], logits) < 1e-5
    assert relative_error(features[:1], features[1:2]) > 0.01  # the images are told apart
    assert torch.equal(extract(extractor, scenes), found["inception", "features"])
    assert (extractor.dim, extractor.resize) == (features.shape[1], "tf1-bilinear-299")
    assert extractor.weights_sha256 == weights.WEIGHTS["inception"].sha256


def test_spatial_is_the_first_branch_of_mixed_6(oracle, scenes):
    """Seven channels of the 17×17 map, in TensorFlow's order: row, column, channel."""
    maps = []
    oracle.Mixed_6d.branch1x1.register_forward_hook(lambda *args: maps.append(args[2]))
    oracle(scenes)
    found = extract_all([(Inception(), ("spatial",))], scenes)["inception", "spatial"]
    assert found.shape == (3, 17 * 17 * 7)
    grid = found.view(3, 17, 17, 7)
    for row, column, channel in ((0, 0, 0), (3, 16, 6), (16, 2, 5)):
        torch.testing.assert_close(grid[:, row, column, channel], maps[0][:, channel, row, column])
    assert relative_error(found, maps[0][:, :7].permute(0, 2, 3, 1).flatten(1)) < 1e-5


def test_spatial_alone_leaves_out_the_upper_half(oracle, scenes, monkeypatch):
    extractor = Inception()
    monkeypatch.setattr(extractor, "upper", None)
    assert list(extractor.compute(scenes, ("spatial",))) == ["spatial"]
    with pytest.raises(TypeError):
        extractor.compute(scenes, ("features",))


def test_bfloat16_shifts_features_by_its_digits(oracle, scenes):
    ours = Inception()
    exact = extract(ours, scenes)
    use_precision(ours, "bf16", torch.device("cpu"))
    lower = extract(ours, scenes)
    assert lower.dtype == torch.float32
    error = float((lower - exact).norm() / exact.norm())
    assert 1e-4 < error < 2**-7
    assert len(lower.unique()) > lower.numel() / 2  # averaged in float32: not rounded to eight bits


def test_an_images_features_depend_on_nothing_but_the_image(oracle, scenes, monkeypatch):
    """Bit for bit: on no others of the batch. How many the stem sees, all at once on a GPU, moves their last digits."""
    extractor = Inception()
    features = extract(extractor, scenes)
    assert torch.equal(extract(extractor, scenes.flip(0), batch_size=2), features.flip(0))
    monkeypatch.setattr(inception, "STEM_CPU_IMAGES", len(scenes))
    assert relative_error(extract(extractor, scenes), features) < 1e-6


@torch.no_grad()
def test_stem_and_blocks_are_torch_fidelitys(oracle):
    """Each alone, at every pixel: the pools reach over the borders, and what one layer gets wrong others may hide."""
    extractor = Inception()
    layers = dict(oracle.named_children())
    names = list(layers)
    x = torch.rand(2, 3, 75, 75, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = x
    for name in names[: names.index("Mixed_5b")]:
        expected = layers[name](expected)
    assert relative_error(extractor.stem(x).flatten(1), expected.flatten(1)) < 1e-6
    blocks = [name for name in names if name.startswith("Mixed")]
    for name, block in zip(blocks, [*extractor.lower, *extractor.upper], strict=True):
        x, expected = expected, layers[name](expected)
        found = block(x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.max()), msg=name)
        assert expected.min() >= 0


def clean_fids_features(network, samples):
    """What clean-fid gives with this network: its loader resizes, its TorchScript begins with (x − 128) / 128."""
    resize = build_resizer("clean")
    resized = torch.stack([torch.from_numpy(resize(image.permute(1, 2, 0).numpy())) for image in samples])

    def model(batch):
        x = (batch - 128) / 128
        for name, layer in network.named_children():
            x = x if name == "fc" else layer(x)
        return x.flatten(1)

    return torch.from_numpy(get_batch_features(resized.permute(0, 3, 1, 2), model, "cpu"))


@pytest.fixture
def _old_sqrtm(monkeypatch):
    """clean-fid 0.1.35 asks for `disp=False`, and a pair, which SciPy 1.18 no longer knows."""
    sqrtm = scipy.linalg.sqrtm
    if "disp" not in inspect.signature(sqrtm).parameters:
        monkeypatch.setattr(scipy.linalg, "sqrtm", lambda matrix, disp: (sqrtm(matrix), 0.0))


@pytest.mark.usefixtures("_old_sqrtm")
def test_clean_features_and_their_fid_are_clean_fids(oracle):
    """On CIFAR-10's images, by clean-fid's own distance: of 24 features, as so few images have no more."""
    extractor = InceptionClean()
    arrays = np.load(SAMPLE)
    real, fake = (torch.from_numpy(arrays[split][:30]).permute(0, 3, 1, 2) for split in ("train", "test"))
    found = [extract(extractor, samples) for samples in (real, fake)]
    expected = [clean_fids_features(oracle, samples) for samples in (real, fake)]
    for ours, theirs in zip(found, expected, strict=True):
        assert relative_error(ours, theirs) < 1e-5
    some = torch.linspace(0, 2047, 24).long()
    ours = frechet_distance(*(each for side in found for each in moments(side[:, some])))
    sides = [side[:, some].numpy() for side in expected]
    theirs = cleanfid_distance(*(each for side in sides for each in (side.mean(axis=0), np.cov(side, rowvar=False))))
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert relative_error(found[0][:1], extract(Inception(), real[:1])) > 1e-3  # the resize does matter
    assert (extractor.resize, extractor.weights_sha256) == ("pil-bicubic-299", weights.WEIGHTS["inception"].sha256)


def test_clean_features_of_larger_images_are_clean_fids(oracle):
    samples = scene(340, 320)[None]
    assert relative_error(extract(InceptionClean(), samples), clean_fids_features(oracle, samples)) < 1e-5


@pytest.mark.parametrize("extractor", [Inception, InceptionClean])
def test_inception_refuses_other_data(oracle, extractor):
    built = extractor()
    built.check(DataSpec((3, 256, 256)))
    for shape in ((1, 8, 8), (2,)):
        with pytest.raises(TrilemmaError, match=f"'{built.name}' measures RGB images, not data of shape"):
            built.check(DataSpec(shape))
    for samples in (torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)):
        with pytest.raises(TrilemmaError, match=f"'{built.name}' needs uint8 images N×3×H×W"):
            built(samples)
