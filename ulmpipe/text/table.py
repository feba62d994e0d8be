"""A hash table from bytes to short lists of ids, made for a scan at the speed of memory. Numba and NumPy, no files.

A key is looked up for every chunk of text, so what the common case needs lies in one half of a cache line: keys of up to
14 bytes and values of up to 3 ids stand in the slot itself. Entries are never removed; `Memo.clear` forgets all.

    slot     four uint64: key, key | value, value
    arena    the bytes of all keys, one after the other: entry e has arena[starts[e]:starts[e + 1]]
    pool     the ids of entries that have more than 3, or that need care (flag SLOW)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from .pieces import PAD_BYTES, side_by_side

INLINE = 14  # bytes of a key that fit into a slot

# Flags of an entry, 16 bits.
SLOW = 1  # its ids are in the pool: it has more than 3, or is to be handled with care
UNSETTLED = 2  # its ids are not known yet

U1, U32, U40, U56 = (np.uint64(n) for n in (1, 32, 40, 56))
LOW32, LOW16, LOW8 = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF), np.uint64(0xFF)
MIX_1, MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
LONG = np.uint64(15)
KEEP = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)  # KEEP[n]: the first n bytes of a word


class Table(NamedTuple):
    """The arrays of a table, as kernels take them."""

    slots: NDArray[np.uint64]  # (2 ** k, 4)
    arena: NDArray[np.uint8]
    words: NDArray[np.uint64]  # the arena, read 8 bytes at a time from any place
    starts: NDArray[np.int64]  # (max_entries + 1,)
    slot_of: NDArray[np.int64]  # (max_entries,)
    entry_of: NDArray[np.int32]  # (2 ** k,) the entry in each slot
    pool: NDArray[np.int32]
    used: NDArray[np.int64]  # (3,) entries, bytes of the arena, ids in the pool


def words_of(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A view whose item i holds the bytes i to i + 7 of `data` (n,), little end first: (n - 7,) uint64."""
    return np.ndarray((len(data) - 7,), np.dtype("<u8"), buffer=data, strides=(1,))


# ---- kernels --------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True, inline="always")
def slot_index(k0, k1, n_slots):
    """Where the search for a key begins."""
    mixed = (k0 ^ (k1 * MIX_2)) * MIX_1
    return np.int64((mixed ^ (mixed >> U32)) & np.uint64(n_slots - 1))


@numba.njit(cache=True, nogil=True)
def make_key(kind, data, words, begin, end):
    """The two words of a key; of a long one its hash, its length and no entry yet."""
    n = end - begin
    top = np.uint64(kind) << np.uint64(4)
    if n <= INLINE:
        if n <= 8:
            return words[begin] & KEEP[n], (top | np.uint64(n)) << U56
        return words[begin], (words[begin + 8] & KEEP[n - 8]) | (top | np.uint64(n)) << U56
    mixed = MIX_2
    i = begin
    while i + 8 <= end:
        mixed = (mixed ^ words[i]) * MIX_1
        mixed ^= mixed >> U32
        i += 8
    mixed = (mixed ^ (words[i] & KEEP[end - i])) * MIX_1
    mixed ^= mixed >> U32
    return mixed, (top | LONG) << U56 | (np.uint64(n) & np.uint64(0xFFFFFF)) << U32


@numba.njit(cache=True, nogil=True)
def find_key(table, k0, k1, data, begin, end):
    """The slot of a key; `-1 - slot` of a free one where it is not there."""
    n_slots = table.slots.shape[0]
    at = slot_index(k0, k1, n_slots)
    is_long = (k1 >> U56) & LONG == LONG
    while True:
        own0, own1 = table.slots[at, 0], table.slots[at, 1]
        if own0 == k0:
            if own1 == k1 and not is_long:
                return at
            if is_long and own1 >> U32 == k1 >> U32 and same_bytes(table, np.int64(own1 & LOW32) - 1, data, begin, end):
                return at
        if own0 == 0 and own1 == 0:
            return -1 - at
        at = (at + 1) & (n_slots - 1)


@numba.njit(cache=True, nogil=True)
def same_bytes(table, entry, data, begin, end):
    """Whether the key of an entry is these bytes."""
    start = table.starts[entry]
    if table.starts[entry + 1] - start != end - begin:
        return False
    for i in range(end - begin):  # noqa: SIM110  # numba runs no generator
        if table.arena[start + i] != data[begin + i]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def find(table, kind, data, words, begin, end):
    """The slot of the key `data[begin:end]` of a kind, or a negative number."""
    k0, k1 = make_key(kind, data, words, begin, end)
    return find_key(table, k0, k1, data, begin, end)


