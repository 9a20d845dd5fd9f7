"""Errors that a user can act on: each message says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("trilemma_bench", "baselines", "ddgan")
PLUGIN = "trilemma_plugin_"  # how the modules of plugin files are named


class TrilemmaError(Exception):
    """Something failed; the message is one line for the user (exit code 1)."""


class UsageError(TrilemmaError):
    """The request itself is wrong: an unknown name, a bad value (exit code 2)."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for an unknown `name`: suggests the nearest of `known` and lists them all."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UsageError(f"unknown {kind} '{name}'.{hint} Available: {', '.join(known) or 'none'}")


def place_of(error: BaseException) -> tuple[str, bool]:
    """Where an unexpected error comes from, such as 'flow.py:11, training_step', and whether that is this project's.

    The innermost line of a plugin file, else of this project, else of all.
    """
    frames = traceback.extract_tb(error.__traceback__)
    plugins = {module.__file__ for name, module in list(sys.modules.items()) if name.startswith(PLUGIN)}
    theirs = [frame for frame in frames if frame.filename in plugins]
    ours = [frame for frame in frames if Path(frame.filename).parts[-2:-1] and _is_ours(frame.filename)]
    frame = (theirs or ours or list(frames))[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}, {frame.name}", not theirs


def _is_ours(filename: str) -> bool:
    return any(package in Path(filename).parts[:-1] for package in PACKAGES)
