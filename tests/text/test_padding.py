"""Documents are cut and padded for prediction just as they were in training."""

import numpy as np
import pytest

from ulmpipe.text.batches import ClassifierBatches, Docs
from ulmpipe.text.padding import pad_documents, two_ends


@pytest.mark.parametrize("max_tokens", [1, 2, 7, 8, 100])
def test_rows_are_those_of_the_batches_of_training(rng: np.random.Generator, max_tokens: int):
    docs = [rng.integers(2, 90, n).tolist() for n in (9, 8, 7, 6, 3, 1)]
    batches = ClassifierBatches(Docs.from_ids(docs), batch_size=64, pad_id=1, max_tokens=max_tokens, shuffle=False)
    rows = {}
    for (ref_ids, ref_lengths, _), which in zip(batches.batches(0), batches.epoch_order(0), strict=True):
        for doc, row, length in zip(which.tolist(), ref_ids.numpy(), ref_lengths.tolist(), strict=True):
            rows[doc] = row[:length]
    ids, lengths = pad_documents(docs, pad_id=1, max_tokens=max_tokens)
    assert ids.dtype == lengths.dtype == np.int64 and ids.shape == (6, min(9, max_tokens))
    for doc, (row, n) in enumerate(zip(ids, lengths, strict=True)):
        np.testing.assert_array_equal(row[:n], rows[doc])
        assert (row[n:] == 1).all()


def test_no_document_and_no_token():
    ids, lengths = pad_documents([], pad_id=1, max_tokens=5)
    assert ids.shape == (0, 1) and lengths.shape == (0,)
    ids, lengths = pad_documents([[]], pad_id=1, max_tokens=5)
    assert ids.tolist() == [[1]] and lengths.tolist() == [0]


def test_two_ends_of_tokens():
    assert two_ends(["a", "b", "c", "d", "e"], 4) == ["a", "b", "d", "e"]
    assert two_ends(["a", "b"], 2) == ["a", "b"] and two_ends(["a", "b"], 1) == ["b"]
