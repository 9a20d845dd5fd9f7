"""What a plugin implements: models, datasets, feature extractors and metrics.

The data flows one way: a model draws samples, an extractor turns them into features, a metric turns features into a
number. Images are uint8 tensors N×C×H×W between all parts; points are float32 tensors N×D.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison
    from trilemma_bench.protocol import Protocol as EvaluationProtocol

Better = Literal["higher", "lower"]

# Types of settings, with their bounds; fractions are finite.
Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
Whole = Annotated[int, Field(ge=0)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class DataSpec:
    """What a model needs to know of its data.

    shape: (D,) for points, (C, H, W) for images. classes: number of labels, or None. scale: the standard deviation of
    the training data per coordinate, in the data's own unit (images in [−1, 1] have about 0.5).
    """

    shape: tuple[int, ...]
    classes: int | None = None
    scale: float = 0.5

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3


@dataclass(frozen=True)
class Split:
    """Samples of a dataset: uint8 N×C×H×W or float32 N×D; labels: int64 N, or None. Batches of images are float."""

    samples: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class ModeRule:
    """How samples are assigned to a dataset's known modes.

    assign: samples → int64 N, a mode in 0…count−1, or −1 for a sample of low quality, which counts for no mode.
    rule: the assignment in words, for the record. min_share: the share of all samples that a mode needs to count as
    covered; 0 asks for one sample.
    """

    count: int
    assign: Callable[[Tensor], Tensor]
    rule: str
    min_share: float = 0.0

    def min_count(self, samples: int) -> int:
        """Samples that a mode needs to count as covered, among `samples`."""
        return max(1, math.ceil(self.min_share * samples))


class Dataset(ABC):
    """A source of real data: `registry.datasets` maps its name to a class built with the data folder, `root`.

    default_protocol: the evaluation protocol used unless another is asked for. Nothing is read or downloaded before
    `load`, but for what `spec` needs.
    """

    name: str
    spec: DataSpec
    splits: tuple[str, ...] = ("train", "test")
    default_protocol: str = "pixels"

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def load(self, split: str) -> Split:
        """The whole split, always in the same order. Raises TrilemmaError when the data is missing or damaged."""

    def fingerprint(self) -> str:
        """sha256 of the content of all splits (hex): equal data, equal fingerprint, whatever file it came from."""
        from trilemma_bench.datasets.fingerprint import content_fingerprint

        return content_fingerprint(self)

    @property
    def official(self) -> bool | None:
        """Whether the content is that of the archive which publications use; None where there is no such archive."""
        return None

    @property
    def note(self) -> str:
        """What a reader of a table must know of this copy of the data; '' where there is nothing to say."""
        return ""

    def available(self) -> str:
        """Whether the data is on this machine, in words: 'bundled', 'found at …', 'missing: …'; reads no content."""
        return "bundled"

    def mode_rule(self) -> ModeRule | None:
        """How mode coverage is counted, for a dataset whose modes are known."""
        return None


class GenerativeModel(nn.Module, ABC):
    """A model that can be measured: `registry.models` maps its name to a class built as `cls(data, **settings)`.

    Settings are the keyword-only, annotated arguments of `__init__`: the harness validates them from the signature,
    with their bounds if they are of a type such as `Count` or `Share`.

    network: the module whose evaluations are counted (NFE), averaged (EMA) and exported; None if there is none.
    trained_as: the model whose training run this one samples from; a sampler names the model that it samples.
    sampling_settings: settings that change how a trained model samples, not how it is trained.
    """

    network: nn.Module | None
    trained_as: ClassVar[str | None] = None
    sampling_settings: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, data: DataSpec) -> None:
        super().__init__()
        self.data = data
        self.register_module("network", None)

    @abstractmethod
    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """`count` samples: images as float in [−1, 1] or uint8, count×C×H×W; points as float in data units, count×D.

        All randomness comes from `rng`, which lives on the model's device. Called without gradients, in eval mode.
        """

    def evaluations(self) -> int | None:
        """Evaluations of `network` that one sample takes (NFE), with the present settings; None where the sampler
        decides as it goes, or there is no network. The harness counts them too: both must agree. Where
        samples never call `network` itself, these are what is recorded.
        """
        return None

    def describe(self) -> str:
        """A few words that tell this row of a table from another of the same model: '4 steps'; '' where none need."""
        return ""


class Trainable(GenerativeModel):
    """A model that the harness can train. The harness owns loop, clock, budget, learning-rate schedule, EMA,
    checkpoints and randomness; the model owns its step.

    training_defaults: defaults of `TrainingSettings` for this model, such as `{"batch_size": 128}`.
    wants_labels: whether `training_step` is called with `labels`, int64 N, as well. processes: how many share a batch,
    of which each gets its part; the harness sets it.
    """

    network: nn.Module
    wants_labels: bool = False
    processes: int = 1
    training_defaults: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimisers at their full learning rates, by name; called once, after the model is on its device."""

    @abstractmethod
    def training_step(
        self, batch: Tensor, step: int, optimizers: dict[str, torch.optim.Optimizer]
    ) -> dict[str, Tensor]:
        """One update from `batch` (float; images in [−1, 1], points in data units; on the model's device).

        Returns the losses by name, detached scalars; the harness checks that they are finite and logs them.
        Randomness comes from torch's global generators, which the harness seeds, saves and restores; what changes from
        step to step lives in parameters, buffers and optimisers.

        Many processes do together what one does (see `trilemma_bench.distributed`) if losses are means over the batch,
        gradients come from `backward`, and what is drawn for samples has the batch first.
        """

    def before_step(self, batch: Tensor, **labels: Tensor) -> dict[str, Tensor]:
        """Further tensors, on the model's device, that `training_step` is called with by name: what waits for the
        device, and so has to be done before the part of a step that is recorded, or needs the global batch where
        several processes share it: each gets its rows of what this makes. By default there are none.
        """
        return {}

    def compiled_parts(self) -> list[nn.Module]:
        """The modules that `training_step` calls, for `training.compile`: by default the children that learn, such as
        a generator and a discriminator.
        """
        return [part for part in self.children() if any(True for _ in part.parameters())]

    def step_kind(self, step: int) -> Hashable:
        """Steps of one kind do the same work on other numbers, so on CUDA they are recorded once and replayed; a lazy
        penalty, say, makes another kind. None, the default, for a step that is not to be recorded: one that waits for
        the device (see `before_step`), adds to gradients of the step before, or looks at what Python keeps or draws
        from step to step. Optimisers must be fused or capturable.
        """
        return None


