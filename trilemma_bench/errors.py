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


def described(error: BaseException) -> str:
    """Any error in one line; one that is not ours with its type and its place."""
    if isinstance(error, TrilemmaError):
        return str(error)
    return f"{' '.join(f'{type(error).__name__}: {error}'.split())} ({place_of(error)[0]})"


def place_of(error: BaseException) -> tuple[str, bool]:
    """Where an unexpected error comes from, such as 'flow.py:11, training_step', and whether that is this project's.

    The innermost line of a plugin file, else of this project, else of all.
    """
    lines = [
        (frame, frame.f_globals.get("__name__", ""), line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    theirs = [line for line in lines if line[1].startswith(PLUGIN)]
    ours = [line for line in lines if line[1].partition(".")[0] in PACKAGES]
    frame, _, number = (theirs or ours or lines)[-1]
    return f"{Path(frame.f_code.co_filename).name}:{number}, {frame.f_code.co_name}", not theirs


def loaded_plugins() -> list[str]:
    """The names of the plugin files that this process has loaded, sorted."""
    files = (module.__file__ for name, module in sys.modules.items() if name.startswith(PLUGIN))
    return sorted({Path(file).name for file in files if file})
