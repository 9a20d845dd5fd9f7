"""Every model builds, by its shipped recipe or its defaults, for every size that a dataset has."""

from __future__ import annotations

import pytest
import torch
from test_model_contracts import TRAINABLE

from trilemma_bench import registry
from trilemma_bench.config import resolve
from trilemma_bench.datasets import open_dataset


@pytest.mark.parametrize("dataset", ["digits", "mnist", "stackedmnist", "cifar10"])
@pytest.mark.parametrize("name", TRAINABLE)
def test_every_model_builds_for_every_size(name, dataset):
    model = registry.models.get(name)
    settings = resolve(model, model=name, dataset=dataset)
    with torch.device("meta"):
        built = model(open_dataset(dataset).spec, **settings.model)
    assert sum(parameter.numel() for parameter in built.network.parameters()) > 1e4
