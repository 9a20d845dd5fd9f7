"""A run that was done before: the same request, by the same code on the same machine."""

from __future__ import annotations

from trilemma_bench import registry
from trilemma_bench.config import digest
from trilemma_bench.contracts import FiniteSource
from trilemma_bench.environment import device_name, environment
from trilemma_bench.evaluation import Evaluator
from trilemma_bench.evaluation.facts import protocol_part
from trilemma_bench.job import Job, model_source, training_digest
from trilemma_bench.record import JSONDict, Record
from trilemma_bench.results import find_records

# Facts of a machine that say nothing of its results: the commit, where the code itself is hashed, and the memory.
ASIDE = {"commit", "memory_bytes"}


def find_finished(job: Job, evaluator: Evaluator) -> Record | None:
    """The newest complete record under the job's folder of results that agrees with all that is known of the job
    before it is run; None where there is none, or where it samples a checkpoint that is given.
    """
    if job.options.checkpoint:
        return None
    asked = digest(_asked(job, evaluator))
    found = find_records([job.options.out / job.dataset_name / job.model_name]).records
    complete = [record for _, record in found if record.status == "complete"]
    return next((record for record in reversed(complete) if digest(_recorded(record)) == asked), None)


def _asked(job: Job, evaluator: Evaluator) -> JSONDict:
    sampled = not issubclass(job.model_class, FiniteSource)
    return {
        "model": (*registry.models.origin(job.options.model), model_source(job), job.settings.model),
        "data": job.dataset.fingerprint(),
        "seed": job.options.seed,
        "training": training_digest(job) if job.trainable else None,
        "sampling": job.settings.sampling.model_dump() if sampled else {},
        "device": device_name(job.device) if sampled else None,
        "protocol": protocol_part(evaluator.plan, job.protocol.samples).model_dump(),
        "environment": _without_aside(environment()),
    }


def _recorded(record: Record) -> JSONDict:
    model, protocol, speed, training = record.model, record.protocol, record.speed, record.training
    return {
        "model": (model.plugin, model.version, model.source_sha256, model.settings),
        "data": record.dataset.fingerprint,
        "seed": record.seed,
        "training": training.digest if training else None,
        "sampling": record.sampling,
        "device": speed.device if speed else None,
        "protocol": protocol.model_dump() if protocol else None,
        "environment": _without_aside(record.environment),
    }


def _without_aside(facts: JSONDict) -> JSONDict:
    return {name: fact for name, fact in facts.items() if name not in ASIDE}
