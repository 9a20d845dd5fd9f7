"""A sweep: one trained model sampled with several values of one knob, a curve through the trilemma."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trilemma_bench import pipeline
from trilemma_bench.config import parse_value
from trilemma_bench.errors import UsageError
from trilemma_bench.evaluation.extractors import Extractors
from trilemma_bench.job import Job, Options, prepare
from trilemma_bench.record import Record
from trilemma_bench.trained import build_model

STEPS = "sampling_steps"


@dataclass(frozen=True)
class Knob:
    """A sampling setting and the values that it takes."""

    setting: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, text: str) -> Knob:
        """'eta=0,0.5,1'. Raises UsageError for anything that is not a name and values."""
        setting, _, values = text.partition("=")
        found = [value.strip() for value in values.split(",")]
        if not setting.strip() or not all(found):
            raise UsageError(f"'{text}': expected KEY=VALUE,VALUE,… such as {STEPS}=5,10,20")
        return cls(setting.strip(), tuple(map(parse_value, found)))


def sweep(options: Options, knob: Knob) -> list[Record]:
    """A run for each value that has not been run before; the first trains the model unless it is trained already, the
    others find its checkpoint.

    Raises UsageError, before anything is done, for a knob that would need another training run, or a wrong value.
    """
    runs = [replace(options, overrides={**options.overrides, knob.setting: value}) for value in knob.values]
    job = prepare(options)
    _check_knob(job, knob)
    for each in runs:
        build_model(prepare(each))
    extractors = Extractors(job.device)
    return [pipeline.run(each, extractors, anew=False) for each in runs]


def _check_knob(job: Job, knob: Knob) -> None:
    """Only what changes nothing but the sampling can be swept: the curve is that of one trained model."""
    known: Sequence[str] = sorted(job.model_class.sampling_settings)
    if knob.setting in known:
        return
    model = job.options.model
    if not known:
        raise UsageError(f"model '{model}' has no setting of its sampling alone, so there is nothing to sweep")
    raise UsageError(f"'{knob.setting}' is no sampling setting of '{model}': sweep over {', '.join(known)}")
