"""spaCy's special cases: where they could reach across white space, and what they could change within a chunk.

Its last stage looks for special cases as runs of tokens in the whole document, over white space. Such a run that crosses
a gap holds the token before it and the token after it, as neighbours; so only where the left chunk ends in the first,
and the right one begins with the second, of two neighbouring tokens of some special case, may two chunks not be looked
up apart. Everywhere else neither a match nor its shadow (a longer one suppresses those it overlaps) can cross.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from .pieces import PAD_BYTES
from .table import LOW32, Memo, find, words_of

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer as SpacyTokenizer


def without_special_cases(tokenizer: "SpacyTokenizer") -> "SpacyTokenizer":
    """The same tokenizer with its affixes only: a function of each chunk and the regular expressions."""
    from spacy.tokenizer import Tokenizer

    return Tokenizer(
        tokenizer.vocab,
        prefix_search=tokenizer.prefix_search,
        suffix_search=tokenizer.suffix_search,
        infix_finditer=tokenizer.infix_finditer,
        token_match=tokenizer.token_match,
        url_match=tokenizer.url_match,
    )


def matched_runs(tokenizer: "SpacyTokenizer", bare: "SpacyTokenizer") -> list[list[str]]:
    """The runs of tokens that the last stage looks for, one for each special case that it knows."""
    known = [
        rule
        for rule in tokenizer.rules
        if not tokenizer.faster_heuristics
        or tokenizer.find_prefix(rule)
        or tokenizer.find_infix(rule)
        or tokenizer.find_suffix(rule)
        or " " in rule
    ]
    return [[token.text for token in bare(rule)] for rule in known]


@dataclass
class SpecialCases:
    """The special cases of a tokenizer as kernels look them up.

    `matrix[r, l]` says whether a chunk that ends as `r` and one that begins as `l` are linked; 0 is "as none".
    """

    rules: Memo  # text of a rule -> bytes of each of its tokens
    runs: Memo  # the runs of tokens that the last stage looks for and would change, as one text -> bytes of each token
    most_tokens: int  # in such a run
    begins: Memo  # second tokens of neighbours in runs -> their number
    ends: Memo  # first tokens, reversed byte by byte -> their number
    matrix: NDArray[np.bool_]
    longest: int  # bytes, of a key of `begins` or `ends`

    def links_of_texts(self, data: NDArray[np.uint8], begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int32]:  # fmt: skip
        """(n, 2): how the texts `data[begins[k]:ends[k]]` could begin and end."""
        found = np.zeros((len(begins), 2), np.int32)
        back = np.zeros(self.longest + PAD_BYTES, np.uint8)
        link_texts(
            data,
            words_of(data),
            begins,
            ends,
            self.begins.table,
            self.ends.table,
            self.longest,
            back,
            words_of(back),
            found,
        )
        return found

    def links_of_tokens(
        self,
        data: NDArray[np.uint8],
        begins: NDArray[np.int64],
        spans: NDArray[np.int64],
        token_ends: NDArray[np.int32],
    ) -> NDArray[np.int32]:
        """(n, 2): how texts begin and end, by their tokens."""
        found = np.zeros((len(begins), 2), np.int32)
        back = np.zeros(self.longest + PAD_BYTES, np.uint8)
        link_tokens(data, words_of(data), begins, spans, token_ends, self.begins.table, self.ends.table, self.longest, back, words_of(back), found)  # fmt: skip
        return found


def special_cases(tokenizer: "SpacyTokenizer", bare: "SpacyTokenizer") -> SpecialCases:
    """Look at a tokenizer's rules. Raises `ValueError` where a special case holds white space as a token."""
    from spacy.symbols import ORTH

    known = matched_runs(tokenizer, bare)
    pairs = sorted({pair for run in known for pair in zip(run, run[1:], strict=False)})
    if spaced := next((pair for pair in pairs if pair[0].isspace() or pair[1].isspace()), None):
        raise ValueError(f"a special case has white space as a token: {spaced}")
    rules = {rule: [_orth(token, ORTH) for token in tokens] for rule, tokens in tokenizer.rules.items()}
    changing = [run for run in known if len(run) > 1 or rules.get(run[0], run) != run]
    sizes: dict[bytes, list[int]] = {}
    for run in changing:  # of two runs that make the same text neither's tokens are kept: any tokens are suspect
        text, own = "".join(run).encode(), [len(token.encode()) for token in run]
        sizes[text] = own if sizes.get(text, own) == own else []
    firsts = sorted({first for first, _ in pairs})
    seconds = sorted({second for _, second in pairs})
    matrix = np.zeros((len(firsts) + 1, len(seconds) + 1), np.bool_)
    longer_first = {end: [i for i, other in enumerate(firsts, 1) if other.endswith(end)] for end in firsts}
    longer_second = {begin: [i for i, other in enumerate(seconds, 1) if other.startswith(begin)] for begin in seconds}
    for first, second in pairs:
        matrix[np.ix_(longer_first[first], longer_second[second])] = True
    return SpecialCases(
        rules=_memo(
            [rule.encode() for rule in rules], [[len(t.encode()) for t in tokens] for tokens in rules.values()]
        ),
        runs=_memo(list(sizes), list(sizes.values())),
        most_tokens=max((len(run) for run in changing), default=0),
        begins=_memo([text.encode() for text in seconds]),
        ends=_memo([text.encode()[::-1] for text in firsts]),
        matrix=matrix,
        longest=max((len(text.encode()) for text in (*firsts, *seconds)), default=0),
    )


