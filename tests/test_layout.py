"""Images keep their channels last on CUDA: the forms that blocks have there, run on the CPU, copy nothing twice."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from models import tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from trilemma_bench.contracts import DataSpec
from trilemma_bench.nn import layers, resample
from trilemma_bench.nn.layers import joined
from trilemma_bench.nn.resample import NearestUpsample

SPEC = DataSpec((3, 16, 16))
SMALL = 4 * 4  # pixels, from which on a copy costs nothing


@pytest.fixture
def as_on_cuda(monkeypatch):
    for module in (layers, resample):
        monkeypatch.setattr(module, "wants_channels_last", lambda x: True)


class Convolutions(TorchDispatchMode):
    """Looks at what convolutions are given: images, their gradients and weights, by whether their channels are last."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket == torch.ops.aten.convolution:
            self.seen[is_fit(args[0]) and is_last(args[1])] += 1
        elif func._overloadpacket == torch.ops.aten.convolution_backward:
            self.seen[is_fit(args[0]) and is_fit(args[1]) and is_last(args[2])] += 1
        return func(*args, **(kwargs or {}))


def is_fit(images):
    few = images.shape[1] <= 3 or images.shape[-1] ** 2 <= SMALL
    return few or is_last(images)


def is_last(x):
    return x.is_contiguous(memory_format=torch.channels_last)


NAMES = ["ddpm", "ddgan", "siddm", "score-sde-ve", "score-sde-vp", "edm", "flow-matching", "vae", "gan"]


# Not StyleGAN2, whose transposed convolutions take transposed weights, nor MeanFlow: derivatives of weights are zeros.
@pytest.mark.parametrize("name", NAMES)
def test_no_convolution_gets_another_layout_or_a_slice(name, as_on_cuda):
    model = tiny_model(name, SPEC).to(memory_format=torch.channels_last)
    batch = torch.randn(8, *SPEC.shape).to(memory_format=torch.channels_last)
    with Convolutions() as convolutions:
        model.training_step(batch, 1, model.optimizers())
    assert convolutions.seen[True] > 10
    assert not convolutions.seen[False]


class TestForms:
    def test_joined_is_a_concatenation_with_the_same_gradients(self, as_on_cuda):
        parts = [torch.randn(2, channels, 4, 4, dtype=torch.float64, requires_grad=True) for channels in (3, 5)]
        assert torch.equal(joined(*parts), torch.cat(parts, dim=1))
        assert torch.autograd.gradcheck(joined, parts)
        assert torch.autograd.gradgradcheck(joined, parts)

    @torch.no_grad()
    def test_joined_works_in_torchs_forward_mode(self, as_on_cuda):
        x, skip = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
        value, change = torch.func.jvp(joined, (x, skip), (2 * x, 3 * skip))
        assert torch.equal(value, torch.cat([x, skip], dim=1))
        assert torch.equal(change, torch.cat([2 * x, 3 * skip], dim=1))

    def test_nearest_neighbours_are_torchs(self, as_on_cuda):
        x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
        expected = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        assert torch.equal(NearestUpsample()(x), expected)
        assert torch.autograd.gradcheck(NearestUpsample(), [x])


@pytest.mark.parametrize("name", ["ddpm", "score-sde-ve", "ddgan"])
def test_these_forms_compile_without_breaks_and_give_the_same_gradients(name, as_on_cuda):
    model = tiny_model(name, SPEC).to(memory_format=torch.channels_last).eval()
    batch = torch.randn(4, *SPEC.shape).to(memory_format=torch.channels_last)
    further = [torch.randn(4, model.latent_dim)] if name == "ddgan" else []
    gradients = []
    for network in (model.network, torch.compile(model.network, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        network(batch, *further, torch.arange(4)).square().sum().backward()
        gradients.append({key: value.grad for key, value in model.network.named_parameters()})
    for key, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][key], rtol=1e-4, atol=1e-5), key
