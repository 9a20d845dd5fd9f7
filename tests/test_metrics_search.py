"""The search for neighbours: whatever the arithmetic and the blocks, it finds what all distances tell."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import blobs

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics import search
from trilemma_bench.metrics.neighbours import balls, growing, growing_radii
from trilemma_bench.metrics.search import (
    between,
    bounding,
    distances,
    frames,
    nearest_distances,
    products,
    sides,
    tiles,
    within,
)


def naive_distances(x, y):
    """Every distance by the rule that decides: summed in float64, to float32's precision."""
    i, j = torch.arange(len(x)).repeat_interleave(len(y)), torch.arange(len(y)).repeat(len(x))
    return distances.direct_distances(x, y, i, j).view(len(x), len(y))


def naive_nearest(points, k):
    return naive_distances(points, points).fill_diagonal_(torch.inf).sort(dim=1).values[:, :k]


ARITHMETICS = [torch.int32, torch.bfloat16, torch.float32, torch.float64]


def product_of(sides, dtype):
    made = {torch.int32: products.IntegerProduct, torch.float64: products.LocalProduct}
    return made[dtype](sides) if dtype in made else products.FloatProduct(sides, dtype)


@pytest.fixture(params=ARITHMETICS, ids=["int8", "bfloat16", "float32", "float64"])
def arithmetic(request, monkeypatch):
    """Starts every search with one arithmetic, whatever would pay here; a crowded tile may still take a finer one."""
    used = []

    def chosen(sides):
        for dtype in ARITHMETICS[ARITHMETICS.index(request.param) :]:
            used.append(dtype)
            yield functools.partial(product_of, sides, dtype)

    monkeypatch.setattr(bounding, "products", chosen)
    yield request.param
    assert used[0] == request.param


def mixed(unit):
    """Most rows so short that float32 loses their products, and some of length 1, which keep the unit as it is."""
    points = blobs(9, 140, 16)
    points[7:] *= unit
    return points


def clusters(kinds, seed, count, dim, width):
    """What a model draws that collapsed to so many points, up to noise."""
    return blobs(0, kinds, dim)[torch.arange(count) % kinds] + width * blobs(seed, count, dim)


def hard_sets():
    """Pairs of sets whose comparisons rounding gets wrong: duplicates, ties, offsets, outliers, extreme units."""
    copies = torch.cat([blobs(0, 90, 16), blobs(0, 90, 16)[:40]])
    grid = torch.randint(0, 3, (150, 4), generator=torch.Generator().manual_seed(3)).float()
    outlier = torch.cat([blobs(1, 120, 24), 1e4 * blobs(2, 3, 24)])
    sparse = blobs(4, 130, 96).relu() ** 3
    return {
        "copies": (copies, copies),
        "far from the origin": (copies + 1e4, copies + 1e4),
        "grid": (grid, grid[:70] + torch.tensor([1.0, 0, 0, 0])),
        "outliers": (outlier, outlier[:100]),
        "sparse": (sparse, sparse[:60] * 0.9),
        "collapsed": (blobs(5, 1, 32).repeat(140, 1) + 1e-6 * blobs(6, 140, 32), blobs(5, 90, 32)),
        **{f"{kinds} clusters": tuple(clusters(kinds, seed, 140, 32, 1e-6) for seed in (1, 2)) for kinds in (2, 20)},
        "smoothed codes": tuple(0.05 + 0.9 * torch.eye(200)[part] for part in (slice(0, 90), slice(60, 180))),
        "all equal": (torch.full((50, 8), 0.3), torch.full((40, 8), 0.3)),
        "huge": (blobs(7, 90, 16) * 1e30, blobs(8, 90, 16) * 1e30),
        "tiny": (blobs(7, 90, 16) * 1e-30, blobs(8, 90, 16) * 1e-30),
        "underflow": (blobs(7, 90, 16).double() * 1e-162, blobs(8, 90, 16).double() * 1e-162),
        "huge in float64": (blobs(7, 90, 16).double() * 1e140, blobs(8, 90, 16).double() * 1e140),
        "one huge": (blobs(7, 90, 16) * 1e20, blobs(8, 90, 16)),
        "float64": (blobs(7, 90, 16).double() + 1e6, blobs(8, 90, 16).double() / 3 + 1e6),
        "half precision": (blobs(7, 90, 16).half(), blobs(8, 90, 16).half()),
        **{f"{unit} among 1": (mixed(unit), mixed(unit)[:100] * 1.5) for unit in (1e-19, 1e-22, 1e-38)},
        "one feature": (blobs(7, 90, 1), blobs(8, 80, 1)),
        "one-hot codes": (torch.eye(150)[:90], torch.eye(150)[60:]),
        "scaled one-hot codes": (torch.eye(150)[:90] * 0.1, torch.eye(150)[60:] * 0.1),
    }


