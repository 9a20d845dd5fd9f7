"""The command line: parse, call, print. A command is in the file of its kind; importing it here registers it."""

from trilemma_bench.cli import facts, records, reference, runs
from trilemma_bench.cli.entry import main

__all__ = ["facts", "main", "records", "reference", "runs"]
