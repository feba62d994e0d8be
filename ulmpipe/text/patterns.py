"""spaCy's regular expressions, taken apart: which characters they can tell from one another, and how far they look.

    compiled patterns -> alternatives -> character classes

Two characters are of one class where no alternative that could match tells them apart, so that one chunk of text can
stand for many (signatures.py). Everything here is derived from the compiled patterns, by the parser of `re` itself, and
nothing from a list made by hand. Also where patterns that take quadratic time are made linear, with equal results.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from re import _constants as sre  # pyright: ignore[reportAttributeAccessIssue]
from re import _parser as parser  # pyright: ignore[reportAttributeAccessIssue]
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer as SpacyTokenizer

UNBOUNDED = 1 << 16  # letters: more than any chunk has that is settled by its signature
CATEGORIES = {
    sre.CATEGORY_DIGIT: r"\d", sre.CATEGORY_NOT_DIGIT: r"\D", sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S", sre.CATEGORY_WORD: r"\w", sre.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip


SEARCHES = ("prefix_search", "suffix_search", "infix_finditer", "token_match", "url_match")  # of a spaCy tokenizer


class UnknownPattern(ValueError):
    """A pattern holds something that is not understood here, such as a reference to a group."""


@dataclass(frozen=True)
class Alternative:
    """What one alternative of a pattern looks at.

    `sets` and `needs` are sets of characters, each a pair (regular expression of one character, flags).
    """

    sets: frozenset[tuple[str, int]]  # every set of characters that it compares a character with
    needs: frozenset[tuple[str, int]]  # sets of which the text must hold a character, or it can't match
    n_letters: int  # how many letters in a row one match can look at, those before and after it included
    n_characters: int  # how many characters it can look at
    is_narrow: bool  # whether it names letters or digits: `km`, and not `[a-z]`


# ---- alternatives ---------------------------------------------------------------------------------------------------


def alternatives(pattern: re.Pattern[str]) -> list[Alternative]:
    """The alternatives of a compiled pattern. Raises `UnknownPattern` where it can't be taken apart."""
    return [_look(branch, branch.state.flags) for branch in _branches(pattern)]


def _look(nodes: Iterable[tuple[Any, Any]], flags: int) -> Alternative:
    """One alternative, from its part of the parse tree."""
    nodes = list(nodes)
    parts = [_look_at(op, av, flags) for op, av in nodes]
    row = longest = 0
    for node, part in zip(nodes, parts, strict=True):
        row = min(row + part.n_letters, UNBOUNDED)
        longest = max(longest, row)
        if part.n_letters == 0 and parser.SubPattern(parser.State(), [node]).getwidth()[0] > 0:
            row = 0  # a character that is no letter ends a row of them
    return Alternative(
        frozenset().union(*(part.sets for part in parts)),
        frozenset().union(*(part.needs for part in parts)),
        longest,
        min(sum(part.n_characters for part in parts), UNBOUNDED),
        any(part.is_narrow for part in parts),
    )


def _look_at(op: Any, av: Any, flags: int) -> Alternative:
    nothing: frozenset[tuple[str, int]] = frozenset()
    if op in (sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY):
        return _character(op, av, flags)
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        at_least, at_most, body = av
        seen = _look(body, flags)
        n_letters, n_characters = (
            min(n * min(int(at_most), UNBOUNDED), UNBOUNDED) for n in (seen.n_letters, seen.n_characters)
        )
        return Alternative(seen.sets, seen.needs if at_least else nothing, n_letters, n_characters, seen.is_narrow)
    if op is sre.SUBPATTERN:
        _, added, removed, body = av
        return _look(body, (flags | added) & ~removed)
    if op is sre.ATOMIC_GROUP:
        return _look(av, flags)
    if op is sre.BRANCH:
        branches = [_look(branch, flags) for branch in av[1]]
        return Alternative(
            nothing.union(*(b.sets for b in branches)),
            frozenset.intersection(*(b.needs for b in branches)),
            max(b.n_letters for b in branches),
            max(b.n_characters for b in branches),
            any(b.is_narrow for b in branches),
        )
    if op in (sre.ASSERT, sre.ASSERT_NOT):
        seen = _look(av[1], flags)
        return replace(seen, needs=seen.needs if op is sre.ASSERT else nothing)
    if op is sre.AT:
        if av in (sre.AT_BOUNDARY, sre.AT_NON_BOUNDARY):
            return Alternative(frozenset({(r"\w", flags & re.ASCII)}), nothing, 2, 2, False)
        return Alternative(nothing, nothing, 0, 0, False)
    raise UnknownPattern(f"{op}")


def _character(op: Any, av: Any, flags: int) -> Alternative:
    """A place in a pattern at which one character is compared with a set."""
    kept = flags & (re.IGNORECASE | re.ASCII | re.DOTALL)
    source = _source(op, av)
    own = frozenset({(source, int(kept))})
    names_one = (op is sre.LITERAL and chr(av).isalnum()) or (op is sre.IN and any(_names_ascii(*item) for item in av))
    items = [(op, av)] if op is sre.LITERAL else av if op is sre.IN else [(op, None)]
    can_be_letter = not all(_is_no_letter(*item) for item in items)
    return Alternative(own, own, int(can_be_letter), 1, names_one)


def _is_no_letter(kind: Any, value: Any) -> bool:
    """Whether a part of a set holds no letter for certain."""
    if kind is sre.LITERAL:
        return not chr(value).isalpha()
    return kind is sre.RANGE and (chr(value[0]), chr(value[1])) == ("0", "9")


