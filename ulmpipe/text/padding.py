"""A few documents to one padded array, for prediction: without the store, the plan and the kernels of batches.py.

Cuts and pads as `ClassifierBatches` does, which is what the model was trained on.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def two_ends(doc: Sequence[Any], max_tokens: int) -> Sequence[Any]:
    """The first half and the last half of so many tokens, where there are more: reviews end with their verdict.

    >>> two_ends([1, 2, 3, 4, 5, 6], 3)
    [1, 5, 6]
    """
    if len(doc) <= max_tokens:
        return doc
    n_head = max_tokens // 2
    return [*doc[:n_head], *doc[len(doc) - (max_tokens - n_head) :]]


def pad_documents(
    docs: Sequence[Sequence[int]], *, pad_id: int, max_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids (B, L) int64, padded at the end, and lengths (B,) int64. L is 1 at least, and `max_tokens` at most.

    >>> pad_documents([[5, 6, 7], [8], []], pad_id=1, max_tokens=2)[0].tolist()
    [[5, 7], [8, 1], [1, 1]]
    """
    cut = [two_ends(doc, max_tokens) for doc in docs]
    lengths = np.array([len(doc) for doc in cut], np.int64)
    ids = np.full((len(docs), max(1, lengths.max(initial=0))), pad_id, np.int64)
    for row, doc in zip(ids, cut, strict=True):
        row[: len(doc)] = doc
    return ids, lengths
