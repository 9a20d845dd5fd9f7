"""What every model must do, tried on one in a few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from trilemma_bench.contracts import GenerativeModel, Trainable
from trilemma_bench.datasets.splits import TRAIN_SPLIT
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.job import Job
from trilemma_bench.sampling import draw_samples
from trilemma_bench.seeding import seed_everything
from trilemma_bench.settings import TrainingSettings
from trilemma_bench.timing import EvaluationCounter
from trilemma_bench.trained import build_model
from trilemma_bench.training import checkpoint
from trilemma_bench.training.trainer import Interrupted, Place, Trainer

SAMPLES, BATCH, STOP_AFTER = 6, 16, 2
STEPS = 6  # in the fifth of them WGAN-GP moves its generator for the first time
_Checks = tuple[tuple[str, Callable[[Job, Path], None]], ...]


def check_model(job: Job) -> Iterator[tuple[str, str]]:
    """(what is asked of the model, what is wrong with it or '') for each check; any other exception passes through.

    Raises TrilemmaError where the data to train on cannot be had, after the checks that need none.
    """
    yield from _faults(job, WITHOUT_DATA if job.trainable else WITHOUT_DATA[:1])
    if job.trainable:
        job.dataset.load(TRAIN_SPLIT)  # if it is missing, the model is not at fault
        yield from _faults(job, WITH_DATA)


def _faults(job: Job, checks: _Checks) -> Iterator[tuple[str, str]]:
    for what, check in checks:
        with TemporaryDirectory() as folder:
            try:
                check(job, Path(folder))
            except TrilemmaError as error:
                yield what, str(error)
            else:
                yield what, ""


def _samples_repeat(job: Job, _: Path) -> None:
    _repeated(build_model(job), job)


def _repeated(model: GenerativeModel, job: Job) -> Tensor:
    """A draw that is the same when it is drawn again. Raises TrilemmaError for any other."""
    state = torch.get_rng_state()
    first = _draw(model, job)
    if not torch.equal(state, torch.get_rng_state()):
        raise TrilemmaError("sample draws from torch's global generator: take all randomness from its argument rng")
    torch.manual_seed(job.options.seed + 1)
    if not torch.equal(first, _draw(model, job)):
        raise TrilemmaError("two draws of one seed differ: take all randomness from rng, keep nothing between draws")
    return first


def _evaluations_are_as_stated(job: Job, _: Path) -> None:
    model, counter = build_model(job), EvaluationCounter()
    if not isinstance(model, Trainable):
        return
    with counter.watch(model.network):
        _draw(model, job)
    stated = model.evaluations()
    if counter.rows == 0 and stated is None:
        raise TrilemmaError(
            "sample never calls self.network, where they are counted: call it, or state them in evaluations()"
        )
    if counter.rows and stated is not None and counter.rows != SAMPLES * stated:
        counted = counter.rows / SAMPLES
        raise TrilemmaError(f"evaluations() says {stated} a sample, and {counted:g} were counted: correct one of them")


def _training_moves_the_network(job: Job, folder: Path) -> None:
    trainer = _trainer(Trainer, job, folder)
    before = [value.clone() for value in trainer.model.network.parameters()]
    trainer.run()
    if all(map(torch.equal, before, trainer.model.network.parameters())):
        raise TrilemmaError(f"{STEPS} steps left self.network as it was: give its parameters to an optimiser, step it")


def _training_resumes(job: Job, folder: Path) -> None:
    places = {name: folder / name for name in ("whole", "first", "second")}
    for place in places.values():
        place.mkdir()
    whole = _trainer(Trainer, job, places["whole"])
    whole.run()
    with suppress(Interrupted):
        _trainer(_Stopped, job, places["first"]).run()
    resumed = _trainer(Trainer, job, places["second"], resume=places["first"])
    resumed.run()
    after = resumed.model.state_dict()
    apart = [name for name, value in whole.model.state_dict().items() if not torch.equal(value, after[name])]
    if apart:
        raise TrilemmaError(
            f"training that was interrupted and resumed gives another {apart[0]}: keep what changes from step to step "
            "in parameters, buffers and optimisers"
        )


def _saved_weights_sample_alike(job: Job, folder: Path) -> None:
    trainer = _trainer(Trainer, job, folder)
    trainer.run()
    other = build_model(replace(job, options=replace(job.options, seed=job.options.seed + 1)))
    assert isinstance(other, Trainable)
    checkpoint.load_weights(other.network, folder / checkpoint.WEIGHTS_FILE)
    if not torch.equal(_repeated(trainer.model, job), _draw(other, job)):
        raise TrilemmaError("sampling needs more than self.network: put into it what is learned, for no more is saved")


WITHOUT_DATA: _Checks = (
    ("samples have the data's shape and repeat with their seed", _samples_repeat),
    ("network evaluations are as stated", _evaluations_are_as_stated),
)
WITH_DATA: _Checks = (
    ("a few training steps move the network", _training_moves_the_network),
    ("training that is interrupted and resumed gives the same weights", _training_resumes),
    ("saved weights draw the same samples", _saved_weights_sample_alike),
)


class _Stopped(Trainer):
    def _step(self, progress: float) -> None:
        super()._step(progress)
        self._stop = self.step == STOP_AFTER


def _trainer(kind: type[Trainer], job: Job, folder: Path, resume: Path | None = None) -> Trainer:
    seed_everything(job.options.seed)
    model = build_model(job)
    assert isinstance(model, Trainable)
    data = job.dataset.load(TRAIN_SPLIT)
    batch = min(BATCH, len(data))
    settings = TrainingSettings(
        **{**job.settings.training.model_dump(), "batch_size": batch, "budget": f"{batch * STEPS / 1000}kimg"}
    )
    place = Place(folder, job.device, resume, say=lambda text: None, progress=False)
    return kind(model, data, settings, job.options.seed, _header(job), place)


def _header(job: Job) -> checkpoint.Header:
    return checkpoint.Header(job.trained_as, job.settings.model, job.dataset.spec.shape, job.dataset.name, "", "", "")


def _draw(model: GenerativeModel, job: Job) -> Tensor:
    return draw_samples(model, SAMPLES, job.options.seed, chunk_size=SAMPLES, device=job.device, progress=False)
