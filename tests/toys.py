"""A dataset of a few samples and an extractor of pixels, of which everything is known, and what they leave cached."""

from __future__ import annotations

import torch

from trilemma_bench import paths
from trilemma_bench.contracts import Dataset, DataSpec, Split
from trilemma_bench.features.raw import Pixels

SIZE = 12


class Toy(Dataset):
    """SIZE random images of six values."""

    name = "toy"
    spec = DataSpec((3, 1, 2))

    def __init__(self, seed=0):
        self.seed = seed

    def load(self, split):
        rng = torch.Generator().manual_seed(self.seed + (split == "test"))
        return Split(torch.randint(256, (SIZE, 3, 1, 2), generator=rng, dtype=torch.uint8))


class Counting(Pixels):
    """Pixels, their squares and their means; counts the samples that it sees."""

    outputs = ("features", "squares", "means")
    cpu_block = 1
    seen = 0

    def compute(self, samples, outputs):
        Counting.seen += len(samples)
        pixels = self(samples)
        known = {"features": pixels, "squares": pixels.square(), "means": pixels.mean(dim=1, keepdim=True)}
        return {output: known[output] for output in outputs}

    @classmethod
    def of_toys(cls):
        """One that has seen nothing yet."""
        cls.seen, made = 0, cls()
        made.check(Toy.spec)
        return made


def pixels(split="train", seed=0):
    """The features of a split."""
    return Toy(seed).load(split).samples.flatten(1) / 255


def cached_files(kind):
    """What is in the cache, of all references."""
    return sorted((paths.cache_dir() / "features").glob(f"*.{kind}.safetensors"))


def cached_file(kind):
    (path,) = cached_files(kind)
    return path


def replace(path, content):
    """A new file in the place of one that may be mapped."""
    path.unlink()
    path.write_bytes(content)
