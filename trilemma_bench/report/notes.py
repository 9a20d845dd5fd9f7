"""What stands below a table: notes on its rows, how its intervals were found, and what its rows were measured on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from trilemma_bench.grouping import BELOW, Group, is_reference
from trilemma_bench.record import Record
from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import Column, score_title
from trilemma_bench.runs import Runs
from trilemma_bench.statistics import RUNS_SD

FRONT, NEAR = "◆", "◇"
LEGEND = {
    "bold": "the best of its column",
    "≈": "the difference from the best is not shown to be real: in 95 % of columns the row that is truly the best is "
    "the bold one or has this mark (Gupta's subset selection, with Bonferroni's correction for the number of rows). A "
    "value without a known error is not tested",
    FRONT: "on the Pareto front of quality, coverage and speed: no row is as good in all three and better in one",
    NEAR: "off the Pareto front by differences that are not shown to be real",
    "± [ ]": "95 % intervals: of a single run they cover sampling only (other samples of the same trained model), of "
    "several seeds training too. The interval of a time is about other runs on the same machine: by the spread of "
    f"these runs and by the {100 * RUNS_SD:.0f} % by which runs of one model scatter, which is all that is known of a "
    "single run",
    fmt.DASH: "no value: the reason stands below the table",
}

MOST_SEPARATIONS = 8
# budgets are kept to a step
_SAME_TRAINING = 0.95


def training_span(records: Iterable[Record]) -> str:
    """How long they were trained: '60.0 s', or '60.0 s–28.0 min' where that differs; '' where no record says."""
    times = [record.training.seconds for record in records if record.training and not is_reference(record)]
    if not times or max(times) == 0:
        return ""
    ends = (min(times), max(times)) if min(times) < _SAME_TRAINING * max(times) else (max(times),)
    return "–".join(map(fmt.seconds, ends))


def training_note(span: str) -> list[str]:
    """A warning where training differs. span: of `training_span`."""
    return [f"Trained for {span}: what looks better may only have been trained for longer"] if "–" in span else []


def row_notes(rows: Iterable[tuple[str, Record]]) -> list[str]:
    """The notes of (name, record), each once: under the names of its rows unless all rows but real data share it."""
    rows = list(rows)
    notes: dict[str, list[str]] = {}
    for name, record in rows:
        for note in _notes_of(record):
            notes.setdefault(fmt.plain(note), []).append(name)
    competitors = {name for name, record in rows if not is_reference(record)}
    shown = [note if competitors <= set(names) else f"{fmt.listed(names)}: {note}" for note, names in notes.items()]
    return [*shown, *_floor_notes([record for _, record in rows])]


def _floor_notes(records: Iterable[Record]) -> list[str]:
    """What perfect samples have of a score, a line a score: the floor hangs on how many of a row's samples count."""
    floors: dict[str, list[float]] = {}
    for record in records:
        for name, score in record.scores.items():
            if score.floor is not None:
                floors.setdefault(name, []).append(score.floor)
    ends = {name: dict.fromkeys(map(fmt.figure, (min(found), max(found)))) for name, found in floors.items()}
    return [
        f"{score_title(name)}: of as many perfect samples it would be {'–'.join(span)}" for name, span in ends.items()
    ]


def repeat_notes(rows: Iterable[tuple[str, Runs]], repeated: Sequence[Sequence[Record]]) -> list[str]:
    """How many runs each of (name, runs) stands for, where some were repeated. repeated: sets of runs, newest last."""
    older = {same[-1].id: len(same) - 1 for same in repeated}
    counts = [(name, sum(older[record.id] for record in runs.records)) for name, runs in rows]
    return [
        f"{name}: the newest of repeated runs, {count} older {'one is' if count == 1 else 'ones are'} left out"
        for name, count in counts
        if count
    ]


def interval_methods(records: Sequence[Record], columns: Iterable[Column]) -> list[str]:
    """A line for each way in which intervals were found, naming the scores."""
    titles: dict[str, dict[str, None]] = {}
    for column in columns:
        for record in records:
            score = record.scores.get(column.key)
            if score and score.interval and score.interval_method:
                titles.setdefault(fmt.plain(score.interval_method), {})[column.title] = None
    return [f"95 % interval by {method}: {', '.join(names)}" for method, names in titles.items()]


