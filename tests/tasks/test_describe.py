from collections import Counter

import numpy as np
import pytest
from learnable import Trained

from ulmpipe.tasks.corpus import Corpus
from ulmpipe.tasks.describe import count_labels, quantiles, unknown_share, without
from ulmpipe.text.store import TokenStore


def test_the_share_of_unknown_words_is_that_of_the_ids(trained: Trained):
    store = TokenStore(trained.store)
    docs = np.arange(0, len(store), 3)
    ids = np.concatenate([store.doc(n) for n in docs.tolist()])
    assert unknown_share(store, docs) == pytest.approx((ids == store.vocab.unk_id).mean())
    assert unknown_share(store, docs[:0]) is None


def test_labels_are_counted_in_both_parts(trained: Trained):
    store = TokenStore(trained.store)
    train, valid = np.arange(50), np.arange(50, 61)
    found = count_labels(Corpus(store, train, store, valid))
    for number, label in enumerate(store.labels):
        for part, docs in (("train", train), ("valid", valid)):
            assert found[label][part] == (store.doc_labels[docs] == number).sum()


def test_words_without_those_known_come_by_frequency():
    assert list(without(Counter(a=1, b=3, c=3, d=9), {"d"}).items()) == [("b", 3), ("c", 3), ("a", 1)]


def test_quantiles_are_lengths_that_there_are():
    assert quantiles(np.array([1, 2, 3, 4, 100])) == {"median": 3, "p90": 100, "longest": 100}
