"""DiffAugment's and ADA's transformations: known answers, ranges of what is drawn, strengths and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from baselines import augment as augmenting
from baselines.augment import ada_augment, colour, cutout, diff_augment
from baselines.geometry import Draws, warp


@pytest.mark.parametrize("augment", [colour, cutout, diff_augment])
def test_gradients_pass_and_images_differ(augment):
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    out = augment(images)
    out.sum().backward()
    assert out.shape == images.shape
    assert images.grad.abs().sum() > 0
    assert not torch.equal(out[0] - images[0], out[1] - images[1])


def test_cutout_removes_a_quarter_at_most():
    kept = cutout(torch.ones(500, 1, 16, 16)).mean(dim=(1, 2, 3))
    assert kept.min().item() == pytest.approx(0.75)
    assert kept.max() < 1


def test_colour_of_a_grey_image_changes_its_brightness_alone():
    out = colour(torch.full((200, 3, 4, 4), 0.2)) - 0.2
    assert torch.allclose(out.amax(dim=(1, 2, 3)), out.amin(dim=(1, 2, 3)), atol=1e-6)
    assert out.abs().max() <= 0.5 + 1e-6


def test_ada_of_strength_zero_is_nothing():
    images = torch.rand(4, 3, 16, 16)
    assert torch.equal(ada_augment(images, torch.tensor(0.0)), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_ada_changes_a_share_of_the_images_that_grows_with_p(channels):
    images = torch.rand(400, channels, 16, 16)
    shares = [
        float((ada_augment(images, torch.tensor(p)) - images).abs().amax(dim=(1, 2, 3)).gt(1e-4).float().mean())
        for p in (0.01, 0.1, 1.0)
    ]
    assert 0 < shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.99


def test_ada_moves_along_both_axes_or_neither():
    """One coin decides for both, of whole pixels and of parts."""
    torch.manual_seed(0)
    draws = Draws(torch.zeros(4000, 1, 8, 8), torch.tensor(0.3))
    for moves in (draws.pair(-0.1, 0.1), draws.normal_pair(0.1)):
        moved = moves != 0
        assert torch.equal(moved[:, 0], moved[:, 1])
        assert float(moved.float().mean()) == pytest.approx(0.3, abs=0.03)
        assert abs(float(torch.corrcoef(moves[moved[:, 0]].T)[0, 1])) < 0.1


def test_ada_passes_gradients():
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    ada_augment(images, torch.tensor(0.8)).sum().backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0


def test_brightness_saturation_and_contrast_fill_their_ranges():
    """−0.5…0.5, 0…2 and 0.5…1.5, evenly; each read from an image of grey mean whose first pixel alone has colour."""
    image = torch.zeros(3, 2, 2)
    image[:, 0, 0] = torch.tensor([0.2, 0.0, -0.2])
    image[:, 1, 0], image[:, 1, 1] = 0.2, -0.2
    x = colour(image.expand(4000, -1, -1, -1))
    brightness, contrast = x.mean(dim=(1, 2, 3)), (x[:, 0, 1, 0] - x[:, 0, 1, 1]) / 0.4
    saturation = (x[:, 0, 0, 0] - x[:, 2, 0, 0]) / 0.4 / contrast
    for found, low, high in ((brightness, -0.5, 0.5), (saturation, 0.0, 2.0), (contrast, 0.5, 1.5)):
        assert_even(found, low, high)
    assert_unrelated(brightness, saturation, contrast)


def assert_even(found, low, high):
    """Drawn evenly from the whole range (some thousands)."""
    shares = (found - low) / (high - low)
    assert -1e-5 < shares.min() < 0.01
    assert 0.99 < shares.max() < 1 + 1e-5
    assert shares.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist() == pytest.approx([0.25, 0.5, 0.75], abs=0.04)


def assert_unrelated(*found):
    correlations = torch.corrcoef(torch.stack(found)) - torch.eye(len(found))
    assert correlations.abs().max() < 0.06


@pytest.mark.parametrize(
    ("size", "hole", "places"), [(16, 8, 17), (10, 5, 10)], ids=["an even number of rows", "an odd one"]
)
def test_a_square_of_half_the_side_is_cut_out_with_its_centre_anywhere(size, hole, places):
    """Rows c − 4 … c + 3 of 16, inside the image, for c = 0 … 16 alike often; columns likewise, on their own.

    Of 10 the rows c − 2 … c + 2 for c = 0 … 9: five, about a pixel.
    """
    holes = cutout(torch.ones(500 * places, 1, size, size))[:, 0] == 0
    rows, columns = holes.any(dim=2), holes.any(dim=1)
    assert torch.equal(holes, rows[:, :, None] & columns[:, None, :])
    row, first = torch.arange(size), torch.arange(places)[:, None] - hole // 2
    expected = (row >= first) & (row < first + hole)
    centres = []
    for sides in (rows, columns):
        matches = (sides[:, None] == expected).all(dim=2).float()
        assert (matches.sum(dim=1) == 1).all()
        assert (matches.mean(dim=0) - 1 / places).abs().max() < 0.02
        centres.append(matches.argmax(dim=1).float())
    assert_unrelated(*centres)


def test_what_adas_draws_are_of():
    """Where each happens: ranges and deviations as asked, a coin that is fair, and pairs of two draws of their own."""
    draws = Draws(torch.zeros(4000, 1, 8, 8), 1.0)
    pair, normals = draws.pair(-1, 3).T, draws.normal_pair(0.2).T
    for found, low, high in ((draws.uniform(-1, 3), -1, 3), (draws.rotation(), -math.pi, math.pi), (pair[0], -1, 3)):
        assert_even(found, low, high)
    for found in (draws.normal(0.2), *normals):
        assert found.mean().item() == pytest.approx(0, abs=0.02)
        assert found.std().item() == pytest.approx(0.2, rel=0.05)
    assert set(draws.coin().tolist()) == {0.0, 1.0}
    assert draws.coin().mean().item() == pytest.approx(0.5, abs=0.03)
    assert_unrelated(*pair)
    assert_unrelated(*normals)


def test_each_draw_happens_as_often_as_asked_and_a_pair_of_turns_together():
    """Of two rotations one at least happens with probability p, by which p has the same strength (App. B)."""
    draws = Draws(torch.zeros(4000, 1, 8, 8), 0.3)
    turns = (draws.rotation() != 0).float(), (draws.rotation() != 0).float()
    drawn = [draws.uniform(1, 2) != 0, draws.normal(1.0) != 0, torch.maximum(*turns)]
    assert [each.float().mean().item() for each in drawn] == pytest.approx([0.3] * 3, abs=0.03)
    assert draws.coin().mean().item() == pytest.approx(0.15, abs=0.03)
    assert_unrelated(*turns)


class Chosen:
    """In place of ADA's draws: none happens but those that are given, the same for every image.

    given: a value by the draw's name, or a function from the draw's arguments to it.
    """

    def __init__(self, **given):
        self.given = given

    def __call__(self, images, p):
        self.count = len(images)
        return self

    def __getattr__(self, name):
        def draw(*limits):
            value = self.given.get(name, [0.0, 0.0] if "pair" in name else 0.0)
            value = torch.tensor(value(*limits) if callable(value) else value)
            return value.expand(self.count, *value.shape)

        return draw


@pytest.fixture
def chosen(monkeypatch):
    """What a part of ADA makes of images when it draws what is given."""

    def apply(part, images, **given):
        monkeypatch.setattr(augmenting, "Draws", Chosen(**given))
        return part(images, torch.tensor(1.0))

    return apply


IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def between(share):
    """An even draw's value at `share` of its range."""
    return lambda low, high: low + share * (high - low)


