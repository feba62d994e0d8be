"""The hot loop: UTF-8 bytes in, ids out. Cut at white space, look each chunk up, append its ids.

    data, offsets (text of documents) + table (chunks.py fills it) -> ids, offsets, what was seen in each document

White space is what `str.isspace` says, and a gap is treated as spaCy treats it: one `' '` is no token, anything else is
one. What is not in the table is added, unsettled, and the document is scanned again once it is known. Nothing here knows
what a token is; proofs of why chunks can be looked up at all stand in boundaries.py.
"""

import numba
import numpy as np

from .table import (
    LOW8,
    LOW16,
    LOW32,
    SLOW,
    U1,
    U32,
    U40,
    U56,
    UNSETTLED,
    add_key,
    copy_ids,
    find_key,
    find_or_add,
    flags_at,
    make_key,
    n_ids_at,
    slot_index,
)

# Kinds of keys.
CHUNK = 0  # between two gaps
GAP = 1  # white space between two chunks
BEGIN, END = 2, 3  # white space before the first chunk, after the last one; may be empty
BLANK = 4  # a document without a chunk
JOINED = 5  # chunks that spaCy's special cases could join, with the spaces between them
JOINED_CORE = 9  # the same in a text that chunk rules have been run on
AFTER_HEAD = 4  # added to BEGIN, END and BLANK in texts that the head rules have changed already

# Flags of an entry, besides those of table.py, and of a document: those of all its entries.
LEAD, TRAIL = 4, 8  # the rules put a space before, after the chunk
BEGINS, ENDS = 16, 512  # it begins, ends with a token that a special case has after, before another one
WORD = 32  # it holds a word, as `\w` of regular expressions has it
LATE = 64  # a document rule that comes after chunk rules could change it
REWRITTEN = 128  # a chunk rule changes it
REFUSED = 256  # its document is for the reference tokenizer

MAX_KEY_BYTES = 20_000
ROOM = 8  # ids: `out` keeps room for so many more, since three are always written

WORD_BIT, TRAIL_BIT, BEGINS_BIT, ENDS_BIT = (np.uint64(flag << 40) for flag in (WORD, TRAIL, BEGINS, ENDS))
CARE_BITS = np.uint64((SLOW | UNSETTLED | LEAD | TRAIL) << 40)

# What is noted of a document, int32.
FLAGS, STREAK, N_CHUNKS, N_JOINED = range(4)

X01, X21, X80 = (np.uint64(int(byte * 8, 16)) for byte in ("01", "21", "80"))
U7 = np.uint64(7)

# State of the slow path, int64.
JOIN_BEGIN, JOIN_OUT, SEEN, JOINED_CHUNKS = range(4)


@numba.njit(cache=True, nogil=True, inline="always")
def space_width(data, i, end):
    """Bytes of the white space character at `i`; 0 where there is none. The set is that of `str.isspace`."""
    c = data[i]
    if c < 0x80:
        return 1 if c == 0x20 or 0x09 <= c <= 0x0D or 0x1C <= c <= 0x1F else 0
    if c == 0xC2:
        return 2 if i + 1 < end and (data[i + 1] == 0x85 or data[i + 1] == 0xA0) else 0
    if i + 2 >= end or not (c == 0xE1 or c == 0xE2 or c == 0xE3):
        return 0
    b, a = data[i + 1], data[i + 2]
    if c == 0xE2 and b == 0x80:  # U+2000 to U+200A, U+2028, U+2029, U+202F
        return 3 if a <= 0x8A or a == 0xA8 or a == 0xA9 or a == 0xAF else 0
    is_space = (c == 0xE2 and b == 0x81 and a == 0x9F) or (c == 0xE1 and b == 0x9A and a == 0x80)
    return 3 if is_space or (c == 0xE3 and b == 0x80 and a == 0x80) else 0


@numba.njit(cache=True, nogil=True)
def skip_space(data, i, end):
    """The end of the white space that begins at `i`."""
    while i < end:
        n = space_width(data, i, end)
        if n == 0:
            return i
        i += n
    return i


@numba.njit(cache=True, nogil=True, inline="always")
def stop_bytes(word):
    """The high bit of each byte that may end a chunk: <= 0x20 or >= 0x80. Exact up to the first one."""
    return (((word - X21) & ~word) | word) & X80


