"""VGG16: torch-fidelity's fc2 from the same weights."""

from __future__ import annotations

import torch
import torchvision
from inputs import scene
from seeded_weights import install, relative_error, vgg16_state
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from trilemma_bench import weights
from trilemma_bench.features.extraction import extract
from trilemma_bench.features.vgg16 import VGG16


def test_vgg16_is_torch_fidelitys(monkeypatch):
    build = torchvision.models.vgg16
    monkeypatch.setattr(torchvision.models, "vgg16", lambda **_: build(init_weights=False))  # as slow as all the rest
    made = install("vgg16", vgg16_state())
    theirs = FeatureExtractorVGG16("vgg16", ["fc2_relu"], str(weights.find("vgg16")))
    samples = torch.stack([scene(32, 32, seed) for seed in range(3)])
    expected = theirs(samples)[0]
    assert relative_error(expected[:1], expected[1:2]) > 0.01  # the images are told apart
    extractor = VGG16()
    found = extract(extractor, samples)
    assert relative_error(found, expected) < 1e-5
    assert found.min() == 0
    assert (extractor.dim, extractor.resize, extractor.weights_sha256) == (found.shape[1], "tf1-bilinear-224", made)
    assert torch.equal(extract(extractor, samples.flip(0)[:2]), found.flip(0)[:2])
