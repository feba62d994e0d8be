"""Find a learning rate: a short mock training in which it grows until the loss does (Smith 2017, as in fastai).

`Learner.lr_find` calls this. Afterwards model, generators and learner are as they were before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch

from .callback import Callback, CancelFit
from .guard import FiniteLoss
from .schedule import ParamScheduler, anneal_exp

if TYPE_CHECKING:
    from .learner import Learner

SMOOTHING = 0.9


class LRCurve(NamedTuple):
    """A learning rate to begin with, and the curve it was read from."""

    suggestion: float
    lrs: list[float]
    losses: list[float]


class LRFinder(Callback):
    """Record the loss at each learning rate; end the fit when it is `diverge` times the best, smoothed, or no number."""

    order = FiniteLoss.order - 1

    def __init__(self, *, diverge: float):
        self.diverge = diverge
        self.lrs: list[float] = []
        self.losses: list[float] = []

    def after_loss(self, learn: Learner) -> None:
        """Record this step, in training."""
        loss = learn.loss.item()
        if not math.isfinite(loss):
            raise CancelFit
        self.lrs.append(learn.opt.param_groups[-1]["lr"])
        self.losses.append(loss)
        smoothed = smooth(self.losses)
        if smoothed[-1] > self.diverge * min(smoothed):
            raise CancelFit


def find_lr(learn: Learner, *, lr_min: float, lr_max: float, n_steps: int, diverge: float) -> LRCurve:
    """Run the mock training; suggest a tenth of the learning rate where the smoothed loss is lowest."""
    finder = LRFinder(diverge=diverge)
    n_epochs = math.ceil(n_steps / max(1, len(learn.train_dl)))
    with unchanged(learn):
        learn.valid_dl = None
        schedule = ParamScheduler("lr", anneal_exp(lr_min, lr_max))
        learn.fit(n_epochs, callbacks=[schedule, finder], max_steps=n_steps)
    return LRCurve(suggest(finder.lrs, finder.losses), finder.lrs, finder.losses)


def suggest(lrs: list[float], losses: list[float]) -> float:
    """Return a tenth of the learning rate with the lowest smoothed loss, not below the lowest tried."""
    if not lrs:
        raise ValueError("the loss was no number from the first step on: there is no learning rate to suggest")
    smoothed = smooth(losses)
    return max(lrs[smoothed.index(min(smoothed))] / 10, lrs[0])


def smooth(losses: Sequence[float], factor: float = SMOOTHING) -> list[float]:
    """Return the exponential moving average, corrected for its begin at zero (as Adam does).

    >>> smooth([1.0, 1.0, 4.0], 0.5)
    [1.0, 1.0, 2.714285714286]
    """
    average, smoothed = 0.0, []
    for n, loss in enumerate(losses, 1):
        average = factor * average + (1 - factor) * loss
        smoothed.append(round(average / (1 - factor**n), 12))
    return smoothed


@contextmanager
def unchanged(learn: Learner) -> Iterator[None]:
    """Put model, carried state, generators and all attributes of `learn` back at the end, come what may."""
    attributes = dict(vars(learn))
    training = learn.model.training
    tensors = [*learn.model.parameters(), *learn.model.buffers()]
    copies = [t.detach().clone() for t in tensors]
    carried = learn.model.carried_state() if hasattr(learn.model, "carried_state") else None
    devices = [learn.device] if learn.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        with torch.no_grad():
            for t, copy in zip(tensors, copies, strict=True):
                t.copy_(copy)
        if carried is not None:
            learn.model.load_carried_state(carried)
        learn.model.zero_grad()
        learn.model.train(training)
        vars(learn).clear()
        vars(learn).update(attributes)
