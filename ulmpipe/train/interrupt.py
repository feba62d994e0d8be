"""Ctrl-C and SIGTERM during a fit: stop at the next batch, in training or validation, with a checkpoint written.

The signal handler only sets a flag; nothing is saved inside of it. Outside of a fit the signals do what they always do;
`stops_told` says how a command of several fits goes on after that.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..durable import MANIFEST
from ..errors import INTERRUPTED, TERMINATED
from . import parallel
from .callback import Callback
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from .learner import Learner

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal has ended the training, in good order. No `Exception`: nothing but the command line should catch it.

    `resumable` says whether there is a checkpoint to go on from.
    """

    def __init__(self, signum: int, *, resumable: bool = True):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum, self.resumable = signum, resumable
        self.exit_code = TERMINATED if signum == signal.SIGTERM else INTERRUPTED


@contextmanager
def stops_told(*folders: Path, resume: bool) -> Iterator[None]:
    """Turn a signal that comes outside of a fit into `Interrupted`; checkpoints of the training lie in `folders`.

    Without `resume`, those that are there already are of an older one.
    """
    older = set() if resume else _checkpoints(folders)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as err:
        if isinstance(err, SystemExit) and err.code != TERMINATED:
            raise
        signum = signal.SIGTERM if isinstance(err, SystemExit) else signal.SIGINT
        raise Interrupted(signum, resumable=bool(_checkpoints(folders) - older)) from err


def _checkpoints(folders: Iterable[Path]) -> set[tuple[Path, int]]:
    """All complete checkpoints, with the time at which each was written."""
    found = [manifest for folder in folders for manifest in folder.glob(f"checkpoint-*/{MANIFEST}")]
    return {(manifest, manifest.stat().st_mtime_ns) for manifest in found}


class StopSignal(Callback):
    """Raise `Interrupted` at the batch border after a signal, with `checkpoint` saved first when there is one.

    A second Ctrl-C does not wait: it raises `KeyboardInterrupt` at once. In a thread other than the main one, where
    Python allows no handlers, this does nothing.
    """

    order = Checkpoint.order + 10

    def __init__(self, checkpoint: Checkpoint | None = None):
        self.checkpoint = checkpoint
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def before_fit(self, learn: Learner) -> None:
        """Take over both signals."""
        self.signum = None
        if threading.current_thread() is threading.main_thread():
            self._previous = {signum: signal.signal(signum, self._note) for signum in SIGNALS}

    def cleanup_fit(self, learn: Learner) -> None:
        """Give both signals back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler or signal.SIG_DFL)
        self._previous = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum

    def after_batch(self, learn: Learner) -> None:
        """Save and stop when a signal has come, to any of several processes: these agree on it after every batch."""
        self.signum = int(parallel.largest(self.signum or 0)) or None
        if self.signum is not None:
            if self.checkpoint:
                self.checkpoint.save(learn)
            raise Interrupted(self.signum, resumable=self.checkpoint is not None)

    def after_fit(self, learn: Learner) -> None:
        """Stop the program after a signal that came too late to stop the fit; all is saved then."""
        self.signum = int(parallel.largest(self.signum or 0)) or None
        if self.signum is not None:
            raise Interrupted(self.signum, resumable=self.checkpoint is not None)
