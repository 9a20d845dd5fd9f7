"""Named evaluation protocols: they fix everything that must be equal before two numbers may be compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trilemma_bench.errors import UsageError, unknown_name

NEIGHBOUR_METRICS = ("precision", "recall", "density", "coverage")
FEATURE_METRICS = ("fd", "kid", *NEIGHBOUR_METRICS, "authenticity")
MODE_METRICS = ("modes", "mode_kl")
QUANTISED = "uint8; floats by round(255·clip(x, 0, 1))"  # images, by `images.quantise`
UNQUANTISED = "none"  # points
FEATURE_PRECISIONS = ("float32", "tf32", "bf16")
KID_SUBSETS_SEED = 2020  # torch-fidelity's, so that both average over the same subsets


@dataclass(frozen=True)
class Use:
    """A metric as a protocol uses it: on which extractor's features (None: the protocol's), and of how many samples.

    samples, reference_samples: at most so many on each side, None for the protocol's numbers.
    """

    metric: str
    extractor: str | None = None
    samples: int | None = None
    reference_samples: int | None = None


@dataclass(frozen=True)
class Protocol:
    """extractor: the features' name. samples: generated samples N. reference: the split compared against.

    reference_samples: how many of its samples, None for all. k_precision_recall and k_density_coverage: neighbours.
    quantisation: of the samples, QUANTISED for images, UNQUANTISED for points. precision: of the extractors'
    arithmetic, one of FEATURE_PRECISIONS.
    kid_subsets, kid_subset_size: how KID is averaged; 0 subsets for all pairs. metrics: names of registered metrics, or
    `Use` where one differs from the rest; those of modes are skipped where a dataset has none.
    """

    name: str
    extractor: str
    samples: int
    reference: str = "train"
    reference_samples: int | None = None
    k_precision_recall: int = 3
    k_density_coverage: int = 5
    kid_subsets: int = 0
    kid_subset_size: int = 1000
    metrics: tuple[str | Use, ...] = FEATURE_METRICS
    quantisation: str = QUANTISED
    precision: str = "float32"
    title: str = ""

    def __post_init__(self) -> None:
        """Raises UsageError for a k, a quantisation or a precision that no measurement could have."""
        if min(self.k_precision_recall, self.k_density_coverage) < 1:
            raise UsageError(
                f"protocol '{self.name}': k_precision_recall = {self.k_precision_recall} and k_density_coverage = "
                f"{self.k_density_coverage}, and both must be at least 1"
            )
        if self.quantisation not in (QUANTISED, UNQUANTISED):
            raise UsageError(
                f"protocol '{self.name}': quantisation = '{self.quantisation}', and what is done is '{QUANTISED}' of "
                f"images and '{UNQUANTISED}' of points"
            )
        if self.precision not in FEATURE_PRECISIONS:
            raise unknown_name(f"precision of protocol '{self.name}'", self.precision, FEATURE_PRECISIONS)

    @property
    def uses(self) -> tuple[Use, ...]:
        """The metrics with every field filled in."""
        uses = (use if isinstance(use, Use) else Use(use) for use in self.metrics)
        return tuple(replace(use, extractor=use.extractor or self.extractor) for use in uses)

    def limits(self, use: Use) -> tuple[int, int | None]:
        """At most how many samples a use of a metric reads: generated ones, and of the reference (None: all)."""
        return use.samples or self.samples, use.reference_samples or self.reference_samples

    def reference_size(self, size: int, use: Use | None = None) -> int:
        """How many of a reference's `size` samples are compared with: by a use, or by those that say nothing of it."""
        limit = self.limits(use)[1] if use else self.reference_samples
        return min(size, limit or size)

    @property
    def kid(self) -> str:
        """How KID is averaged, in words."""
        if not self.kid_subsets:
            return "all pairs"
        return f"{self.kid_subsets} subsets of {self.kid_subset_size}, NumPy's choice with seed {KID_SUBSETS_SEED}"

    @property
    def extractors(self) -> tuple[str, ...]:
        """Names of all extractors that the metrics read, the protocol's own first."""
        return tuple(dict.fromkeys([self.extractor, *(str(use.extractor) for use in self.uses)]))


POINTS = Protocol(
    "points", "points", samples=10_000, reference="test", reference_samples=10_000,
    metrics=("fd", *NEIGHBOUR_METRICS, *MODE_METRICS, "high_quality"), quantisation=UNQUANTISED,
    title="raw coordinates, 10k held-out points",
)  # fmt: skip
DIGITS = Protocol(
    "digits", "digits-cnn", samples=500, metrics=(*FEATURE_METRICS, *MODE_METRICS),
    title="8×8 digit classifier, 500 samples against the training split",
)  # fmt: skip
STACKED_DIGITS = Protocol(
    "stacked-digits", "digits-cnn", samples=10_000, reference_samples=10_000,
    metrics=(*FEATURE_METRICS, *MODE_METRICS), title="8×8 digit classifier on each channel, 1000 modes",
)  # fmt: skip
MNIST = Protocol(
    "mnist", "mnist-cnn", samples=10_000, reference_samples=10_000,
    metrics=(*FEATURE_METRICS, *MODE_METRICS), title="28×28 digit classifier",
)  # fmt: skip
STACKED_MNIST = Protocol(
    "stacked-mnist", "mnist-cnn", samples=26_000, reference_samples=26_000,
    metrics=(*FEATURE_METRICS, *MODE_METRICS), title="digit classifier on each channel, 26k samples, 1000 modes",
)  # fmt: skip
CIFAR_RESNET56 = Protocol(
    "cifar-resnet56", "cifar-resnet56", samples=10_000, metrics=("fd_infinity", *FEATURE_METRICS),
    title="CIFAR-10 ResNet-56 penultimate features, 10k samples against the training split",
)  # fmt: skip
PAPER = Protocol(
    "paper", "inception", samples=50_000,
    metrics=("fd", "inception_score", Use("precision", "vgg16"), Use("recall", "vgg16")),
    title="DDGAN's table 1: TF-Inception FID and IS, VGG16 precision and recall, 50k samples",
)  # fmt: skip
ADM = Protocol(
    "adm", "inception", samples=50_000,
    metrics=(
        "fd", "sfid", "inception_score",
        Use("precision", reference_samples=10_000), Use("recall", reference_samples=10_000),
    ),
    title="guided-diffusion's evaluator: all on TF-Inception; precision and recall against 10k reference images",
)  # fmt: skip
CLEAN = Protocol(
    "clean", "inception-clean", samples=50_000, metrics=("fd", "kid"), kid_subsets=100,
    title="clean-fid: Inception after an antialiased resize, KID over 100 subsets of 1000",
)  # fmt: skip
DINOV2 = Protocol(
    "dinov2", "dinov2-vitl14", samples=50_000, k_precision_recall=5,
    metrics=(
        "fd", "fd_infinity", "kid",
        *(Use(metric, samples=10_000, reference_samples=10_000) for metric in NEIGHBOUR_METRICS),
        "authenticity", "vendi",
    ),
    title="DINOv2 ViT-L/14, k = 5, as Stein et al. 2023 advise: precision to coverage of 10k on both sides",
)  # fmt: skip
CMMD = Protocol(
    "cmmd", "clip-vit-b-32", samples=10_000, metrics=("cmmd",), title="Gaussian-kernel MMD on CLIP ViT-B/32",
)  # fmt: skip
PIXELS = Protocol("pixels", "pixels", samples=10_000, title="raw pixels: a smoke test, not a judgement of quality")
