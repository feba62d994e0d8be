"""Several labels a document: each class is a question of its own, answered yes or no. Loss, scores, thresholds.

    logits (B, C), target (B, C) -> binary cross entropy; sigmoid -> probabilities -> yes from a threshold of each class on

Scores while training take 0.5 for every class. A better threshold of each is found by `best_thresholds`, on documents
that were not learned from: a rare class has its best F1 below 0.5. What comes of it is for tasks to say and save.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .metrics import Counted


def binary_cross_entropy(
    pred: Tensor, target: Tensor, *, weights: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Return the binary cross entropy, its mean over documents and classes (), or with the `reduction` "none" each answer's (B, C).

    pred: (B, C) float logits, target: (B, C) 0 or 1, integers or float, weights: (2, C) float of each class's no and yes.
    """
    each = None if weights is None else torch.where(target > 0, weights[1], weights[0]).to(pred.dtype)  # (B, C)
    return F.binary_cross_entropy_with_logits(pred, target.to(pred.dtype), weight=each, reduction=reduction)


def answer_weights(counts: Tensor, n_docs: int) -> Tensor:
    """Return weights of the no and the yes of each class, in inverse proportion to how often each comes; their mean is 1.

    counts: (C,) integers, documents of each class among `n_docs`. Returns (2, C) float32, 1 where all answers are equal.

    >>> answer_weights(torch.tensor([10, 0]), 40).tolist()
    [[0.6666666865348816, 1.0], [2.0, 1.0]]
    """
    both = torch.stack([n_docs - counts, counts]).double()  # (2, C)
    return torch.where((both > 0).all(dim=0), n_docs / (2 * both.clamp(min=1)), 1.0).float()


# ---- scores ---------------------------------------------------------------------------------------------------------


def exact_match(pred: Tensor, target: Tensor) -> Tensor:
    """Return the share of documents whose labels are all right, at thresholds of 0.5. pred: (B, C) logits. Returns ()."""
    return ((pred >= 0) == (target > 0)).all(dim=1).float().mean()


def answer_counts(said: Tensor, target: Tensor) -> Tensor:
    """Count for each class the documents that have it and are said to, that are said to have it, and that have it.

    said: (N, C) bool, target: (N, C) integers 0 or 1. Returns (3, C) int64.
    """
    is_so = target > 0
    return torch.stack([(said & is_so).sum(dim=0), said.sum(dim=0), is_so.sum(dim=0)])


def answer_f1(counts: Tensor) -> list[float]:
    """Return F1 of each class, 0.0 for one that is neither there nor said. counts: (3, C), see `answer_counts`."""
    hits, n_both = 2 * counts[0].double(), (counts[1] + counts[2]).double()
    return torch.where(n_both > 0, hits / n_both.clamp(min=1), 0.0).tolist()


def answer_f1_macro(counts: Tensor) -> float:
    """Return the plain mean of F1 over all classes. counts: (3, C)."""
    scores = answer_f1(counts)
    return sum(scores) / len(scores)


def answer_f1_micro(counts: Tensor) -> float:
    """Return F1 of all answers together, whatever their class. counts: (3, C)."""
    return answer_f1(counts.sum(dim=1, keepdim=True))[0]


def _count_at_half(pred: Tensor, target: Tensor) -> Tensor:
    return answer_counts(pred >= 0, target)


COUNTED = (Counted("f1_macro", _count_at_half, answer_f1_macro), Counted("f1_micro", _count_at_half, answer_f1_micro))


# ---- thresholds -----------------------------------------------------------------------------------------------------


def best_thresholds(probabilities: Tensor, target: Tensor) -> list[float]:
    """Return for each class the threshold with the best F1 on these documents, halfway between two probabilities.

    probabilities: (N, C) float, target: (N, C) integers 0 or 1. Of equally good ones the nearest to 0.5 is taken, and
    0.5 for a class that no document has.
    """
    return [_best_threshold(p.double(), y > 0) for p, y in zip(probabilities.T, target.T, strict=True)]


def _best_threshold(p: Tensor, is_so: Tensor) -> float:
    """Of one class; p: (N,) float64, is_so: (N,) bool. Saying yes to the k most probable, for every k."""
    if not is_so.any():
        return 0.5
    falling, order = p.sort(descending=True)
    n_said = torch.arange(1, len(p) + 1)
    f1 = 2 * is_so[order].cumsum(dim=0) / (n_said + is_so.sum())  # (N,) with the k most probable said to have it
    below = torch.cat([falling[1:], falling.new_zeros(1)])
    between = (falling + below) / 2
    f1[falling == below] = -1  # equal probabilities are said together
    best = between[f1 == f1.max()]
    return float(best[(best - 0.5).abs().argmin()])
