"""Numbers and names as people read them."""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

DASH = "—"
ARROWS = {"higher": "↑", "lower": "↓", None: ""}

_Units = Sequence[tuple[float, str]]
_SECONDS: _Units = ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_COUNTS: _Units = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES: _Units = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))

# how people may write what is kept in seconds or bytes: unit → what it is of these
UNITS: dict[str, dict[str, float]] = {
    "seconds": {**{unit: size for size, unit in _SECONDS}, "us": 1e-6},
    "bytes": {**{unit: size for size, unit in _BYTES}, "B": 1.0},
}


def amount(text: str, units: Mapping[str, float]) -> float | None:
    """The number that `text` says, in the unit that has the size 1: 0.02 for '0.02', '20ms' and '20 ms'; None where it
    says none.
    """
    text = text.strip().replace("\u03bc", "µ")  # the Greek letter
    match = re.fullmatch(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(e[+-]?[0-9]+)?\s*(\D*)", text, re.IGNORECASE)
    size = None if match is None else units.get(match[3]) if match[3] else 1.0
    value = math.inf if match is None or size is None else float(f"{match[1]}{match[2] or ''}") * size
    return value if math.isfinite(value) else None


def figure(value: float) -> str:
    """Three significant figures, without an exponent where that stays short: 0.0123, 3.75, 146, 12,346."""
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.2e}"
    return f"{value:#.3g}".rstrip(".")


def measured(value: float, interval: tuple[float, float], finest: int | None = None) -> tuple[str, str]:
    """A value as exact as its error lets it be, and its interval: ('7.02', '±0.31'), or ('0.30', '[0.25, 0.42]').

    finest: the most decimals. An interval narrower than five digits of the value, or than `finest` decimals, is none
    that a reader could use: ('25.0', '').
    """
    low, high = interval
    half = (high - low) / 2
    if half <= 0:
        return figure(value), ""
    largest = max(abs(low), abs(high))
    if finest is None and not 1e-4 <= largest < 1e9:
        return figure(value), f"±{half:.1e}" if _symmetric(value, low, high) else f"[{low:.1e}, {high:.1e}]"
    # two digits of the value however unsure it is, five however sure; of what is 0 but for rounding, the interval's
    digits = 1 - math.floor(math.log10(abs(value) if abs(value) > 1e-6 * largest else largest))
    places = max(0, min(max(_places(half), digits), digits + 3))
    places = places if finest is None else min(places, finest)
    plain, *ends = (f"{each:.{places}f}" for each in (value, low, high))  # commas part the ends, so not thousands too
    shown = f"{value:,.{places}f}"
    if half < 0.5 * 10.0**-places or ends == [plain, plain]:
        return shown if places == finest else figure(value), ""
    return shown, f"±{half:,.{places}f}" if _symmetric(value, low, high) else f"[{', '.join(ends)}]"


def with_interval(value: float, interval: tuple[float, float] | None) -> str:
    """A value and its interval, where it has one: '7.02 ±0.31'."""
    return " ".join(measured(value, interval)).rstrip() if interval else figure(value)


def _places(error: float) -> int:
    """Decimal places of an error: two digits of it from 1 to 3.5, one above (the rule of the Particle Data Group)."""
    digits, exponent = f"{error:.1e}".split("e")
    return -int(exponent) + (float(digits) < 3.55)


def _symmetric(value: float, low: float, high: float) -> bool:
    return abs((high - value) - (value - low)) <= 0.1 * (high - low)


def short(text: str, width: int = 36) -> str:
    """`text`, cut to `width` characters where it is longer."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


class _AtMarks(textwrap.TextWrapper):
    """Breaks a long word where one looks for it: after the marks in a setting's name and value."""

    wordsep_simple_re = re.compile(r"(\s+)|(?<=[=_/])")


def wrapped(text: str, width: int) -> str:
    """In a line of `width` characters, else in two of about the same length, at spaces if that is possible; cut where
    these would be longer.
    """
    if len(text) <= width:
        return text
    wrappers = (
        kind(room, break_long_words=False, break_on_hyphens=False)
        for kind in (textwrap.TextWrapper, _AtMarks)
        for room in range(len(text) // 2, width + 1)
    )
    lines = (wrapper.wrap(text) for wrapper in wrappers)
    halves = next((found for found in lines if len(found) == 2 and max(map(len, found)) <= width), None)
    return "\n".join(halves or _AtMarks(width, break_on_hyphens=False, max_lines=2, placeholder=" …").wrap(text))


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells as text: the first and the last column to the left, numbers between them to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            text.ljust(width) if i in (0, last) else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def share(value: float) -> str:
    """A share, with three decimals."""
    return f"{value:.3f}"


def _unit(value: float, units: _Units) -> tuple[float, str]:
    # 0.9995 of a unit already rounds to one of it
    return next((item for item in units if abs(value) >= 0.9995 * item[0]), units[-1])


def _scaled(value: float, units: _Units) -> str:
    size, unit = _unit(value, units)
    return f"{figure(value / size)} {unit}"


def _time_units(value: float) -> _Units:
    """Minutes from two minutes on."""
    return _SECONDS if value >= 120 else _SECONDS[2:]


def seconds(value: float) -> str:
    """A time with the unit that suits it, from ns to h."""
    return "0 s" if value == 0 else _scaled(value, _time_units(value))


def seconds_interval(value: float, interval: tuple[float, float]) -> str:
    """The interval of a time in the unit that `seconds` gives its value: '[2.73, 10.3]'; '' if no digit differs."""
    size, _ = _unit(value, _time_units(value))
    shown, *ends = (figure(each / size).replace(",", "") for each in (value, *interval))  # a comma parts the ends
    return "" if ends == [shown, shown] else f"[{', '.join(ends)}]"


def brief_seconds(value: float) -> str:
    """A time for an axis: 1 ms, 20 µs."""
    size, unit = _unit(value, _SECONDS[2:])
    return f"{value / size:.4g} {unit}" if value else "0 s"


def count(value: float) -> str:
    """A number of things: 512, 39.8 k, 35.7 M."""
    return f"{value:g}" if abs(value) < 999.5 else _scaled(value, _COUNTS)


def size(value: float) -> str:
    """Memory, from bytes to TiB."""
    return f"{value:.0f} B" if value < 1024 else _scaled(value, _BYTES)


def plain(text: object) -> str:
    """One line without control characters: nothing in a record may steer a terminal or break a table."""
    kept = (char if char.isprintable() else " " for char in str(text))
    return " ".join("".join(kept).split())


def device(text: object) -> str:
    """A device as records name it, without trade marks and in good English."""
    return plain(text).replace("(R)", "").replace("(TM)", "").replace("(1 threads)", "(1 thread)")


def markdown(text: object) -> str:
    """`text` as literal text in Markdown, table cells included: neither markup nor HTML."""
    return re.sub(r"([\\`*_\[\]|~#$!])", r"\\\1", html.escape(plain(text), quote=False))


def listed(names: Iterable[str]) -> str:
    """Names of rows, between semicolons: there are commas in them."""
    return "; ".join(names)


def slug(text: str) -> str:
    """A safe name for a file: letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:60].strip("-") or "group"
