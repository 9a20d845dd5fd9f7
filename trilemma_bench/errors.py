"""Errors that a user can act on: each message says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
