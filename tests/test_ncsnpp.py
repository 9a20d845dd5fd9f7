"""The NCSN++ backbone: the papers' sizes and costs, where it attends, and what its blocks compute."""

from __future__ import annotations

import math

import pytest
import torch
from models import millions, wake
from torch.utils.flop_counter import FlopCounterMode

from trilemma_bench.errors import UsageError
from trilemma_bench.nn.embedding import FourierEmbedding
from trilemma_bench.nn.ncsnpp import AdaGN, NCSNpp, PyramidConv, ResBlock
from trilemma_bench.nn.unet import Attention
from trilemma_bench.trained import count_parameters

VE = {"fourier_scale": 16.0}
STYLED = {"res_blocks": 2, "style_dim": 256}
HIGH = {"size": 256, "channels": 64, "multipliers": (1, 1, 2, 2, 4, 4)}
SMALL = {"channels": 8, "multipliers": (1, 2), "res_blocks": 1}


def on_meta(size=32, **settings):
    with torch.device("meta"):
        return NCSNpp(3, size, **settings)


def mapping(layers):
    """Parameters of DDGAN's z → w: 100 → 256, then `layers` of 256 → 256."""
    return 101 * 256 + layers * 257 * 256


def awake(size=8, **settings):
    torch.manual_seed(0)
    return wake(NCSNpp(1, size, **(SMALL | settings)), by=0.1).eval()


def inputs(network, size=8, count=2):
    torch.manual_seed(1)
    width = next((module.style.in_features for module in network.modules() if isinstance(module, AdaGN)), 0)
    style = {"style": torch.randn(count, width)} if width else {}
    return {"x": torch.randn(count, 1, size, size), "time": torch.arange(count), **style}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"fir": False}, 61.80),
        ({}, 62.69),
        (VE, 62.76),
        ({"fir": False, "res_blocks": 8}, 106.63),
        ({"res_blocks": 8, **VE}, 107.59),
    ],
    ids=["DDPM++", "NCSN++", "NCSN++ VE", "DDPM++ deep", "NCSN++ VE deep"],
)
def test_parameters_of_score_sde(settings, expected):
    assert millions(on_meta(**settings)) == expected


@pytest.mark.parametrize(
    ("settings", "layers", "expected"),
    [({}, 4, 48.43), (HIGH, 3, 39.73), ({"channels": 64}, 4, 14.31), ({"channels": 32}, 4, 4.79)],
    ids=["CIFAR-10", "256 px", "64 channels", "32 channels"],
)
def test_parameters_of_ddgans_generator_with_its_mapping(settings, layers, expected):
    count = count_parameters(on_meta(**STYLED, **settings)) + mapping(layers)
    assert round(count / 1e6, 2) == expected


@pytest.mark.parametrize(("channels", "expected"), [(128, 14.1), (64, 3.59), (32, 0.93)])
def test_a_forward_pass_costs_what_ddgans_does(channels, expected):
    network = on_meta(**STYLED, channels=channels)
    x, time, style = (torch.empty(shape, device="meta") for shape in ((1, 3, 32, 32), (1,), (1, 256)))
    with FlopCounterMode(display=False) as counter:
        network(x, time, style=style)
    assert counter.get_total_flops() / 1e9 == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("size", "multipliers", "settings"),
    [(8, (1, 2), {}), (28, (1, 2, 2), {"fir": False}), (64, (1, 1, 2, 2), VE), (5, (1,), {}), (32, (1, 2), STYLED)],
)
def test_the_output_has_the_inputs_shape_and_is_zero_at_the_start(size, multipliers, settings):
    network = NCSNpp(1, size, **(SMALL | settings | {"multipliers": multipliers}))
    output = network(**inputs(network, size))
    assert output.shape == (2, 1, size, size)
    assert (output == 0).all()


@pytest.mark.parametrize(("size", "multipliers"), [(28, (1, 1, 2, 2)), (9, (1, 2))])
def test_a_size_that_cannot_be_halved_is_a_clear_error(size, multipliers):
    with pytest.raises(UsageError, match=f"^{size} pixels cannot be halved {len(multipliers) - 1} times"):
        NCSNpp(1, size, channels=8, multipliers=multipliers)


def test_it_attends_at_the_given_sizes_and_in_the_middle():
    """At 16 px: after each of 2 blocks on the way down and after the last on the way up; and once at 4 px."""
    network = awake(32, multipliers=(1, 1, 2, 2), res_blocks=2, attention_resolutions=(16,))
    sizes = []
    for module in network.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda module, args, output: sizes.append(output.shape[-1]))
    network(**inputs(network, 32))
    assert sizes == [16, 16, 4, 16]


@pytest.mark.parametrize("settings", [{}, {"fir": False}, VE, {"style_dim": 8}])
def test_every_parameter_matters(settings):
    network = awake(**settings)
    network(**inputs(network)).square().sum().backward()
    silent = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []


@pytest.mark.parametrize("settings", [{}, {"fir": False}, {"style_dim": 8}])
def test_channels_last_changes_nothing(settings):
    network = awake(**settings)
    given = inputs(network)
    expected = network(**given)
    network.to(memory_format=torch.channels_last)
    given["x"] = given["x"].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(**given), expected)


