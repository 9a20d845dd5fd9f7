"""Plausible records for tests: nobody ran these."""

from __future__ import annotations

from typing import Any

import numpy as np

from trilemma_bench.grouping import over_seeds
from trilemma_bench.record import DatasetPart, ModelPart, ProtocolPart, Record, Score, Speed, Training
from trilemma_bench.runs import Runs

SCORE_FACTS: dict[str, tuple[str | None, str, str]] = {
    "fd": ("lower", "", "Fréchet distance"),
    "kid": ("lower", "", "Kernel distance"),
    "precision": ("higher", "share", "Precision"),
    "recall": ("higher", "share", "Recall"),
    "density": ("higher", "", "Density"),
    "coverage": ("higher", "share", "Coverage"),
    "modes": ("higher", "modes", "Modes covered"),
    "mode_kl": ("lower", "nats", "KL of modes to uniform"),
    "high_quality": ("higher", "share", "Samples of high quality"),
    "authenticity": (None, "share", "Authenticity"),
}


def make_scores(values: dict[str, float], modes: int | None = None) -> dict[str, Score]:
    """Scores with the direction, unit and title that the real metrics state."""
    scores = {}
    for name, value in values.items():
        key = "fd" if name == "fid" or name.startswith("fd_") else name
        better, unit, title = SCORE_FACTS.get(key, ("higher", "", ""))
        floor, ideal = (0.0012 if key == "mode_kl" else None), (modes if key == "modes" else None)
        scores[name] = Score(value=value, better=better, unit=unit, title=title, floor=floor, ideal=ideal)
    return scores


def with_errors(values: dict[str, tuple[float, float]], method: str = "jackknife") -> dict[str, Score]:
    """Scores from (value, standard error), with the interval that belongs to it."""
    scores = make_scores({name: value for name, (value, _) in values.items()})
    return {
        name: score.model_copy(
            update={
                "standard_error": (error := values[name][1]),
                "interval": (score.value - 1.96 * error, score.value + 1.96 * error),
                "interval_method": method,
            }
        )
        for name, score in scores.items()
    }


def make_speed(seconds: float, nfe: float | None, **changes: Any) -> Speed:
    facts: dict[str, Any] = {
        "nfe": nfe,
        "seconds_per_image": seconds,
        "images_per_second": 1 / seconds if seconds else 0.0,
        "latency_seconds": 30 * seconds + 2e-4,
        "raw_seconds": [changes.get("batch_size", 1000) * seconds * (1 + jitter) for jitter in (-0.01, 0, 0.02)],
        "raw_latency_seconds": [30 * seconds + 2e-4] * 3,
        "batch_size": 1000,
        "warmup": 2,
        "device": "cpu: Xeon E5-2690, 2 threads",
        "precision": "float32",
        "peak_memory_bytes": 312_000_000,
    }
    return Speed(**{**facts, **changes})


def make_training(**changes: Any) -> Training:
    facts: dict[str, Any] = {
        "images": 6_144_000,
        "seconds": 115.0,
        "steps": 12_000,
        "parameters": 1_060_000,
        "budget": "2m",
        "digest": "0" * 12,
        "settings": {},
        "checkpoint": "model.safetensors",
        "checkpoint_sha256": "ab" * 32,
        "run_id": "20261101-1",
    }
    return Training(**{**facts, **changes})


def make_protocol(**changes: Any) -> ProtocolPart:
    facts: dict[str, Any] = {
        "name": "points",
        "extractor": "points",
        "extractors": {"points": {"weights_sha256": None, "resize": "none"}},
        "metrics": {"fd_points": "points", "precision": "points"},
        "reference_sha256": "d" * 64,
        "quantisation": "none",
        "reference_split": "test",
        "reference_samples": 10_000,
        "samples": 10_000,
        "k_precision_recall": 3,
        "k_density_coverage": 5,
        "mode_rule": "nearest centre within 4 standard deviations; covered with 20 samples or more",
    }
    return ProtocolPart(**{**facts, **changes})


