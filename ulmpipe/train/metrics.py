"""Numbers that say how good a model is: functions on predictions, and `Metrics`, which averages them over an epoch.

The `Learner` adds `Metrics` itself; it keeps `learn.history`. Nothing is shown or written here (`progress.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import parallel
from .callback import Callback

if TYPE_CHECKING:
    from .learner import Learner

Metric = Callable[[Tensor, Tensor], Tensor]  # (pred, target) -> (), the mean over the batch's targets


@dataclass(frozen=True)
class Counted:
    """A number that is no mean over batches, as F1 is none: counts of all batches are added up, and give it at the end."""

    name: str
    count: Callable[[Tensor, Tensor], Tensor]  # (pred, target) -> int64, always of the same shape
    score: Callable[[Tensor], float]


def accuracy(pred: Tensor, target: Tensor) -> Tensor:
    """Return the share of targets that have the highest score.

    pred: (..., C) float, target: (...) int64. Returns () float32.
    """
    return (pred.argmax(dim=-1) == target).float().mean()


def perplexity(loss: float) -> float:
    """Return `exp(loss)` of a mean cross-entropy in nats; infinite where a float has no room for it."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def confusion_matrix(pred_ids: Tensor, target_ids: Tensor, n_classes: int) -> Tensor:
    """Count how often each class was taken for which; rows are the truth, columns the prediction.

    pred_ids, target_ids: (N,) int64 below C. Returns (C, C) int64.
    """
    pairs = target_ids.long() * n_classes + pred_ids.long()
    return torch.bincount(pairs, minlength=n_classes * n_classes).view(n_classes, n_classes)


def f1_scores(confusion: Tensor) -> list[float]:
    """Return F1 of each class, 0.0 for a class that is neither there nor predicted. confusion: (C, C) int64."""
    hits = confusion.diagonal().double()
    n_both = (confusion.sum(dim=0) + confusion.sum(dim=1)).double()  # true + predicted = 2 hits + misses + false alarms
    return torch.where(n_both > 0, 2 * hits / n_both.clamp(min=1), 0.0).tolist()


def f1_macro(confusion: Tensor) -> float:
    """Return the plain mean of F1 over all classes. confusion: (C, C) int64."""
    scores = f1_scores(confusion)
    return sum(scores) / len(scores)


def counted_f1_macro(n_classes: int) -> Counted:
    """Return macro F1 as a metric of a classifier: pred (B, C) float, target (B,) int64."""
    return Counted("f1_macro", partial(_count_confusion, n_classes), f1_macro)


def _count_confusion(n_classes: int, pred: Tensor, target: Tensor) -> Tensor:
    return confusion_matrix(pred.argmax(dim=-1), target, n_classes)


def probabilities(pred: Tensor, loss_fn: Callable[..., Tensor]) -> Tensor:
    """Return what a loss takes the scores (..., C) for, as probabilities of the same shape.

    The softmax for `F.cross_entropy`, the sigmoid for `F.binary_cross_entropy_with_logits`, with options or without.
    Raises `ValueError` for another loss: only who made it knows.
    """
    name = getattr(getattr(loss_fn, "func", loss_fn), "__name__", type(loss_fn).__name__)
    if name in ("cross_entropy", "CrossEntropyLoss"):
        return pred.softmax(dim=-1)
    if name in ("binary_cross_entropy_with_logits", "BCEWithLogitsLoss"):
        return pred.sigmoid()
    raise ValueError(f"what {name} takes scores for is not known: make probabilities of predict()'s yourself")


class WeightedMean:
    """A mean that grows batch by batch; the sum stays on the device, so that adding waits for nothing."""

    def __init__(self, total: float = 0.0, weight: int = 0):
        self.total: Tensor | float = total
        self.weight = weight

    def add(self, value: Tensor, weight: int) -> None:
        """Add a mean over `weight` targets. value: (), any float dtype; the sum is float64."""
        self.total = self.total + value.detach().double() * weight
        self.weight += weight

    def mean(self) -> float:
        """Return the mean over what all processes have added, NaN of nothing."""
        total, weight = self.sums()
        return total / weight if weight else math.nan

    def sums(self) -> tuple[float, int]:
        """Return sum and weight over all processes."""
        total, weight = parallel.summed(float(self.total), self.weight)
        return total, round(weight)


