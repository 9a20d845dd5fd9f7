"""CIFAR-10: a prepared copy where there is one, else the official archive, downloaded on first use."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from trilemma_bench.contracts import Dataset, DataSpec, Split
from trilemma_bench.datasets.arrays import kind_text, read_split
from trilemma_bench.datasets.download import load_or_download
from trilemma_bench.datasets.splits import check_split
from trilemma_bench.errors import TrilemmaError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
BATCHES = (*(f"data_batch_{index}" for index in range(1, 6)), "test_batch", "batches.meta")
PREPARED_NOTE = "a prepared copy (cifar10/train.npz, test.npz), not known to equal the official archive"


class CIFAR10(Dataset):
    """60,000 images in 10 classes, uint8 N×3×32×32: 50,000 train and 10,000 test. Source: Krizhevsky 2009.

    `ROOT/cifar10/{train,test}.npz` (`images` N×32×32×3 uint8, `labels`) are used as they are; otherwise the official
    archive in ROOT, its md5 sums checked, is downloaded when missing.
    """

    name = "cifar10"
    spec = DataSpec((3, 32, 32), classes=10)
    default_protocol = "paper"

    @property
    def prepared(self) -> dict[str, Path]:
        """The files of a prepared copy, by split."""
        return {split: self.root / "cifar10" / f"{split}.npz" for split in self.splits}

    @property
    def official(self) -> bool:
        return not self._is_prepared()

    @property
    def note(self) -> str:
        return PREPARED_NOTE if self._is_prepared() else ""

    def load(self, split: str) -> Split:
        check_split(self, split)
        return self._load_prepared(self.prepared[split]) if self._is_prepared() else self._load_official(split)

    def available(self) -> str:
        if self._is_prepared():
            return f"found at {self.prepared['train'].parent} (prepared copy)"
        found = all(file.is_file() for file in self._batches())
        return (
            f"found at {self._batches()[0].parent}"
            if found
            else f"missing: would be downloaded from {URL} into {self.root}"
        )

    def _is_prepared(self) -> bool:
        return any(file.exists() for file in self.prepared.values())

    def _batches(self) -> list[Path]:
        return [self.root / "cifar-10-batches-py" / name for name in BATCHES]

    def _load_prepared(self, file: Path) -> Split:
        if not file.exists():
            raise TrilemmaError(f"{file} is missing beside the other split: restore it, or remove both to download")
        split = read_split(file)
        shape = tuple(split.samples.shape[1:])
        if shape != self.spec.shape:
            raise TrilemmaError(f"{file}: images are {kind_text(shape)}, CIFAR-10 is {kind_text(self.spec.shape)}")
        if split.labels is None or split.labels.max() >= 10:
            raise TrilemmaError(f"{file}: needs 'labels' of 0…9, one an image")
        return split

    def _load_official(self, split: str) -> Split:
        def read(download: bool) -> tuple[Tensor, Tensor]:
            from torchvision import datasets

            source = datasets.CIFAR10(str(self.root), train=split == "train", download=download)
            return torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(source.targets)

        return Split(*load_or_download(read, "CIFAR-10", self._batches(), URL, self.root))
