"""Batches: mapped ids to tensors, for the language model and for the classifier. The last stop of the text flow.

What comes in an epoch is a pure function of (seed, epoch), and batch `start` of it can be asked for directly: that is
what makes an exact resume cheap. No copy of the corpus is made; a few numbers a document are all that is held.
Moving to a device is the Learner's.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numba.typed.typedlist import List as TypedList
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SourceError
from .kernels import fill_documents, fill_windows
from .store import TokenStore

BLUR = 0.05  # of a length: 0.1 would make 9 % of the IMDB reviews' batches padding, this makes 5 %, and 0 none
SPREAD = 4  # times the batch size at most, and at least a part in so many of it: steps should not differ too much
LEAST_DOCS = 4  # of a training batch: the gradient of fewer is mostly noise
MIN_WINDOW = 5  # tokens of a window with variable bptt, at least (AWD-LSTM, section 5)

IntArray = NDArray[np.int64]


class Docs:
    """Documents by number: where each lies (`segments`, `segment`, `begin`), its `lengths`, all (N,), and `labels` (labels.py)."""

    def __init__(self, arrays: Sequence[NDArray[Any]], offsets: Sequence[IntArray], labels: NDArray[Any]):
        self.segments = TypedList(arrays) if arrays else TypedList([np.zeros(0, np.int32)])
        self.segment = np.repeat(np.arange(len(arrays)), [len(o) - 1 for o in offsets])
        self.begin: IntArray = np.concatenate([np.zeros(0, np.int64), *(o[:-1] for o in offsets)])
        self.lengths: IntArray = np.concatenate([np.zeros(0, np.int64), *(np.diff(o) for o in offsets)])
        self.labels = labels

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def from_store(cls, store: TokenStore) -> "Docs":
        """All documents of a store, mapped."""
        return cls([s.ids for s in store.segments], [s.offsets for s in store.segments], store.doc_labels)

    @classmethod
    def from_ids(cls, docs: Sequence[Sequence[int]], labels: Sequence[int] | None = None) -> "Docs":
        """Documents from lists of ids, for prediction."""
        ids = np.array([i for doc in docs for i in doc], np.int32)
        offsets = np.cumsum([0, *map(len, docs)])
        return cls([ids], [offsets], np.array(labels if labels is not None else [-1] * len(docs)))


# ---- language model -------------------------------------------------------------------------------------------------


class LMBatches:
    """Windows `(x, y)`, both (B, T) int64, of B contiguous streams; y is x one token later.

    The documents `which` (default: all of `docs`) are put one after the other, in an order shuffled for each epoch if `shuffle`,
    and cut into B streams of equal length; batch k holds tokens k * bptt on of every stream, so that the hidden state
    of row b goes on in row b. The last window is short. At most B tokens of the corpus have no place in a stream.
    A corpus too small for `batch_size` streams of one window each gets fewer streams. `part` is (which, of how many): of
    every batch that process takes its rows, always the same streams.

    `variable_bptt` draws window lengths around bptt, now and then around half of it (AWD-LSTM, section 5), from the seed.
    """

    def __init__(
        self,
        docs: Docs,
        which: IntArray | None = None,
        *,
        batch_size: int,
        bptt: int,
        shuffle: bool,
        seed: int = 0,
        variable_bptt: bool = False,
        part: tuple[int, int] = (0, 1),
    ):
        self.docs, self.shuffle, self.seed = docs, shuffle, seed
        self.which = np.arange(len(docs)) if which is None else which
        n_tokens = int(docs.lengths[self.which].sum())
        if n_tokens < 2:
            raise SourceError(f"{len(self.which)} documents with {n_tokens} tokens are too few for a language model")
        which_part, n_parts = part
        n_streams = max(n_parts, min(batch_size, (n_tokens - 1) // bptt))
        self.batch_size = n_streams - n_streams % n_parts
        self.rows = np.array_split(np.arange(self.batch_size), n_parts)[which_part]
        self.stream_length = (n_tokens - 1) // self.batch_size
        rng = np.random.default_rng(seed) if variable_bptt else None
        self.ends = np.cumsum(window_lengths(self.stream_length, bptt, rng))

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def n_tokens(self) -> int:
        """Targets in an epoch, those of all parts."""
        return self.batch_size * self.stream_length

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The windows of an epoch, from window `start` on."""
        order = self.which
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        cum = np.zeros(len(order) + 1, np.int64)
        np.cumsum(self.docs.lengths[order], out=cum[1:])
        row_begin = self.rows * self.stream_length
        begins = np.concatenate([[0], self.ends[:-1]])
        for begin, end in zip(begins[start:], self.ends[start:], strict=True):
            window = np.empty((len(self.rows), end - begin + 1), np.int64)
            docs = self.docs
            fill_windows(docs.segments, docs.segment, docs.begin, order, cum, row_begin + begin, window)
            both = torch.from_numpy(window)  # (B, T + 1)
            yield both[:, :-1], both[:, 1:]


