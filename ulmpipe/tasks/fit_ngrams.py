"""The n-grams of a classifier, fitted before its network is trained: documents and labels -> a table.

    chosen documents -> n-grams (models/ngrams.py) -> regression (train/logistic.py) -> table
                     -> the same on all parts but one, each part in turn           -> how good it is where it has not learned

How hard the regression is pulled to zero, and its scale, are chosen by the parts held out. Where labels are few and texts
without one many, it reads those of which it is surest as if they had one (self-training), if that helps on those parts. The
network learns from the given labels alone: with the guesses too it was worse (of 500 labelled reviews right on 0.809 of the test
reviews, 0.830 without, one seed), and worse by a point on what the n-grams leave to learn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..console import log, progress
from ..models.explain import log_odds_of_all
from ..models.ngrams import TINY, distinct_rows
from ..text.batches import ClassifierBatches, Docs, IntArray
from ..train.logistic import fit_logistic, log_count_ratios, sparse_rows, transposed
from ..train.metrics import accuracy
from ..train.multi_label import binary_cross_entropy, exact_match
from .labels import fold_parts, strata

N_FOLDS = 5
STRENGTHS = (1.0, 10.0, 100.0)
SCALES = tuple(2 ** (n / 2) for n in range(-6, 5))
MIN_BUCKETS, MAX_BUCKETS = 1 << 12, 1 << 20
MAX_TABLE = 1 << 22  # numbers in the table of pairs: 16 MB
FEW = 300  # documents, below which an n-gram of a single one is worth a percent
BATCH_SIZE = 64
MAX_LABELLED = 100_000  # documents that are read: all their n-grams are held at once, some 40 KB a review
# Of self-training. On IMDB two rounds lift 100, 500, 2,000 labels from 0.68, 0.81, 0.871 to 0.78, 0.84, 0.876; more undo it.
SELF_TRAIN_UP_TO, MAX_UNLABELLED = 5000, 20_000  # labelled documents; others
SHARES = (0.2, 0.3)  # of them that are taken in each round
SELF_STRENGTH, TRUE_WEIGHT = 10.0, 3.0  # a given label weighs as much as so many guessed ones


@dataclass(frozen=True)
class FittedNGrams:
    """A table for `NGramScores`, and how it judges what it has not learned from."""

    n_buckets: int
    table: Tensor  # (vocab_size + n_buckets, C + 1) float32
    bias: Tensor  # (C,)
    held_out: Tensor  # logits (n, C) of the chosen documents, each from a fit that has not seen its label


@dataclass(frozen=True)
class Bags:
    """Documents as the n-grams they hold: document i has the columns `columns[offsets[i]:offsets[i + 1]]`."""

    offsets: IntArray  # (n + 1,)
    columns: IntArray  # (nnz,)
    lengths: NDArray[np.float32]  # (F,) each column's part in a document's length: how rare it is, by TF-IDF

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def select(self, which: IntArray) -> "Bags":
        """Some of the documents."""
        counts = np.diff(self.offsets)[which]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[which] - offsets[:-1], counts)
        return replace(self, offsets=offsets, columns=self.columns[places])

    def matrix(self, *, presence: bool = False) -> Tensor:
        """(n, F) sparse: rows of length 1, or with `presence` 1 for every n-gram that is there."""
        values = np.ones(len(self.columns), np.float32)
        if not presence:
            values = self.lengths[self.columns]
            document = np.repeat(np.arange(len(self)), np.diff(self.offsets))
            squares = np.bincount(document, weights=values.astype(np.float64) ** 2, minlength=len(self))
            values = values / np.sqrt(np.maximum(squares, TINY)).astype(np.float32)[document]
        return sparse_rows(*map(torch.from_numpy, (self.offsets, self.columns, values)), n_columns=len(self.lengths))


def fit_ngrams(
    docs: Docs,
    chosen: IntArray,
    n_classes: int,
    *,
    vocab_size: int,
    n_specials: int,
    pad_id: int,
    max_tokens: int,
    seed: int,
    unlabelled: IntArray,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> FittedNGrams:
    """Fit the table on the documents `chosen` (n,); the labels of `unlabelled` (m,) may be guessed.

    Both are numbers in `docs`, int64. `class_weights`: (C,) of the documents by their class, or of several labels (2, C), of
    each class's no and yes, float32. `label_smoothing` as in train/losses.py. Of very many documents some are taken by the seed.
    """
    chosen = np.random.default_rng(seed).permutation(chosen)[:MAX_LABELLED] if len(chosen) > MAX_LABELLED else chosen
    labels = docs.labels[chosen]
    others = np.empty(0, np.int64)
    parts = _parts(labels, seed)
    may_guess = len(chosen) <= min(SELF_TRAIN_UP_TO, len(unlabelled))
    if may_guess and labels.ndim == 2:
        log("labels are guessed for texts of one label only: those without any are left to the language model")
    elif may_guess and parts:
        others = np.random.default_rng(seed).permutation(unlabelled)[:MAX_UNLABELLED]
    n_tokens = int(np.minimum(docs.lengths[np.concatenate([chosen, others])], max_tokens).sum())
    n_buckets = bucket_count(n_tokens, n_classes)
    shape = {"vocab_size": vocab_size, "n_specials": n_specials, "n_buckets": n_buckets}
    rows = read_rows(docs, np.concatenate([chosen, others]), pad_id=pad_id, max_tokens=max_tokens, shape=shape)
    bags, kept = keep_frequent(*rows, vocab_size + n_buckets)
    fits = _Fits(bags, _targets(labels, n_classes, label_smoothing), labels.ndim == 2, class_weights)
    found, fit = _best_fit(fits, parts, n_others=len(others))
    weight, bias = fit(np.arange(len(chosen)))
    table = torch.zeros(vocab_size + n_buckets, n_classes + 1)
    rareness = torch.from_numpy(bags.lengths)[:, None]  # (F, 1)
    table[torch.from_numpy(kept)] = torch.cat([found.scale * rareness * weight, rareness.square()], dim=1)
    return FittedNGrams(n_buckets, table, found.scale * bias, found.logits)


def _best_fit(
    fits: "_Fits", parts: Sequence[IntArray], *, n_others: int
) -> tuple["_HeldOut", Callable[[IntArray], tuple[Tensor, Tensor]]]:
    """What does best on the parts held out: its logits there, and how to fit it, with guesses or without. Says so."""
    held_out = {}
    with progress("words and pairs", len(STRENGTHS)) as bar:
        for strength in STRENGTHS:
            held_out[strength] = fits.held_out(partial(fits.on, strength=strength), parts)
            bar.update(len(held_out))
    strength = min(STRENGTHS, key=lambda strength: held_out[strength].loss)
    alone, told = held_out[strength], ""
    found, fit = alone, partial(fits.on, strength=strength)
    if n_others:
        guessing = partial(fits.with_guesses, strength=strength)
        with_guesses = fits.held_out(guessing, parts)
        told = f", {fits.accuracy(with_guesses.logits):.3f} with {n_others:,} texts whose labels are guessed"
        if with_guesses.loss < alone.loss:
            found, fit = with_guesses, guessing
    if parts:
        log(f"words and pairs of words alone: held-out accuracy {fits.accuracy(alone.logits):.3f} of {len(fits.target):,} labelled documents{told}")  # fmt: skip
    return found, fit


# ---- n-grams --------------------------------------------------------------------------------------------------------


def bucket_count(n_tokens: int, n_classes: int) -> int:
    """A power of two, four times as many as there may be pairs, or up to eight, within bounds.

    With as many as pairs a quarter of these share theirs with another: half a point on 1,000 reviews of IMDB.

    >>> bucket_count(20_000, 2), bucket_count(10**8, 2), bucket_count(10**8, 100)
    (131072, 1048576, 32768)
    """
    wanted = 4 << max(0, n_tokens - 1).bit_length()
    largest = 1 << (MAX_TABLE // (n_classes + 1)).bit_length() - 1
    return max(MIN_BUCKETS, min(wanted, largest, MAX_BUCKETS))


def read_rows(
    docs: Docs, which: IntArray, *, pad_id: int, max_tokens: int, shape: Mapping[str, int]
) -> tuple[IntArray, IntArray]:
    """The rows of the table that each document holds, cut as the model sees it: offsets (n + 1,), rows (nnz,).

    `shape` are vocab_size, n_specials and n_buckets of the table.
    """
    batches = ClassifierBatches(docs, which, batch_size=BATCH_SIZE, pad_id=pad_id, max_tokens=max_tokens, shuffle=False)
    found: list[IntArray] = []
    counts: list[IntArray] = []
    for ids, lengths, _ in batches.batches(0):
        rows, is_first = distinct_rows(ids, lengths, **shape)
        found.append(rows[is_first].numpy())
        counts.append(is_first.sum(dim=1).numpy())
    order = np.argsort(np.concatenate(batches.epoch_order(0)))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    in_order = Bags(offsets, np.concatenate(found), np.empty(0, np.float32)).select(order)
    return in_order.offsets, in_order.columns


def keep_frequent(offsets: IntArray, rows: IntArray, n_rows: int) -> tuple[Bags, IntArray]:
    """Bags of the n-grams that more than one document has, of few documents of all; and which rows (F,) their columns are."""
    n_docs = len(offsets) - 1
    n_having = np.bincount(rows, minlength=n_rows)
    kept = np.flatnonzero(n_having >= (1 if n_docs < FEW else 2))
    column = np.full(n_rows, -1)
    column[kept] = np.arange(len(kept))
    columns = column[rows]
    n_kept = np.concatenate([[0], np.cumsum(columns >= 0)])[offsets]
    rareness = np.log((1 + n_docs) / (1 + n_having[kept])) + 1  # as scikit-learn smooths it
    return Bags(n_kept, columns[columns >= 0], rareness.astype(np.float32)), kept


# ---- fits -----------------------------------------------------------------------------------------------------------


class _HeldOut(NamedTuple):
    """Logits of documents from fits that have not seen them, scaled to be neither too sure nor too unsure."""

    logits: Tensor  # (n, C)
    scale: float
    loss: float


class _Fits:
    """Regressions on parts of the same documents: the first n have targets (n, C), the others none."""

    def __init__(self, bags: Bags, target: Tensor, multi_label: bool, class_weights: Tensor | None):
        self.bags, self.target, self.multi_label, self.class_weights = bags, target, multi_label, class_weights
        self.weights = self._weights(target)

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Of each document, (n,)."""
        if self.multi_label:
            return binary_cross_entropy(logits, target, weights=self.class_weights, reduction="none").mean(dim=1)
        return F.cross_entropy(logits, target, reduction="none")

    def accuracy(self, logits: Tensor) -> float:
        """The share of documents whose labels are right."""
        if self.multi_label:
            return float(exact_match(logits, self.target))
        return float(accuracy(logits, self.target.argmax(dim=1)))

    def held_out(self, fit: Callable[[IntArray], tuple[Tensor, Tensor]], parts: Sequence[IntArray]) -> _HeldOut:
        """What `fit`, of all parts but one, says of that one; zeros where there are no parts."""
        logits = torch.zeros_like(self.target)
        for part in parts:
            weight, bias = fit(np.setdiff1d(np.arange(len(logits)), part))
            logits[part] = self.bags.select(part).matrix() @ weight + bias
        loss = {scale: float((self.weights * self.losses(scale * logits, self.target)).mean()) for scale in SCALES}
        scale = min(SCALES, key=lambda scale: loss[scale]) if parts else 1.0
        return _HeldOut(scale * logits, scale, loss[scale])

    def on(self, places: IntArray, *, strength: float) -> tuple[Tensor, Tensor]:
        """Weight (F, C) and bias (C,) from the labelled documents `places`."""
        return self._fit(places, self.target[places], self.weights[places], strength)

    def with_guesses(self, places: IntArray, *, strength: float) -> tuple[Tensor, Tensor]:
        """The same, then again with the documents that were guessed most surely, in two rounds."""
        weight, bias = self.on(places, strength=strength)
        n_others = len(self.bags) - len(self.target)
        for share in SHARES:
            guessed, guesses = self.surest(weight, bias, int(share * n_others))
            target = torch.cat([self.target[places], _targets(guesses, self.target.shape[1])])
            weights = torch.cat([TRUE_WEIGHT * self.weights[places], self._weights(target[len(places) :])])
            weight, bias = self._fit(
                np.concatenate([places, len(self.target) + guessed]), target, weights, SELF_STRENGTH
            )
        return weight, bias

    def surest(self, weight: Tensor, bias: Tensor, n: int) -> tuple[IntArray, IntArray]:
        """Which of the other documents are guessed most surely, n in all, and their classes.

        The log-odds of a class are counted from where as large a share of the documents is above as has it among those with
        labels. That as many are taken of each class is not asked: on IMDB it made everything worse.
        """
        others = self.bags.select(np.arange(len(self.target), len(self.bags)))
        odds = log_odds_of_all(others.matrix() @ weight + bias).double()  # (m, C)
        shares = self.target.mean(dim=0).tolist()
        borders = torch.stack(
            [column.quantile(1 - min(1.0, share)) for column, share in zip(odds.T, shares, strict=True)]
        )
        margins, guesses = (odds - borders).max(dim=1)  # (m,), (m,)
        places = margins.argsort(descending=True, stable=True)[:n]
        return places.numpy(), guesses[places].numpy()

    def _weights(self, target: Tensor) -> Tensor:
        """Of documents by their class, (n,); of several labels each answer has its own, in `losses`."""
        return (
            torch.ones(len(target)) if self.class_weights is None or self.multi_label else target @ self.class_weights
        )

    def _fit(self, places: IntArray, target: Tensor, weights: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        bags = self.bags.select(places)
        ratios = log_count_ratios(transposed(bags.matrix(presence=True)), target, weights)
        return fit_logistic(bags.matrix(), target, weights, ratios, strength=strength, losses=self.losses)


def _targets(labels: NDArray[Any], n_classes: int, label_smoothing: float = 0.0) -> Tensor:
    """Probabilities (n, C); several labels a document are not smoothed."""
    given = torch.from_numpy(labels)
    if given.ndim == 2:
        return given.float()
    return (1 - label_smoothing) * F.one_hot(given, n_classes) + label_smoothing / n_classes


def _parts(labels: NDArray[Any], seed: int) -> list[IntArray]:
    """Parts of the labelled documents that are held out in turn; none where there are too few."""
    n_folds = min(N_FOLDS, len(labels) // 2)
    return fold_parts(np.arange(len(labels)), strata(labels), n_folds, seed) if n_folds >= 2 else []
