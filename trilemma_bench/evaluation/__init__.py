"""Samples → features → scores, under a protocol."""

from trilemma_bench.evaluation.evaluator import Evaluation, Evaluator

__all__ = ["Evaluation", "Evaluator"]
