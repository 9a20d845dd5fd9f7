"""The record of a run: pure data, versioned and validated. Imports nothing of ours, nor torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SCHEMA = "trilemma-bench/record/1"

Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
JSONDict = dict[str, Any]
SHARED_FROM_BYTES = 2**30  # of a GPU's memory; a desktop holds some too
BUSY_BELOW = 0.9  # share of the processor; the times of two processes differ by some percent anyway


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class ModelPart(_Part):
    """parameters: of the sampled network; variant: what tells this row from another of the same model ('4 steps').

    plugin, version: the package that the model is from; or the plugin file's name, and the start of its sha256.
    reference: real data in a model's place, the ceiling of a table, which is shown and never ranked.
    source_sha256: of the model's code, and of the model's that it samples; '' where that was not recorded, or there is
    no source to read.
    """

    name: str
    variant: str = ""
    parameters: int = Field(ge=0)
    settings: JSONDict
    plugin: str
    version: str
    reference: bool = False
    source_sha256: str = ""


class DatasetPart(_Part):
    """split: what the model was trained on; size: samples in it; note: what a reader of the row must know."""

    name: str
    split: str
    fingerprint: str
    size: int = Field(ge=0)
    official: bool | None = None
    note: str = ""


class ExtractorPart(_Part):
    """The features that scores were measured on. precision: of the arithmetic. code: sha256 of the extractor's source;
    None for one of ours, whose name says what it computes.
    """

    weights_sha256: str | None
    resize: str
    precision: str = "float32"
    code: str | None = None


class ReferencePart(_Part):
    """A reference that was given as a file, as that says of itself. fingerprint: of the dataset, 'unknown' where others
    computed the file that it was imported from; source: that file.
    """

    dataset: str
    fingerprint: str
    split: str
    samples: int = Field(ge=0)
    sha256: str
    source: str = ""


class ProtocolPart(_Part):
    """Everything that must be equal before two scores may be compared.

    metrics: score → what of the protocol is its own (extractor, samples on each side, convention where libraries
    differ). reference_sha256: of the reference's content; references: features → the file that they were given as,
    where they are not the dataset's own; reference_subset: which M samples, where they are fewer than all. kid: how KID
    is averaged.
    """

    name: str
    extractor: str
    extractors: dict[str, ExtractorPart]
    metrics: dict[str, str]
    quantisation: str
    reference_split: str
    reference_samples: int = Field(ge=0)
    reference_sha256: str
    reference_subset: str = "the first M of torch.randperm with seed 310705017453353769"  # as before this was recorded
    references: dict[str, ReferencePart] = {}
    samples: int = Field(ge=0)
    k_precision_recall: int
    k_density_coverage: int
    kid: str = "all pairs"
    mode_rule: str | None = None


class Score(_Part):
    """value: never NaN. better: None where real data's value is. floor: the value of as many perfect samples,
    where it is not the ideal one. range: the values it can take, None on a side without end; None where that was not
    recorded.

    standard_error and interval (95 %): of other samples of the same model against the same reference. What has an error
    has an interval; an interval may have no error beside it. Where there is no interval, note says why.
    """

    value: Finite
    better: Literal["higher", "lower"] | None
    unit: str
    title: str = ""
    standard_error: Finite | None = None
    interval: tuple[Finite, Finite] | None = None
    interval_method: str | None = None
    ideal: Finite | None = None
    floor: Finite | None = None
    range: tuple[Finite | None, Finite | None] | None = None
    note: str = ""

    @property
    def limits(self) -> tuple[float, float]:
        """The values it can take, as far as they are known: of a record without a range, what the unit says."""
        lowest, highest = self.range or ((0.0, 1.0) if self.unit == "share" else (None, None))
        return -math.inf if lowest is None else lowest, math.inf if highest is None else highest


class Speed(_Part):
    """Sampling only, after warm-up, device synchronised; statistics are medians of the raw seconds.

    nfe: network evaluations a sample, counted by hooks; nfe_note: where they were not, why and what it is then.
    raw_seconds: each timed batch of batch_size samples; raw_latency_seconds: each timed batch of one.
    peak_memory_bytes: on CUDA of the model and what it allocates; on a CPU of all that the process holds, also of what
    runs before this one left. compiled: the network by torch.compile; cuda_graphs: its kernels were recorded and
    replayed. processor_share: on a CPU, of the time in which the process was ready to run, the share in which it ran;
    None where the system does not tell. others_memory_bytes: of a GPU's memory, what other programs held then, about.
    """

    nfe: float | None = Field(ge=0, allow_inf_nan=False)
    nfe_note: str = ""
    seconds_per_image: Seconds
    images_per_second: Finite
    latency_seconds: Seconds
    raw_seconds: list[Seconds]
    raw_latency_seconds: list[Seconds]
    batch_size: int = Field(ge=1)
    warmup: int = Field(ge=0)
    device: str
    precision: str
    compiled: bool = False
    cuda_graphs: bool = False
    peak_memory_bytes: int | None = None
    peak_memory_kind: str = ""
    processor_share: float | None = Field(default=None, ge=0, le=1)
    others_memory_bytes: int | None = Field(default=None, ge=0)

    @property
    def busy_note(self) -> str:
        """What to say of times that others on the machine made longer; '' where nothing shows that they did."""
        if self.processor_share is not None and self.processor_share < BUSY_BELOW:
            share = 100 * self.processor_share
            return f"timed on a busy machine: it got {share:.0f} % of the processor time it could use"
        return _on_shared_gpu("timed", self.others_memory_bytes)


class Training(_Part):
    """images: training samples seen; parameters: of everything that was trained; seconds: training only. cuda_graphs:
    steps were replayed so. others_memory_bytes: of a GPU's memory, the most that other programs were seen to hold.
    """

    images: int
    seconds: Seconds
    steps: int
    parameters: int
    budget: str
    digest: str
    settings: JSONDict
    checkpoint: str
    checkpoint_sha256: str
    run_id: str = Field(description="the run that trained it")
    device: str = ""
    cuda_graphs: bool = False
    others_memory_bytes: int | None = Field(default=None, ge=0)

    @property
    def busy_note(self) -> str:
        """What to say of a training that others on the machine made slower; '' where nothing shows that they did."""
        return _on_shared_gpu("trained", self.others_memory_bytes)


def _on_shared_gpu(done: str, held: int | None) -> str:
    if held is None or held < SHARED_FROM_BYTES:
        return ""
    return f"{done} on a shared GPU: other programs held {held / 2**30:.1f} GiB of it, and may have slowed it down"


class Record(_Part):
    """One run, whole. `status` is 'complete', 'failed' or 'interrupted'; only a complete run has scores."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    id: str
    status: Literal["complete", "failed", "interrupted"]
    error: str | None = None
    continues: str = Field(default="", description="the last recorded run whose training it went on with")
    model: ModelPart
    dataset: DatasetPart
    protocol: ProtocolPart | None
    seed: int
    samples: int = Field(ge=0)
    sampling: JSONDict = Field(default={}, description="all sampling settings; none where nothing was sampled here")
    samples_sha256: str | None = None
    samples_note: str = Field(default="", description="what a reader of the scores must know of the samples")
    scores: dict[str, Score] = {}
    missing: dict[str, str] = Field(default={}, description="scores that could not be computed, and why")
    mode_histogram: list[int] | None = None
    speed: Speed | None = None
    training: Training | None = None
    environment: JSONDict = {}
    command: str = ""
    created: str
    runs_before: int | None = Field(default=None, ge=0, description="runs that its process had begun before")
    durations: dict[str, Seconds] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def label(self) -> str:
        """The name of this run's row: the model, and its variant in brackets where it has one."""
        return f"{self.model.name} ({self.model.variant})" if self.model.variant else self.model.name

    @property
    def made_elsewhere(self) -> bool:
        """Whether its samples were given as they were: of their model nothing is known but the name."""
        return self.status == "complete" and not self.model.plugin

    @property
    def origin_sha256(self) -> str:
        """Of the checkpoint that was sampled, or of samples that were made elsewhere; '' where nothing is trained."""
        if self.made_elsewhere:
            return self.samples_sha256 or ""
        return self.training.checkpoint_sha256 if self.training else ""

    @property
    def place(self) -> Path:
        """The run's folder, below the folder of all results."""
        return Path(self.dataset.name, self.model.name, self.id)

    def __repr__(self) -> str:
        """One line: what was run, its scores, and the run's folder."""
        scores = "".join(f", {name} {score.value:.4g}" for name, score in self.scores.items())
        return f"<{self.label} on {self.dataset.name}, seed {self.seed}, {self.status}{scores}; {self.place}>"

    __str__ = __repr__

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


class RecordError(ValueError):
    """A file that is not a valid record; the message names the file and the first thing wrong."""


def read_record(path: Path | str) -> Record:
    """The record at `path`. Raises RecordError when it is not one, or of a version that this program does not know."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(f"{path}: not a readable record ({error})") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise RecordError(f"{path}: schema {schema!r} is not the known {SCHEMA!r}")
    try:
        return Record.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{path}: {where}: {first['msg']}") from error