@numba.njit(cache=True, nogil=True)
def chunk_end(data, words, i, end):
    """The end of the chunk that goes on at `i`."""
    while i < end:
        stop = stop_bytes(words[i])
        if stop == 0:
            i += 8
            continue
        before = ((stop & (~stop + U1)) >> U7) - U1
        i += np.int64(((before & X01) * X01) >> U56)
        if i >= end or space_width(data, i, end) > 0:
            break
        c = data[i]
        i += 1 if c < 0xC0 else 2 if c < 0xE0 else 3 if c < 0xF0 else 4
    return min(i, end)


@numba.njit(cache=True, nogil=True)
def with_pads(kind, data, words, begin, end, n_before, n_after, scratch, scratch_words, table):
    """The slot of a gap with spaces put before and after it; -1: the table is full, -2: too long."""
    if end - begin > MAX_KEY_BYTES:
        return -2
    if n_before == 0 and n_after == 0:
        return find_or_add(table, kind, data, words, begin, end)
    n = 0
    for _ in range(n_before):
        scratch[n] = 0x20
        n += 1
    for i in range(begin, end):
        scratch[n] = data[i]
        n += 1
    for _ in range(n_after):
        scratch[n] = 0x20
        n += 1
    return find_or_add(table, kind, scratch, scratch_words, 0, n)


@numba.njit(cache=True, nogil=True)
def close_join(data, words, end, edges, table, state, out, pos):
    """Put the ids of a run of linked chunks in the place of the chunks' own; -1 where the table or `out` is full."""
    begin, state[JOIN_BEGIN] = state[JOIN_BEGIN], -1
    if end - begin > MAX_KEY_BYTES:
        state[SEEN] |= REFUSED
        return pos
    at = find_or_add(table, JOINED if edges else JOINED_CORE, data, words, begin, end)
    if at < 0 or state[JOIN_OUT] + n_ids_at(table, at) + ROOM > len(out):
        return -1
    state[SEEN] |= flags_at(table, at)
    return copy_ids(table, at, out, state[JOIN_OUT])


@numba.njit(cache=True, nogil=True)
def slow_chunk(data, words, at, begin, gap_begin, prev, prev_begin, prev_out, edges, table, links, matrix, state, out, pos, scratch, scratch_words):  # fmt: skip
    """A chunk that needs care, and the gap before it: spaces that rules put around it, links to its neighbour.

    at, prev: slots of the chunk and of the one before it, or -1. Returns where the chunk's ids begin in `out`, or -1
    where the table or `out` is full.
    """
    flags = flags_at(table, at)
    prev_flags = flags_at(table, prev) if prev >= 0 else 0
    lead = 1 if flags & LEAD else 0
    trail = 1 if prev_flags & TRAIL else 0
    is_plain = begin - gap_begin == 1 and data[gap_begin] == 0x20 and lead + trail == 0
    gap = -3  # it has no ids
    if flags & UNSETTLED or prev_flags & UNSETTLED:
        pass  # the document is scanned again: what pads there are is not known yet
    elif prev < 0 and edges:
        gap = with_pads(BEGIN + edges - 1, data, words, gap_begin, begin, 0, lead, scratch, scratch_words, table)
    elif prev >= 0 and not is_plain:
        gap = with_pads(GAP, data, words, gap_begin, begin, trail, lead, scratch, scratch_words, table)
    if gap == -1:
        return -1
    if gap == -2:
        state[SEEN] |= REFUSED
    n_gap = n_ids_at(table, gap) if gap >= 0 else 0
    is_linked = False
    if flags & BEGINS and prev_flags & ENDS and n_gap == 0:
        is_linked = matrix[links[table.entry_of[prev], 1], links[table.entry_of[at], 0]]
    if is_linked:
        if state[JOIN_BEGIN] < 0:
            state[JOIN_BEGIN], state[JOIN_OUT] = prev_begin, prev_out
            state[JOINED_CHUNKS] += 1
        state[JOINED_CHUNKS] += 1
    elif state[JOIN_BEGIN] >= 0:
        pos = close_join(data, words, gap_begin, edges, table, state, out, pos)
    if pos < 0 or pos + n_gap + n_ids_at(table, at) + ROOM > len(out):
        return -1
    if gap >= 0:
        state[SEEN] |= flags_at(table, gap)
        pos = copy_ids(table, gap, out, pos)
    return pos


