"""What passes through a network that torch.compile has made faster, and what has to go around it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside, compiled networks run as they are written: they have no second derivatives, and no forward ones."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and loading the compiler would take seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
