"""`python -m vision train` and `transfer`: from a SOURCE to a model folder.

read_images -> cnn_learner -> phases (ulmpipe.train) -> model folder, batch.png, top_losses.png
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ulmpipe.console import log
from ulmpipe.durable import LOCK, check_output, locked, sha256_of
from ulmpipe.errors import ConfigError
from ulmpipe.journal import JOURNAL_FILE, Run, recorded
from ulmpipe.options import make_config
from ulmpipe.train import (
    LOGS,
    Learner,
    Phase,
    check_finished,
    check_precision,
    check_resume,
    pick_device,
    pick_precision,
    run_phases,
    smaller_for_few,
)
from ulmpipe.train.metrics import finite_row
from ulmpipe.train.params import Group
from ulmpipe.train.precision import Precision

from .config import FitConfig, TrainConfig, TransferConfig
from .data import ImageData, Stats, channel_stats, log_quarantined, read_images
from .learner import MOMS, cnn_learner
from .model import CONFIG_FILE, KIND, PLOTS, WEIGHTS_FILE, ImageClassifier, carried_body, make_network, model_path
from .named import DIGITS
from .plot import show_batch, show_top_losses
from .report import report_training
from .source import source_name
from .transfer import bn_splitter

MODELS_FOLDER = Path("models")
PICTURES_FOLDER = "decoded-pictures"  # beside the model folders
SIZE, STORED = 128, 1.25  # pixels seen, and how much more are kept to cut views from
MAGNIFIED = 4  # times that small pictures are enlarged at most
PCT_START = 0.25  # of a phase, in which the learning rate rises
MIN_STEPS = 4  # in an epoch: with fewer pictures batches get smaller
NOT_MIRRORED = (DIGITS,)
# Options that a resumed training need not share.
MAY_CHANGE = {"resume", "workers", "device", "checkpoint_steps", "cache", "report", "note"}


@dataclass(frozen=True)
class FitResult:
    """What was reached; the fields of `train --json` and `transfer --json`."""

    valid_loss: float  # smoothed as in training; `evaluate` gives the plain one
    accuracy: float
    n_train: int
    n_valid: int
    classes: list[str]
    size: int
    precision: str
    n_steps: int
    seconds: float
    images_per_s: float  # of training
    n_quarantined: int
    out: str


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained."""

    network: nn.Module
    settings: dict[str, Any]  # with which `make_network` builds it again
    phases: Sequence[Phase]
    size: int
    first_size: int
    stats: Stats
    groups: Sequence[Group] | None = None
    command: tuple[str, ...] = ()  # and its arguments, but for options
    started_from: str | None = None  # digest of the weights it had before