def check_search(generated, reference, block):
    """Neighbours, nearest of the other set, and balls against all distances."""
    nearest = [search.nearest_distances(points, 5, block) for points in (reference, generated)]
    for found, points in zip(nearest, (reference, generated), strict=True):
        assert torch.equal(found, naive_nearest(points, 5))
        check_neighbours(points, found, block)
    radii = nearest[0][:, 2], nearest[0][:, 4], nearest[1][:, 2]
    distances, group = naive_distances(generated, reference), torch.arange(len(generated)) % 20
    index, least = search.nearest_others(generated, reference, block)
    assert torch.equal(least, distances.amin(dim=1))
    assert torch.equal(index, torch.where(distances == least[:, None], torch.arange(len(reference)), 999).amin(dim=1))
    for closed in ((True, False), (False, True)):
        inside = [
            distances <= radius if rule else distances < radius
            for radius, rule in zip((radii[0], radii[1], radii[2][:, None]), (*closed, closed[0]), strict=True)
        ]
        around_generated = growing(*search.nearest_neighbours(generated, 3, 2, block))
        found = balls(generated, reference, radii[:2], around_generated, closed, block)
        assert torch.equal(found.precise, inside[0].any(dim=1))
        assert torch.equal(found.density, inside[1].sum(dim=1))
        for groups, hits in ((found.covered, inside[1]), (found.recalled, inside[2])):
            assert torch.equal(groups, torch.stack([hits[group == each].any(dim=0) for each in range(20)]))
        for left_out, radius in enumerate(grown_radii(generated, nearest[1][:, 2:])):
            hits = distances <= radius[:, None] if closed[0] else distances < radius[:, None]
            hit = (found.recalled & (torch.arange(20) != left_out)[:, None]).any(dim=0) | found.regained[left_out]
            assert torch.equal(hit, hits.any(dim=0))


def check_neighbours(points, nearest, block):
    """Who they are, and how far away from the k-th on."""
    for k, further in ((1, 2), (3, 2), (5, 0)):
        index, farthest = search.nearest_neighbours(points, k, further, block)
        assert torch.equal(farthest, nearest[:, k - 1 : k + further])
        assert (index != torch.arange(len(points))[:, None]).all()
        assert (index.sort(dim=1).values.diff(dim=1) > 0).all()
        measured = naive_distances(points, points).gather(1, index).sort(dim=1).values
        assert torch.equal(measured, nearest[:, : k + further])


def grown_radii(points, distances):
    """The distance of each sample to the third nearest other that is in none of the groups, of five; −1 of its own."""
    group, between = torch.arange(len(points)) % 20, naive_distances(points, points).fill_diagonal_(torch.inf)
    for left_out in range(20):
        others = between[:, group != left_out].sort(dim=1).values
        radius = torch.cat([others, others.new_full((len(points), 3), torch.inf)], dim=1)[:, 2]
        yield torch.minimum(radius, distances[:, 2]).masked_fill(group == left_out, -1.0)


