"""What `trilemma-bench compare` prints."""

from __future__ import annotations

from collections.abc import Sequence

from trilemma_bench.contrasts import LEVEL, Finding
from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import FACTS, Column, score_columns
from trilemma_bench.runs import Runs


def comparison_text(
    a: Runs, b: Runs, scores: Sequence[Finding], times: Sequence[Finding], caveat: str, hint: str
) -> str:
    """The differences as aligned text, with what was tested and what the errors cover. caveat, hint: '' for none."""
    record = a.record
    protocol = [f"protocol {record.protocol.name}", f"{record.samples:,} samples"] if record.protocol else []
    columns = {column.key: column for column in (*score_columns([a.record, b.record]), *FACTS)}
    scores = sorted(scores, key=lambda finding: list(columns).index(finding.name))
    times = [finding for finding in times if finding.a is not None or finding.b is not None]
    lines = [
        *(f"{side}: {_side(runs)}" for side, runs in (("A", a), ("B", b))),
        fmt.plain(" · ".join([record.dataset.name, *protocol])),
        "",
        *_table("B − A", scores, columns, "verdict on these samples" if caveat else "verdict"),
        *filter(None, (caveat, hint)),
        "",
        *([*_table("B / A", times, columns), ""] if times else []),
        "interval: 95 %, of each line alone. verdict: from p after Holm's correction for the number of scores, so that",
        f"some verdict on a score is wrong by chance in {100 * LEVEL:g} % of comparisons at most; on times likewise.",
        *(f"{kind}: {method}." for kind, found in (("scores", scores), ("times", times)) for method in _methods(found)),
    ]
    return "\n".join(lines)


def _side(runs: Runs) -> str:
    seeds = ", ".join(str(record.seed) for record in runs.records)
    return f"{fmt.plain(runs.record.label)}, seed{'s' if len(runs) > 1 else ''} {seeds}; errors cover {runs.covers}"


def _table(kind: str, findings: Sequence[Finding], columns: dict[str, Column], verdict: str = "verdict") -> list[str]:
    head = ["", "A", "B", kind, "95 % interval", "p", "p (Holm)", verdict]
    return fmt.aligned([head, *(_cells(finding, columns[finding.name]) for finding in findings)])


def _cells(finding: Finding, column: Column) -> list[str]:
    contrast = finding.contrast
    interval = contrast.interval
    change = fmt.DASH if contrast.value is None else fmt.figure(contrast.value)
    return [
        f"{column.title} {fmt.ARROWS[finding.better]}",
        *(fmt.DASH if value is None else _value(value, column) for value in (finding.a, finding.b)),
        change if column.is_time or change.startswith(("-", fmt.DASH)) else f"+{change}",
        f"[{fmt.figure(interval[0])}, {fmt.figure(interval[1])}]" if interval else fmt.DASH,
        _probability(contrast.p),
        _probability(finding.p_holm),
        finding.verdict or f"no verdict: {fmt.plain(contrast.reason)}",
    ]


def _value(value: float, column: Column) -> str:
    return fmt.seconds(value) if column.is_time else fmt.figure(value)


def _probability(p: float | None) -> str:
    if p is None:
        return fmt.DASH
    return "<0.0001" if p < 1e-4 else f"{p:.4f}"


def _methods(findings: Sequence[Finding]) -> list[str]:
    """How intervals and p were found."""
    return list(dict.fromkeys(finding.contrast.method for finding in findings if finding.contrast.method))
