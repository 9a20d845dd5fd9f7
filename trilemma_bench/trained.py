"""The training stage: a model with weights, from a checkpoint that is given or found, or trained now."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import TypeVar

import torch

from trilemma_bench.contracts import FiniteSource, GenerativeModel, Trainable
from trilemma_bench.datasets.splits import TRAIN_SPLIT
from trilemma_bench.distributed import on_main, world
from trilemma_bench.errors import TrilemmaError, UsageError, place_of
from trilemma_bench.job import Job, held_out_split, training_digest
from trilemma_bench.record import Training
from trilemma_bench.results import RECORD_NAME
from trilemma_bench.seeding import seed_everything
from trilemma_bench.training import checkpoint
from trilemma_bench.training.trainer import Place, Trainer
from trilemma_bench.weights import sha256_of

M = TypeVar("M", bound=GenerativeModel)


def give_weights(job: Job, model: GenerativeModel) -> None:
    """Trained weights for `model`: from `--checkpoint`, from a run found under the same folder, or trained now."""
    if not isinstance(model, Trainable):
        return
    if job.options.checkpoint:
        _use_checkpoint(job, model, job.options.checkpoint)
    elif not job.options.retrain and (found := find_trained(job, complete=True)):
        job.options.say(f"using the checkpoint in {found}; nothing is trained")
        on_main(lambda: _link(found / checkpoint.WEIGHTS_FILE, job.folder / checkpoint.WEIGHTS_FILE))
        _use_checkpoint(job, model, job.folder / checkpoint.WEIGHTS_FILE)
    else:
        _train(job, model)


def find_trained(job: Job, complete: bool) -> Path | None:
    """The newest folder with a finished checkpoint of this training run, or with one to go on from."""
    return on_main(lambda: checkpoint.find(job.options.out, training_digest(job), complete=complete))


def existing_model(job: Job) -> GenerativeModel:
    """The model for `sample`, which never trains."""
    model = build_model(job)
    if isinstance(model, Trainable):
        path = job.options.checkpoint
        if path is None:
            found = find_trained(job, complete=True)
            if found is None:
                raise TrilemmaError(
                    f"no trained '{job.trained_as}' with these settings, budget and seed under {job.options.out}: "
                    "train it first, or give --checkpoint FILE"
                )
            path = found / checkpoint.WEIGHTS_FILE
        _use_checkpoint(job, model, path)
    return model


def build_model(job: Job) -> GenerativeModel:
    """The model with fresh weights, a function of the seed, on the run's device.

    Raises UsageError when the model's constructor refuses the settings.
    """
    seed_everything(job.options.seed)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # the error says it
            model = job.model_class(job.dataset.spec, **job.settings.model)
    except TrilemmaError:
        raise
    except Exception as error:
        if "Module.__init__() call" in str(error):
            raise _uninitialised(job.options.model) from error
        what = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
        raise UsageError(
            f"model '{job.options.model}' cannot be built with these settings for data of shape "
            f"{job.dataset.spec.shape} ({what}, in {place_of(error)[0]}): change them with --set or --config"
        ) from error
    _check_built(model, job.options.model)
    model = placed(model, job.device)
    if isinstance(model, FiniteSource):
        split = held_out_split(job)
        model.prepare(job.dataset.load(split), split)
    return model


def _check_built(model: GenerativeModel, name: str) -> None:
    """Raises UsageError for a model whose `__init__` has not set what the contract asks for."""
    if not hasattr(model, "data"):
        raise _uninitialised(name)
    if isinstance(model, Trainable) and not isinstance(model.network, torch.nn.Module):
        raise UsageError(
            f"model '{name}' has no network: its __init__ has to set self.network, the module that draws samples: "
            "its evaluations are counted, and it is averaged and saved"
        )


def _uninitialised(name: str) -> UsageError:
    return UsageError(f"model '{name}': its __init__ does not call super().__init__(data): add that as its first line")


def placed(model: M, device: torch.device) -> M:
    """The model on the device, with the weights of images' networks in the format that CUDA's convolutions want."""
    model = model.to(device)
    if model.data.is_image and device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    return model


def count_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _train(job: Job, model: Trainable) -> None:
    resume = find_trained(job, complete=False)
    job.continues = _last_recorded(resume) if resume else ""
    header = checkpoint.Header(
        model=job.trained_as,
        settings=job.settings.model,
        shape=job.dataset.spec.shape,
        dataset=job.dataset.name,
        fingerprint=job.dataset.fingerprint(),
        digest=training_digest(job),
        run_id=job.id,
        parameters=count_parameters(model),
        budget=job.settings.training.budget,
        training=job.settings.training.model_dump(),
        device=_devices(job.device),
        continues=job.continues,
    )
    place = Place(job.folder, job.device, resume, job.options.say, job.options.progress)
    data = job.dataset.load(TRAIN_SPLIT)
    trainer = Trainer(model, data, job.settings.training, job.options.seed, header, place)
    with job.timed("training"):
        header = trainer.run()
    while left := find_trained(job, complete=False):  # of all that were interrupted on the way here
        (left / checkpoint.STATE_FILE).unlink(missing_ok=True)
    job.training = on_main(lambda: _training_part(header, job.folder / checkpoint.WEIGHTS_FILE))


def _last_recorded(folder: Path) -> str:
    """The id of the interrupted run in `folder`; where it was killed before it left a record, of the one before it."""
    if (folder / RECORD_NAME).is_file():
        return folder.name
    return checkpoint.read_header(folder / checkpoint.WEIGHTS_FILE).continues


def _devices(device: torch.device) -> str:
    """'cpu', 'cuda:0', or '8 × cuda' of many processes."""
    return f"{world()} × {device.type}" if world() > 1 else str(device)


def _use_checkpoint(job: Job, model: Trainable, path: Path) -> None:
    """Loads `path`, of this model on data of this shape, into `model`."""
    header = checkpoint.read_header(path)
    if not header.complete:
        job.options.say(f"note: {path} is from an unfinished training run ({header.images:,} images)")
    checkpoint.load_weights(model.network, path)
    job.training = _training_part(header, path)


def _training_part(header: checkpoint.Header, path: Path) -> Training:
    return Training(
        images=header.images,
        seconds=header.seconds,
        steps=header.steps,
        parameters=header.parameters,
        budget=header.budget,
        digest=header.digest,
        settings=header.training or {},
        checkpoint=path.name,
        checkpoint_sha256=sha256_of(path),
        run_id=header.run_id,
        device=header.device,
        cuda_graphs=header.cuda_graphs,
        others_memory_bytes=header.others_memory_bytes,
    )


def _link(source: Path, target: Path) -> None:
    """The same checkpoint in two folders: a hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