def window_lengths(stream_length: int, bptt: int, rng: np.random.Generator | None = None) -> list[int]:
    """Lengths of the windows that cover a stream; all `bptt` but the last, or drawn with `rng`.

    >>> window_lengths(25, 10)
    [10, 10, 5]
    """
    lengths: list[int] = []
    left = stream_length
    while left > 0:
        length = bptt
        if rng is not None:
            mean = bptt if rng.random() < 0.95 else bptt / 2
            length = max(MIN_WINDOW, int(rng.normal(mean, 5)))
        lengths.append(min(length, left))
        left -= lengths[-1]
    return lengths


# ---- classifier -----------------------------------------------------------------------------------------------------


class ClassifierBatches:
    """Batches `(ids (B, L) int64, lengths (B,) int64, labels (B,) int64)`, padded at the end with `pad_id`.

    Documents of like length come together, as many of them as make up the tokens of `batch_size` mean ones: few long
    documents, or many short ones (`batch_sizes`). So every batch takes about the same time and memory, and little of it
    is padding. `max_tokens` bounds L; a longer document keeps its two ends.

    Training (`shuffle`) draws anew in every epoch which documents come together and which batch comes when. Else the
    order is by falling length. `part` is (which, of how many): of every batch that process takes its documents.
    """

    def __init__(
        self,
        docs: Docs,
        which: IntArray | None = None,
        *,
        batch_size: int,
        pad_id: int,
        max_tokens: int,
        shuffle: bool,
        seed: int = 0,
        part: tuple[int, int] = (0, 1),
    ):
        self.docs, self.pad_id, self.max_tokens = docs, pad_id, max_tokens
        self.shuffle, self.seed, self.part = shuffle, seed, part
        self.which = np.arange(len(docs)) if which is None else which
        self.lengths = np.minimum(docs.lengths[self.which], max_tokens)
        fewest = min(batch_size, max(LEAST_DOCS, batch_size // SPREAD)) if shuffle else 1
        least = max(fewest, part[1])  # each part has one at least
        if part[1] > 1 and len(self.which) < least:
            raise SourceError(f"{len(self.which)} documents are too few for {part[1]} processes: start fewer")
        self.sizes = batch_sizes(self.lengths, batch_size, least=least)

    def __len__(self) -> int:
        return len(self.sizes)

    def epoch_order(self, epoch: int) -> list[IntArray]:
        """Documents of each batch of an epoch, as places in `which`."""
        rng = np.random.default_rng((self.seed, epoch)) if self.shuffle else None
        return like_lengths(self.lengths, self.sizes, rng)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of an epoch, from batch `start` on."""
        docs = self.docs
        which_part, n_parts = self.part
        for batch in self.epoch_order(epoch)[start:]:
            places = batch[which_part::n_parts]
            chosen = self.which[places]
            longest = max(1, min(int(docs.lengths[chosen].max()), self.max_tokens))
            ids = np.full((len(chosen), longest), self.pad_id, np.int64)
            lengths = np.empty(len(chosen), np.int64)
            fill_documents(docs.segments, docs.segment, docs.begin, docs.lengths, chosen, ids, lengths)
            yield torch.from_numpy(ids), torch.from_numpy(lengths), torch.from_numpy(docs.labels[chosen])


def batch_sizes(lengths: IntArray, batch_size: int, *, least: int = 1) -> list[int]:
    """How many documents each batch takes, longest documents first, all of them in all; `lengths` (N,) are their tokens.

    A batch has room for as many tokens, padding included, as `batch_size` documents of mean length have, for at least
    `least` documents and at most `SPREAD * batch_size`.

    >>> batch_sizes(np.array([100, 100, 10, 10, 10, 10, 10, 10, 10, 10]), 4)
    [1, 1, 8]
    """
    falling = -np.sort(-lengths)
    n_tokens = batch_size * float(np.maximum(lengths, 1).mean()) if len(lengths) else 0.0
    sizes: list[int] = []
    begin = 0
    while begin < len(falling):
        n = max(least, min(SPREAD * batch_size, int(n_tokens / max(1, falling[begin]))))
        left = len(falling) - begin - n
        sizes.append(n + left if left < least else n)  # too few for a batch of their own join the last one
        begin += sizes[-1]
    return sizes


def like_lengths(lengths: IntArray, sizes: Sequence[int], rng: np.random.Generator | None = None) -> list[IntArray]:
    """Deal documents into batches of the given sizes, by falling length; returns places in `lengths` (N,).

    With `rng` lengths are blurred first, by up to `BLUR` of them, so that neighbours change, and the batches come in any
    order. The longest batch comes first always, so that memory that will be needed is asked for at once.
    """
    blurred = lengths if rng is None else lengths * (1 + BLUR * rng.uniform(-1, 1, len(lengths)))
    batches = np.split(np.argsort(-blurred, kind="stable"), np.cumsum(sizes)[:-1]) if len(sizes) else []
    if rng is None:
        return batches
    return [*batches[:1], *(batches[1 + i] for i in rng.permutation(len(batches) - 1))] if batches else []
