"""On a GPU metrics measure what they do on a CPU: neighbours to the last sample, other numbers to their rounding."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from inputs import scene
from neighbours import features
from seeded_weights import install_cifar_resnet, install_inception, relative_error
from test_metrics_search import hard_sets, product_of

from trilemma_bench import registry
from trilemma_bench.contracts import DataSpec
from trilemma_bench.features.cifar_resnet import CifarResNet56
from trilemma_bench.features.digit_classifier import DigitsCNN
from trilemma_bench.features.extraction import BATCH, extract_all
from trilemma_bench.features.inception import Inception, InceptionClean
from trilemma_bench.metrics import search
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.neighbours import balls, growing, growing_radii
from trilemma_bench.metrics.reference import Reference
from trilemma_bench.metrics.search import bounding, products

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FRECHET = ("fd", "fd_infinity", "sfid")
KINDS = ("network", "codes", "smoothed", "collapsed", "copies", "one", "few")


def sides(kind, count=800, dim=48):
    """Generated and reference features of a kind: copies, one point alone, fewer samples than features, or others."""
    if kind == "copies":
        return tuple(features("collapsed", count // 2, dim, seed).repeat(2, 1) for seed in (1, 2))
    if kind == "one":
        return features("network", 1, dim, 1).repeat(count, 1), features("network", count, dim, 2)
    if kind == "few":
        return features("network", 60, 96, 1), features("network", 80, 96, 2)
    return features(kind, count, dim, 1), features(kind, count - 100, dim, 2)


def comparison(generated, reference, device, **options):
    modes = torch.randint(-1, 10, (len(generated),), generator=torch.Generator().manual_seed(0))
    real = Reference(reference.to(device))
    facts = {"training": lambda: real, "modes": modes.to(device), "mode_count": 10, "mode_min_count": 5}
    return Comparison(generated.to(device), lambda: real, **facts, **options)


def assert_same_neighbours(found, expected):
    """Every distance, every nearest sample, and who lies in whose ball."""
    for one, other in (
        ([found.reference.nearest(5)], [expected.reference.nearest(5)]),
        (found.training_pairs, expected.training_pairs),
        (growing_radii(found.generated, 3), growing_radii(expected.generated, 3)),
        (found.balls, expected.balls),
    ):
        for on_device, on_host in zip(one, other, strict=True):
            assert on_device.device.type == CUDA.type
            assert torch.equal(on_device.cpu(), on_host)


@pytest.mark.parametrize("kid", [{}, {"kid_subsets": 3, "kid_subset_size": 50}], ids=["all pairs", "subsets"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_measures_what_it_does_on_the_cpu(kind, kid):
    """In float64; the errors of Fréchet distances, which many samples have in float32, to its digits."""
    expected, found = (comparison(*sides(kind), device, **kid) for device in (CPU, CUDA))
    assert_same_neighbours(found, expected)
    for name in registry.metrics.names():
        if kind == "few" and name == "fd_infinity":
            continue
        metric, rough = registry.metrics.get(name), name in FRECHET
        one, other = metric.estimate(found), metric.estimate(expected)
        assert one.value == pytest.approx(other.value, rel=1e-8 if rough else 1e-10, abs=1e-11), name
        near = partial(pytest.approx, rel=1e-5 if rough else 1e-9, abs=1e-11)
        assert one.standard_error == near(other.standard_error), name
        assert one.interval == (near(other.interval) if other.interval else None), name
        assert (one.method, one.note, one.range) == (other.method, other.note, other.range)


@pytest.mark.parametrize("fast", [torch.int8, None], ids=["int8", "float only"])
@pytest.mark.parametrize("kind", ["network", "codes", "collapsed"])
def test_so_many_samples_that_coarse_products_pay_have_the_same_neighbours(kind, fast, monkeypatch):
    generated, reference = sides(kind, 4200, 512)
    assert len(generated) * reference.numel() >= products.SMALL
    monkeypatch.setattr(products, "is_fast", lambda dtype, device: device.type == CUDA.type and dtype == fast)
    made, make = [], products.IntegerProduct.__init__
    monkeypatch.setattr(products.IntegerProduct, "__init__", lambda self, both: made.append(self) or make(self, both))
    assert_same_neighbours(comparison(generated, reference, CUDA), comparison(generated, reference, CPU))
    assert bool(made) == (fast == torch.int8)


def searched(generated, reference):
    """Distances to the nearest others and to those left out, the nearest of the other set, and all balls."""
    real = search.nearest_distances(reference, 5)
    around = growing(*search.nearest_neighbours(generated, 3, 2))
    found = balls(generated, reference, (real[:, 2], real[:, 4]), around, (True, False))
    return [real, *around, *search.nearest_others(generated, reference), *found]


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.float64], ids=["int8", "float32", "float64"])
@pytest.mark.parametrize("name", sorted(hard_sets().keys() - {"underflow"}))
def test_each_arithmetic_finds_the_neighbours_of_hard_sets(name, dtype, monkeypatch):
    """But where squares underflow, which a fused multiplication and addition does not round."""
    expected = searched(*hard_sets()[name])
    monkeypatch.setattr(
        bounding, "products", lambda both: (partial(product_of, both, each) for each in (dtype, torch.float64))
    )
    found = searched(*(side.to(CUDA) for side in hard_sets()[name]))
    for on_device, on_host in zip(found, expected, strict=True):
        assert torch.equal(on_device.cpu(), on_host)


@pytest.mark.parametrize("extractor", [CifarResNet56, Inception, InceptionClean, DigitsCNN])
def test_features_are_those_of_the_cpu(extractor):
    """In exact float32, whatever is allowed outside; also those of a rest of a batch."""
    install_cifar_resnet()
    install_inception()
    count = BATCH + 4 if extractor is DigitsCNN else 5
    samples = torch.stack([scene(32, 32, seed) for seed in range(count)])
    if extractor is DigitsCNN:
        samples = samples[:, :, 12:20, 12:20]
    found = []
    for device in (CPU, CUDA):
        made = extractor(device)
        made.check(DataSpec(tuple(samples.shape[1:])))
        found.append(extract_all([(made, made.outputs)], samples, device=device))
    for key, expected in found[0].items():
        assert found[1][key].device.type == "cpu"
        assert relative_error(found[1][key], expected) < 1e-5, key
        assert relative_error(expected[:1], expected[1:2]) > 0.01, key
