"""MNIST, alone and stacked in threes; downloaded on first use."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma_bench.contracts import Dataset, DataSpec, ModeRule, Split
from trilemma_bench.datasets.download import load_or_download
from trilemma_bench.datasets.splits import check_split
from trilemma_bench.datasets.stacked import digit_modes, stack_digits
from trilemma_bench.errors import TrilemmaError

SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz"
FILES = tuple(f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
# Of the four files with the published md5 sums.
OFFICIAL_FINGERPRINT = "3bb0ba3ad821eb0df7ed0be778452510b01facebb0000bbb725ba09f04b4bf39"
PADDING = 2
TEST_TRIPLES = 26_000
PAIRING_SEEDS = {"train": 1, "test": 2}


class MNIST(Dataset):
    """70,000 handwritten digits, uint8 N×1×28×28, in `ROOT/MNIST/raw`. Source: LeCun et al. 1998."""

    name = "mnist"
    spec = DataSpec((1, 28, 28), classes=10)
    default_protocol = "mnist"

    @property
    def folder(self) -> Path:
        return self.root / "MNIST" / "raw"

    @property
    def official(self) -> bool:
        return self.fingerprint() == OFFICIAL_FINGERPRINT

    @property
    def note(self) -> str:
        return "" if self.official else "not the official MNIST: its fingerprint differs"

    def load(self, split: str) -> Split:
        check_split(self, split)
        images, labels = load_or_download(
            lambda download: self._read(split, download), "MNIST", self._files(), SOURCE, self.folder
        )
        if images.dtype != torch.uint8 or images.shape[1:] != (28, 28) or len(images) != len(labels):
            raise TrilemmaError(
                f"{self.folder}: the {split} split has images {tuple(images.shape)} and {len(labels)} labels, "
                "not N×28×28 and N: delete them to fetch them again"
            )
        return Split(images[:, None], labels.long())

    def mode_rule(self) -> ModeRule:
        return digit_modes(_classify, "mnist-cnn", self.spec.shape[0])

    def available(self) -> str:
        found = all(file.is_file() for file in self._files())
        return f"found at {self.folder}" if found else f"missing: would be downloaded from {SOURCE} into {self.folder}"

    def _files(self) -> list[Path]:
        return [self.folder / name for name in FILES]

    def _read(self, split: str, download: bool) -> tuple[Tensor, Tensor]:
        from torchvision import datasets

        source = datasets.MNIST(str(self.root), train=split == "train", download=download)
        return source.data, source.targets


class StackedMNIST(Dataset):
    """Three MNIST digits as RGB, padded to uint8 N×3×32×32, label 100a + 10b + c with channel 0 the hundreds.

    120,000 train triples (each digit twice in each channel, as in the paper's code, but with a fixed seed) and 26,000
    test triples of test digits. Source: Metz et al. 2017, Xiao et al. 2022.
    """

    name = "stackedmnist"
    spec = DataSpec((3, 32, 32), classes=1000)
    default_protocol = "stacked-mnist"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.digits = MNIST(root)

    @property
    def official(self) -> bool:
        return self.digits.official

    @property
    def note(self) -> str:
        return self.digits.note

    def load(self, split: str) -> Split:
        check_split(self, split)
        digits = self.digits.load(split)
        count = 2 * len(digits) if split == "train" else TEST_TRIPLES
        triples = stack_digits(digits, count, PAIRING_SEEDS[split])
        return Split(F.pad(triples.samples, (PADDING,) * 4), triples.labels)

    def mode_rule(self) -> ModeRule:
        return digit_modes(_classify, "mnist-cnn", self.spec.shape[0])

    def available(self) -> str:
        return self.digits.available()


def _classify(images: Tensor) -> Tensor:
    from trilemma_bench.features.digit_classifier import MnistCNN

    return MnistCNN().classify(images)
