"""Which differences between two runs are real: B against A in every score and in speed, with intervals and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trilemma_bench.contrasts import LEVEL, TIMES, Finding, Time, difference, holm, time_ratio
from trilemma_bench.errors import UsageError, unknown_name
from trilemma_bench.grouping import differences, is_reference, measured_on, over_seeds, repeats, seed_conditions
from trilemma_bench.record import Record
from trilemma_bench.report.compare import comparison_text
from trilemma_bench.results import RECORD_NAME, find_records
from trilemma_bench.runs import Runs


@dataclass(frozen=True, repr=False)
class RunComparison:
    """Two sides and what was found. scores: differences B − A; times: ratios B / A, corrected among themselves."""

    a: Runs
    b: Runs
    scores: tuple[Finding, ...]
    times: tuple[Finding, ...]

    def __getitem__(self, name: str) -> Finding:
        """The finding on a score or time. Raises UsageError for a name that neither side has."""
        found = {finding.name: finding for finding in (*self.scores, *self.times)}
        if name not in found:
            raise unknown_name("score", name, found)
        return found[name]

    @property
    def caveat(self) -> str:
        """What the verdicts on scores are not about; '' where seeds tell how trainings vary."""
        single = [
            side for side, runs in (("A", self.a), ("B", self.b)) if len(runs) == 1 and not is_reference(runs.record)
        ]
        if not single or max(len(self.a), len(self.b)) > 1:
            return ""
        who = "one training each" if len(single) == 2 else f"one training of {single[0]}"
        return f"{who}: the verdicts on scores are about these samples, not about another training; give several seeds"

    @property
    def hint(self) -> str:
        """What would show more; '' where the seeds are not so few that even large differences are not shown."""
        few = max(len(self.a), len(self.b)) == 2
        return "two seeds say little of how trainings differ: three or more show far smaller differences" if few else ""

    def __str__(self) -> str:
        """The table that `trilemma-bench compare` prints."""
        return comparison_text(self.a, self.b, self.scores, self.times, self.caveat, self.hint)

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, for JSON."""
        sides = {side: _side_facts(runs) for side, runs in (("a", self.a), ("b", self.b))}
        scores, times = ([_finding_facts(finding) for finding in group] for group in (self.scores, self.times))
        facts = {"level": LEVEL, "correction": "Holm", "caveat": self.caveat}
        return {**sides, **facts, "scores": scores, "times": times}


def _side_facts(runs: Runs) -> dict[str, Any]:
    record = runs.record
    return {
        "label": record.label,
        "dataset": record.dataset.name,
        "samples": record.samples,
        "runs": [run.id for run in runs.records],
        "seeds": [run.seed for run in runs.records],
        "errors_cover": runs.covers,
    }


def _finding_facts(finding: Finding) -> dict[str, Any]:
    contrast = asdict(finding.contrast)
    kind = "ratio" if finding.name in TIMES else "difference"
    facts = {
        "name": finding.name,
        "better": finding.better,
        "a": finding.a,
        "b": finding.b,
        kind: contrast.pop("value"),
    }
    return {**facts, **contrast, "p_holm": finding.p_holm, "verdict": finding.verdict or None}


def compare(a: Path | str, b: Path | str, settings: Mapping[str, Any] | None = None) -> RunComparison:
    """B against A; each a run's folder, its record, or a folder of several runs that differ only in the seed.

    settings: of runs whose model has these, only those with these values, as of a sweep. Raises UsageError when there
    is no such run, or the two were not measured alike; the message says what differs.
    """
    chosen = settings or {}
    sides = runs_at(a, chosen), runs_at(b, chosen)
    known = {name for runs in sides for name in _settings(runs.record)}
    for name in sorted(chosen.keys() - known):
        raise unknown_name("setting", name, known)
    one, other = (runs.record.dataset.name for runs in sides)
    if one != other:
        raise UsageError(f"{a} and {b} cannot be compared: B has dataset: {other}, not {one}")
    conditions = [measured_on(runs.record) for runs in sides]
    if apart := differences(conditions[1], conditions[0]):
        named = [field for field in apart if field.startswith("protocol: ")]  # all else follows from it
        raise UsageError(f"{a} and {b} cannot be compared: B has {'; '.join(named or apart)}")
    return compare_runs(*sides)


def compare_runs(a: Runs, b: Runs) -> RunComparison:
    """B against A, which were measured alike."""
    one, other = a.record, b.record
    facts = {**one.scores, **other.scores}
    scores = [
        Finding(name, score.better, _score(one, name), _score(other, name), difference(a, b, name))
        for name, score in facts.items()
    ]
    times = [Finding(name, "lower", _time(one, name), _time(other, name), time_ratio(a, b, name)) for name in TIMES]
    return RunComparison(a, b, _corrected(scores), _corrected(times))


def _score(record: Record, name: str) -> float | None:
    return record.scores[name].value if name in record.scores else None


def _time(record: Record, name: Time) -> float | None:
    return None if record.speed is None or is_reference(record) else float(getattr(record.speed, name))


def _corrected(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    tested = [finding.contrast.p for finding in findings if finding.contrast.p is not None]
    corrected = iter(holm(tested))
    return tuple(f if f.contrast.p is None else replace(f, p_holm=next(corrected)) for f in findings)


def _settings(record: Record) -> dict[str, Any]:
    return {**record.sampling, **(record.training.settings if record.training else {}), **record.model.settings}


def runs_at(path: Path | str, settings: Mapping[str, Any]) -> Runs:
    """The complete runs at `path` whose settings have these values, where they have them; of a repeated one the newest.

    Raises UsageError when there is none, or when they differ in more than the seed.
    """
    found = find_records([Path(path).expanduser()])
    complete = [record for _, record in found.records if record.status == "complete"]
    if not complete:
        why = [*(f"{record.label} is {record.status}" for _, record in found.records), *found.skipped]
        more = f"; and {len(why) - 2} more" if len(why) > 2 else ""
        raise UsageError(f"{path}: no complete run; {'; '.join(why[:2]) or f'no {RECORD_NAME} below it'}{more}")
    chosen = [record for record in complete if settings.items() <= (dict(settings) | _settings(record)).items()]
    if not chosen:
        wanted = ", ".join(f"{name} = {value}" for name, value in settings.items())
        raise UsageError(f"{path}: no complete run with {wanted}")
    first, *others = over_seeds(same[-1] for same in repeats(chosen))
    if others:
        apart = differences(seed_conditions(others[0].record), seed_conditions(first.record))
        what = "; ".join(apart[:3]) or "a seed is there twice, or weights or samples are with two seeds"
        advice = "name one, choose by --set KEY=VALUE, or name a folder with links to those of one row"
        raise UsageError(f"{path}: its runs differ in more than the seed ({what}): {advice}")
    return first