def missing_notes(record: Record) -> list[str]:
    """Why scores are missing: a note a reason, with the names of the scores."""
    names: dict[str, list[str]] = {}
    for name, why in record.missing.items():
        names.setdefault(why, []).append(score_title(name))
    return [f"{', '.join(scores)}: {why}" for why, scores in names.items()]


def _notes_of(record: Record) -> list[str]:
    notes = [f"Data: {record.dataset.note}"] if record.dataset.note else []
    notes += [f"Samples: {record.samples_note}"] if record.samples_note else []
    notes += [f"missing: {note}" for note in missing_notes(record)]
    notes += _sentence(record.training.busy_note) if record.training else []
    for name, score in record.scores.items():
        notes += [f"{score_title(name)}: {score.note}"] if score.note else []
    if record.speed and not is_reference(record):
        notes += _sentence(record.speed.busy_note)
        notes += [f"NFE: {record.speed.nfe_note}"] if record.speed.nfe_note else []
        compiled = ", compiled" * record.speed.compiled + ", CUDA graphs" * record.speed.cuda_graphs
        notes.append(f"Timed in batches of {record.speed.batch_size:,} in {record.speed.precision}{compiled}")
    return notes


def _sentence(text: str) -> list[str]:
    return [text[0].upper() + text[1:]] if text else []


def protocol_facts(group: Group) -> list[tuple[str, str]]:
    """The conditions that all rows of a group share, as (field, value) for people."""
    reference = f"{group['reference_samples'] or 0:,} of {_reference(group)}"
    neighbours = f"k = {group['k_precision_recall']} for precision and recall"
    facts = [
        ("protocol", group["protocol"]),
        ("samples", f"{group['samples'] or group['samples measured']:,} generated against {reference}"),
        ("features", _features(group)),
        ("neighbours", f"{neighbours}, k = {group['k_density_coverage']} for density and coverage"),
        ("modes", group["mode_rule"]),
        ("quantisation", group["quantisation"]),
        ("data", f"fingerprint {fmt.plain(group['data'])[:12]}"),
        ("device", fmt.device(group["device"] or "not timed")),
    ]
    return [(field, fmt.plain(value)) for field, value in facts if value and group["protocol"]]


def _reference(group: Group) -> str:
    """'the train split', or of which data the given files are."""
    given = [
        " ".join(str(group[BELOW.join(("references", name, field))]) for field in ("dataset", "split"))
        for name in group.names_below("references")
    ]
    return f"given references ({', '.join(dict.fromkeys(given))})" if given else f"the {group['reference_split']} split"


def _features(group: Group) -> str:
    return "; ".join(_extractor(group, name) for name in group.names_below("extractors"))


def _extractor(group: Group, name: str) -> str:
    weights, resize, precision, code = (
        group[BELOW.join(("extractors", name, field))] for field in ("weights_sha256", "resize", "precision", "code")
    )
    shown = "" if resize in (None, "none") else f", resize {resize}"
    shown += "" if precision in (None, "float32") else f", in {precision}"
    shown += f", weights {weights[:12]}" if weights else ""
    return f"{name}{shown}" + (f", code {code[:12]}" if code else "")


def separations(groups: Sequence[Group]) -> list[list[str]]:
    """Why each of `groups` is not ranked with the others of its dataset: lines that name the fields that differ."""
    alike: dict[str, list[Group]] = {}
    for group in groups:
        alike.setdefault(group["dataset"], []).append(group)
    return [_separated(group, alike[group["dataset"]]) for group in groups]


def _separated(group: Group, alike: Sequence[Group]) -> list[str]:
    apart = list(islice((other for other in alike if other is not group), MOST_SEPARATIONS))
    lines = [
        f"Not ranked with the {fmt.plain(other['protocol'])} table on {fmt.device(other['device'] or 'no device')}: "
        + fmt.device("; ".join(group.differences(other)))
        for other in apart
    ]
    more = len(alike) - 1 - len(apart)
    return [*lines, f"Nor with {more} more tables of the same dataset"] if more else lines
