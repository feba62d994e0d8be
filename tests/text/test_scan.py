"""Text is cut where `str.isspace` says and gaps are kept as spaCy keeps them: against a plain twin, on any text."""

import sys

import numpy as np
import pytest
import reference
from fuzz import texts
from hypothesis import given
from hypothesis import strategies as st

from ulmpipe.text.pieces import PAD_BYTES, padded
from ulmpipe.text.scan import (
    BEGIN,
    BLANK,
    CHUNK,
    END,
    FLAGS,
    GAP,
    N_CHUNKS,
    STREAK,
    WORD,
    describe_keys,
    find_literals,
    scan,
    space_width,
    splice,
)  # fmt: skip
from ulmpipe.text.table import UNSETTLED, Memo, words_of

NO_LINKS = np.zeros((1, 1), np.bool_)


def scan_once(memo: Memo, docs: list[str], edges: int = 1) -> tuple[list[list[int]], np.ndarray]:
    """Scan documents with the entries that a memo has, and new ones; the ids and the notes of each."""
    memo.make_room(entries=5000, key_bytes=1 << 18, ids=1 << 16)
    data = [doc.encode() for doc in docs]
    joined, offsets = padded(b"".join(data)), np.cumsum([0, *map(len, data)])
    out, out_offsets = np.zeros(1 << 16, np.int32), np.zeros(len(docs) + 1, np.int64)
    notes, scratch = np.zeros((len(docs), 4), np.int32), np.zeros(40_000, np.uint8)
    links = np.zeros((len(memo.table.slot_of), 2), np.int32)
    all_edges = np.full(len(docs), edges, np.uint8)
    done = scan(joined, words_of(joined), offsets, all_edges, 0, memo.table, links, NO_LINKS, out, out_offsets, notes, scratch, words_of(scratch))  # fmt: skip
    assert done == len(docs)
    return [out[b:e].tolist() for b, e in zip(out_offsets, out_offsets[1:], strict=False)], notes


def settle_by_number(memo: Memo) -> None:
    """Give every entry its own number as its id."""
    for entry in range(len(memo)):
        memo.set(entry, [entry])


def test_white_space_is_that_of_python():
    for code_point in (*range(0xD800), *range(0xE000, sys.maxunicode + 1)):
        data = chr(code_point).encode()
        ref = len(data) if chr(code_point).isspace() else 0
        assert space_width(np.frombuffer(data + bytes(PAD_BYTES), np.uint8), 0, len(data)) == ref, hex(code_point)


def test_white_space_cut_off_at_the_end_is_none():
    data = np.frombuffer("\u2003".encode() + bytes(PAD_BYTES), np.uint8)
    assert [space_width(data, 0, end) for end in (1, 2, 3)] == [0, 0, 3]


pieces = st.text(alphabet="ab \n\t\xa0\u2003\u3000\u200b\u180e\x00\x1céß😀.", max_size=60) | st.text(max_size=40)


@given(docs=st.lists(pieces, min_size=1, max_size=5))
def test_scan_finds_the_chunks_and_gaps_of_the_twin(docs: list[str]):
    docs = [doc.encode("utf-8", "ignore").decode() for doc in docs]
    memo = Memo(16)
    _, notes = scan_once(memo, docs)
    settle_by_number(memo)
    ids, _ = scan_once(memo, docs)
    settle_by_number(memo)  # gaps come up once the chunks around them are known
    ids, notes = scan_once(memo, docs)
    kinds = {"chunk": CHUNK, "gap": GAP, "begin": BEGIN, "end": END, "blank": BLANK}
    ref = [[(kinds[kind], text.encode()) for kind, text in reference.chunks_and_gaps(doc)] for doc in docs]
    assert [[(memo.kind(e), memo.key(e)) for e in own] for own in ids] == ref
    assert notes[:, N_CHUNKS].tolist() == [len(doc.split()) for doc in docs]


def test_scan_of_parts_has_no_ends():
    memo = Memo(16)
    scan_once(memo, ["one two"], edges=0)
    assert [memo.key(e) for e in range(len(memo))] == [b"one", b"two"]


def test_scan_says_what_it_does_not_know_yet():
    memo = Memo(16)
    _, notes = scan_once(memo, ["a b"])
    assert notes[0, FLAGS] & UNSETTLED
    settle_by_number(memo)
    scan_once(memo, ["a b"])
    settle_by_number(memo)
    _, notes = scan_once(memo, ["a b"])
    assert not notes[0, FLAGS] & UNSETTLED


@pytest.mark.parametrize(
    ("text", "ref"),
    [("no no no", 2), ("no - no - no", 2), ("no yes no", 0), ("no no yes no no no", 2), ("- - - -", 0), ("é é", 1)],
)
def test_streak_counts_like_words_in_a_row(text: str, ref: int):
    memo = Memo(16)
    scan_once(memo, [text])
    marks = np.zeros((len(memo), 2), np.int32)
    describe_keys(memo.table, np.arange(len(memo)), marks)
    for entry in range(len(memo)):
        memo.set(entry, [], WORD if memo.kind(entry) == CHUNK and marks[entry, 0] else 0)
    assert scan_once(memo, [text])[1][0, STREAK] == ref


def test_describe_keys():
    memo = Memo(16)
    scan_once(memo, ["a-b-c ... d, é"])
    marks = np.zeros((len(memo), 2), np.int32)
    describe_keys(memo.table, np.arange(len(memo)), marks)
    ref = {b"a-b-c": (WORD, 2), b"...": (0, 0), b"d,": (WORD, 1)}
    comp = {memo.key(e): tuple(marks[e].tolist()) for e in range(len(memo))}
    assert {key: comp[key] for key in ref} == ref and comp["é".encode()][0] == -1


def test_find_literals_equals_in():
    literals = [b"<", b"&", b"amp;", b" @", b"<br />"]
    docs = [doc.encode() for doc in texts(300, ["a", "amp;"], 1)] + [b"", b"amp", b";", b" @"]
    ends = np.cumsum([0, *map(len, literals)])
    is_last = np.zeros(256, np.bool_)
    is_last[[literal[-1] for literal in literals]] = True
    found = np.ones(len(docs), np.bool_)
    find_literals(padded(b"".join(docs)), np.cumsum([0, *map(len, docs)]), np.frombuffer(b"".join(literals), np.uint8), ends, is_last, found)  # fmt: skip
    assert found.tolist() == [any(literal in doc for literal in literals) for doc in docs]


def test_splice_takes_documents_in_order():
    own, other = [b"a", b"", b"ccc", b"d"], [b"XX", b"Y"]
    is_other = np.array([False, True, False, True])
    out, offsets = np.zeros(32, np.uint8), np.zeros(5, np.int64)
    splice(padded(b"".join(own)), np.array([0, 1, 1, 4, 5]), padded(b"".join(other)), np.array([0, 2, 3]), is_other, out, offsets)  # fmt: skip
    assert bytes(out[: offsets[-1]]) == b"aXXcccY" and offsets.tolist() == [0, 1, 3, 6, 7]