@pytest.mark.parametrize("settings", [{}, VE, {"style_dim": 8}])
def test_samples_do_not_see_each_other_but_their_own_time_and_style(settings):
    network = awake(**settings)
    given = inputs(network, count=3)
    whole = network(**given)
    torch.testing.assert_close(network(**{name: part[1:2] for name, part in given.items()}), whole[1:2])
    for name in given.keys() - {"x"}:
        other = {**given, name: given[name].flip(0)}
        changed = (network(**other) - whole).abs().flatten(1).amax(dim=1)
        assert changed[[0, 2]].min() > 1e-3
        assert changed[1] < 1e-5


def test_one_time_serves_all_samples():
    network = awake()
    x = inputs(network)["x"]
    torch.testing.assert_close(network(x, torch.tensor([3])), network(x, torch.tensor([3, 3])))


def test_a_residual_block_starts_as_a_scaled_copy():
    """(x + h)/√2 with h = 0: variances stay as they are once h has the size of x."""
    network = NCSNpp(1, 8, **SMALL)
    x = torch.randn(2, 8, 8, 8)
    torch.testing.assert_close(network.down[0][0](x, torch.randn(2, 32)), x / math.sqrt(2))


def test_queries_keys_and_values_start_with_a_tenth_of_the_usual_variance():
    """Of each layer of equally many inputs and outputs, as Song et al. 2021 scale them."""
    torch.manual_seed(0)
    network = NCSNpp(1, 8, channels=64, multipliers=(1,), res_blocks=1)
    (attention,) = (module for module in network.modules() if isinstance(module, Attention))
    for part in attention.qkv.weight.chunk(3):
        assert part.var().item() == pytest.approx(0.1 / 64, rel=0.1)
        assert part.mean().item() == pytest.approx(0, abs=4 * math.sqrt(0.1 / 64) / 64)


def test_adagn_is_the_identity_on_normalised_input_for_a_style_of_zero():
    norm = NCSNpp(1, 8, **SMALL, style_dim=4).down[0][0].norm1
    x = torch.randn(3, 8, 5, 5)
    torch.testing.assert_close(norm(x, torch.zeros(3, 4)), norm.norm(x))


def test_adagn_scales_and_shifts_each_sample_by_its_style():
    norm = AdaGN(8, 1)
    with torch.no_grad():
        norm.style.weight.copy_(torch.cat([torch.full((8, 1), 2.0), torch.full((8, 1), 3.0)]))
        norm.style.bias.zero_()
    x = torch.randn(2, 8, 4, 4)
    plain = norm.norm(x)
    expected = torch.tensor([2.0, 4.0]).view(2, 1, 1, 1) * plain + torch.tensor([3.0, 6.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(norm(x, torch.tensor([[1.0], [2.0]])), expected)


def test_the_pyramid_halves_a_constant_image_to_a_constant():
    layer = PyramidConv(1, 1)
    with torch.no_grad():
        layer.conv.weight.zero_()[..., 1, 1] = 2.0
        layer.conv.bias.fill_(1.0)
    output = layer(torch.ones(1, 1, 8, 8))
    assert output.shape == (1, 1, 4, 4)
    torch.testing.assert_close(output[..., 1:-1, 1:-1], torch.full((1, 1, 2, 2), 3.0))


def test_the_pyramid_is_centred_as_the_fir_halving_is():
    """Both paths of a halved level see a mirrored image mirrored: none is shifted against the other."""
    layer = PyramidConv(1, 1)
    with torch.no_grad():
        layer.conv.weight.fill_(1.0)
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(layer(x).flip(2, 3), layer(x.flip(2, 3)))


def test_the_pyramid_joins_each_halved_level_and_goes_on_from_there():
    """(pyramid + h)/√2 is the level's input and the pyramid's next (Song et al. 2021, progressive_input = residual)."""
    network, given, taken = awake(16, multipliers=(1, 1, 1)), {}, {}

    def watch(name, module):
        def note(module, arguments, output):
            taken[name], given[name] = arguments[0], output

        module.register_forward_hook(note)

    for level in (1, 2):
        watch(f"halved {level}", network.halve[level - 1])
        watch(f"pyramid {level}", network.pyramid[level - 1])
        watch(f"level {level}", network.down[level][0])
    x = inputs(network, 16)
    network(**x)
    for level in (1, 2):
        joined = (given[f"halved {level}"] + given[f"pyramid {level}"]) / math.sqrt(2)
        torch.testing.assert_close(taken[f"level {level}"], joined)
    assert torch.equal(taken["pyramid 1"], x["x"])
    assert torch.equal(taken["pyramid 2"], taken["level 1"])


def test_fourier_embedding_turns_at_its_frequencies():
    torch.manual_seed(0)
    embedding = FourierEmbedding(4096, scale=0.2)
    sines, cosines = embedding(torch.tensor([0.0, 0.5])).chunk(2, dim=1)
    assert (sines[0] == 0).all()
    assert (cosines[0] == 1).all()
    # E cos(2π b t) for b ~ N(0, s²) is exp(−2π² s² t²), within four standard errors
    assert cosines[1].mean().item() == pytest.approx(math.exp(-2 * (math.pi * 0.2 * 0.5) ** 2), abs=4 * 0.71 / 64)
    torch.testing.assert_close(sines.square() + cosines.square(), torch.ones(2, 4096))


def test_dropout_acts_in_training_only():
    block = ResBlock(8, 8, time_dim=4, dropout=0.5)
    x, time = torch.randn(1, 8, 4, 4), torch.randn(1, 4)
    assert not torch.equal(block(x, time), block(x, time))
    block.eval()
    assert torch.equal(block(x, time), block(x, time))
