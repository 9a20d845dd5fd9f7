"""Trains the digit classifiers whose features measure digits, and writes their weights into the package.

    python scripts/train_digit_classifiers.py

Takes a few minutes on two CPU cores; needs MNIST (downloaded into the data folder). The test splits are only used to
measure the accuracy of the weights as stored; nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import trange

from trilemma_bench.contracts import Split
from trilemma_bench.datasets import open_dataset
from trilemma_bench.features.digit_classifier import DATA, DigitNetwork


@dataclass(frozen=True)
class Recipe:
    """rotation: degrees; scaling: ±share; shift: ±pixels; noise: standard deviation, images being in [0, 1]."""

    name: str
    dataset: str
    epochs: int
    required_accuracy: float
    batch_size: int = 128
    learning_rate: float = 3e-3
    rotation: float = 12.0
    scaling: float = 0.1
    shift: float = 1.0
    noise: float = 0.05


RECIPES = (
    Recipe("digits-cnn", "digits", epochs=120, required_accuracy=0.97, batch_size=64, shift=0.7),
    Recipe("mnist-cnn", "mnist", epochs=3, required_accuracy=0.99, shift=2.0),
)


def augment(images: Tensor, recipe: Recipe) -> Tensor:
    """Images N×1×S×S in [0, 1], each rotated, scaled, shifted at random, with noise."""
    count, side = len(images), images.shape[-1]
    angle = math.radians(recipe.rotation) * uniform(count)
    zoom = 1 + recipe.scaling * uniform(count)
    shift = 2 * recipe.shift / side * torch.stack([uniform(count), uniform(count)], dim=1)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    matrix = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    grid = F.affine_grid(torch.cat([matrix, shift[..., None]], 2), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False)
    return (moved + recipe.noise * torch.randn_like(moved)).clamp(0, 1)


def uniform(count: int) -> Tensor:
    return 2 * torch.rand(count) - 1


def train(recipe: Recipe, split: Split, seed: int) -> DigitNetwork:
    torch.manual_seed(seed)
    images, labels = split.samples.float() / 255, split.labels
    assert labels is not None
    network = DigitNetwork(images.shape[-1])
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    steps = recipe.epochs * (len(images) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, steps)
    for _ in trange(recipe.epochs, desc=recipe.name, unit="epoch"):
        for batch in torch.randperm(len(images)).split(recipe.batch_size):
            if len(batch) == recipe.batch_size:
                loss = F.cross_entropy(network(augment(images[batch], recipe)), labels[batch], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network


@torch.inference_mode()
def accuracy(network: DigitNetwork, split: Split) -> float:
    assert split.labels is not None
    guesses = [network.eval()(batch.float() / 255).argmax(dim=1) for batch in split.samples.split(1000)]
    return float((torch.cat(guesses) == split.labels).double().mean())


def make(recipe: Recipe, folder: Path, seed: int) -> None:
    dataset = open_dataset(recipe.dataset)
    held_out = dataset.load("test")
    network = train(recipe, dataset.load("train"), seed)
    stored = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    network.load_state_dict(stored)
    measured = accuracy(network, held_out)
    if measured < recipe.required_accuracy:
        raise SystemExit(f"{recipe.name}: accuracy {measured:.2%} on held-out digits is too low")
    facts = {
        "accuracy": f"{measured:.4f}",
        "held_out": f"the test split of {dataset.name}: {len(held_out)} images",
        "dataset_fingerprint": dataset.fingerprint(),
        "seed": str(seed),
        "epochs": str(recipe.epochs),
    }
    save_file(stored, folder / f"{recipe.name}.safetensors", facts)
    print(f"{recipe.name}: accuracy {measured:.2%} on {len(held_out)} held-out digits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DATA, help="folder for the weights (default: the package's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[recipe.name for recipe in RECIPES], help="train just one")
    arguments = parser.parse_args()
    for recipe in RECIPES:
        if arguments.only in (None, recipe.name):
            make(recipe, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