def where(affine):
    """Where a map takes the result's point (0.5, 0.2)."""
    return (affine[0, :2] @ torch.tensor([0.5, 0.2, 1.0])).tolist()


def test_without_draws_ada_is_the_identity(chosen):
    same(chosen(augmenting._affine, IMAGES), torch.eye(3).expand(2, 3, 3))
    same(chosen(augmenting._recolour, IMAGES), IMAGES)


@pytest.mark.parametrize(
    ("drawn", "point"),
    [
        ({"coin": 1.0}, (-0.5, 0.2)),  # mirrored
        ({"uniform": between(1 / 4 + 0.1)}, (-0.2, 0.5)),  # a quarter of a turn
        ({"uniform": between(2 / 4 + 0.1)}, (-0.5, -0.2)),
        ({"uniform": between(3 / 4 + 0.1)}, (0.2, -0.5)),
        ({"rotation": math.pi / 4}, (-0.2, 0.5)),  # of any angle, twice: before and after the stretch
        ({"pair": [0.13, -0.07]}, (0.5 + 2 / 8, 0.2 - 1 / 8)),  # whole pixels of 16: 2 and −1
        ({"pair": lambda low, high: [low, high]}, (0.5 - 2 / 8, 0.2 + 2 / 8)),  # an eighth of the image at most
        ({"normal_pair": [1 / 32, 0.0]}, (0.5 + 1 / 16, 0.2)),  # half a pixel
        ({"normal_pair": lambda std: [std, -std]}, (0.5 + 2 / 8, 0.2 - 2 / 8)),
        ({"normal": -1.0}, (0.5 / 4, 0.2)),  # all halved, and x halved and y doubled by the stretch
        ({"normal": lambda std: std}, (0.5 * 2**0.4, 0.2)),
        ({"coin": 1.0, "uniform": between(1 / 4 + 0.1), "pair": [0.13, 0.0]}, (0.2, 0.75)),
        ({"rotation": math.pi / 4, "normal": -1.0}, (-0.3125, 0.3875)),  # stretched between the two turns
    ],
    ids=[
        *("mirrored", "quarter", "half", "three quarters", "any angle"),
        *("whole pixels", "most pixels", "parts of pixels", "deviation of parts", "scaled", "deviation of scales"),
        *("the image mirrored, turned, then moved", "turned, stretched, turned"),
    ],
)
def test_ada_moves_points(chosen, drawn, point):
    """As far as is drawn, of the ranges and deviations of Karras et al. 2020b, App. B."""
    assert where(chosen(augmenting._affine, IMAGES, **drawn)) == pytest.approx(point, abs=1e-6)