def train(source: str | Path, out: str | Path | None = None, **options: Any) -> FitResult:
    """Train a network from nothing on a SOURCE and write it to `out` (default: `models/<name>`).

    `options` are the fields of `vision.config.TrainConfig`.
    """
    config = make_config(TrainConfig, options)
    out = _check(str(source), out, config)
    begin_s = time.monotonic()
    with locked(out), recorded(out, "vision train", str(source), asdict(config)) as run:
        _check_before(out, config)
        data = _read(str(source), out, config, config.size or SIZE)
        torch.manual_seed(config.seed)
        settings = {"arch": config.arch, "c_out": len(data.classes)}
        size = config.size or min(SIZE, MAGNIFIED * data.pictures.side)
        recipe = Recipe(
            network=make_network(settings),
            settings=settings,
            phases=[Phase("train", config.epochs, (config.lr,))],
            command=("train", str(source)),
            size=size,
            first_size=min(size, config.first_size or max(32, size // 2)),
            stats=channel_stats(data.pictures, data.train),
        )
        return _fit(str(source), out, config, data, recipe, begin_s, run)


def transfer(source: str | Path, from_model: str | Path, out: str | Path | None = None, **options: Any) -> FitResult:
    """Put a new head on the network of the model folder `from_model` and train it on a SOURCE, then all of it.

    `options` are the fields of `vision.config.TransferConfig`.
    """
    config = make_config(TransferConfig, options)
    folder = model_path(from_model)
    before = ImageClassifier.from_pretrained(folder)
    out = _check(str(source), out, config)
    if out.resolve() == folder.resolve():
        raise ConfigError(f"-o {out} is the model to start from: choose another -o")
    begin_s = time.monotonic()
    about = {"from_model": str(from_model), **asdict(config)}
    with locked(out), recorded(out, "vision transfer", str(source), about) as run:
        _check_before(out, config)
        size = config.size or before.size
        data = _read(str(source), out, config, size)
        torch.manual_seed(config.seed)
        network, settings = carried_body(before, len(data.classes))
        recipe = Recipe(
            network=network,
            settings=settings,
            phases=[
                Phase("head", config.head_epochs, (0.0, config.head_lr), freeze_to=-1),
                Phase("all", config.epochs, (config.lr / config.layer_factor, config.lr)),
            ],
            size=size,
            first_size=size,
            stats=before.stats,
            groups=bn_splitter(network.get_submodule("body"), network.get_submodule("head")),
            command=("transfer", str(source), "--from", str(from_model)),
            started_from=sha256_of(folder / WEIGHTS_FILE)[:12],
        )
        return _fit(str(source), out, config, data, recipe, begin_s, run)


def _check(source: str, out: str | Path | None, config: FitConfig) -> Path:
    """The output folder, and that it, the device and the precision are to be had: before any work is done."""
    path = Path(out) if out is not None else MODELS_FOLDER / source_name(source)
    is_ours = (path / LOCK).exists()  # what a training leaves that was killed
    left = (*LOGS, CONFIG_FILE, WEIGHTS_FILE, *PLOTS) if is_ours else ()
    check_output(path, expected=KIND, also=(JOURNAL_FILE, *left))
    if config.precision != "auto":
        check_precision(config.precision, pick_device(config.device))
    return path


def _check_before(out: Path, config: FitConfig) -> None:
    """What stands in a folder that no other run has now: an unfinished training is resumed, or refused."""
    check_resume(config.resume, out)
    if not config.resume:
        check_finished(out)


def _read(source: str, out: Path, config: FitConfig, size: int) -> ImageData:
    data = read_images(
        source,
        out.parent / PICTURES_FOLDER,
        side=round(STORED * size),
        valid=config.valid,
        valid_fraction=config.valid_fraction,
        image_column=config.image_column,
        label_column=config.label_column,
        workers=config.workers,
        cache=config.cache,
        seed=config.seed,
    )
    log(f"{len(data.train):,} pictures to train on, {len(data.valid):,} to validate, {len(data.classes)} classes")
    return data


def _learner(
    source: str, config: FitConfig, data: ImageData, recipe: Recipe, precision: Precision
) -> tuple[Learner, bool]:
    """The learner of a training, and whether pictures are mirrored in it."""
    batch_size = smaller_for_few(config.batch_size, len(data.train), min_steps=MIN_STEPS)
    if len(data.train) < MIN_STEPS * config.batch_size:
        log(
            f"{len(data.train)} pictures are few: batches of {batch_size}; --epochs of a few hundred and --mixup 0.4 help"
        )
    flip = config.flip if config.flip is not None else source_name(source) not in NOT_MIRRORED
    learn = cnn_learner(
        recipe.network,
        data,
        size=recipe.size,
        first_size=recipe.first_size,
        batch_size=batch_size,
        mixup=config.mixup,
        smooth=config.smooth,
        flip=flip,
        min_scale=config.min_scale,
        stats=recipe.stats,
        groups=recipe.groups,
        weight_decay=config.weight_decay,
        precision=precision,
        device=config.device,
        seed=config.seed,
    )
    return learn, flip


def _fit(
    source: str, out: Path, config: FitConfig, data: ImageData, recipe: Recipe, begin_s: float, run: Run
) -> FitResult:
    """Train, and write the model folder."""
    read_s = time.monotonic() - begin_s
    run.begin(data.digest, curves=[out])
    precision = pick_precision(config.precision, pick_device(config.device))
    learn, flip = _learner(source, config, data, recipe, precision)
    show_batch(learn, data.classes, out / PLOTS[0])
    options = {name: value for name, value in asdict(config).items() if name not in MAY_CHANGE}
    options |= {"precision": precision, "size": recipe.size}
    began_with = {"pictures": data.digest, "started_from": recipe.started_from}
    last = run_phases(
        learn,
        recipe.phases,
        out,
        options={**options, **began_with},
        resume=config.resume,
        checkpoint_steps=config.checkpoint_steps,
        moms=MOMS,
        pct_start=PCT_START,
    )
    results = {"results": finite_row(last), "quarantined": data.quarantined}
    trained = {"source": source, "options": options, **began_with, **results}
    ImageClassifier(
        learn.model, recipe.settings, data.classes, data.pictures.side, recipe.size, recipe.stats, flip, trained
    ).save_pretrained(out)
    assert learn.valid_dl is not None
    pred, target = learn.predict(learn.valid_dl)
    show_top_losses(pred, target, data, out / PLOTS[1])
    log_quarantined(data.quarantined)
    result = FitResult(
        valid_loss=last["valid_loss"],
        accuracy=last["accuracy"],
        n_train=len(data.train),
        n_valid=len(data.valid),
        classes=data.classes,
        size=recipe.size,
        precision=precision,
        n_steps=int(last["n_steps"]),
        seconds=round(time.monotonic() - begin_s, 1),
        images_per_s=round(last["targets_per_s"], 1),
        n_quarantined=data.n_quarantined,
        out=str(out),
    )
    run.finish(asdict(result))
    if config.report:
        command = (*recipe.command, "-o", str(out))
        report_training(out, data, config, run, command=command, source=source, results=last, pred=pred, target=target, read_s=read_s)  # fmt: skip
    return result