@runtime_checkable
class FiniteSource(Protocol):
    """A 'model' that is a finite list of samples, drawn without replacement in an order that the seed decides."""

    def prepare(self, samples: Split, split: str) -> None:
        """Receives the held-out split (never the reference's) before anything is drawn."""

    def size(self) -> int: ...

    def take(self, indices: Tensor) -> Tensor:
        """The samples at `indices` (int64), in the form that `GenerativeModel.sample` returns."""


class FeatureExtractor(ABC):
    """Turns samples into features: `registry.extractors` maps its name to a class built as `cls(device)`.

    dim: number of features D. weights_sha256: hash of the weights, None without weights. resize: the resize applied
    before the network, in words ('none', 'tf1-bilinear-299', …). precision: of the arithmetic, in words.
    cpu_block: samples that it is given at once on a CPU, where more may not fit the caches; never fewer.
    outputs: what one pass can give; the first, 'features', is what a metric reads unless it names another.
    """

    name: str
    dim: int
    weights_sha256: str | None = None
    resize: str = "none"
    precision: str = "float32"
    cpu_block: ClassVar[int] = 64
    outputs: ClassVar[tuple[str, ...]] = ("features",)

    @abstractmethod
    def __call__(self, samples: Tensor) -> Tensor:
        """A batch of samples (uint8 images or float points, on any device) → float32 features N×D."""

    def compute(self, samples: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        """A batch of samples → the asked outputs (of `self.outputs`), each float32 N×·, in one pass."""
        return {"features": self(samples)}

    def check(self, data: DataSpec) -> None:
        """Raises TrilemmaError when data of this shape cannot be measured with these features."""
        return None


@dataclass(frozen=True)
class Estimate:
    """A value and how sure it is: of other samples drawn from the same model, with the same reference.

    standard_error: in the value's unit, None where it is not known. interval: 95 %, where it is not value ± 1.96
    standard errors. method: how the error was found, in a few words. note: what a reader must know of the value.

    What only the data tell, such as their number of modes – range: the values it can take, instead of the metric's.
    ideal: the best of them. floor: the value of as many perfect samples, where that is not the ideal one.
    """

    value: float
    standard_error: float | None = None
    method: str = ""
    interval: tuple[float, float] | None = None
    note: str = ""
    range: tuple[float, float] | None = None
    ideal: float | None = None
    floor: float | None = None


@dataclass(frozen=True)
class Metric:
    """A pure function of a `Comparison` with its facts beside it.

    compute: gives a number, or an `Estimate` where its error is known. needs: 'features' of both sides, 'moments' where
    those are all that it reads of the reference, 'training' for features of the train split instead of the reference,
    'samples' for features of the generated side alone, or 'modes'.
    range: the values it can take. better: None where neither more nor less is, but what real data have. source: the
    paper it comes from. output: which of the extractor's outputs it reads. convention: what is settled where libraries
    differ; records carry it. least: the fewest samples that it can be computed of under a protocol with D features,
    generated and of the reference (or of the train split): what is known to be too few is said before anything is
    sampled.
    named: extractor → the score's name with its features, where the name says which they are.
    """

    name: str
    compute: Callable[[Comparison], float | Estimate]
    better: Better | None
    needs: Literal["features", "moments", "training", "samples", "modes"]
    unit: str
    title: str
    range: tuple[float, float]
    source: str
    output: str = "features"
    convention: str = ""
    least: Callable[[EvaluationProtocol, int], tuple[int, int]] = lambda protocol, dim: (1, 1)
    named: Callable[[str], str] | None = None

    def estimate(self, comparison: Comparison) -> Estimate:
        """The metric of `comparison`, with its error where the metric knows it."""
        result = self.compute(comparison)
        return result if isinstance(result, Estimate) else Estimate(result)

    @property
    def reads_reference(self) -> bool:
        """Whether it compares with the protocol's reference."""
        return self.needs in ("features", "moments")

    def score_name(self, extractor: str) -> str:
        """The name of the score in a record: a Fréchet distance says which features it was measured on."""
        return self.named(extractor) if self.named else self.name
