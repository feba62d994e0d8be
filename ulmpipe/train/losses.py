"""Losses of a classifier that is trained on few, uneven or uncertain labels: class weights and label smoothing.

    counts of the classes -> class_weights (C,) -> weighted_cross_entropy(pred, target) (), under `TrainingLoss`

Only what is back-propagated changes. The loss that is shown, kept and compared stays the plain one, of training as of
validation: that is what `learn.loss` is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from .callback import Callback

if TYPE_CHECKING:
    from .learner import Learner


def class_weights(counts: Tensor) -> Tensor:
    """Return weights in inverse proportion to how often each class comes, whose mean over the documents is 1.

    counts: (C,) integers, documents of each class. Returns (C,) float32; a class without documents has weight 0. The
    same as scikit-learn's "balanced" where every class has documents.

    >>> class_weights(torch.tensor([30, 10])).tolist()
    [0.6666666865348816, 2.0]
    """
    there = counts > 0
    weights = counts.sum() / (there.sum() * counts.clamp(min=1).double())
    return torch.where(there, weights, 0.0).float()


def weighted_cross_entropy(
    pred: Tensor, target: Tensor, *, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean over the batch of each document's cross entropy, times the weight of its class.

    pred: (B, C) float, target: (B,) int64, weights: (C,) float. Returns (). With `label_smoothing` e the target is
    `1 - e` of the true class and `e / C` of every class (Szegedy et al. 2015, section 7), each class with its own weight.
    PyTorch divides by the weights of the batch instead of by B: a batch of one class would not be weighted at all, and
    the mean over batches, and over processes, would not be that over the documents.
    """
    total = F.cross_entropy(pred, target, weight=weights, label_smoothing=label_smoothing, reduction="sum")
    return total / len(target)


class TrainingLoss(Callback):
    """Back-propagate another loss than the true one, `loss_fn(pred, target)`; `learn.loss` and validation stay as they are."""

    order = -90  # after Metrics, before all that weighs or scales what is back-propagated

    def __init__(self, loss_fn: Callable[[Tensor, Tensor], Tensor]):
        self.loss_fn = loss_fn

    def after_loss(self, learn: Learner) -> None:
        """Replace what is back-propagated."""
        if learn.training:
            learn.loss_grad = self.loss_fn(learn.pred, learn.target)