DIGITS_PROTOCOL: dict[str, Any] = {
    "name": "digits",
    "extractor": "digits-cnn",
    "extractors": {"digits-cnn": {"weights_sha256": "3f" * 32, "resize": "none"}},
    "metrics": {"fd_digits-cnn": "digits-cnn"},
    "reference_split": "train",
    "reference_samples": 1_297,
    "samples": 500,
    "quantisation": "uint8; floats by round(255·clip(x, 0, 1))",
    "mode_rule": "class of the digit classifier",
}


def make_record(
    model: str = "ddgan",
    variant: str = "",
    dataset: str = "gaussians25",
    scores: dict[str, float] | dict[str, Score] | None = None,
    note: str = "",
    protocol: dict[str, Any] | None = None,
    speed: Speed | None = None,
    **changes: Any,
) -> Record:
    """A complete record; `changes` replace fields of the record, `protocol` fields of its protocol."""
    values: Any = {"fd_features": 0.01, "precision": 0.9, "recall": 0.8} if scores is None else scores
    modes = 10 if dataset == "digits" else 25
    facts: dict[str, Any] = {
        "id": f"20261101-{model}-{variant or 'x'}".replace(" ", "-"),
        "status": "complete",
        "model": ModelPart(
            name=model,
            variant=variant,
            parameters=530_434,
            settings={},
            plugin="trilemma-bench",
            version="0.1.0",
            reference=model == "real-data",
        ),
        "dataset": DatasetPart(name=dataset, split="train", fingerprint=f"{dataset:0<64}", size=100_000, note=note),
        "protocol": make_protocol(**(protocol or {})),
        "seed": 0,
        "samples": (protocol or {}).get("samples", 10_000),
        "scores": values if any(isinstance(v, Score) for v in values.values()) else make_scores(values, modes),
        "speed": speed,
        "training": make_training(),
        "created": "2026-11-01T12:00:00+00:00",
    }
    return Record(**{**facts, **changes})


def made_elsewhere(file: str, seed: int = 0, content: str = "", **changes: Any) -> Record:
    """Of samples that were given in `file`, which holds `content`."""
    part = ModelPart(name="theirs", parameters=0, settings={"samples": file}, plugin="", version="")
    facts: dict[str, Any] = {"id": f"{file}-{seed}", "seed": seed, "samples_sha256": content or file, "model": part}
    return make_record(**{**changes, "speed": None}).model_copy(update={**facts, "speed": None, "training": None})


def of_code(record: Record, sha256: str) -> Record:
    """The record of a model whose source has this hash."""
    return record.model_copy(update={"model": record.model.model_copy(update={"source_sha256": sha256})})


def failed_record(error: str = "loss is NaN at step 12") -> Record:
    return make_record("broken", status="failed", error=error, scores={}, training=None)


def _toy(model: str, variant: str, seconds: float, nfe: float, *values: float) -> Record:
    names = ("fd_features", "precision", "recall", "density", "coverage", "modes", "mode_kl", "high_quality")
    scores = dict(zip(names, values, strict=True))
    return make_record(model, variant, scores=scores, speed=make_speed(seconds, nfe))


def trained(seed, value=0.5, weights=None, **changes):
    training = make_training(checkpoint_sha256=weights or f"{seed:064}", **changes.pop("training", {}))
    scores = {"recall": value, "modes": 20 + seed}
    return make_record(scores=scores, seed=seed, id=f"{seed}", training=training, **changes)


