"""Numbers about a corpus: unknown words, labels, what is frequent. Looks only; for doctor.py and report.py, which show them."""

from collections.abc import Collection

import numpy as np

from ..text.batches import IntArray
from ..text.store import TokenStore
from .corpus import Corpus, ids_of
from .labels import class_counts


def unknown_share(store: TokenStore, docs: IntArray) -> float | None:
    """Share of the tokens of some documents without an id of their own; None of none."""
    n_tokens = int(store.doc_lengths[docs].sum())
    if n_tokens == 0:
        return None
    return sum(int((ids == store.vocab.unk_id).sum()) for ids in ids_of(store, docs)) / n_tokens


def count_labels(corpus: Corpus) -> dict[str, dict[str, int]]:
    """How many documents have each label, to train on and held out: {label: {"train": n, "valid": n}}."""
    names = corpus.store.labels
    parts = {"train": corpus.store.doc_labels[corpus.train], "valid": corpus.valid_store.doc_labels[corpus.valid]}
    counts = {part: class_counts(labels, len(names)) for part, labels in parts.items()}
    return {name: {part: int(counts[part][i]) for part in parts} for i, name in enumerate(names)}


def without(words: dict[str, int], known: Collection[str]) -> dict[str, int]:
    """The words, by falling frequency, that are not among those `known`."""
    return {word: words[word] for word in sorted(words, key=lambda word: (-words[word], word)) if word not in known}


def quantiles(lengths: IntArray) -> dict[str, int]:
    """Median, what nine in ten have at most, and the longest."""
    return {
        "median": int(np.median(lengths)),
        "p90": int(np.quantile(lengths, 0.9, method="higher")),
        "longest": int(lengths.max()),
    }
