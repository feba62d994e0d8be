"""Phases: a training is a list of them, each one cycle over some of the parameter groups; a checkpoint knows its phase.

Gradual unfreezing, the frozen and the free epoch of a tuned language model, and a plain pretraining are all such lists.
Shared by pretrain.py and finetune.py.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import TrainConfig
from ..console import log
from ..durable import MANIFEST, read_json
from ..errors import ConfigError, UlmpipeError
from ..models import LanguageModel
from ..models.transfer import language_model_groups
from ..text.batches import Docs, LMBatches
from ..train import (
    Checkpoint,
    GradientClip,
    Learner,
    MetricsLog,
    MixedPrecision,
    Progress,
    ResetState,
    RNNRegularizer,
    StopSignal,
    accuracy,
    check_precision,
    latest_checkpoint,
)
from .corpus import Corpus
from .model_folder import pick_device

CLIP = 0.1  # of the gradient's norm, in the lesson and in fastai
PCT_START = 0.3  # of a phase, in which the learning rate rises
MAX_LM_VALID = 500  # documents a language model is validated on: its decoder makes every one of them dear
MIN_STEPS = 32  # in an epoch: fewer, and a schedule is over before anything is learned
MAY_CHANGE = {"resume", "workers", "device", "checkpoint_steps"}  # options that a resumed training need not share


@dataclass(frozen=True)
class Phase:
    """One cycle. `freeze_to` as in `Learner.freeze_to`: 0 trains all groups, -1 the last one."""

    name: str
    n_epochs: int
    lrs: tuple[float, ...]  # highest learning rate of each group, lowest layers first
    freeze_to: int = 0
    max_steps: int | None = None


def run_phases(
    learn: Learner, phases: Sequence[Phase], out: Path, config: TrainConfig, corpus: Corpus
) -> dict[str, float]:
    """Run phases one after the other, with checkpoints in `out`; with `--resume` from where the last one was written.

    Returns the last epoch's row of numbers, with `targets_per_s` over all training of this run. A phase without epochs
    is left out; where no other is left, the numbers are those of the model as it is.
    """
    phases = [phase for phase in phases if phase.n_epochs > 0]
    options = {name: value for name, value in asdict(config).items() if name not in MAY_CHANGE}
    options["tokens"] = corpus.store.fingerprint
    resume_path, first = _find_resume(phases, options, out) if config.resume else _start_over(out)
    n_targets = training_s = 0.0
    for number, phase in enumerate(phases[first:], first):
        learn.freeze_to(phase.freeze_to)
        checkpoint = Checkpoint(
            out, every_steps=config.checkpoint_steps, extra={"phase": phase.name, "options": options}
        )
        learn.fit_one_cycle(
            phase.n_epochs,
            phase.lrs,
            pct_start=PCT_START,
            max_steps=phase.max_steps,
            callbacks=[
                Progress(phase.name),
                MetricsLog(out / "metrics.jsonl", extra={"phase": phase.name}),
                checkpoint,
                StopSignal(checkpoint),
            ],
            resume=resume_path if number == first else None,
        )
        training_s += sum(row["seconds"] for row in learn.history)
        n_targets += sum(row["seconds"] * row["targets_per_s"] for row in learn.history)
    last = learn.history[-1] if phases else learn.validate()
    return {**last, "targets_per_s": n_targets / max(training_s, 1e-9)}


def check_finished(out: Path) -> None:
    """Raise `UlmpipeError` where `out` holds a training that could still be resumed."""
    checkpoints = sorted(out.glob("checkpoint-*"))
    if checkpoints and not (out / MANIFEST).exists():
        raise UlmpipeError(
            f"{out} holds a training that did not finish: go on with --resume, or remove {checkpoints[0]}"
        )


def check_resume(config: TrainConfig, *folders: Path) -> None:
    """Say that a finished model is replaced; raise `ConfigError` where `--resume` finds no checkpoint in any folder."""
    if config.resume and not any(path for folder in folders for path in folder.glob("checkpoint-*")):
        raise ConfigError(
            f"{folders[0]} has no checkpoint to resume from: check the spelling of -o, or leave out --resume"
        )
    if not config.resume and (folders[0] / MANIFEST).exists():
        log(f"{folders[0]} holds a finished model: it is replaced when this one is")


def smaller_for_few(batch_size: int, n_items: int) -> int:
    """A batch size that leaves `MIN_STEPS` steps in an epoch of so many items, where there are few; 8 at least.

    >>> smaller_for_few(64, 270), smaller_for_few(64, 100_000), smaller_for_few(4, 10)
    (8, 64, 4)
    """
    return min(batch_size, max(8, n_items // MIN_STEPS))


def _start_over(out: Path) -> tuple[None, int]:
    """Clear the traces of a finished training; one that did not finish is refused."""
    check_finished(out)
    for old in out.glob("checkpoint-*"):
        shutil.rmtree(old)
    (out / "metrics.jsonl").unlink(missing_ok=True)
    return None, 0


def _find_resume(phases: Sequence[Phase], options: dict[str, Any], out: Path) -> tuple[Path | None, int]:
    """The checkpoint to go on from, and the number of its phase. Raises `ConfigError` where the options are others."""
    path = latest_checkpoint(out)
    if path is None:
        log(f"{out} has no checkpoint to resume from: starting from the beginning")
        return None, 0
    saved = {"phase": "?", "options": {}} | read_json(path / "state.json")["extra"]
    others = [name for name in options if options[name] != saved["options"].get(name)]
    names = [phase.name for phase in phases]
    if others or saved["phase"] not in names:
        told = ", ".join(f"{name} {saved['options'].get(name)}, not {options[name]}" for name in others)
        raise ConfigError(f"{path} was begun with {told or saved['phase']}: resume with the options it was begun with")
    log(f"resuming {saved['phase']} from {path.name}")
    return path, names.index(saved["phase"])


def seed_everything(seed: int) -> None:
    """Seed weights and dropout; the order of data has its own generators, by seed and epoch."""
    torch.manual_seed(seed)


def check_machine(config: TrainConfig) -> None:
    """Raise `ConfigError` where the device or the precision is not to be had here: before any work is done."""
    check_precision(config.precision, pick_device(config.device))


def common_callbacks(config: TrainConfig) -> list[Any]:
    """What every training has: clipping, and mixed precision where it was asked for."""
    mixed = [] if config.precision == "fp32" else [MixedPrecision(config.precision)]  # pyright: ignore[reportArgumentType]
    return [GradientClip(CLIP), *mixed]


def language_model_learner(model: LanguageModel, corpus: Corpus, config: TrainConfig) -> Learner:
    """A Learner of a language model: both data loaders with the same streams, AR and TAR, state carried and reset."""
    n_windows = int(corpus.store.doc_lengths[corpus.train].sum()) // config.bptt
    batch_size = smaller_for_few(config.batch_size, n_windows)
    shape: dict[str, Any] = {"batch_size": batch_size, "bptt": config.bptt, "seed": config.seed}
    valid = corpus.valid[:: -(-len(corpus.valid) // MAX_LM_VALID)]  # evenly spread
    train_docs = Docs.from_store(corpus.store)
    valid_docs = train_docs if corpus.valid_store is corpus.store else Docs.from_store(corpus.valid_store)
    return Learner(
        model,
        LMBatches(train_docs, corpus.train, shuffle=True, variable_bptt=config.variable_bptt, **shape),
        LMBatches(valid_docs, valid, shuffle=False, **shape),
        loss_fn=language_model_loss,
        groups=language_model_groups(model),
        metrics=[accuracy],
        callbacks=[RNNRegularizer(), ResetState(), *common_callbacks(config)],
        device=pick_device(config.device),
    )


def language_model_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of (B, T, V) logits with (B, T) ids."""
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())