def _names_ascii(kind: Any, value: Any) -> bool:
    """Whether a part of a set names ASCII letters or digits, and not all of a kind, as `[a-z]` does."""
    if kind is sre.LITERAL:
        return value < 128 and chr(value).isalnum()
    if kind is sre.RANGE and value[0] < 128 and chr(value[0]).isalnum():
        return (chr(value[0]), chr(value[1])) not in (("a", "z"), ("A", "Z"), ("0", "9"))
    return False


def _source(op: Any, av: Any) -> str:
    """The regular expression of one character that a node of a parse tree stands for."""
    if op is sre.ANY:
        return "."
    if op is sre.LITERAL:
        return re.escape(chr(av))
    if op is sre.NOT_LITERAL:
        return f"[^{re.escape(chr(av))}]"
    items = []
    for kind, value in av:
        if kind is sre.NEGATE:
            items.insert(0, "^")
        elif kind is sre.LITERAL:
            items.append(re.escape(chr(value)))
        elif kind is sre.RANGE:
            items.append(f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}")
        elif kind is sre.CATEGORY and value in CATEGORIES:
            items.append(CATEGORIES[value])
        else:
            raise UnknownPattern(f"{kind} {value}")
    return f"[{''.join(items)}]"


# ---- in linear time -------------------------------------------------------------------------------------------------

WINDOW = 64  # characters at the end of a text in which a suffix is looked for first
LONGEST_SUFFIX = 48


def linear_searches(tokenizer: "SpacyTokenizer") -> dict[str, Any]:
    """A tokenizer's searches; in the place of some, ones that find the same and take no quadratic time, where that is proven.

    spaCy searches the whole rest of a chunk for a suffix after each prefix that it cuts off: `"!" * 100_000` takes minutes.
    """
    names = ("prefix_search", "suffix_search", "url_match")
    searches: dict[str, Any] = {name: getattr(tokenizer, name) for name in names}
    prefix, suffix, url = (pattern_of(searches[name]) for name in names)
    if prefix and all(_begins_at_start(branch) for branch in _branches(prefix)):
        searches["prefix_search"] = prefix.match
    if suffix and all(_is_short_or_run(branch) for branch in _branches(suffix)):
        searches["suffix_search"] = SuffixSearch(suffix)
    if url and needs_full_stop(url):
        searches["url_match"] = UrlMatch(url)
    return searches


def needs_full_stop(pattern: re.Pattern[str]) -> bool:
    """Whether nothing without a full stop matches."""
    try:
        return all((r"\.", 0) in alternative.needs for alternative in alternatives(pattern))
    except UnknownPattern:
        return False


def pattern_of(function: Any) -> re.Pattern[str] | None:
    """The compiled pattern that a bound method such as `re.compile(...).search` belongs to."""
    owner = getattr(function, "__self__", None)
    return owner if isinstance(owner, re.Pattern) else None


@lru_cache(maxsize=16)
def _branches(pattern: re.Pattern[str]) -> list[Any]:
    """The alternatives of a pattern, as parts of its parse tree."""
    tree = parser.parse(pattern.pattern, pattern.flags)
    nodes = list(tree)
    if nodes and nodes[-1][0] is sre.BRANCH and all(op is sre.AT for op, _ in nodes[:-1]):
        return [parser.SubPattern(tree.state, nodes[:-1] + list(branch)) for branch in nodes[-1][1][1]]
    return [tree]


def _begins_at_start(branch: Any) -> bool:
    return len(branch) > 0 and branch[0] == (sre.AT, sre.AT_BEGINNING)


def _is_short_or_run(branch: Any) -> bool:
    """Whether an alternative of a suffix pattern ends with the text, and is short or a run of one character: `\\.\\.+$`."""
    shortest, longest = branch.getwidth()
    if len(branch) == 0 or branch[len(branch) - 1] != (sre.AT, sre.AT_END) or shortest > LONGEST_SUFFIX:
        return False
    if longest <= LONGEST_SUFFIX:
        return True
    units = [list(av[2]) if op is sre.MAX_REPEAT else [(op, av)] for op, av in branch if op is not sre.AT]
    return all(unit == units[0] and len(unit) == 1 and unit[0][0] is sre.LITERAL for unit in units)


class SuffixSearch:
    """`pattern.search` for patterns that end at the end of the text: looks at the last characters first.

    What it finds is the leftmost match in the whole text: a longer one could only be a run of one character, which
    would be found at the very begin of the window too, and then the whole text is searched.
    """

    def __init__(self, pattern: re.Pattern[str]):
        self.__self__ = pattern  # where spaCy, and we, look for the pattern of a search

    def __call__(self, text: str) -> re.Match[str] | None:
        """The first suffix that the pattern finds."""
        begin = len(text) - WINDOW
        if begin <= 0:
            return self.__self__.search(text)
        found = self.__self__.search(text, begin)  # characters before `begin` are seen by what looks behind
        return self.__self__.search(text) if found and found.start() < begin + WINDOW // 4 else found


class UrlMatch:
    """`pattern.match` for a pattern that needs a full stop: most chunks have none."""

    def __init__(self, pattern: re.Pattern[str]):
        self.__self__ = pattern

    def __call__(self, text: str) -> re.Match[str] | None:
        """The match at the begin of a text, or None."""
        return self.__self__.match(text) if "." in text else None