@numba.njit(cache=True, nogil=True)
def add_key(table, free, k0, k1, data, begin, end):
    """Add an unsettled entry at a free slot; its slot, or -1 where the table is full."""
    entry, n_bytes = table.used[0], table.used[1]
    n = end - begin
    if entry + 1 >= len(table.starts) or n_bytes + n + PAD_BYTES > len(table.arena):
        return -1
    for i in range(n):
        table.arena[n_bytes + i] = data[begin + i]
    table.starts[entry + 1] = n_bytes + n
    table.used[0], table.used[1] = entry + 1, n_bytes + n
    if (k1 >> U56) & LONG == LONG:
        k1 |= np.uint64(entry + 1)  # never that of a key which is looked for: its bytes must be compared
    table.slots[free, 0], table.slots[free, 1] = k0, k1
    table.slots[free, 2] = np.uint64(0)
    table.slots[free, 3] = np.uint64(SLOW | UNSETTLED) << U40
    table.slot_of[entry], table.entry_of[free] = free, entry
    return free


@numba.njit(cache=True, nogil=True)
def find_or_add(table, kind, data, words, begin, end):
    """The slot of a key, added where it was not there; -1 where the table is full."""
    k0, k1 = make_key(kind, data, words, begin, end)
    at = find_key(table, k0, k1, data, begin, end)
    return at if at >= 0 else add_key(table, -1 - at, k0, k1, data, begin, end)


@numba.njit(cache=True, nogil=True)
def set_ids(table, entry, ids, n, flags):
    """Settle an entry: ids[:n] and flags. False where the pool is full."""
    at = table.slot_of[entry]
    if n > 3 or flags & SLOW:
        if table.used[2] + n > len(table.pool):
            return False
        for i in range(n):
            table.pool[table.used[2] + i] = ids[i]
        table.slots[at, 2] = np.uint64(table.used[2]) | np.uint64(n) << U32
        table.slots[at, 3] = np.uint64(flags | SLOW) << U40
        table.used[2] += n
        return True
    a, b, c = np.uint64(0), np.uint64(0), np.uint64(0)
    if n > 0:
        a = np.uint64(ids[0])
    if n > 1:
        b = np.uint64(ids[1])
    if n > 2:
        c = np.uint64(ids[2])
    table.slots[at, 2] = a | b << U32
    table.slots[at, 3] = c | np.uint64(n) << U32 | np.uint64(flags) << U40
    return True


@numba.njit(cache=True, nogil=True)
def set_all(table, entries, ids, offsets, flags):
    """Settle entries: k with `ids[offsets[k]:offsets[k + 1]]` and `flags[k]`. The pool must have room."""
    for k in range(len(entries)):
        set_ids(table, entries[k], ids[offsets[k] :], offsets[k + 1] - offsets[k], flags[k])


@numba.njit(cache=True, nogil=True)
def flags_at(table, at):
    """The flags of the entry in a slot."""
    return np.int64(table.slots[at, 3] >> U40 & LOW16)


@numba.njit(cache=True, nogil=True)
def n_ids_at(table, at):
    """How many ids the entry in a slot has."""
    v1 = table.slots[at, 3]
    if v1 >> U40 & U1:
        return np.int64(table.slots[at, 2] >> U32)
    return np.int64(v1 >> U32 & LOW8)


@numba.njit(cache=True, nogil=True)
def copy_ids(table, at, out, pos):
    """Append the ids of the entry in a slot to `out` at `pos`, which must have room; the new `pos`."""
    v0, v1 = table.slots[at, 2], table.slots[at, 3]
    if v1 >> U40 & U1:
        begin, n = np.int64(v0 & LOW32), np.int64(v0 >> U32)
        for i in range(n):
            out[pos + i] = table.pool[begin + i]
        return pos + n
    out[pos], out[pos + 1], out[pos + 2] = np.int32(v0 & LOW32), np.int32(v0 >> U32), np.int32(v1 & LOW32)
    return pos + np.int64(v1 >> U32 & LOW8)


@numba.njit(cache=True, nogil=True)
def move_slots(old, old_entry_of, new, entry_of, slot_of):
    """Put all entries of `old` slots into the larger `new`."""
    for at in range(old.shape[0]):
        k0, k1 = old[at, 0], old[at, 1]
        if k0 == 0 and k1 == 0:
            continue
        own = k1 & ~LOW32 if (k1 >> U56) & LONG == LONG else k1
        to = slot_index(k0, own, new.shape[0])
        while new[to, 0] != 0 or new[to, 1] != 0:
            to = (to + 1) & (new.shape[0] - 1)
        new[to] = old[at]
        entry_of[to] = old_entry_of[at]
        slot_of[entry_of[to]] = to


@numba.njit(cache=True, nogil=True)
def add_settled(table, kinds, data, words, ends, ids, firsts, flags):
    """Add key k, `data[ends[k]:ends[k + 1]]`, with `ids[firsts[k]:firsts[k + 1]]` and `flags[k]`, for all k; there is room."""
    for k in range(len(kinds)):
        entry = table.used[0]
        find_or_add(table, kinds[k], data, words, ends[k], ends[k + 1])
        if table.used[0] > entry:
            set_ids(table, entry, ids[firsts[k] :], firsts[k + 1] - firsts[k], flags[k])