@pytest.mark.parametrize("block", [7, None])
@pytest.mark.parametrize("name", hard_sets())
def test_neither_the_arithmetic_nor_the_block_changes_anything(name, block, arithmetic):
    check_search(*hard_sets()[name], block)


@pytest.mark.parametrize("crowded", [0.01, 1.0])
@pytest.mark.parametrize("block", [16, None])
def test_nor_does_a_product_that_takes_over_midway(block, crowded, arithmetic, monkeypatch):
    """Clusters that only products around themselves tell apart, some of them smaller than a band of rows."""
    monkeypatch.setattr(sides, "FEW_ROWS", 3)
    shares = [(between, "CROWDED"), (tiles, "CROWDED_BEFORE"), (between, "DEAR"), (within, "DEAR"), (bounding, "ALL")]
    for module, name in shares:
        monkeypatch.setattr(module, name, crowded * getattr(module, name))
    generated, reference = (
        torch.cat([blobs(seed, 90, 32), 9 + clusters(5, seed, 60, 32, 1e-6), 30 + 1e-5 * blobs(seed, 7, 32)])
        for seed in (1, 2)
    )
    check_search(generated, reference, block)


@pytest.mark.parametrize("name", ["int8", "bfloat16", "float32"])
def test_clusters_alone_are_looked_at_in_float64(name, monkeypatch):
    """Around themselves they are told apart: all other pairs need no finer product, nor to be measured one by one."""
    coarse = dict(zip(["int8", "bfloat16", "float32"], ARITHMETICS, strict=False))[name]
    monkeypatch.setattr(bounding, "products", lambda sides: iter([functools.partial(product_of, sides, coarse)]))
    monkeypatch.setattr(bounding.Search, "_bounds_of_single", None)
    generated, reference = (clusters(4, seed, 240, 128, 1e-6) for seed in (1, 2))
    looked, scores = [], products.LocalProduct.scores
    monkeypatch.setattr(
        products.LocalProduct, "scores", lambda self, *tile: looked.append(tiles.size(*tile)) or scores(self, *tile)
    )
    radii = [search.nearest_neighbours(side, 3, 0)[1].mT for side in (generated, reference)]
    assert list(search.close_pairs(generated, reference, *radii))
    search.nearest_others(generated, reference)
    assert sum(looked) == 4 * (60**2 + 120**2 + 60**2)  # four searches; two of the clusters lie side by side
    monkeypatch.undo()
    for block in (100, None):
        check_search(generated, reference, block)


@pytest.mark.parametrize("name", ["int8", "bfloat16", "float32"])
def test_what_coarse_products_decide_is_not_looked_at_in_float64(name, monkeypatch):
    """Clusters that are surely in every ball, or as far from all others as from the centre."""
    coarse = dict(zip(["int8", "bfloat16", "float32"], ARITHMETICS, strict=False))[name]
    monkeypatch.setattr(bounding, "products", lambda sides: iter([functools.partial(product_of, sides, coarse)]))
    monkeypatch.setattr(products.LocalProduct, "scores", None)
    generated, reference = clusters(5, 1, 240, 128, 1e-6), blobs(2, 240, 128)
    assert bounding.Search(*search.sides_of(generated, reference))._local_pairs
    between_all = naive_distances(generated, reference)
    radii = torch.full((1, 240), 2 * float(between_all.max()), dtype=torch.float64)
    assert sum(len(found[0]) for found in search.close_pairs(generated, reference, radii, radii, 100)) == 240**2
    assert torch.equal(search.nearest_others(generated, reference, 100)[1], between_all.amin(dim=1))


def test_the_nearest_of_a_cluster_are_few(monkeypatch):
    """Products around clusters tighten the radii before pairs are listed."""
    monkeypatch.setattr(bounding, "products", lambda sides: iter([functools.partial(products.IntegerProduct, sides)]))
    listed, measure = [], bounding.Search.measure
    monkeypatch.setattr(
        bounding.Search, "measure", lambda self, pairs: listed.append(len(pairs.first)) or measure(self, pairs)
    )
    generated, reference = (clusters(4, seed, 240, 128, 1e-6) for seed in (1, 2))
    search.nearest_others(generated, reference)
    assert sum(listed) < 3 * 240


