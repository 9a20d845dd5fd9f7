"""The sampling of moved images: what is known of it exactly, and what a low-pass filter is for."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from baselines.geometry import bilinear, rotate, scale, translate, warp

SIZE = 32
LATE = 0.05  # pixels: what the wavelet, which is not quite symmetric, moves its half pixels by


def maps(kind, *values):
    return kind(*(torch.tensor([value], dtype=torch.float64) for value in values))


def centre(image):
    """(x, y) of the centre of mass, in pixels from the image's middle."""
    line = torch.arange(SIZE, dtype=torch.float64) - (SIZE - 1) / 2
    mass = image.sum()
    return (image.sum(dim=0) @ line / mass).item(), (image.sum(dim=1) @ line / mass).item()


def blob(x, y, radius=2.5):
    line = torch.arange(SIZE, dtype=torch.float64) - (SIZE - 1) / 2
    return torch.exp(-((line - x) ** 2 + (line[:, None] - y) ** 2) / (2 * radius**2))[None, None]


@pytest.mark.parametrize("size", [8, 9, 32])
def test_what_moves_nothing_changes_nothing(size):
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    torch.testing.assert_close(warp(images, torch.eye(3).double().expand(2, 3, 3)), images, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        (maps(scale, -1, 1), (-5, 3)),
        (maps(rotate, math.pi / 2), (3, -5)),
        (maps(rotate, math.pi), (-5, -3)),
        (maps(translate, 0.125, -0.125), (3, 5)),
        (maps(scale, 1.25, 1), (4, 3)),
        (maps(scale, 1, 0.75), (5, 4)),
    ],
    ids=["mirrored", "a quarter", "a half", "shifted", "narrow", "high"],
)
def test_a_blob_goes_where_the_map_has_it(affine, expected):
    """A map takes places of the result to places of the image: the result's blob is where the inverse has it."""
    assert centre(warp(blob(5, 3), affine)[0, 0]) == pytest.approx(expected, abs=2 * LATE + 1e-3)


def test_beyond_the_border_lies_the_reflection():
    """A cosine with its crests at the outermost pixels' centres is its own reflection: shifted, it is known."""
    frequency = 2 * math.pi / (SIZE - 1)
    pixels = torch.arange(SIZE, dtype=torch.float64)
    moved = warp((frequency * pixels).cos().expand(1, 1, SIZE, SIZE), maps(translate, 0.21, -0.13))[0, 0]
    expected = (frequency * (pixels + 0.21 * SIZE / 2)).cos().expand(SIZE, SIZE)
    bound = 0.5**2 / 8 * frequency**2  # of linear interpolation between half pixels
    assert (moved - expected).abs().max() < bound + 1e-4


def test_an_image_moved_by_all_but_a_pixel_of_its_side_is_its_mirror_image():
    """So the reflection has its last pixel; on the left the wavelet lacks what lies further out for the last three."""
    images, moves = torch.rand(1, 1, SIZE, SIZE, dtype=torch.float64), 2 * (SIZE - 1) / SIZE
    rightwards, leftwards = (warp(images, maps(translate, side * moves, 0.0)) for side in (-1, 1))
    assert (leftwards - images.flip(3)).abs().max() < 0.02
    assert (rightwards - images.flip(3))[..., 3:].abs().max() < 1e-6


def test_two_reflections_away_there_is_nothing():
    assert warp(torch.ones(1, 1, SIZE, SIZE), maps(translate, 8.0, 0.0).float()).abs().max() == 0


def test_what_is_too_fine_for_a_smaller_image_vanishes():
    """Of a chessboard, halved, bilinear sampling alone would leave all of one colour."""
    board = ((torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2 * 2.0 - 1)[None, None]
    halved = maps(scale, 2, 2).float()
    inside = slice(SIZE // 4, -SIZE // 4)
    assert warp(board, halved)[0, 0, inside, inside].abs().max() < 1e-5
    shifted = F.affine_grid(maps(scale, 2, 2)[:, :2] + torch.tensor([0, 0, 1 / SIZE]), [1, 1, SIZE, SIZE], False)
    assert F.grid_sample(board.double(), shifted, align_corners=False).abs().max() == pytest.approx(1)


def test_bilinear_sampling_is_torchs():
    images, grid = torch.randn(2, 3, 7, 9), 3 * torch.rand(2, 5, 4, 2) - 1.5
    torch.testing.assert_close(bilinear(images, grid), F.grid_sample(images, grid, align_corners=False))


def test_derivatives_of_every_order_pass():
    images = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    turned = maps(rotate, 0.4)
    assert torch.autograd.gradcheck(lambda x: warp(x, turned), images)
    assert torch.autograd.gradgradcheck(lambda x: warp(x, turned) ** 2, images)


def test_bfloat16_keeps_its_type_and_loses_nothing_on_the_way():
    images = torch.randn(1, 3, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        moved = warp(images, maps(rotate, 0.4).float())
    assert moved.dtype == torch.bfloat16
    assert torch.equal(moved, warp(images.float(), maps(rotate, 0.4).float()).bfloat16())