@numba.njit(cache=True, nogil=True)
def blank_document(data, words, begin, end, edges, table, out, pos, note, scratch, scratch_words):
    """A document without a chunk; as `scan_document`."""
    if not edges:
        return pos
    at = with_pads(BLANK + edges - 1, data, words, begin, end, 0, 0, scratch, scratch_words, table)
    if at == -2:
        note[FLAGS] = REFUSED
        return pos
    if at < 0 or pos + n_ids_at(table, at) + ROOM > len(out):
        return -1
    note[FLAGS] = flags_at(table, at)
    return copy_ids(table, at, out, pos)


@numba.njit(cache=True, nogil=True)
def end_document(data, words, begin, end, prev, edges, table, state, out, pos, scratch, scratch_words):
    """What comes after the last chunk: the rest of a join, the white space at the end."""
    if state[JOIN_BEGIN] >= 0:
        pos = close_join(data, words, begin, edges, table, state, out, pos)
        if pos < 0:
            return -1
    if not edges or flags_at(table, prev) & UNSETTLED:
        return pos
    trail = 1 if flags_at(table, prev) & TRAIL else 0
    at = with_pads(END + edges - 1, data, words, begin, end, trail, 0, scratch, scratch_words, table)
    if at == -2:
        state[SEEN] |= REFUSED
        return pos
    if at < 0 or pos + n_ids_at(table, at) + ROOM > len(out):
        return -1
    state[SEEN] |= flags_at(table, at)
    return copy_ids(table, at, out, pos)


@numba.njit(cache=True, nogil=True)
def scan_document(data, words, begin, end, edges, table, links, matrix, out, pos, note, state, scratch, scratch_words):
    """Append the ids of the document `data[begin:end]` to `out` from `pos` on and fill its `note`.

    edges: 1, or 1 + AFTER_HEAD; 0 where the text is a part of a document and its ends are none. Returns the new `pos`,
    or -1 where the table or `out` is full and the document is to be scanned again.
    """
    slots = table.slots
    n_slots = slots.shape[0]
    most = len(out) - ROOM
    state[:] = 0
    state[JOIN_BEGIN] = -1
    note[:] = 0
    i = skip_space(data, begin, end)
    if i == end:
        return blank_document(data, words, begin, end, edges, table, out, pos, note, scratch, scratch_words)
    gap_begin = begin
    care = True  # the gap before the chunk, or the chunk before it, asks for the slow path
    seen = np.uint64(0)
    prev, prev_begin, prev_out = -1, begin, pos
    last_word, streak, longest, n_chunks = -1, 0, 0, 0
    while True:
        # ---- the chunk from i on: its key, its slot
        chunk_begin = i
        k0 = words[i]
        stop = stop_bytes(k0)
        before = ((stop & (~stop + U1)) >> U7) - U1  # ones in the bytes before the first stop
        n = np.int64(((before & X01) * X01) >> U56)
        if stop != 0 and i + n <= end and (i + n == end or data[i + n] == 0x20):
            k0 &= before
            k1 = np.uint64(n) << U56
            i += n
        else:
            i = chunk_end(data, words, i, end)
            if i - chunk_begin > MAX_KEY_BYTES:
                note[FLAGS] = REFUSED
                return pos
            k0, k1 = make_key(CHUNK, data, words, chunk_begin, i)
        at = slot_index(k0, k1, n_slots)
        if slots[at, 0] != k0 or slots[at, 1] != k1:
            at = find_key(table, k0, k1, data, chunk_begin, i)
            if at < 0:
                at = add_key(table, -1 - at, k0, k1, data, chunk_begin, i)
                if at < 0:
                    return -1
        v1 = slots[at, 3]
        seen |= v1
        n_chunks += 1
        # ---- the same word again and again
        if at == last_word:
            streak += 1
            longest = max(longest, streak)
        elif v1 & WORD_BIT:
            last_word, streak = at, 0
        # ---- its ids
        if care or v1 & CARE_BITS or (v1 & BEGINS_BIT and slots[prev, 3] & ENDS_BIT):
            pos = slow_chunk(data, words, at, chunk_begin, gap_begin, prev, prev_begin, prev_out, edges, table, links, matrix, state, out, pos, scratch, scratch_words)  # fmt: skip
            if pos < 0:
                return -1
            prev_out = pos
            pos = copy_ids(table, at, out, pos)
            care = state[JOIN_BEGIN] >= 0 or v1 & TRAIL_BIT != 0
        else:
            if pos > most:
                return -1
            v0 = slots[at, 2]
            prev_out = pos
            out[pos], out[pos + 1], out[pos + 2] = np.int32(v0 & LOW32), np.int32(v0 >> U32), np.int32(v1 & LOW32)
            pos += np.int64(v1 >> U32 & LOW8)
        prev, prev_begin = at, chunk_begin
        # ---- the gap after it
        gap_begin = i
        if i + 1 < end and data[i] == 0x20 and 0x20 < data[i + 1] < 0x80:
            i += 1
            continue
        i = skip_space(data, i, end)
        if i == end:
            break
        if i - gap_begin != 1 or data[gap_begin] != 0x20:
            care = True
    pos = end_document(data, words, gap_begin, end, prev, edges, table, state, out, pos, scratch, scratch_words)
    note[FLAGS] = np.int64(seen >> U40 & LOW16) | state[SEEN]
    note[STREAK], note[N_CHUNKS], note[N_JOINED] = longest, n_chunks, state[JOINED_CHUNKS]
    return pos