@pytest.mark.parametrize("count", [512, 514, 520, 700])
def test_a_last_few_samples_call_for_no_finer_product(count, monkeypatch):
    """Among themselves alone, most would be near each other."""
    monkeypatch.setattr(bounding, "products", lambda sides: iter([functools.partial(product_of, sides, torch.float32)]))
    monkeypatch.setattr(within._OneSet, "neighbours_by_tile", None)
    points = blobs(0, count, 64)
    assert torch.equal(search.nearest_distances(points, 5, 256), naive_nearest(points, 5))


@pytest.mark.parametrize("count", [1, 5, 8, 9, 16, 23])
@pytest.mark.parametrize("shape", [(8, 8), (8, 20), (4, 3)])
def test_tiles_within_a_set_hold_each_pair_once(count, shape):
    seen = torch.zeros(count, count, dtype=torch.int64)
    for rows, columns in tiles.within(count, shape):
        assert columns.start >= rows.start
        seen[rows, columns] += ~tiles.past(seen[rows, columns], rows, columns)
    assert torch.equal(seen, torch.ones_like(seen).triu(1))


@pytest.mark.parametrize("count", [1, 31, 33, 1024, 1026, 50_180, 51_210])
@pytest.mark.parametrize("most", [7, 96, 1024])
def test_rows_of_tiles_within_a_set_are_about_as_many(count, most):
    parts = [rows for rows, columns in tiles.within(count, (most, count)) if rows == columns]
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert (parts[0].start, parts[-1].stop) == (0, count)
    unit, sizes = 32 if most % 32 == 0 else 1, [part.stop - part.start for part in parts]
    assert all(part.start % unit == 0 for part in parts)
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) < 2 * unit


def test_two_thirds_of_all_pairs_are_too_many_for_products_around_clusters():
    sides_of_three = search.sides_of(*(clusters(3, seed, 150, 32, 1e-6) for seed in (1, 2)))
    most_in_one = torch.cat([clusters(1, 1, 400, 32, 1e-6), clusters(3, 2, 100, 32, 1e-6)])
    assert bounding.Search(*sides_of_three)._local_pairs == 150**2 / 2
    assert bounding.Search(*search.sides_of(most_in_one, most_in_one))._local_pairs == 0


def test_blocks_of_fewer_samples_than_neighbours_change_nothing(arithmetic):
    check_search(blobs(0, 30, 8), clusters(3, 1, 25, 8, 1e-6), 3)


def test_features_whose_squares_overflow_are_refused():
    with pytest.raises(TrilemmaError, match="scale them down"):
        nearest_distances(blobs(0, 9, 4).double() * 1e160, 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 3, 30, 200]), st.floats(0, 4), st.floats(-3, 3), st.integers(1, 5))