# ---- the table that grows -------------------------------------------------------------------------------------------


class Memo:
    """A table that grows when kernels find it full."""

    def __init__(self, n_slots: int = 1 << 12):
        self.n_slots_at_first = n_slots
        self.clear()

    def clear(self) -> None:
        """Forget every entry."""
        n = self.n_slots_at_first
        arena = np.zeros(16 * n + PAD_BYTES, np.uint8)
        self.table = Table(
            slots=np.zeros((n, 4), np.uint64),
            arena=arena,
            words=words_of(arena),
            starts=np.zeros(n // 2 + 1, np.int64),
            slot_of=np.zeros(n // 2, np.int64),
            entry_of=np.zeros(n, np.int32),
            pool=np.zeros(4 * n, np.int32),
            used=np.zeros(3, np.int64),
        )

    def __len__(self) -> int:
        return int(self.table.used[0])

    @property
    def n_bytes(self) -> int:
        """Memory that the arrays take."""
        return sum(a.nbytes for a in self.table if a is not self.table.words)

    def make_room(self, *, entries: int = 1, key_bytes: int = 0, ids: int = 0) -> None:
        """Grow, by doubling, until there is room for so many more."""
        t = self.table
        n_entries, n_bytes, n_pool = (int(n) for n in t.used)
        while n_entries + entries >= len(self.table.slot_of):
            self._double_slots()
        t = self.table
        if n_bytes + key_bytes + PAD_BYTES > len(t.arena):
            arena = np.zeros(max(2 * len(t.arena), n_bytes + key_bytes + PAD_BYTES), np.uint8)
            arena[:n_bytes] = t.arena[:n_bytes]
            t = self.table = t._replace(arena=arena, words=words_of(arena))
        if n_pool + ids > len(t.pool):
            pool = np.zeros(max(2 * len(t.pool), n_pool + ids), np.int32)
            pool[:n_pool] = t.pool[:n_pool]
            self.table = t._replace(pool=pool)

    def _double_slots(self) -> None:
        t = self.table
        n = 2 * t.slots.shape[0]
        slots, starts = np.zeros((n, 4), np.uint64), np.zeros(n // 2 + 1, np.int64)
        slot_of = np.zeros(n // 2, np.int64)
        starts[: len(t.starts)] = t.starts
        entry_of = np.zeros(n, np.int32)
        move_slots(t.slots, t.entry_of, slots, entry_of, slot_of)
        self.table = t._replace(slots=slots, starts=starts, slot_of=slot_of, entry_of=entry_of)

    def add_all(self, keys: Sequence[bytes], ids: Sequence[Sequence[int]]) -> None:
        """Add keys that are not there yet, all of one kind, with their ids."""
        data, ends = side_by_side(keys)
        firsts = np.cumsum([0, *map(len, ids)])
        self.make_room(entries=len(keys), key_bytes=len(data), ids=int(firsts[-1]))
        flat = np.array([i for own in ids for i in own], np.int32)
        kinds, flags = np.zeros(len(keys), np.uint8), np.zeros(len(keys), np.int32)
        add_settled(self.table, kinds, data, words_of(data), ends, flat, firsts, flags)

    def set_all(self, entries: NDArray[np.int64], ids: NDArray[np.int32], offsets: NDArray[np.int64], flags: NDArray[np.int64]) -> None:  # fmt: skip
        """Settle entries: k with `ids[offsets[k]:offsets[k + 1]]` and `flags[k]`."""
        self.make_room(entries=0, ids=len(ids))
        set_all(self.table, entries, ids, offsets, flags)

    def set(self, entry: int, ids: Sequence[int], flags: int = 0) -> None:
        """Settle an entry."""
        self.make_room(entries=0, ids=len(ids))
        set_ids(self.table, entry, np.array(ids, np.int32), len(ids), flags)

    def key(self, entry: int) -> bytes:
        """The bytes of an entry's key."""
        t = self.table
        return t.arena[t.starts[entry] : t.starts[entry + 1]].tobytes()

    def kind(self, entry: int) -> int:
        """The kind of an entry's key."""
        t = self.table
        return int(t.slots[t.slot_of[entry], 1] >> U56) >> 4

    def ids(self, entry: int) -> list[int]:
        """The ids of an entry."""
        at = int(self.table.slot_of[entry])
        out = np.zeros(n_ids_at(self.table, at) + 3, np.int32)
        return out[: copy_ids(self.table, at, out, 0)].tolist()

    def flags(self, entry: int) -> int:
        """The flags of an entry."""
        return int(flags_at(self.table, int(self.table.slot_of[entry])))
