"""The labels of a classifier's documents: which of them are learned from, whether they are classes at all, what to warn of.

Between the corpus and classify.py: everything here looks at labels and counts, and nothing at tokens or models.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..console import log
from ..errors import SourceError
from ..text.batches import IntArray
from ..text.labels import is_labelled

FEW_DOCUMENTS = 5  # of a class to learn from: below it a class is hardly ever predicted
MAX_CLASSES = 1000  # that a classifier of documents tells apart
MAX_FRACTIONS = 20  # different labels like 3.5 that may still be classes: ratings in halves
UNSURE = 0.02  # standard error of an accuracy, above which folds are recommended
FEW_LABELLED = 1000  # documents: folds of fewer are cheap enough to be recommended
MAX_SHOWN = 8  # classes that are named in a line of the log


def check_classes(labels: Sequence[str], n_labelled: int, *, multi_label: bool = False) -> None:
    """Raise `SourceError` where labels are no classes, but numbers to be foretold, or names of single documents.

    Of several labels a document there may be more than half as many as documents.
    """
    if len(labels) > MAX_CLASSES:
        found = f"more than {MAX_CLASSES:,}"
    elif len(labels) > MAX_FRACTIONS and all(map(_is_number, labels)) and not all(map(_is_integer, labels)):
        found = "numbers"
    elif not multi_label and n_labelled >= 20 and len(labels) > n_labelled / 2:
        found = "nearly one for each"
    else:
        return
    raise SourceError(
        f"{len(labels):,} different labels in {n_labelled:,} labelled documents, {found} ({', '.join(label[:40] for label in labels[:3])}, ...): "
        "expected classes, regression is not done here; name another --label-column, or sort the numbers into a few classes"
    )


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def _is_integer(label: str) -> bool:
    return label.strip().lstrip("+-").isdigit()


def hint_separator(labels: Sequence[str], doc_labels: NDArray[Any]) -> None:
    """Say so where no document has several labels, and what separates them seems to be another character."""
    if doc_labels.ndim == 1 or (doc_labels > 0).sum(axis=1).max() > 1:
        return
    for separator in ";,/":
        if joined := [label for label in labels if separator in label]:
            log(f"warning: no document has several labels, and {shortened(joined)} hold {separator!r}: --label-separator {separator!r} cuts them")  # fmt: skip
            return


def choose_labelled(doc_labels: NDArray[Any], which: IntArray, n_labels: int | None, seed: int) -> IntArray:
    """Documents of `which` that have a label; with `n_labels` so many of them, the classes in equal shares, by the seed.

    doc_labels: (N,), or (N, C) of several; which: (n,) numbers, and so is what is returned, int64. Raises `SourceError` where there are fewer, or fewer than two classes.
    """
    labelled = which[is_labelled(doc_labels[which])]
    of_class = strata(doc_labels[labelled])
    n_classes = len(np.unique(of_class))
    if n_classes < 2:
        raise SourceError(
            f"{len(labelled)} labelled documents with {n_classes} label: a classifier needs two labels at least"
        )
    if n_labels is None:
        return labelled
    if not n_classes <= n_labels <= len(labelled):
        raise SourceError(
            f"--n-labels {n_labels}: expected from {n_classes} (one a class) to {len(labelled)} (all there are)"
        )
    return np.sort(deal(labelled, of_class, seed)[:n_labels])


def strata(doc_labels: NDArray[Any]) -> IntArray:
    """The class by which each document is dealt out, (n,): its own, or of several labels the rarest; C for none of them.

    doc_labels: (n,), or (n, C) of several, of documents with labels. Sechidis et al. 2011 go by the rarest label too, and
    count again after each document; at our sizes the plain form spreads as well.
    """
    if doc_labels.ndim == 1:
        return doc_labels
    n_classes = doc_labels.shape[1]
    has = doc_labels > 0
    how_often = np.where(has, has.sum(axis=0), len(doc_labels) + 1)  # (n, C)
    return np.where(has.any(axis=1), how_often.argmin(axis=1), n_classes)


def deal(documents: IntArray, classes: IntArray, seed: int) -> IntArray:
    """Shuffle documents so that the classes come in turn, as long as each has some left.

    documents: (n,) their numbers, classes: (n,) their class. Returns (n,) numbers.
    """
    order = np.random.default_rng(seed).permutation(len(documents))
    # The k-th document of its class, for every document: sorting by it deals the classes out in turn.
    rank = np.empty(len(order), np.int64)
    for label in np.unique(classes):
        of_class = classes[order] == label
        rank[of_class] = np.arange(of_class.sum())
    return documents[order[np.argsort(rank, kind="stable")]]


def in_proportion(documents: IntArray, classes: IntArray, n: int, seed: int) -> IntArray:
    """`n` of the documents by chance, each class by its share of them, to within one document; a function of the seed.

    documents: (N,) their numbers, classes: (N,) the class of each. Returns (n,) numbers, rising.
    """
    rng = np.random.default_rng(seed)
    by_class = _class_by_class(documents, classes, rng)
    # Evenly far from each other, the first anywhere: small classes have their turn.
    return np.sort(by_class[(np.arange(n) * len(documents) + rng.integers(len(documents))) // n])


def fold_parts(documents: IntArray, classes: IntArray, n_folds: int, seed: int) -> list[IntArray]:
    """Cut documents into parts by chance, each class spread over them as evenly as can be; a function of the seed.

    documents: (n,) their numbers, classes: (n,) the class of each. Returns `n_folds` arrays of numbers, rising, whose
    lengths differ by one at most. Raises `SourceError` where there are too few documents.
    """
    if n_folds > len(documents) // 2:
        raise SourceError(
            f"--folds {n_folds}: expected at most {len(documents) // 2}, two of the {len(documents)} labelled documents a fold"
        )
    by_class = _class_by_class(documents, classes, np.random.default_rng(seed))
    return [np.sort(by_class[k::n_folds]) for k in range(n_folds)]


def _class_by_class(documents: IntArray, classes: IntArray, rng: np.random.Generator) -> IntArray:
    """Documents shuffled within each class, one class after the other; all (n,)."""
    order = rng.permutation(len(documents))
    return documents[order[np.argsort(classes[order], kind="stable")]]


def class_counts(doc_labels: NDArray[Any], n_classes: int) -> IntArray:
    """How many documents each class has, (C,); doc_labels: (n,), or (n, C) of several, -1 where there is no label."""
    if doc_labels.ndim == 2:
        return (doc_labels > 0).sum(axis=0)
    return np.bincount(doc_labels[doc_labels >= 0], minlength=n_classes)


def warn_of_rare_classes(labels: Sequence[str], n_train: IntArray, n_valid: IntArray | None) -> None:
    """Name the classes with few documents to learn from, and those by which nothing is validated; both counts (C,)."""
    few = [f"{label} ({n})" for label, n in zip(labels, n_train, strict=True) if n < FEW_DOCUMENTS]
    if few:
        log(
            f"warning: {len(few)} of {len(labels)} classes have fewer than {FEW_DOCUMENTS} labelled documents to learn "
            f"from: {shortened(few)}"
        )
    if n_valid is None:
        return
    unseen = [label for label, n in zip(labels, n_valid, strict=True) if n == 0]
    if unseen:
        log(
            f"warning: {len(unseen)} of {len(labels)} classes never come among the validation documents, nothing tells "
            f"how well they are learned: {shortened(unseen)}"
        )


def shortened(names: Sequence[str]) -> str:
    """Names with commas, the first few of them."""
    return ", ".join(names[:MAX_SHOWN]) + (f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else "")


def compare_with_chance(accuracy: float, valid_labels: NDArray[Any]) -> None:
    """Warn when a classifier is no better than one that always gives the most frequent label, or set of labels.

    valid_labels: (n,), or (n, C) of several, of the validation documents, -1 where there is none.
    """
    labelled = valid_labels[is_labelled(valid_labels)]
    share = np.unique(labelled, axis=0, return_counts=True)[1].max() / len(labelled)
    if accuracy <= share:
        log(
            f"warning: accuracy {accuracy:.3f} is no better than always giving the most frequent label ({share:.3f}): "
            "more --epochs, a smaller --batch-size, more labels, or a language model to start from may help"
        )


def standard_error(share: float, n: int) -> float:
    """The standard error of a share found among n documents, sqrt(p (1 - p) / n).

    >>> round(standard_error(0.9, 100), 6)
    0.03
    """
    return math.sqrt(share * (1 - share) / n)


def say_how_sure(accuracy: float, n_valid: int, n_labelled: int, *, of_source: bool) -> None:
    """Log the standard error of an accuracy, and recommend folds where it is large and there are few labelled documents.

    Not where the validation documents are no part of the source (`of_source`): folds are for those.
    """
    error = standard_error(accuracy, n_valid)
    told = f"accuracy {accuracy:.3f}, standard error {error:.3f}, on {n_valid:,} validation documents"
    if of_source and error > UNSURE and n_labelled < FEW_LABELLED:
        told += "; these are few: --folds 5 judges by all labelled documents"
    log(told)
