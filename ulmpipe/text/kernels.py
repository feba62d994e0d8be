"""Numba kernels over mapped ids: windows of streams for the language model, padded documents for the classifier.

Private loops on plain arrays; batches.py checks and allocates. Slow twins of the same names stand in tests/reference.py.
Documents lie in several arrays (one for each record batch of a store): `segments[doc_segment[d]]` from `doc_begin[d]` on.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def fill_windows(segments, doc_segment, doc_begin, order, cum, positions, out):
    """Copy `out.shape[1]` tokens from each of the stream's `positions` on.

    segments: typed list of (n_tokens,) uint16 or int32; doc_segment, doc_begin: (N,) int64, of every document. The
    stream is the documents `order` (n,) int64, one after the other; `cum` (n + 1,) int64 are their first places in
    it. positions: (B,) int64; out: (B, T) int64, filled.
    """
    for b in range(out.shape[0]):
        i = np.searchsorted(cum, positions[b], side="right") - 1  # the document that holds the position
        at = positions[b] - cum[i]
        t = 0
        while t < out.shape[1]:
            doc = order[i]
            ids = segments[doc_segment[doc]]
            n = min(cum[i + 1] - cum[i] - at, out.shape[1] - t)
            begin = doc_begin[doc] + at
            for k in range(n):
                out[b, t + k] = ids[begin + k]
            t += n
            i += 1
            at = 0


@numba.njit(cache=True, nogil=True)
def fill_documents(segments, doc_segment, doc_begin, doc_length, docs, out, lengths):
    """Copy the documents `docs` (B,) int64 into the rows of `out` (B, L) int64, full of padding; set `lengths` (B,) int64.

    segments: typed list of (n_tokens,) uint16 or int32; doc_segment, doc_begin, doc_length: (N,) int64, of every document.

    A document longer than L gives its first L // 2 tokens and its last L - L // 2: reviews end with their verdict.
    """
    longest = out.shape[1]
    for b in range(len(docs)):
        ids = segments[doc_segment[docs[b]]]
        begin = doc_begin[docs[b]]
        n = doc_length[docs[b]]
        head = n if n <= longest else longest // 2
        for k in range(head):
            out[b, k] = ids[begin + k]
        tail = min(n, longest) - head
        for k in range(tail):
            out[b, head + k] = ids[begin + n - tail + k]
        lengths[b] = head + tail