def demo_records() -> list[Record]:
    """What the demo suite leaves: the paper's toy experiment, then ddgan on digits."""
    real = {"fd_features": 0.00021, "precision": 0.981, "recall": 0.982, "density": 0.998, "coverage": 0.971}
    real |= {"modes": 25, "mode_kl": 0.0011, "high_quality": 0.9997}
    digits = {"fd_digits-cnn": 14.62, "precision": 0.842, "recall": 0.513, "density": 0.801, "coverage": 0.717}
    digits |= {"modes": 10, "mode_kl": 0.031, "high_quality": 1.0}
    return [
        _toy("ddgan", "4 steps", 8.2e-6, 4, 0.0131, 0.774, 0.861, 0.69, 0.742, 25, 0.018, 0.812),
        _toy("ddpm", "1000 steps", 2.1e-3, 1000, 0.0043, 0.902, 0.941, 0.88, 0.901, 25, 0.004, 0.951),
        _toy("ddpm", "4 steps", 8.4e-6, 4, 1.92, 0.061, 0.973, 0.03, 0.055, 11, 0.41, 0.043),
        _toy("ddim", "50 steps", 1.06e-4, 50, 0.0125, 0.741, 0.932, 0.66, 0.781, 25, 0.006, 0.804),
        _toy("gan", "", 2.3e-6, 1, 0.311, 0.689, 0.224, 0.61, 0.288, 9, 1.21, 0.744),
        _toy("vae", "", 1.9e-6, 1, 0.0872, 0.192, 0.966, 0.16, 0.241, 25, 0.022, 0.207),
        make_record("real-data", scores=real, training=None),
        make_record(
            "ddgan",
            "4 steps",
            "digits",
            digits,
            protocol=DIGITS_PROTOCOL,
            speed=make_speed(9.1e-4, 4, batch_size=100),
            note="scikit-learn's bundled test part of the UCI digits",
        ),
    ]


def many_records(count: int = 1000, devices: int = 4) -> list[Record]:
    """`count` runs on as many devices as told: models of all speeds, each sampled with several numbers of steps."""
    numbers = np.random.default_rng(0)
    return [_one_of_many(numbers, i, f"cuda: device {i % devices}") for i in range(count)]


def _one_of_many(numbers: np.random.Generator, i: int, device: str) -> Record:
    model, steps = f"model-{i // 40}", 2 ** (i // 4 % 10)
    quality = float(60 / (1 + steps) ** 0.7 * numbers.lognormal(0, 0.3) + 2)
    seconds = 1e-4 * steps * float(numbers.lognormal(0, 0.2))
    raw = [1000 * seconds * float(factor) for factor in numbers.lognormal(0, 0.02, 20)]
    scores = with_errors(
        {
            "fid": (quality, 0.02 * quality),
            "precision": (float(numbers.beta(8, 3)), 0.004),
            "recall": (float(numbers.beta(5, 5)), 0.006),
            "density": (float(numbers.beta(8, 2)), 0.01),
            "coverage": (float(numbers.beta(8, 3)), 0.004),
            "kid": (quality / 1000, 0.0003),
        }
    )
    speed = make_speed(
        seconds, steps, device=device, raw_seconds=raw, raw_latency_seconds=[value / 300 for value in raw]
    )
    variant, channels = f"{steps} steps", 32 * (1 + i % 4)
    part = ModelPart(
        name=model, variant=f"{channels} channels, {variant}", parameters=35_746_307 + i % 4,
        settings={"steps": steps, "channels": channels}, plugin="trilemma-bench", version="0.1.0",
    )  # fmt: skip
    training = make_training(checkpoint_sha256=f"{i // 40:02}{i % 4:02}" * 16)
    return make_record(model, variant, "cifar10", scores, speed=speed, id=f"run-{i:04}", seed=i).model_copy(
        update={"model": part, "training": training, "environment": {"system": "Linux", "cpu_cores": 8}}
    )


def scored(model: str = "a", scores: Any = None, **changes: Any) -> Record:
    """A run whose scores have errors."""
    return make_record(model, scores=with_errors(scores or {"fid": (5.0, 0.3)}), **changes)


def one(**changes: Any) -> Runs:
    """A side of a comparison: a single run."""
    return Runs((scored(**changes),))


def seeds(values: Any, error: float | None = None, scores: Any = None, first: int = 100, **changes: Any) -> Runs:
    """Runs of one model that differ in the seed alone, from `first` on."""
    records = [
        make_record(
            scores=scores or ({"fid": value} if error is None else with_errors({"fid": (value, error)})),
            seed=seed, id=f"run-{seed}", training=make_training(checkpoint_sha256=f"{seed:064}"), **changes,
        )
        for seed, value in enumerate(values, first)
    ]  # fmt: skip
    (runs,) = over_seeds(records)
    return runs


def timed(times: Any, model: str = "a", **changes: Any) -> Runs:
    """A single run with these raw times of batches of one."""
    median = float(np.median(times))
    speed = make_speed(median, 1, batch_size=1, raw_seconds=list(times), raw_latency_seconds=list(times), **changes)
    return Runs((scored(model, speed=speed),))
