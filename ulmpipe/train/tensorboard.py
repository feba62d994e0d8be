"""TensorBoard logs of a fit, for those who ask for them: losses, learning rates, an epoch's numbers.

A callback beside `MetricsLog`; computes nothing of its own, and imports tensorboard only when it is used.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .callback import Callback
from .progress import MetricsLog

if TYPE_CHECKING:
    from .learner import Learner

TENSORBOARD_FOLDER = "tensorboard"  # in the output folder
NO_NUMBERS = {"epoch", "step"}  # of a row of the history
EVENT_FILES = "events.out.tfevents.*"


def check_tensorboard() -> None:
    """Raise `ConfigError` where tensorboard is not installed: before any work is done."""
    spec = find_spec("tensorboard")
    if spec is None or spec.origin is None:  # without an origin: a folder of this name that happens to lie here
        raise ConfigError("--tensorboard needs tensorboard, which is not installed: pip install 'ulmpipe[tensorboard]'")


class TensorBoardLog(Callback):
    """Write the training loss and the learning rates each `every_steps`, and every epoch's numbers, to `folder`.

    A fit's steps begin at 0, so that each phase needs a folder of its own; `tensorboard --logdir` shows them as runs of
    their own. A fit from the beginning takes away what an earlier one left there; one that goes on hides the steps that
    it does again.
    """

    order = MetricsLog.order + 10

    def __init__(self, folder: Path, *, every_steps: int = 10):
        check_tensorboard()
        self.folder, self.every_steps = folder, every_steps
        self._writer: Any = None  # torch.utils.tensorboard.SummaryWriter

    def before_epoch(self, learn: Learner) -> None:
        """Open the log: not in `before_fit`, where it is not known yet at which step a resumed fit begins."""
        if self._writer is not None:
            return
        from torch.utils.tensorboard import SummaryWriter

        if learn.step == 0:
            for old in self.folder.glob(EVENT_FILES):
                old.unlink()
        self._writer = SummaryWriter(str(self.folder), purge_step=learn.step + 1 if learn.step else None)

    def after_batch(self, learn: Learner) -> None:
        """Write the loss of this batch, and the rates of the step that was taken."""
        if learn.training and (learn.step % self.every_steps == 0 or learn.step == learn.n_steps):
            self._writer.add_scalar("train/loss", learn.loss.item(), learn.step)
            for name, lr in learning_rates(learn).items():
                self._writer.add_scalar(name, lr, learn.step)

    def after_epoch(self, learn: Learner) -> None:
        """Write the numbers of the epoch."""
        for name, value in learn.history[-1].items():
            if name not in NO_NUMBERS:
                self._writer.add_scalar(f"epoch/{name}", value, learn.step)
        self._writer.flush()

    def cleanup_fit(self, learn: Learner) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def learning_rates(learn: Learner) -> dict[str, float]:
    """The learning rate of each parameter group, lowest layers first: `lr/group 0`, ..."""
    return {f"lr/group {n}": float(group["lr"]) for n, group in enumerate(learn.opt.param_groups)}
