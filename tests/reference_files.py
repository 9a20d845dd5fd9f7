"""Reference files of the toys: others' that are imported, and ours as a run opens them."""

from __future__ import annotations

import numpy as np
from toys import Toy

from trilemma_bench.features.exchange import Claims, import_npz, open_references

RNG = np.random.default_rng(3)
DIM = 6


def gaussian(dim=DIM):
    """mu and sigma of 500 samples, as numpy has them."""
    samples = RNG.normal(size=(500, dim)) @ RNG.normal(size=(dim, dim))
    return {"mu": samples.mean(axis=0), "sigma": np.cov(samples, rowvar=False)}


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def opened(path, extractor, output="features"):
    return open_references([path], {extractor.name: extractor}, Toy(), "train")[extractor.name, output]


def imported(source, extractor, count=500, output="features"):
    return import_npz(source, source.with_suffix(".safetensors"), Claims("toy", "train", output, count), extractor)