@numba.njit(cache=True, nogil=True)
def scan(data, words, offsets, edges, first, table, links, matrix, out, out_offsets, notes, scratch, scratch_words):
    """Scan the documents from `first` on, document d being `data[offsets[d]:offsets[d + 1]]`, until something is full.

    It has the `edges[d]` of `scan_document`, and gets `out[out_offsets[d]:out_offsets[d + 1]]` and `notes[d]`. Returns how
    many were scanned in all; less than there are: the table or `out` was full.
    """
    state = np.zeros(4, np.int64)
    for d in range(first, len(edges)):
        pos = scan_document(data, words, offsets[d], offsets[d + 1], edges[d], table, links, matrix, out, out_offsets[d], notes[d], state, scratch, scratch_words)  # fmt: skip
        if pos < 0:
            return d
        out_offsets[d + 1] = pos
    return len(edges)


# ---- other loops over text ------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def find_literals(data, offsets, literals, ends, is_last, found):
    """Set `found[d]` where document d holds one of the byte strings `literals[ends[k]:ends[k + 1]]`.

    is_last: (256,) bool, whether a byte is the last one of a literal.
    """
    for d in range(len(offsets) - 1):
        found[d] = False
        for i in range(offsets[d], offsets[d + 1]):
            if not is_last[data[i]]:
                continue
            for k in range(len(ends) - 1):
                n = ends[k + 1] - ends[k]
                if i + 1 - offsets[d] < n:
                    continue
                is_here = True
                for j in range(n):
                    if data[i - j] != literals[ends[k + 1] - 1 - j]:
                        is_here = False
                        break
                if is_here:
                    found[d] = True
                    break
            if found[d]:
                break


@numba.njit(cache=True, nogil=True)
def splice(data, offsets, other, other_offsets, is_other, out, out_offsets):
    """Put documents of two texts into `out`: document d is the next one of `other` where `is_other[d]`, else its own."""
    n, k = 0, 0
    for d in range(len(is_other)):
        begin, end = (other_offsets[k], other_offsets[k + 1]) if is_other[d] else (offsets[d], offsets[d + 1])
        source = other if is_other[d] else data
        for i in range(begin, end):
            out[n + i - begin] = source[i]
        n += end - begin
        k += is_other[d]
        out_offsets[d + 1] = n


@numba.njit(cache=True, nogil=True)
def join_keys(table, entries, out):
    """Write the keys of entries into `out`, a newline after each; how many bytes."""
    n = 0
    for k in range(len(entries)):
        for i in range(table.starts[entries[k]], table.starts[entries[k] + 1]):
            out[n] = table.arena[i]
            n += 1
        out[n] = 0x0A
        n += 1
    return n


@numba.njit(cache=True, nogil=True)
def describe_keys(table, entries, marks):
    """For each key: WORD where it holds a word, -1 where only what is not ASCII could be one; and how often a word ends.

    marks: (n, 2) int32, filled.
    """
    for k in range(len(entries)):
        begin, end = table.starts[entries[k]], table.starts[entries[k] + 1]
        n_words, in_word, has_word = 0, False, 0
        for i in range(begin, end):
            c = table.arena[i]
            is_word = 0x30 <= c <= 0x39 or 0x41 <= c <= 0x5A or 0x61 <= c <= 0x7A or c == 0x5F
            if (in_word and not is_word) or c >= 0x80:
                n_words += 1
            in_word = is_word
            if is_word:
                has_word = WORD
            elif c >= 0x80 and has_word == 0:
                has_word = -1
        marks[k, 0], marks[k, 1] = has_word, n_words
