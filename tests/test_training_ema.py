"""The average of weights."""

from __future__ import annotations

import torch
from torch import nn

from trilemma_bench.training.ema import EMA


def test_the_average_of_weights_is_the_recursion_and_copies_buffers():
    network = nn.BatchNorm1d(2)
    average = EMA(network, 0.9)
    expected = network.weight.detach().clone()
    for update in range(1, 5):
        with torch.no_grad():
            network.weight += 1
            network.running_mean += 1
        average.update()
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * network.weight.detach()
    torch.testing.assert_close(average.network.weight, expected, check_stride=False)
    assert average.network.running_mean.tolist() == [4, 4]
    with average.swapped():
        torch.testing.assert_close(network.weight.detach(), expected)
    assert network.weight.tolist() == [5, 5]