def test_autocast_changes_nothing_of_adas():
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(ada_augment(IMAGES, torch.tensor(0.7)))
    assert torch.equal(*found)


def test_ada_moves_its_images_by_its_maps_and_then_changes_colours(chosen):
    drawn = {"rotation": 0.3, "normal": -0.5}
    maps = chosen(augmenting._affine, IMAGES, **drawn)
    expected = chosen(augmenting._recolour, warp(IMAGES, maps), **drawn)
    same(chosen(ada_augment, IMAGES, **drawn), expected)


def test_ada_flips_the_luma_and_leaves_colours(chosen):
    same(chosen(augmenting._recolour, IMAGES, coin=1.0), IMAGES - 2 * IMAGES.mean(dim=1, keepdim=True))


def test_adas_luma_flip_turns_grey_into_its_negative(chosen):
    """Grey has no hue or saturation, and its luma is itself."""
    grey = IMAGES[:, :1]
    same(chosen(augmenting._recolour, grey, coin=1.0), -grey)
    same(chosen(augmenting._recolour, grey, coin=0.0), grey)


def test_ada_turns_hues_about_the_grey_axis(chosen):
    """By up to half a turn to either side; a third of a turn makes red green, green blue and blue red."""
    same(chosen(augmenting._recolour, IMAGES, uniform=between(1 / 2 + 1 / 3)), IMAGES.roll(1, dims=1))


@pytest.mark.parametrize(
    ("std", "expected"),
    [(0.2, IMAGES + 1), (0.5, 2 * IMAGES), (1.0, 2 * IMAGES - IMAGES.mean(dim=1, keepdim=True))],
    ids=["brightness", "contrast", "saturation"],
)
def test_ada_brightens_and_doubles_contrast_and_saturation(chosen, std, expected):
    """Which of them is drawn, its deviation tells."""
    same(chosen(augmenting._recolour, IMAGES, normal=lambda drawn: float(drawn == std)), expected)