class Metrics(Callback):
    """Average the true loss and the metrics, weighted by the number of targets, and add a row a epoch to the history.

    A row has `epoch step train_loss valid_loss`, the metrics on the validation data by their names, means first,
    `seconds` of the whole epoch and `targets_per_s` of its training.
    """

    order = -100  # first of all: sees the loss before anyone could change it, has the row ready before anyone reads it

    def __init__(self, metrics: Sequence[Metric | Counted] = ()):
        means = [metric for metric in metrics if not isinstance(metric, Counted)]
        names = [getattr(function, "__name__", type(function).__name__) for function in means]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"several metrics are called {', '.join(sorted(twice))}: give each a __name__ of its own")
        self.functions = dict(zip(names, means, strict=True))
        self.counted = [metric for metric in metrics if isinstance(metric, Counted)]
        self.counts: dict[str, Tensor] = {}
        self.train_loss = WeightedMean()
        self.valid: dict[str, WeightedMean] = {}
        self.n_before = 0
        self.begin_s = self.trained_s = 0.0

    def before_epoch(self, learn: Learner) -> None:
        """Begin at zero, unless a resumed epoch goes on."""
        if learn.next_batch == 0:
            self.train_loss = WeightedMean()
        self.valid, self.counts = {}, {}
        self.n_before = self.train_loss.sums()[1]
        self.begin_s, self.trained_s = time.perf_counter(), 0.0

    def before_validate(self, learn: Learner) -> None:
        """Begin at zero; the time of training ends here."""
        self.valid = {name: WeightedMean() for name in ("valid_loss", *self.functions)}
        self.counts = {}
        self._end_training()

    def after_loss(self, learn: Learner) -> None:
        """Add this batch."""
        n_targets = learn.target.numel()
        if learn.training:
            self.train_loss.add(learn.loss, n_targets)
            return
        self.valid["valid_loss"].add(learn.loss, n_targets)
        for name, function in self.functions.items():
            self.valid[name].add(function(learn.pred, learn.target), n_targets)
        for metric in self.counted:
            n = metric.count(learn.pred, learn.target)
            self.counts[metric.name] = self.counts[metric.name] + n if metric.name in self.counts else n

    def after_epoch(self, learn: Learner) -> None:
        """Add a row to `learn.history`."""
        self._end_training()
        n_targets = self.train_loss.sums()[1] - self.n_before
        learn.history.append(
            {"epoch": learn.epoch, "step": learn.step, "train_loss": self.train_loss.mean()}
            | self.results()
            | {"seconds": time.perf_counter() - self.begin_s, "targets_per_s": n_targets / max(self.trained_s, 1e-9)}
        )

    def results(self) -> dict[str, float]:
        """Return `valid_loss` and the metrics of the last validation."""
        means = {name: value.mean() for name, value in self.valid.items()}
        of_all = {name: torch.stack(parallel.gathered(n)).sum(dim=0) for name, n in self.counts.items()}
        return means | {metric.name: metric.score(of_all[metric.name]) for metric in self.counted if of_all}

    def _end_training(self) -> None:
        if not self.trained_s:
            self.train_loss.mean()  # waits for the device: what is still under way belongs to the training
            self.trained_s = time.perf_counter() - self.begin_s

    def state_dict(self) -> dict[str, Any]:
        """Return the running sum of the training loss, over all processes."""
        total, weight = self.train_loss.sums()
        return {"total": total, "weight": weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the running sum, which the first process takes."""
        self.train_loss = WeightedMean(state["total"], state["weight"]) if parallel.is_first() else WeightedMean()


class Predictions(Callback):
    """Keep the predictions and targets of a validation, on the CPU, for `Learner.predict`."""

    order = 1000  # last: sees predictions as all others have left them

    def __init__(self):
        self.preds: list[Tensor] = []
        self.targets: list[Tensor] = []

    def after_batch(self, learn: Learner) -> None:
        """Keep this batch."""
        self.preds.append(learn.pred.cpu())
        self.targets.append(learn.target.cpu())

    def joined(self) -> tuple[Tensor, Tensor]:
        """Return predictions and targets, each joined along the first dimension."""
        if not self.preds:
            return torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        return torch.cat(self.preds), torch.cat(self.targets)


def finite_row(row: Mapping[str, float]) -> dict[str, float | None]:
    """Return a row of the history as JSON can hold it: None for NaN and infinity."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}
