"""Chunk rules on many chunks at once: what they make of each, and what of that holds wherever the chunk stands.

    new chunks, a line each -> the pre rules of scope `chunk` and `ends`, in order -> what each chunk becomes

Between chunks.py, which asks, and rules.py. A document rule among them is not run here, but whether it could change a
document that holds the chunk is found out; gap rules are run on the final gaps (chunks.py).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from ..errors import UlmpipeError
from .pieces import padded
from .rules import PreRule, scope_of
from .scan import LEAD, REFUSED, TRAIL

_PART_OF_A_ROW = re.compile(r"\w\s*$|\b(\w+)\W+\1\b")
GUARD = "a"  # a line before and after the others: rules of scope `ends` may put something there


class Lines:
    """Many short texts without newlines, as one text with a newline after each: what rules and regular expressions are fast on."""

    def __init__(self, text: str):
        self.text = text
        self.data = padded(text.encode())
        self.ends = np.flatnonzero(self.data == 0x0A)

    @classmethod
    def of(cls, lines: Sequence[str]) -> "Lines":
        """Put texts together."""
        return cls("".join(line + "\n" for line in lines))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, k: int) -> str:
        begin = self.ends[k - 1] + 1 if k else 0
        return self.data[begin : self.ends[k]].tobytes().decode()

    def different(self, other: "Lines") -> NDArray[np.int64]:
        """The places of texts that another, with as many, has otherwise."""
        if other is self or other.text == self.text:
            return np.zeros(0, np.int64)
        differs = np.zeros(len(self), np.bool_)
        find_different(self.data, self.ends, other.data, other.ends, differs)
        return np.flatnonzero(differs)

    def apply(self, rule: PreRule) -> "Lines":
        """Run a chunk rule on all of them."""
        changed = rule(f"{GUARD}\n{self.text}{GUARD}")
        first, last = changed.find("\n") + 1, changed.rfind("\n") + 1
        new = Lines(changed[first:last])
        if len(new) != len(self):
            name = getattr(rule, "__name__", str(rule))
            raise UlmpipeError(f"the rule {name} changes white space: it is not of scope 'chunk', take its scope away")
        return self if new.text == self.text else new


class Rewritten(NamedTuple):
    """What chunk rules make of texts, `lines`; which of them want care."""

    lines: Lines
    at_repeats: Lines  # before the document rule among them that looks for repeated words
    late: list[int]  # where a document rule might change a document that holds this text
    refused: list[int]  # where what was made of a text does not hold wherever it stands


def rewrite(tail: Sequence[PreRule], lines: Lines, n_words: NDArray[np.int32] | None = None) -> Rewritten:
    """Run the chunk rules on texts; `n_words` (n,) says how many words may end in each."""
    new, at_repeats, at_gap, late = lines, lines, None, set[int]()
    for rule in tail:
        sees = scope_of(rule).sees
        if sees == "document":
            at_repeats = new if scope_of(rule).repeats else at_repeats
            late |= _late(rule, lines, new, n_words) if n_words is not None else set()
        elif sees == "gap":
            at_gap = at_gap or new
        else:
            new = new.apply(rule)
    # A word that now ends a chunk may be the first of a row, and like words may make most of one (engine.py).
    late |= {k for k in lines.different(at_repeats).tolist() if _PART_OF_A_ROW.search(at_repeats[k])}
    # Gap rules are run on the final gaps, so spaces around a chunk must have been there before them.
    refused = [k for k in at_gap.different(new).tolist() if pads_of(at_gap[k]) != pads_of(new[k])] if at_gap else []
    return Rewritten(new, at_repeats, sorted(late), refused)


def _late(rule: PreRule, lines: Lines, new: Lines, n_words: NDArray[np.int32]) -> set[int]:
    """Which lines a document rule would change, or could, by themselves."""
    scope = scope_of(rule)
    if scope.when:
        whens = [when for when in scope.when if when in new.text]
        return {k for k in range(len(new)) if any(when in new[k] for when in whens)} if whens else set()
    asked = {*np.flatnonzero(n_words >= scope.repeats - 1).tolist(), *lines.different(new).tolist()}
    return {k for k in asked if rule(new[k]) != new[k]}


def pads_of(text: str) -> int:
    """The flags for what stands around the core of a text; REFUSED for anything but a space."""
    core = text.strip()
    lead, trail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    if not core or lead not in ("", " ") or trail not in ("", " "):
        return REFUSED
    return (LEAD if lead else 0) | (TRAIL if trail else 0)


@numba.njit(cache=True, nogil=True)
def find_different(data, ends, other, other_ends, differs):
    """Set `differs[k]` where line k, which ends at `ends[k]` in `data`, is another in `other`."""
    begin = other_begin = 0
    for k in range(len(ends)):
        n = ends[k] - begin
        differs[k] = other_ends[k] - other_begin != n
        i = 0
        while i < n and not differs[k]:
            differs[k] = data[begin + i] != other[other_begin + i]
            i += 1
        begin, other_begin = ends[k] + 1, other_ends[k] + 1
