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

MEGABATCH = 50  # batches that are sorted together: long enough to save padding, short enough to stay random
MIN_WINDOW = 5  # tokens of a window with variable bptt, at least (AWD-LSTM, section 5)

IntArray = NDArray[np.int64]


class Docs:
    """Documents by number: where each lies (`segments`, `segment`, `begin`), its `lengths` and `labels`, all (N,)."""

    def __init__(self, arrays: Sequence[NDArray[Any]], offsets: Sequence[IntArray], labels: IntArray):
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
    A corpus too small for `batch_size` streams of one window each gets fewer streams.

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
    ):
        self.docs, self.shuffle, self.seed = docs, shuffle, seed
        self.which = np.arange(len(docs)) if which is None else which
        n_tokens = int(docs.lengths[self.which].sum())
        if n_tokens < 2:
            raise SourceError(f"{len(self.which)} documents with {n_tokens} tokens are too few for a language model")
        self.batch_size = min(batch_size, max(1, (n_tokens - 1) // bptt))
        self.stream_length = (n_tokens - 1) // self.batch_size
        rng = np.random.default_rng(seed) if variable_bptt else None
        self.ends = np.cumsum(window_lengths(self.stream_length, bptt, rng))

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def n_tokens(self) -> int:
        """Targets in an epoch."""
        return self.batch_size * self.stream_length

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The windows of an epoch, from window `start` on."""
        order = self.which
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        cum = np.concatenate([[0], np.cumsum(self.docs.lengths[order])])
        row_begin = np.arange(self.batch_size) * self.stream_length
        begins = np.concatenate([[0], self.ends[:-1]])
        for begin, end in zip(begins[start:], self.ends[start:], strict=True):
            window = np.empty((self.batch_size, end - begin + 1), np.int64)
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

    Training (`shuffle`) is sortish: random, but documents of like length together. Else longest first.
    `max_tokens` bounds L; a longer document keeps its two ends.
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
    ):
        self.docs, self.pad_id, self.max_tokens = docs, pad_id, max_tokens
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.which = np.arange(len(docs)) if which is None else which

    def __len__(self) -> int:
        return len(self.epoch_order(0))

    def epoch_order(self, epoch: int) -> list[IntArray]:
        """Documents of each batch of an epoch."""
        lengths = np.minimum(self.docs.lengths[self.which], self.max_tokens)
        if self.shuffle:
            places = sortish(lengths, self.batch_size, np.random.default_rng((self.seed, epoch)))
        else:
            places = longest_first(lengths, self.batch_size)
        return [self.which[place] for place in places]

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of an epoch, from batch `start` on."""
        docs = self.docs
        for chosen in self.epoch_order(epoch)[start:]:
            longest = max(1, min(int(docs.lengths[chosen].max()), self.max_tokens))
            ids = np.full((len(chosen), longest), self.pad_id, np.int64)
            lengths = np.empty(len(chosen), np.int64)
            fill_documents(docs.segments, docs.segment, docs.begin, docs.lengths, chosen, ids, lengths)
            yield torch.from_numpy(ids), torch.from_numpy(lengths), torch.from_numpy(docs.labels[chosen])


def longest_first(lengths: IntArray, batch_size: int) -> list[IntArray]:
    """Cut documents, sorted by falling length, into batches; `lengths` (N,) gives places in it.

    The longest batch comes first, so that memory that will be needed is asked for at once.
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def sortish(lengths: IntArray, batch_size: int, rng: np.random.Generator) -> list[IntArray]:
    """Shuffle documents, sort within megabatches, cut into batches, shuffle these; longest first, the short one last.

    A last batch of one document joins the one before: batch norm can't train on one.
    """
    order = rng.permutation(len(lengths))
    size = batch_size * MEGABATCH
    mega = [order[i : i + size] for i in range(0, len(order), size)]
    order = np.concatenate([np.zeros(0, np.int64), *(m[np.argsort(-lengths[m], kind="stable")] for m in mega)])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    last = [batches.pop()] if batches and len(batches[-1]) != batch_size else []
    if batches:
        longest = max(range(len(batches)), key=lambda i: int(lengths[batches[i]].max()))
        first = batches.pop(longest)
        batches = [first, *(batches[i] for i in rng.permutation(len(batches)))]
    return batches + last