def test_bounds_enclose_the_distances(seed, dim, decay, offset, scale):
    """What the whole search rests on, for each arithmetic: no pair within a radius is passed over."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, dim + 1).float().pow(-decay / 2)
    x, y = (torch.randn(40, dim, generator=generator) * spectrum * 10**offset + 10**-offset for _ in range(2))
    y = torch.cat([y * scale, x[:10] + 1e-3 * y[:10]])
    truth = naive_distances(x, y)
    for dtype in ARITHMETICS:
        state = bounding.Search(*search.sides_of(x, y))
        state.product = product_of(state.sides, dtype)
        everything = torch.full((len(x),), torch.inf), torch.full((len(y),), torch.inf)
        rows, columns = slice(0, len(x)), slice(0, len(y))
        pairs = state._within(state.product.scores(rows, columns), rows, columns, everything)
        assert len(pairs.first) == truth.numel()
        for bounds in (pairs, state.measure(pairs)):
            exact = truth[state.x.order[bounds.first], state.y.order[bounds.second]]
            assert (bounds.lower <= exact).all()
            assert (exact <= bounds.upper).all()
        at_radius = truth.min(dim=1).values  # each point's nearest centre lies on the surface of its ball
        pairs = state._within(
            state.product.scores(rows, columns), rows, columns, (at_radius[state.x.order], -torch.ones(len(y)))
        )
        found = torch.zeros_like(truth, dtype=torch.bool)
        found[state.x.order[pairs.first], state.y.order[pairs.second]] = True
        assert found[truth <= at_radius[:, None]].all()


@pytest.mark.parametrize("block", [7, None])
@pytest.mark.parametrize(
    "name",
    [
        "one-hot codes",
        "smoothed codes",
        "scaled one-hot codes",
        "grid",
        "few values",
        "in half",
        "in float64",
        "complements",
    ],
)
def test_of_features_full_of_ties_only_copies_are_measured(name, block, monkeypatch):
    few = torch.randint(-3, 4, (200, 40), generator=torch.Generator().manual_seed(0)) / 16
    measured, direct = [], torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda x, y, **k: measured.append(len(x) * y.shape[-2]) or direct(x, y, **k))
    codes = torch.eye(150)[:90], torch.eye(150)[60:]
    more = {
        "few values": (few[:90], few[60:]),
        "in half": tuple(side.half() for side in codes),
        "in float64": tuple(side.double() / 3 * 3 for side in codes),
        "complements": tuple(1 - side for side in codes),  # all far from the origin
    }
    generated, reference = (hard_sets() | more)[name]
    radii = [search.nearest_neighbours(side, 3, 0, block)[1].mT for side in (generated, reference)]
    assert list(search.close_pairs(generated, reference, *radii, block))
    monkeypatch.undo()
    copies = sum(
        int((naive_distances(x, y) == 0).sum())
        for x, y in [(generated, reference)] + 2 * [(generated, generated)] + 2 * [(reference, reference)]
    )
    assert sum(measured) <= copies
    check_search(generated, reference, block)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1e30), min_size=2, max_size=20))
def test_distances_are_rounded_as_float32_is(values):
    exact = torch.tensor(values, dtype=torch.float64)
    rounded = distances.in_single(exact)
    near = rounded.float().double()
    assert torch.equal(near[near > 2.0**-126], rounded[near > 2.0**-126])  # float32 holds them
    assert ((rounded - exact).abs() <= distances.SINGLE * exact + 2.0**-1040).all()
    assert rounded[exact.argsort()].diff().min() >= 0


def test_rounding_has_no_range():
    ends = torch.tensor([0.0, 1e-300, 1 + 2.0**-25, 1 + 2.0**-24, 1e300, torch.inf], dtype=torch.float64)
    rounded = distances.in_single(ends)
    assert rounded[[0, 2, 3, 5]].tolist() == [0.0, 1.0, 1 + 2.0**-23, torch.inf]
    torch.testing.assert_close(rounded[[1, 4]], ends[[1, 4]], rtol=2.0**-24, atol=0)


@pytest.mark.parametrize("asked", ["highest", "medium"])
def test_a_process_that_asked_for_coarse_products_gets_exact_answers(asked, arithmetic):
    points, before = blobs(0, 200, 64), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(asked)
        assert torch.equal(search.nearest_distances(points, 3), naive_nearest(points, 3))
        assert torch.get_float32_matmul_precision() == asked
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("pool", [50, 1500])
def test_candidates_that_outgrow_their_pool_change_nothing(pool, monkeypatch, arithmetic):
    monkeypatch.setattr(within, "POOL", pool)
    points = torch.cat([blobs(0, 150, 8), blobs(0, 150, 8)[:30]])
    expected = naive_nearest(points, 4)
    assert torch.equal(search.nearest_distances(points, 4, 16), expected)
    assert torch.equal(search.nearest_neighbours(points, 3, 1, 16)[1], expected[:, 2:])


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 8), (1, 24), (9, 20), (40, 64)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.6, 1.0])
def test_scores_that_reach_a_cut_are_found_by_groups(shape, share):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-100, 0, shape, dtype=torch.int32, generator=generator)
    cut_x, cut_y = (torch.randint(-100, 10, (size,), generator=generator) + int(100 * (1 - share)) for size in shape)
    i, j = tiles.reaching(scores, cut_x.int(), cut_y.int())
    found = torch.zeros(shape, dtype=torch.int64).index_put_((i, j), torch.ones_like(i), accumulate=True)
    assert torch.equal(found, (scores >= torch.minimum(cut_x[:, None], cut_y)).long())  # each once


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize(("count", "k"), [(3, 5), (7, 1), (64, 8), (1000, 3)])
def test_the_best_of_groups_bound_the_best_from_below(count, k, dim):
    scores = torch.randint(-1000, 0, (count, 20) if dim == 0 else (20, count), dtype=torch.int32)
    best, all_best = tiles.best(scores, k, dim), scores.topk(min(k, count), dim=dim).values
    assert best.shape == all_best.shape
    assert (best <= all_best).all()
    assert torch.equal(best.select(dim, 0), all_best.select(dim, 0)) or count % tiles.GROUP  # a rest is left out


def test_radii_alone_need_fewer_exact_distances(monkeypatch):
    measured = []
    direct = bounding.Search.direct
    monkeypatch.setattr(bounding.Search, "direct", lambda self, i, j: measured.append(len(i)) or direct(self, i, j))
    monkeypatch.setattr(products, "SMALL", 0)
    points = blobs(0, 300, 64)
    radii, few = search.nearest_neighbours(points, 5, 0)[1], sum(measured)
    measured.clear()
    assert torch.equal(radii, search.nearest_distances(points, 5)[:, 4:])
    assert few < sum(measured) / 2


def test_integer_products_that_overflow_are_found_out(monkeypatch):
    products.is_fast.cache_clear()
    monkeypatch.setattr(torch, "_int_mm", lambda x, y, out=None: (x.float() @ y.float()).clamp(max=32767).int())
    assert not products.is_fast(torch.int8, torch.device("cpu"))
    monkeypatch.delattr(torch, "_int_mm")
    products.is_fast.cache_clear()
    assert not products.is_fast(torch.int8, torch.device("cpu"))
    products.is_fast.cache_clear()


def test_codes_of_features_that_are_zero_are_exact():
    """Half of the features are 0, as after a ReLU: they add nothing to what rounding loses."""
    features = blobs(0, 200, 256).relu()
    step, centre = sides.side_of(features).frame.steps
    zeros = torch.zeros_like(features) - centre
    assert torch.equal(frames.whole_steps(zeros, step) * step, zeros)


@pytest.mark.parametrize("unit", [1e-22, 1e-44])
def test_codes_whose_errors_underflow_in_float32_bound_distances(unit):
    """Steps fit the short samples: the few long ones are none of those that a frame looks at."""
    points = unit * blobs(0, 300, 16)
    points[295::2] = blobs(1, 3, 16)
    state = bounding.Search(*search.sides_of(points, points))
    state.product, all_rows = products.IntegerProduct(state.sides), slice(0, len(points))
    everything = torch.full((len(points),), torch.inf)
    pairs = state._within(state.product.scores(all_rows, all_rows), all_rows, all_rows, (everything, everything))
    exact = naive_distances(points, points)[state.x.order[pairs.first], state.y.order[pairs.second]]
    assert len(exact) == len(points) ** 2
    assert (pairs.lower <= exact).all()
    assert (exact <= pairs.upper).all()


def binary(count, seed, low, high, dtype=torch.float32):
    """Codes of two values, 3 of 64 the higher one."""
    codes = torch.zeros(count, 64)
    codes.scatter_(1, torch.rand(count, 64, generator=torch.Generator().manual_seed(seed)).topk(3).indices, 1.0)
    return torch.where(codes > 0, high, low).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.half])
@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.05, 0.95), (-1e30, 1e30), (7.0, 7.0 + 2.0**-7), (1e-30, 1e-29)]
)
def test_integers_tell_the_distances_of_binary_codes(low, high, dtype, monkeypatch):
    """Ties included: no other product is asked, and none but copies are measured."""
    if dtype == torch.half and not 1e-3 < abs(high) < 1e3:
        pytest.skip("out of its range")
    monkeypatch.setattr(
        bounding, "products", lambda sides: iter([functools.partial(products.IntegerProduct, sides)] * 2)
    )
    generated, reference = (binary(150, seed, low, high, dtype) for seed in (1, 2))
    state = bounding.Search(*search.sides_of(generated, reference))
    rows, columns = slice(0, 150), slice(0, 150)
    everything = torch.full((150,), torch.inf), torch.full((150,), torch.inf)
    pairs = state._within(state.product.scores(rows, columns), rows, columns, everything)
    exact = naive_distances(generated, reference)[state.x.order[pairs.first], state.y.order[pairs.second]]
    assert torch.equal(pairs.lower, exact)
    assert torch.equal(pairs.upper[exact > 0], exact[exact > 0])
    assert state.product.exact
    assert not state.go_on()
    check_search(generated, reference, None)


def test_codes_that_are_binary_but_for_some_are_no_less_right(arithmetic):
    generated, reference = binary(150, 1, 0.05, 0.95), binary(140, 2, 0.05, 0.95)
    reference[::50, :9] += 1e-6
    generated[7, 5] = 0.4
    check_search(generated, reference, 64)
    check_search(generated, reference, None)


def test_an_outlier_does_not_coarsen_the_codes_of_others():
    points = blobs(0, 300, 128)
    few = points.clone()
    few[::100] *= 1e4
    step, _ = sides.side_of(points).frame.steps
    assert sides.side_of(few).frame.steps[0] < 2 * step


def test_a_set_leaves_a_frame_that_serves_it_badly():
    """A set that collapsed would lose most of its digits in the other's steps."""
    reference = blobs(0, 300, 128)
    alike, _ = search.sides_of(blobs(1, 200, 128), reference)
    assert sides.side_of(alike) is alike
    collapsed, _ = search.sides_of(1e-3 * blobs(2, 200, 128), reference)
    own = sides.side_of(collapsed)
    assert own.frame.steps[0] < 0.01 * collapsed.frame.steps[0]
    assert sides.side_of(own) is own


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("width", [1.0, 1e-3])
def test_sets_that_are_prepared_once_are_searched_as_their_features_are(width, offset, arithmetic):
    x, y = (offset + each for each in (width * blobs(1, 150, 16), blobs(0, 170, 16)))
    generated, reference = search.sides_of(x, y)
    around_y, around_x = (search.nearest_distances(side, 4) for side in (reference, generated))
    assert torch.equal(around_x, naive_nearest(x, 4))
    assert torch.equal(around_y, naive_nearest(y, 4))
    radii = (around_y[:, 2], around_y[:, 3]), growing_radii(generated, 3), (True, False)
    for found, expected in zip(balls(generated, reference, *radii), balls(x, y, *radii), strict=True):
        assert torch.equal(found, expected)


def test_nearest_distances_of_a_line():
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert nearest_distances(line, 2).tolist() == [[1, 3], [1, 2], [2, 3], [4, 6]]
    assert nearest_distances(line, 3)[:, 2].tolist() == [7, 6, 4, 7]  # as many neighbours as there are


def test_nearest_distances_refuses_too_few():
    for find in (lambda points: nearest_distances(points, 3), lambda points: search.nearest_neighbours(points, 2, 1)):
        with pytest.raises(TrilemmaError, match=r"k\+1=4"):
            find(blobs(0, 3, 2))
