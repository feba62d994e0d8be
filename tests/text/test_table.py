"""The table is a dict from bytes to short lists, whatever the bytes are, however much it has to grow."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulmpipe.text.pieces import padded
from ulmpipe.text.table import INLINE, SLOW, UNSETTLED, Memo, find, find_or_add, words_of


def add(memo: Memo, key: bytes, kind: int = 0) -> int:
    """The entry of a key, new or not."""
    memo.make_room(key_bytes=len(key))
    data = padded(key)
    return int(memo.table.entry_of[find_or_add(memo.table, kind, data, words_of(data), 0, len(key))])


def has(memo: Memo, key: bytes, kind: int = 0) -> bool:
    data = padded(key)
    return bool(find(memo.table, kind, data, words_of(data), 0, len(key)) >= 0)


keys = st.binary(min_size=1, max_size=40) | st.sampled_from(
    [b"a", b"a\0", b"a\0\0", b"\0", b"b" * INLINE, b"b" * (INLINE + 1)]
)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 9]), keys, st.lists(st.integers(0, 2**31 - 1), max_size=6))))
def test_memo_is_a_dict(entries: list[tuple[int, bytes, list[int]]]):
    memo, ref = Memo(16), {}
    for kind, key, ids in entries:
        memo.set(add(memo, key, kind), ids)
        ref[kind, key] = ids
    comp = {(memo.kind(e), memo.key(e)): memo.ids(e) for e in range(len(memo))}
    assert comp == ref
    assert all(has(memo, key, kind) for kind, key in ref)
    assert has(memo, b"not there", 3) is False


def test_memo_grows_and_forgets(rng: np.random.Generator):
    memo = Memo(16)
    ref = {rng.bytes(int(n)): [i, i + 1, i + 2, i + 3][: i % 5] for i, n in enumerate(rng.integers(1, 60, 3000))}
    for key, ids in ref.items():
        memo.set(add(memo, key), ids)
    assert {memo.key(e): memo.ids(e) for e in range(len(memo))} == ref
    assert memo.n_bytes > 3000 * 32
    memo.clear()
    assert len(memo) == 0 and not has(memo, next(iter(ref))) and memo.n_bytes < 3000


def test_empty_key_needs_a_kind_of_its_own():
    memo = Memo(16)
    memo.set(add(memo, b"", kind=2), [7])
    assert memo.ids(0) == [7] and not has(memo, b"", kind=3)


def test_new_entries_are_unsettled_until_they_are_set():
    memo = Memo(16)
    entry = add(memo, b"new")
    assert memo.flags(entry) == SLOW | UNSETTLED and memo.ids(entry) == []
    memo.set(entry, [1, 2, 3], 64)
    assert memo.flags(entry) == 64 and memo.ids(entry) == [1, 2, 3]
    memo.set(entry, [1, 2, 3, 4], 64)
    assert memo.flags(entry) == SLOW | 64 and memo.ids(entry) == [1, 2, 3, 4]


@pytest.mark.parametrize("ids", [[[1], [2, 3], [], [4, 5, 6, 7, 8]]])
def test_set_all_and_add_all(ids: Sequence[Sequence[int]]):
    memo, other = Memo(16), Memo(16)
    texts = [b"one", b"two", b"a longer key than a slot holds", b"four"]
    other.add_all(texts, ids)
    entries = np.array([add(memo, key) for key in texts])
    flat = np.array([i for own in ids for i in own], np.int32)
    memo.set_all(entries, flat, np.cumsum([0, *map(len, ids)]), np.zeros(4, np.int64))
    assert [memo.ids(e) for e in range(4)] == [other.ids(e) for e in range(4)] == [list(own) for own in ids]


def test_kernels_stop_where_the_table_is_full():
    memo = Memo(16)
    data = padded(b"abcdefghijklmnop")
    found = [find_or_add(memo.table, 0, data, words_of(data), i, i + 1) for i in range(12)]
    assert found.count(-1) >= 4 and len(memo) == 12 - found.count(-1)


def test_words_are_read_from_any_place():
    data = padded(bytes(range(20)))
    ref = [int.from_bytes(bytes(range(20))[i : i + 8].ljust(8, b"\0"), "little") for i in range(20)]
    assert words_of(data)[:20].tolist() == ref
