"""The precision and the compiling of networks: flags, what 'auto' stands for, and what belongs to a digest."""

from __future__ import annotations

import pytest
import torch
from models import CPU

from trilemma_bench import precision
from trilemma_bench.settings import SamplingSettings, Settings, TrainingSettings


def test_arithmetic_leaves_the_flags_as_they_were():
    def flags():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark

    before = flags()
    with precision.arithmetic("float32", CPU):
        assert flags()[:2] == ("highest", False)
    with precision.arithmetic("bf16", CPU):
        assert flags()[:2] == ("high", True)
    assert flags() == before


@pytest.mark.parametrize(("able", "training_precision"), [(True, "bf16"), (False, "float32")])
def test_auto_is_decided_by_the_device_before_anything_is_recorded(monkeypatch, able, training_precision):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    settings = Settings({}, TrainingSettings(), SamplingSettings())
    assert settings.training.precision == "auto"
    assert settings.on(torch.device("cuda"), is_image=True).training.precision == training_precision
    assert settings.on(torch.device("cuda"), is_image=False).training.precision == "float32"
    assert settings.on(CPU, is_image=True).training.precision == "float32"
    assert not settings.on(CPU, is_image=True).training.compile
    chosen = Settings({}, TrainingSettings(precision="bf16"), SamplingSettings(precision="auto")).on(CPU, is_image=True)
    assert (chosen.training.precision, chosen.sampling.precision) == ("bf16", "float32")


@pytest.mark.parametrize(("budget", "compiled"), [("5m", False), ("30m", True), ("1999kimg", False), ("2Mimg", True)])
def test_only_long_training_on_a_gpu_is_worth_compiling(budget, compiled):
    settings = Settings({}, TrainingSettings(budget=budget, precision="float32"), SamplingSettings())
    assert settings.on(torch.device("cuda"), is_image=True).training.compile is compiled
    assert settings.on(CPU, is_image=True).training.compile is False


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision"):
        TrainingSettings(precision="float16")
