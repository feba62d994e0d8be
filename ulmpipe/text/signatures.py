"""Settle a new chunk without spaCy: by another chunk that spaCy's patterns can't tell from it.

    chunk -> character classes (classes.py), long runs of letters cut short = its signature
          -> where affixes and infixes are cut off, found once for each signature -> the chunk's tokens

Why this is exact: a regular expression compares characters with sets, and what it matches can't change when a character
is replaced by one that every set it could use holds as well, or lacks as well. An alternative that needs a character the
chunk has not (units need a digit, `'s` an apostrophe) can't match, so its sets do not count. An alternative looks at a
bounded number of letters; in a longer run of them it sees the same letters everywhere. Special cases are compared by
their own bytes. What is not proven so is left for spaCy (chunks.py), and each signature's cuts are compared with spaCy's.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from .boundaries import SpecialCases, without_special_cases
from .classes import MASK_MIX, Classes
from .patterns import UNBOUNDED, needs_full_stop
from .table import (
    PAD_BYTES,
    SLOW,
    U1,
    U40,
    UNSETTLED,
    Memo,
    Table,
    copy_ids,
    find,
    find_or_add,
    n_ids_at,
    set_ids,
    words_of,
)

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer as SpacyTokenizer

MAX_BYTES = 256  # of a chunk that is settled so

# What became of a chunk.
SETTLED, ASK_SPACY, NEW_CHARACTER, NEW_MASK, NEW_SIGNATURE, ASK_URL = range(6)


class Cuts(NamedTuple):
    """Where the affix stage cuts a text, in characters, and which parts it compares with special cases on the way."""

    prefix_ends: list[int]
    suffix_begins: list[int]  # the outermost first
    inner_ends: list[int]  # of what is left between, its own end included
    looks: list[tuple[int, int, int, int]]  # begin, end, prefixes and suffixes that are cut off by then
    may_be_url: bool  # whether what is left between is compared with the URL pattern


def cut_affixes(text: str, tokenizer: "SpacyTokenizer") -> Cuts:
    """What spaCy's affix stage does to one chunk if no special case stops it, and if what is left is no URL.

    See `_split_affixes` and `_attach_tokens` in spaCy's tokenizer.pyx.
    """
    begin, end, last_size = 0, len(text), 0
    prefix_ends: list[int] = []
    suffix_begins: list[int] = []
    looks: list[tuple[int, int, int, int]] = []
    while begin < end and end - begin != last_size:
        part = text[begin:end]
        if tokenizer.token_match and tokenizer.token_match(part):
            break
        looks.append((begin, end, len(prefix_ends), len(suffix_begins)))
        last_size = end - begin
        n_prefix = tokenizer.find_prefix(part)
        if n_prefix and n_prefix < len(part):
            looks.append((begin + n_prefix, end, len(prefix_ends) + 1, len(suffix_begins)))
        n_suffix = tokenizer.find_suffix(part[n_prefix:])
        if n_suffix and n_suffix < len(part):
            looks.append((begin, end - n_suffix, len(prefix_ends), len(suffix_begins) + 1))
        if n_prefix:
            begin += n_prefix
            prefix_ends.append(begin)
        if n_suffix:
            end -= n_suffix
            suffix_begins.append(end)
    if begin == end:
        return Cuts(prefix_ends, suffix_begins, [], looks, False)
    looks.append((begin, end, len(prefix_ends), len(suffix_begins)))
    rest = text[begin:end]
    if tokenizer.token_match and tokenizer.token_match(rest):
        return Cuts(prefix_ends, suffix_begins, [end], looks, False)
    ends = [begin + place for place in _infix_ends(rest, tokenizer)]
    return Cuts(prefix_ends, suffix_begins, ends, looks, tokenizer.url_match is not None)


def _infix_ends(text: str, tokenizer: "SpacyTokenizer") -> list[int]:
    """Where tokens end if a text is cut at its infixes; one at its very beginning does not count."""
    ends: list[int] = []
    start = 0
    for match in tokenizer.find_infix(text) or ():
        if match.start() == 0:
            continue
        ends += [place for place in (match.start(), match.end()) if place > (ends[-1] if ends else 0)]
        start = match.end()
    return ends if start == len(text) else [*ends, len(text)]


def token_ends(cuts: Cuts, n: int) -> list[int]:
    """Where the tokens of a text of `n` characters end, if no special case stops the cuts."""
    ends = [*cuts.prefix_ends, *cuts.inner_ends]
    return ends + [end for end in (*cuts.suffix_begins[::-1][1:], n) if cuts.suffix_begins]


# ---- signatures -----------------------------------------------------------------------------------------------------


class SignatureArrays(NamedTuple):
    """What the kernel needs of `Classes` and `Signatures`."""

    class_of: NDArray[np.int16]  # (N_CODE_POINTS,)
    key_bits: NDArray[np.uint64]  # (n_classes,)
    reach: NDArray[np.int64]  # (n_keys,)
    letters: NDArray[np.int64]  # (n_keys,)
    n_letters: int
    mask_slots: NDArray[np.uint64]
    mask_rows: NDArray[np.int64]
    merged: NDArray[np.int16]  # (n_masks, n_classes)
    is_letter: NDArray[np.bool_]  # (n_classes,)
    url_needs_full_stop: bool
    cuts: Table  # signature -> Cuts, flattened


@dataclass
class Settled:
    """What became of n chunks: `status` (n,), and the tokens of chunk k, which end at `ends[spans[k, 0]:spans[k, 1]]`."""

    status: NDArray[np.uint8]
    spans: NDArray[np.int64]  # (n, 2)
    ends: NDArray[np.int32]  # bytes from the chunk's beginning


class Signatures:
    """The signatures of a tokenizer, as far as they were met."""

    def __init__(self, tokenizer: "SpacyTokenizer", cases: SpecialCases):
        """Raises `UnknownPattern` where the tokenizer's patterns can't be taken apart."""
        self.tokenizer, self.cases = tokenizer, cases
        self.bare = without_special_cases(tokenizer)
        self.bare.url_match = None
        finders = (tokenizer.prefix_search, tokenizer.suffix_search, tokenizer.infix_finditer, tokenizer.token_match)
        self.classes = Classes([finder.__self__ for finder in finders if finder is not None])
        url = tokenizer.url_match.__self__ if tokenizer.url_match else None
        self.url_needs_full_stop = url is None or needs_full_stop(url)
        self.cuts = Memo()
        self.n_cut = 0

    def settle(self, chunks: Table, entries: NDArray[np.int64]) -> Settled:
        """Settle chunks of a table without spaCy, as far as it is proven."""
        n, n_bytes = len(entries), int((chunks.starts[entries + 1] - chunks.starts[entries]).sum())
        status, is_url = np.full(n, NEW_MASK, np.uint8), np.full(n, -1, np.int8)
        masks, places = np.zeros(n, np.uint64), np.zeros((n, 2), np.int32)
        spans, ends = np.zeros((n, 2), np.int64), np.zeros(n_bytes + 8, np.int32)
        key = np.zeros(2 * MAX_BYTES + PAD_BYTES, np.uint8)
        n_ends, todo = 0, np.arange(n)
        while True:
            self.cuts.make_room(entries=len(todo) + 2, key_bytes=2 * n_bytes)
            c, cases = self.classes, self.cases
            arrays = SignatureArrays(c.class_of, c.key_bits, np.array(c.reach, np.int64), np.array(c.letters, np.int64), c.n_letters, c.mask_slots, c.mask_rows, c.merged, c.is_letter, self.url_needs_full_stop, self.cuts.table)  # fmt: skip
            n_ends = settle_chunks(chunks, entries, todo, arrays, cases.rules.table, cases.runs.table, cases.most_tokens, key, words_of(key), status, masks, is_url, places, spans, ends, n_ends)  # fmt: skip
            todo = np.flatnonzero(status >= NEW_CHARACTER)
            if not len(todo):
                return Settled(status, spans, ends)
            for k in np.flatnonzero(status == ASK_URL):
                begin, end = chunks.starts[entries[k]] + places[k]
                is_url[k] = bool(self.tokenizer.url_match(chunks.arena[begin:end].tobytes().decode()))
            self._learn(chunks, entries, status, masks)

    def _learn(self, chunks: Table, entries: NDArray[np.int64], status: NDArray[Any], masks: NDArray[Any]) -> None:
        """Meet new characters, masks and signatures."""
        if (status == NEW_CHARACTER).any():
            texts = [
                chunks.arena[chunks.starts[e] : chunks.starts[e + 1]].tobytes()
                for e in entries[status == NEW_CHARACTER]
            ]
            characters = set(b"".join(texts).decode())
            self.classes.classify(sorted(ord(c) for c in characters if self.classes.class_of[ord(c)] < 0))
        if (status == NEW_MASK).any():
            self.classes.add_masks(sorted(set(masks[status == NEW_MASK].tolist())))
        for entry in range(self.n_cut, len(self.cuts)):
            numbers = self._cut(np.frombuffer(self.cuts.key(entry), np.int16))
            self.cuts.make_room(ids=len(numbers))
            set_ids(self.cuts.table, entry, np.array(numbers, np.int32), len(numbers), SLOW)
        self.n_cut = len(self.cuts)

    def _cut(self, classes: NDArray[np.int16]) -> list[int]:
        """The cuts of a signature, flattened; an empty list where spaCy itself says something else."""
        text = self.classes.text(classes)
        cuts = cut_affixes(text, self.tokenizer)
        ends = token_ends(cuts, len(text))
        tokens = [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        if tokens != [token.text for token in self.bare(text)]:
            return []
        places = {
            *cuts.prefix_ends,
            *cuts.suffix_begins,
            *cuts.inner_ends,
            *(p for look in cuts.looks for p in look[:2]),
        }
        cuts_a_run = any(0 < p < len(text) and classes[p - 1] == classes[p] and text[p].isalpha() for p in places)
        looks = [number for look in cuts.looks for number in look]
        sizes = [len(part) for part in cuts[:4]]
        return [
            not cuts_a_run,
            cuts.may_be_url,
            *sizes,
            *cuts.prefix_ends,
            *cuts.suffix_begins,
            *cuts.inner_ends,
            *looks,
        ]


# ---- the kernel -----------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def decode(arena, begin, end, class_of, classes, places):
    """Classes and places (in bytes, from `begin`) of the characters of a chunk; how many, or -1 for a new character."""
    n, i = 0, begin
    while i < end:
        c = np.int64(arena[i])
        width = 1 if c < 0x80 else 2 if c < 0xE0 else 3 if c < 0xF0 else 4
        code_point = c if width == 1 else c & (0x7F >> width)
        for k in range(1, width):
            code_point = code_point << 6 | np.int64(arena[i + k] & 0x3F)
        own = class_of[code_point]
        if own < 0:
            return -1
        classes[n], places[n] = own, i - begin
        n += 1
        i += width
    places[n] = end - begin
    return n


@numba.njit(cache=True, nogil=True)
def find_row(mask, slots, rows):
    """The row of a mask that is not 0, or -1."""
    at = np.int64((mask * np.uint64(MASK_MIX) >> np.uint64(20)) & np.uint64(len(slots) - 1))
    while slots[at] != 0:
        if slots[at] == mask:
            return rows[at]
        at = (at + 1) & (len(slots) - 1)
    return -1


@numba.njit(cache=True, nogil=True)
def merge_classes(classes, n, s, near):
    """Replace each class by the first one it can't be told from where it stands.

    Returns how many letters in a row count in this chunk, and 0; or 0 and a mask that is not known yet.
    """
    n_letters = s.n_letters
    for i in range(n):
        near[i] = np.uint64(0)
    for i in range(n):
        bits = s.key_bits[classes[i]]
        if bits == 0:
            continue
        for key in range(len(s.reach)):
            if bits >> np.uint64(key) & U1:
                n_letters = max(n_letters, s.letters[key])
                for k in range(max(0, i - s.reach[key]), min(n, i + s.reach[key] + 1)):
                    near[k] |= U1 << np.uint64(key)
    last, row = np.uint64(0), 0  # the first row is that of no key
    for i in range(n):
        if near[i] != last:
            last = near[i]
            row = find_row(last, s.mask_slots, s.mask_rows) if last != 0 else 0
            if row < 0:
                return 0, last
        classes[i] = s.merged[row, classes[i]]
    return n_letters, np.uint64(0)


@numba.njit(cache=True, nogil=True)
def write_signature(classes, places, n, is_letter, most, key, key_places):
    """Write the classes of n characters into `key`, runs of one letter class cut to `most`; how many are left."""
    m, run = 0, 0
    for i in range(n):
        run = run + 1 if i > 0 and classes[i] == classes[i - 1] else 1
        if run > most and is_letter[classes[i]]:
            continue
        key[2 * m], key[2 * m + 1] = classes[i] & 0xFF, classes[i] >> 8
        key_places[m] = places[i]
        m += 1
    key_places[m] = places[n]
    return m


@numba.njit(cache=True, nogil=True)
def find_special(numbers, key_places, arena, words, begin, rules):
    """The first part that the affix stage compares with special cases and that is one: (slot of the rule, its look)."""
    look = 6 + numbers[2] + numbers[3] + numbers[4]
    for _ in range(numbers[5]):
        hit = find(rules, 0, arena, words, begin + key_places[numbers[look]], begin + key_places[numbers[look + 1]])
        if hit >= 0:
            return hit, look
        look += 4
    return -1, look - 4


@numba.njit(cache=True, nogil=True)
def expand(numbers, key_places, n_bytes, hit, look, is_url, rules, ends, lengths):
    """Where the tokens of a chunk end, in bytes, from the cuts of its signature; how many tokens."""
    n_prefixes, n_suffixes, n_inner = numbers[2], numbers[3], numbers[4]
    suffixes, inner = 6 + n_prefixes, 6 + n_prefixes + n_suffixes
    if hit >= 0:
        n_prefixes, n_suffixes = numbers[look + 2], numbers[look + 3]
    n = 0
    for i in range(n_prefixes):
        ends[n] = key_places[numbers[6 + i]]
        n += 1
    if hit >= 0:
        at = key_places[numbers[look]]
        for i in range(copy_ids(rules, hit, lengths, 0)):
            at += lengths[i]
            ends[n] = at
            n += 1
    elif is_url:
        ends[n] = key_places[numbers[look + 1]]
        n += 1
    else:
        for i in range(n_inner):
            ends[n] = key_places[numbers[inner + i]]
            n += 1
    for i in range(n_suffixes - 1, -1, -1):
        ends[n] = key_places[numbers[suffixes + i - 1]] if i > 0 else n_bytes
        n += 1
    return n


@numba.njit(cache=True, nogil=True)
def holds_run(arena, words, begin, ends, n, runs, most_tokens, sizes):
    """Whether the last stage could find a special case among the tokens."""
    for i in range(n):
        b = ends[i - 1] if i > 0 else 0
        for k in range(i, min(n, i + most_tokens)):
            at = find(runs, 0, arena, words, begin + b, begin + ends[k])
            if at < 0:
                continue
            n_sizes = copy_ids(runs, at, sizes, 0)
            place = b
            is_same = n_sizes == k + 1 - i or n_sizes == 0
            for j in range(n_sizes):
                place += sizes[j]
                is_same = is_same and place == ends[min(i + j, n - 1)]
            if is_same:
                return True
    return False


@numba.njit(cache=True, nogil=True)
def settle_chunks(chunks, entries, todo, s, rules, runs, most_tokens, key, key_words, status, masks, is_url, url_places, spans, ends, n_ends):  # fmt: skip
    """Settle `entries[todo]` as far as what is known allows; how many of `ends` are filled.

    Fills status, spans and ends (see `Settled`), `masks` where one is new, `url_places` where `is_url` is to be found.
    """
    classes, near = np.zeros(MAX_BYTES, np.int64), np.zeros(MAX_BYTES, np.uint64)
    places, key_places = np.zeros(MAX_BYTES + 1, np.int64), np.zeros(MAX_BYTES + 1, np.int64)
    numbers = np.zeros(16 * MAX_BYTES, np.int32)
    lengths, own_ends = np.zeros(MAX_BYTES, np.int32), np.zeros(MAX_BYTES, np.int64)
    for k in todo:
        begin, end = chunks.starts[entries[k]], chunks.starts[entries[k] + 1]
        if end - begin > MAX_BYTES:
            status[k] = ASK_SPACY
            continue
        n = decode(chunks.arena, begin, end, s.class_of, classes, places)
        if n < 0:
            status[k] = NEW_CHARACTER
            continue
        n_letters, new_mask = merge_classes(classes, n, s, near)
        if new_mask != 0:
            status[k], masks[k] = NEW_MASK, new_mask
            continue
        status[k] = NEW_SIGNATURE
        for most in (n_letters + 1, np.int64(UNBOUNDED)):
            m = write_signature(classes, places, n, s.is_letter, most, key, key_places)
            at = find_or_add(s.cuts, 0, key, key_words, 0, 2 * m)
            if at < 0 or s.cuts.slots[at, 3] >> U40 & np.uint64(UNSETTLED):
                break
            n_numbers = n_ids_at(s.cuts, at)
            if n_numbers == 0 or n_numbers > len(numbers):
                status[k] = ASK_SPACY
                break
            copy_ids(s.cuts, at, numbers, 0)
            if m == n or numbers[0]:
                status[k] = SETTLED
                break
        if status[k] != SETTLED:
            continue
        hit, look = find_special(numbers, key_places, chunks.arena, chunks.words, begin, rules)
        if hit < 0 and numbers[1] and is_url[k] < 0:
            url_places[k, 0], url_places[k, 1] = key_places[numbers[look]], key_places[numbers[look + 1]]
            if not s.url_needs_full_stop:
                status[k] = ASK_URL
            for i in range(begin + url_places[k, 0], begin + url_places[k, 1]):
                if chunks.arena[i] == 0x2E:
                    status[k] = ASK_URL
                    break
            if status[k] == ASK_URL:
                continue
        n_own = expand(numbers, key_places, end - begin, hit, look, is_url[k] > 0, rules, own_ends, lengths)
        if holds_run(chunks.arena, chunks.words, begin, own_ends, n_own, runs, most_tokens, lengths):
            status[k] = ASK_SPACY
            continue
        spans[k, 0], spans[k, 1] = n_ends, n_ends + n_own
        for i in range(n_own):
            ends[n_ends + i] = own_ends[i]
        n_ends += n_own
    return n_ends
