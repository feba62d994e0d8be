"""What is seen of a fit while it runs: a bar, a line an epoch, and `metrics.jsonl`; and the steps between, `steps.jsonl`.

Reads `learn.history`, which `Metrics` keeps, and the optimiser's rates; computes no numbers of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from .. import console
from .callback import Callback
from .guard import FiniteLoss
from .metrics import finite_row

if TYPE_CHECKING:
    from .learner import Learner

NOTE_INTERVAL_S = 0.5  # reading the loss waits for the device
STEPS_FILE = "steps.jsonl"
N_POINTS = 200  # lines of a fit in steps.jsonl: as many as a curve needs


class Progress(Callback):
    """Show a bar over the optimiser steps of the fit, and log one line when an epoch ends."""

    order = FiniteLoss.order + 100

    def __init__(self, description: str):
        self.description = description
        self._open = ExitStack()
        self._bar: console.Bar | None = None
        self._last_s = 0.0

    def before_fit(self, learn: Learner) -> None:
        """Open the bar."""
        self._last_s = 0.0
        self._bar = self._open.enter_context(console.progress(self.description, learn.n_steps))

    def after_batch(self, learn: Learner) -> None:
        """Move the bar, twice a second at most; while held-out data are read, it says how far."""
        now = time.monotonic()
        is_last = learn.training and learn.step == learn.n_steps
        if self._bar and (now - self._last_s > NOTE_INTERVAL_S or is_last):
            self._last_s = now
            loss = f"loss {learn.loss.item():.4f}" if learn.training else f"validating {(learn.batch_index + 1) / learn.n_batches:.0%}"  # fmt: skip
            self._bar.update(learn.step, note=f"epoch {learn.epoch + 1}/{learn.n_epochs}  {loss}")

    def after_epoch(self, learn: Learner) -> None:
        """Log the epoch's numbers."""
        console.log(f"{self.description}  {describe(learn.history[-1], learn.n_epochs)}")

    def cleanup_fit(self, learn: Learner) -> None:
        """Close the bar."""
        self._open.close()
        self._bar = None


def describe(row: Mapping[str, float], n_epochs: int) -> str:
    """Write a row of the history as a line: `epoch 1/3  train_loss 4.3210  ...  12.3 s  53,000 targets/s`."""
    told = {"epoch", "step", "seconds", "targets_per_s"}
    numbers = [f"{name} {value:.4f}" for name, value in row.items() if name not in told]
    speed = f"{row['seconds']:.1f} s  {row['targets_per_s']:,.0f} targets/s"
    return "  ".join([f"epoch {row['epoch'] + 1}/{n_epochs}", *numbers, speed])


class MetricsLog(Callback):
    """Append a JSON line to `path` when an epoch ends, `extra` in it.

    Where a run was killed and resumed from an earlier checkpoint, an epoch stands there twice: the later line counts.
    """

    order = Progress.order + 10

    def __init__(self, path: Path, *, extra: Mapping[str, object] | None = None):
        self.path, self.extra = path, extra or {}

    def after_epoch(self, learn: Learner) -> None:
        """Append the last row of the history."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**self.extra, **finite_row(learn.history[-1])}, allow_nan=False) + "\n")


class StepLog(Callback):
    """Append a JSON line to `path` for some `N_POINTS` steps of a fit, the last one included, with `extra` in it.

    A line has `step n_steps epoch loss lr momentum`, the rates those of the last group; null is what is no number. A step that a resumed fit does again stands there twice: the later line counts.
    """

    order = MetricsLog.order

    def __init__(self, path: Path, *, extra: Mapping[str, object] | None = None):
        self.path, self.extra = path, extra or {}

    def after_batch(self, learn: Learner) -> None:
        """Append a line, on every n-th step of a training."""
        every = max(1, -(-learn.n_steps // N_POINTS))
        if not learn.training or (learn.step % every and learn.step != learn.n_steps):
            return
        group = learn.opt.param_groups[-1]
        momentum = group["betas"][0] if "betas" in group else group.get("momentum")
        row = {"step": learn.step, "n_steps": learn.n_steps, "epoch": learn.epoch, "loss": learn.loss.item()}
        row = {**self.extra, **finite_row(row), "lr": group["lr"], "momentum": momentum}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
