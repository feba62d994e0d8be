"""Phases: a training is a list of them, each one cycle over some of the parameter groups; a checkpoint knows its phase.

Gradual unfreezing, the frozen and the free epoch of a tuned language model, a new head on a network of pictures, and a
plain training are all such lists. Which phases there are is up to the tasks.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..console import log
from ..durable import CURVE_FILE, MANIFEST, read_json
from ..errors import ConfigError, UlmpipeError
from .callback import Callback
from .checkpoint import Checkpoint, latest_checkpoint
from .hooks import LOG_NAME, PLOT_NAME, LayerStats
from .interrupt import StopSignal
from .learner import Learner
from .memory import keep_freed_memory
from .parallel import DataParallel, first_then_others, is_first
from .progress import STEPS_FILE, MetricsLog, Progress, StepLog
from .tensorboard import TENSORBOARD_FOLDER, TensorBoardLog

FACTS_FILE, PAGE_FILE = "report.json", "report.html"  # what is made of it in the end: ../reports
# What a training writes beside its checkpoints.
LOGS = (CURVE_FILE, STEPS_FILE, LOG_NAME, PLOT_NAME, FACTS_FILE, PAGE_FILE)
PCT_START = 0.3  # of a phase, in which the learning rate rises


@dataclass(frozen=True)
class Phase:
    """One cycle. `freeze_to` as in `Learner.freeze_to`: 0 trains all groups, -1 the last one."""

    name: str
    n_epochs: int
    lrs: tuple[float, ...]  # highest learning rate of each group, lowest layers first
    freeze_to: int = 0
    max_steps: int | None = None


def run_phases(
    learn: Learner,
    phases: Sequence[Phase],
    out: Path,
    *,
    options: Mapping[str, Any],
    resume: bool = False,
    checkpoint_steps: int | None = None,
    chance: float | None = None,
    tensorboard: bool = False,
    **cycle: Any,
) -> dict[str, float]:
    """Run phases one after the other, with checkpoints in `out`; with `resume` from where the last one was written.

    `options` are those that a resumed training must share; `chance` is the loss of guessing, which a training should get
    below; `tensorboard` asks for logs of its kind; `cycle` are arguments of `fit_one_cycle`. Returns the last
    epoch's row of numbers, with `targets_per_s` over all training of this run and `n_steps` of all phases. A phase
    without epochs is left out; where no other is left, the numbers are those of the model as it is.
    """
    keep_freed_memory()
    phases = [phase for phase in phases if phase.n_epochs > 0]
    with first_then_others():
        if not resume:
            start_over(out)
        resume_path, first = _find_resume(phases, options, out) if resume else (None, 0)
        if resume_path is None:
            _clear_logs(out)
    n_targets = training_s = 0.0
    for number, phase in enumerate(phases[first:], first):
        learn.freeze_to(phase.freeze_to)
        checkpoint = Checkpoint(out, every_steps=checkpoint_steps, extra={"phase": phase.name, "options": options})
        learn.fit_one_cycle(
            phase.n_epochs,
            phase.lrs,
            max_steps=phase.max_steps,
            callbacks=[
                DataParallel(),
                *_writers(phase.name, out, chance, tensorboard),
                checkpoint,
                StopSignal(checkpoint),
            ],
            resume=resume_path if number == first else None,
            **{"pct_start": PCT_START, **cycle},
        )
        training_s += sum(row["seconds"] for row in learn.history)
        n_targets += sum(row["seconds"] * row["targets_per_s"] for row in learn.history)
    last = learn.history[-1] if phases else learn.validate()
    n_steps = sum(min(phase.n_epochs * len(learn.train_dl), phase.max_steps or math.inf) for phase in phases)
    return {**last, "targets_per_s": n_targets / max(training_s, 1e-9), "n_steps": n_steps}


def _writers(name: str, out: Path, chance: float | None, tensorboard: bool) -> list[Callback]:
    """What shows and writes how a phase goes: of several processes, the first one's."""
    if not is_first():
        return []
    extra = {"phase": name}
    return [
        Progress(name),
        MetricsLog(out / CURVE_FILE, extra=extra),
        StepLog(out / STEPS_FILE, extra=extra),
        LayerStats(out, chance=chance, extra=extra),
        *([TensorBoardLog(out / TENSORBOARD_FOLDER / name)] if tensorboard else []),
    ]


def check_finished(out: Path) -> None:
    """Raise `UlmpipeError` where `out` holds a training that could still be resumed."""
    checkpoints = sorted(out.glob("checkpoint-*"))
    if checkpoints and not (out / MANIFEST).exists():
        raise UlmpipeError(
            f"{out} holds a training that did not finish: go on with --resume, or remove {checkpoints[0]}"
        )


def check_resume(resume: bool, *folders: Path) -> None:
    """Say that a finished model is replaced; raise `ConfigError` where `--resume` finds no checkpoint in any folder."""
    if resume and not any(path for folder in folders for path in folder.glob("checkpoint-*")):
        raise ConfigError(
            f"{folders[0]} has no checkpoint to resume from: leave out --resume to begin (a training that stops before its first leaves none), or check the spelling of -o"
        )
    if not resume and (folders[0] / MANIFEST).exists():
        log(f"{folders[0]} holds a finished model: it is replaced when this one is")


def saved_options(out: Path) -> dict[str, Any]:
    """The options with which the training in `out` was begun, as its last checkpoint has them; {} without one."""
    path = latest_checkpoint(out)
    return {} if path is None else dict(read_json(path / "state.json")["extra"].get("options", {}))


def start_over(out: Path) -> None:
    """Clear the traces of a finished training; one that did not finish is refused."""
    check_finished(out)
    for old in out.glob("checkpoint-*"):
        shutil.rmtree(old)
    _clear_logs(out)


def _clear_logs(out: Path) -> None:
    for name in LOGS:
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / TENSORBOARD_FOLDER, ignore_errors=True)


def _find_resume(phases: Sequence[Phase], options: Mapping[str, Any], out: Path) -> tuple[Path | None, int]:
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
