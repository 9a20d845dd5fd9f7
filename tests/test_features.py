"""Extractors: what each computes, on which data, with which weights."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace

import pytest
import torch
from seeded_weights import install_cifar_resnet

from trilemma_bench import weights
from trilemma_bench.contracts import DataSpec, FeatureExtractor
from trilemma_bench.datasets import open_dataset
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.features import cifar_resnet
from trilemma_bench.features.cifar_resnet import CifarResNet56, ResNet
from trilemma_bench.features.digit_classifier import DATA, DigitsCNN, MnistCNN
from trilemma_bench.features.extraction import BATCH, extract, extract_all, in_blocks
from trilemma_bench.features.inception import Inception
from trilemma_bench.features.raw import Pixels, Points
from trilemma_bench.trained import count_parameters


def images(n, channels=3, side=32, seed=0):
    return torch.randint(
        256, (n, channels, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


# Extraction


def test_extract_is_the_extractor_in_batches():
    samples = images(10)
    for batch_size in (1, 4, 256):
        features = extract(Pixels(), samples, batch_size)
        assert torch.equal(features, samples.reshape(10, -1) / 255)
    assert features.dtype == torch.float32
    assert not features.is_inference()


def test_extract_says_what_is_wrong():
    class Broken(Pixels):
        def __call__(self, samples):
            return samples.sum()[None]

    with pytest.raises(TrilemmaError, match="no samples"):
        extract(Pixels(), images(0))
    with pytest.raises(TrilemmaError, match=r"'pixels' must return floats N×D, but gave torch.int64 \(1,\)"):
        extract(Broken(), images(4))
    wrong = Pixels()
    wrong.dim = 7
    with pytest.raises(TrilemmaError, match="'pixels' says dim = 7, but gave 3072 features"):
        extract(wrong, images(4))


class Recorded:
    """Samples that note when each slice is read, and fail at `broken`."""

    def __init__(self, samples, broken=None):
        self.samples, self.broken = samples, broken
        self.read = threading.Semaphore(0)
        self.events = []

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.events.append(("read", index.start))
        self.read.release()
        if index.start == self.broken:
            raise TrilemmaError(f"sample {index.start} cannot be read")
        return self.samples[index]


def test_the_next_batch_is_read_while_this_one_is_computed():
    """Each computation waits for the next batch to be read: without reading ahead, it would wait forever."""

    class Patient(Pixels):
        seen = 0

        def __call__(self, batch):
            self.seen += 1
            for _ in range(2 if self.seen == 1 else 1 if self.seen < 4 else 0):
                assert source.read.acquire(timeout=10)
            source.events.append(("computed", 2 * (self.seen - 1)))
            return super().__call__(batch)

    source = Recorded(images(8))
    assert torch.equal(extract(Patient(), source, batch_size=2), extract(Pixels(), source.samples))
    assert [start for kind, start in source.events if kind == "read"] == [0, 2, 4, 6]
    assert source.events.index(("read", 2)) < source.events.index(("computed", 0))


def test_what_fails_in_the_background_fails_here():
    for broken in (0, 4):
        with pytest.raises(TrilemmaError, match=f"sample {broken} cannot be read"):
            extract(Pixels(), Recorded(images(8), broken), batch_size=2)
    running = {thread.name for thread in threading.enumerate()}
    assert not any("ThreadPoolExecutor" in name for name in running)


def test_one_pass_feeds_all_extractors_and_keeps_outputs_apart():
    class Two(Pixels):
        name, outputs = "two", ("features", "mean")

        def compute(self, batch, outputs):
            found = {"features": self(batch), "mean": self(batch).mean(1, keepdim=True)}
            return {output: found[output] for output in outputs}

    source = Recorded(images(5))
    found = extract_all([(Two(), ("mean",)), (Pixels(), ("features",))], source, batch_size=2)
    expected = extract(Pixels(), source.samples)
    assert found.keys() == {("two", "mean"), ("pixels", "features")}
    assert torch.equal(found["pixels", "features"], expected)
    torch.testing.assert_close(found["two", "mean"], expected.mean(1, keepdim=True))
    assert len(source.events) == 3


def test_reduced_precision_is_off_during_extraction_and_restored():
    class Looks(Pixels):
        def __call__(self, batch):
            seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            return super().__call__(batch)

    seen: list[tuple[str, bool]] = []
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        extract(Looks(), images(2))
        assert seen == [("highest", False)]
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_named_precision_is_that_of_its_extractor_alone():
    class Looks(Pixels):
        def __init__(self, precision):
            super().__init__()
            self.name = self.precision = precision

        def __call__(self, batch):
            seen.append((self.precision, torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision()))
            return super().__call__(batch)

    seen: list[tuple[str, bool, str]] = []
    extract_all([(Looks(precision), ("features",)) for precision in ("bf16", "tf32", "float32")], images(2))
    assert seen == [("bf16", True, "highest"), ("tf32", False, "high"), ("float32", False, "highest")]


@pytest.mark.parametrize("extractor", [DigitsCNN, MnistCNN])
def test_a_samples_features_depend_on_nothing_but_the_sample(extractor):
    """Bit for bit: not on how many are read at once, on how many there are, or on their order."""
    made = extractor()
    digits = images(BATCH + 7, channels=1, side=made.size)
    features = extract(made, digits)
    assert len(features.unique(dim=0)) > BATCH / 2  # of noise: they are told apart
    for batch_size in (1, 5, 100):
        assert torch.equal(extract(made, digits[:110], batch_size), features[:110])
    order = torch.randperm(len(digits))
    assert torch.equal(extract(made, digits[order]), features[order])


def test_an_extractor_always_sees_as_many_samples():
    class Counts(Pixels):
        cpu_block = 4

        def __call__(self, batch):
            seen.append(len(batch))
            return super().__call__(batch) + seen[-1]

    seen: list[int] = []
    source = images(9)
    assert torch.equal(extract(Counts(), source, batch_size=6), extract(Pixels(), source) + 4)
    assert seen == [4] * 3
    assert torch.equal(in_blocks(lambda batch: batch * len(batch), source.int(), 4), source.int() * 4)


def test_in_blocks_keeps_the_type_and_the_order():
    assert in_blocks(lambda x: x * 2, torch.arange(10), 3).tolist() == list(range(0, 20, 2))


# Raw features


def test_points_are_their_own_features():
    points = torch.randn(5, 2)
    assert torch.equal(extract(Points(), points), points)


def test_raw_extractors_know_their_dimension_and_their_data():
    points, pixels = Points(), Pixels()
    points.check(DataSpec((2,)))
    pixels.check(DataSpec((3, 8, 8)))
    assert (points.dim, pixels.dim) == (2, 192)
    with pytest.raises(TrilemmaError, match="not images"):
        points.check(DataSpec((3, 8, 8)))
    with pytest.raises(TrilemmaError, match="not points"):
        pixels.check(DataSpec((2,)))


# Digit classifiers


def test_digits_cnn_reads_held_out_digits():
    held_out, extractor = open_dataset("digits").load("test"), DigitsCNN()
    accuracy = float((extractor.classify(held_out.samples)[:, 0] == held_out.labels).double().mean())
    assert accuracy >= 0.97
    assert accuracy == pytest.approx(extractor.accuracy, abs=0.005)
    assert extractor.facts["dataset_fingerprint"] == open_dataset("digits").fingerprint()


def test_stacked_digits_are_read_channel_by_channel():
    dataset, extractor = open_dataset("stacked_digits"), DigitsCNN()
    extractor.check(dataset.spec)
    split = dataset.load("test")
    few = split.samples[:200]
    digits = extractor.classify(few)
    assert digits.shape == (200, 3)
    number = (digits * torch.tensor([100, 10, 1])).sum(1)
    assert float((number == split.labels[:200]).double().mean()) > 0.95
    features = extract(extractor, few)
    single = extract(DigitsCNN(), few[:, 1:2])
    assert (features.shape, single.shape) == ((200, 192), (200, 64))
    torch.testing.assert_close(features[:, 64:128], single, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("extractor", [DigitsCNN, MnistCNN])
def test_shipped_weights_are_small_and_say_what_they_are(extractor):
    path = DATA / f"{extractor.name}.safetensors"
    assert path.stat().st_size < 600_000
    built = extractor()
    assert built.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert built.accuracy >= {"digits-cnn": 0.97, "mnist-cnn": 0.99}[extractor.name]
    assert {"held_out", "dataset_fingerprint", "seed"} <= built.facts.keys()


def test_mnist_cnn_cuts_off_the_border_of_padded_digits():
    extractor, digits = MnistCNN(), images(4, 1, 28)
    padded = torch.nn.functional.pad(digits, (2, 2, 2, 2))
    torch.testing.assert_close(extract(extractor, padded), extract(extractor, digits))
    assert torch.equal(extractor.classify(padded), extractor.classify(digits))


def test_mnist_cnn_tells_simple_shapes_apart():
    """A bar is a one, a ring a zero."""
    bar, ring = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    bar[0, 5:23, 13:15] = 255
    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    ring[0, ((x / 6) ** 2 + (y / 8) ** 2 - 1).abs() < 0.35] = 255
    assert MnistCNN().classify(torch.stack([bar, ring]))[:, 0].tolist() == [1, 0]


def test_digit_classifiers_refuse_other_data():
    extractor = DigitsCNN()
    extractor.check(DataSpec((3, 8, 8)))
    assert extractor.dim == 192
    for shape in ((3, 32, 32), (2,), (2, 8, 8)):
        with pytest.raises(TrilemmaError, match="measures 8×8 digits"):
            extractor.check(DataSpec(shape))
    with pytest.raises(TrilemmaError, match="needs uint8 images"):
        extractor(torch.zeros(2, 1, 8, 8))


# CIFAR ResNet


@pytest.fixture
def seeded_resnet():
    return install_cifar_resnet()


def test_resnet56_has_the_papers_size():
    """0.85 M parameters (He et al. 2016, table 6), 55 convolutions and one linear layer."""
    network = ResNet(blocks=9)
    assert count_parameters(network) == pytest.approx(0.85e6, abs=0.01e6)
    layers = [m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len(layers) == 56


def test_resnet_shortcut_without_residual_subsamples_and_pads():
    block = cifar_resnet.Block(16, 32, stride=2).eval()
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().max() == out[:, 24:].abs().max() == 0


def test_cifar_resnet56_loads_the_published_format(seeded_resnet):
    extractor, samples = CifarResNet56(), images(5)
    features = extract(extractor, samples, batch_size=2)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = seeded_resnet.features((samples / 255 - mean) / std).detach()
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
    assert features.shape == (5, 64)
    assert features.std() > 0
    assert extractor.weights_sha256 == weights.WEIGHTS["cifar-resnet56"].sha256


def test_cifar_resnet56_refuses_other_data(seeded_resnet):
    with pytest.raises(TrilemmaError, match="32×32 RGB images, not data of shape 1×28×28"):
        CifarResNet56().check(DataSpec((1, 28, 28)))


@pytest.mark.parametrize(("extractor", "name"), [(CifarResNet56, "cifar-resnet56"), (Inception, "inception")])
def test_missing_weights_fail_at_construction(extractor, name, monkeypatch):
    unreachable = replace(weights.WEIGHTS[name], url="http://127.0.0.1:9/none")
    monkeypatch.setitem(weights.WEIGHTS, name, unreachable)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(TrilemmaError, match=rf"weights '{name}' are not at .* put it there"):
        extractor()


# The contract


@pytest.mark.parametrize("extractor", [Points, Pixels, DigitsCNN, MnistCNN])
def test_extractors_keep_the_contract(extractor):
    built = extractor("cpu")
    assert isinstance(built, FeatureExtractor)
    assert built.name
    assert isinstance(built.resize, str)
