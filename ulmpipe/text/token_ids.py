"""The numbers of tokens, and the ids of what the token rules make of each of spaCy's: worked out once, then looked up.

    settled chunks (signatures.py) -> their tokens, the new ones -> token rules, on all of them at once -> ids of each chunk

Part of chunks.py, which remembers the chunks. What is numbered here is never forgotten: ids stay what they are.
"""

import itertools
from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from ..errors import UlmpipeError
from .rules import PostRule
from .signatures import SETTLED, Settled
from .table import Memo, copy_ids, find, find_or_add, n_ids_at, set_ids

MOST_IDS = 1 << 12  # of one chunk, where it was settled by its signature
SEPARATOR = "\ud800"  # between tokens, where token rules are run on many at once; no text can hold it


class TokenIds:
    """Numbers tokens in the order in which they come; `rules` are those that see one token at a time."""

    def __init__(self, rules: Sequence[PostRule]):
        self.rules = rules
        self.itos: list[str] = []
        self.number: dict[str, int] = {}
        self.forget()

    def forget(self) -> None:
        """Forget what the rules make of tokens; these keep their numbers."""
        self.memo = Memo()  # text of a token -> ids of what the token rules make of it

    @property
    def n_bytes(self) -> int:
        """Memory that all this takes, about."""
        return self.memo.n_bytes + 100 * len(self.itos)

    def id(self, token: str) -> int:
        """The number of a token, which is new or not."""
        number = self.number.setdefault(token, len(self.itos))
        if number == len(self.itos):
            self.itos.append(token)
        return number

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """The numbers of tokens that all rules have been run on."""
        return [self.id(token) for token in tokens]

    def of_split(self, tokens: list[str]) -> list[int]:
        """The ids of spaCy's tokens of a text, once the rules have been run on them."""
        for rule in self.rules:
            tokens = rule(tokens)
        return self.ids(tokens)

    def give(self, chunks: Memo, entries: NDArray[np.int64], flags: NDArray[np.int64], settled: Settled) -> None:
        """Give chunks that are settled their ids; of one with too many tokens the status says that it is not."""
        self._add(chunks, entries, settled)
        ids, done = np.zeros(MOST_IDS, np.int32), 0
        while done < len(entries):
            done = put_ids(chunks.table, entries, flags, settled.status, settled.spans, settled.ends, self.memo.table, ids, done)  # fmt: skip
            chunks.make_room(entries=0, ids=MOST_IDS + len(entries))

    def _add(self, chunks: Memo, entries: NDArray[np.int64], settled: Settled) -> None:
        """Remember the tokens of settled chunks: the token rules are run on all new ones at once."""
        first, done = len(self.memo), 0
        while done < len(entries):
            done = add_tokens(chunks.table, entries, settled.status, settled.spans, settled.ends, self.memo.table, done)  # fmt: skip
            self.memo.make_room(entries=len(self.memo) // 2 + 4096, key_bytes=len(self.memo) + (1 << 16))
        table, entries = self.memo.table, np.arange(first, len(self.memo))
        if len(entries):
            data = table.arena[table.starts[first] : table.starts[len(self.memo)]].tobytes()
            places = (table.starts[first : len(self.memo) + 1] - table.starts[first]).tolist()
            texts = [data[begin:end].decode() for begin, end in zip(places, places[1:], strict=False)]
            self.memo.set_all(entries, *self._ids_of_each(texts), np.zeros(len(entries), np.int64))

    def _ids_of_each(self, tokens: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """What the token rules make of each of spaCy's tokens: ids, and the place of each token's first (n + 1,)."""
        parts = [part for token in tokens for part in (token, SEPARATOR)]
        for rule in self.rules:
            parts = rule(parts)
        ids, offsets, number = list[int](), [0], self.number
        for part in parts:
            if part == SEPARATOR:
                offsets.append(len(ids))
            else:
                ids.append(number.setdefault(part, len(number)))
        self.itos.extend(itertools.islice(number, len(self.itos), None))
        if len(offsets) != len(tokens) + 1:
            raise UlmpipeError("a post rule of scope 'token' changes neighbours together: take its scope away")
        return np.array(ids, np.int32), np.array(offsets)


# ---- kernels --------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def add_tokens(chunks, entries, status, spans, ends, tokens, first):
    """Add the tokens of chunks `entries[first:]` to their table; how many chunks were done until it was full."""
    for k in range(first, len(entries)):
        if status[k] != SETTLED:
            continue
        begin = chunks.starts[entries[k]]
        b = begin
        for i in range(spans[k, 0], spans[k, 1]):
            if find_or_add(tokens, 0, chunks.arena, chunks.words, b, begin + ends[i]) < 0:
                return k
            b = begin + ends[i]
    return len(entries)


@numba.njit(cache=True, nogil=True)
def put_ids(chunks, entries, flags, status, spans, ends, tokens, ids, first):
    """Settle chunks `entries[first:]` with the ids of their tokens; how many were done until the pool was full."""
    for k in range(first, len(entries)):
        if status[k] != SETTLED:
            continue
        begin = chunks.starts[entries[k]]
        b, n = begin, 0
        for i in range(spans[k, 0], spans[k, 1]):
            at = find(tokens, 0, chunks.arena, chunks.words, b, begin + ends[i])
            if n + n_ids_at(tokens, at) + 3 > len(ids):
                status[k] = SETTLED + 1
                break
            n = copy_ids(tokens, at, ids, n)
            b = begin + ends[i]
        if status[k] == SETTLED and not set_ids(chunks, entries[k], ids, n, flags[k]):
            return k
    return len(entries)
