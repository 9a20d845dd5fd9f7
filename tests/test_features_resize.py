"""The resizes are those of the libraries whose numbers they reproduce."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from inputs import scene
from PIL import Image
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from trilemma_bench.features.resize import bicubic, bicubic_uint8, normalised, tf1_bilinear


@pytest.mark.parametrize(("width", "height"), [(32, 32), (64, 48), (299, 299), (400, 320), (1, 1)])
def test_tf1_bilinear_is_torch_fidelitys(width, height):
    images = torch.stack([scene(width, height, seed) for seed in range(2)]).float() / 255
    for size in (299, 224):
        expected = interpolate_bilinear_2d_like_tensorflow1x(images, (size, size), align_corners=False)
        found = tf1_bilinear(images, size)
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (64, 64), (299, 299), (320, 300), (512, 400)])
def test_bicubic_is_clean_fids(width, height):
    resize = build_resizer("clean")
    image = scene(width, height)
    expected = torch.from_numpy(resize(image.permute(1, 2, 0).numpy())).permute(2, 0, 1)
    found = bicubic(image[None], 299)[0]
    assert float((found - expected).abs().max()) < 1e-4
    assert 0 <= float(found.min()) <= float(found.max()) <= 255


@pytest.mark.parametrize(("width", "height"), [(32, 32), (64, 64), (256, 200), (400, 400)])
def test_bicubic_uint8_is_pillows(width, height):
    """Pillow's fixed point may round a value on the verge to the other side: by one level, and seldom."""
    image = scene(width, height)
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
    difference = (bicubic_uint8(image[None], 224)[0] - torch.from_numpy(np.array(pillow)).permute(2, 0, 1)).abs()
    assert difference.max() <= 1
    assert float((difference > 0).double().mean()) < 0.001


def test_normalised_has_the_mean_and_scale_of_each_channel():
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    found = normalised(images, (0.5, 0.5, 0.2), (0.25, 0.5, 0.1)).flatten()
    torch.testing.assert_close(found, torch.tensor([-2.0, 1.0, 0.0]), atol=1e-6, rtol=0)