def _memo(keys: list[bytes], ids: list[list[int]] | None = None) -> Memo:
    """Keys with their ids, or with their numbers from 1 on."""
    memo = Memo(64)
    memo.add_all(keys, ids or [[number] for number in range(1, len(keys) + 1)])
    return memo


def _orth(token: Any, orth: int) -> str:
    """The text of a token in a rule; its key is the symbol or the symbol's name."""
    return token[orth] if orth in token else token["ORTH"]


@numba.njit(cache=True, nogil=True)
def link_texts(data, words, begins, ends, keys, reversed_keys, longest, back, back_words, out):
    """How the texts `data[begins[k]:ends[k]]` could begin and end, whatever their tokens are.

    out (n, 2) int32, filled: the numbers of the longest keys that they begin and end with, 0 where there is none.
    back, back_words: scratch of `longest` bytes and padding.
    """
    for k in range(len(begins)):
        n = min(longest, ends[k] - begins[k])
        for i in range(n):
            back[i] = data[ends[k] - 1 - i]
        for size in range(1, n + 1):
            at = find(keys, 0, data, words, begins[k], begins[k] + size)
            if at >= 0:
                out[k, 0] = np.int32(keys.slots[at, 2] & LOW32)
            at = find(reversed_keys, 0, back, back_words, 0, size)
            if at >= 0:
                out[k, 1] = np.int32(reversed_keys.slots[at, 2] & LOW32)


@numba.njit(cache=True, nogil=True)
def link_tokens(data, words, begins, spans, ends, keys, reversed_keys, longest, back, back_words, out):
    """The same for texts whose tokens are known: how the first one is numbered, and the last one.

    Text k begins at `begins[k]` in `data`, its tokens end at `ends[spans[k, 0]:spans[k, 1]]` from there.
    """
    for k in range(len(begins)):
        first, last = spans[k, 0], spans[k, 1] - 1
        if last < first:
            continue
        begin, end = begins[k], begins[k] + ends[last]
        at = find(keys, 0, data, words, begin, begin + ends[first])
        if at >= 0:
            out[k, 0] = np.int32(keys.slots[at, 2] & LOW32)
        n = ends[last] - (ends[last - 1] if last > first else 0)
        if n > longest:
            continue
        for i in range(n):
            back[i] = data[end - 1 - i]
        at = find(reversed_keys, 0, back, back_words, 0, n)
        if at >= 0:
            out[k, 1] = np.int32(reversed_keys.slots[at, 2] & LOW32)
