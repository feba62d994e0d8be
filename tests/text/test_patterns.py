"""Patterns are taken apart rightly: what they look at, what they need, how far they see."""

import re

import pytest

from ulmpipe.text.patterns import UNBOUNDED, SuffixSearch, UnknownPattern, UrlMatch, alternatives


def sources(pattern: str, what: str) -> list[set[str]]:
    return [{source for source, _ in getattr(a, what)} for a in alternatives(re.compile(pattern))]


def test_sets_are_every_set_that_is_compared_with():
    assert sources(r"(?<=[0-9])km|[^a-z]|x?|(?:a|b+)\s", "sets") == [
        {"[0-9]", "k", "m"}, {"[^a-z]"}, {"x"}, {"a", "b", r"[\s]"},
    ]  # fmt: skip


def test_common_begin_of_all_alternatives_belongs_to_each():
    assert sources(r"^\$a|^€", "sets") == [{r"\$", "a"}, {"€"}]


@pytest.mark.parametrize(
    ("pattern", "ref"),
    [
        ("ab", {"a", "b"}),
        ("a?b", {"b"}),
        ("a+b*", {"a"}),
        ("(?:ab|ac)", {"a", "[bc]"}),
        ("(?:ab|cde)z", {"z"}),
        ("(?:ab|ba)", {"a", "b"}),
        ("(?<=a)b(?=c)", {"a", "b", "c"}),
        ("(?<!a)b(?!c)", {"b"}),
        ("a{0,3}", set()),
    ],
)
def test_needs_are_what_no_match_does_without(pattern: str, ref: set[str]):
    found = alternatives(re.compile(f"-{pattern}-"))  # not branches at the top: those are alternatives of their own
    comp = {source for source, _ in frozenset.intersection(*(a.needs for a in found))} - {r"\-"}
    assert comp == ref


@pytest.mark.parametrize(
    ("pattern", "ref"),
    [("abc", 3), (r"a\.b", 1), (r"(?<=[A-Z][A-Z])\.", 2), ("[0-9]+", 0), ("[a-z]+", UNBOUNDED), (r"\w{0,5}x", 6), (r"\.\.+", 0), (r"a(?!\.)b", 2)],
)  # fmt: skip
def test_letters_in_a_row_that_a_match_looks_at(pattern: str, ref: int):
    (alternative,) = alternatives(re.compile(pattern))
    assert alternative.n_letters == ref


@pytest.mark.parametrize(
    ("pattern", "ref"), [("km", True), ("[a-z]", False), ("[Ff]", True), ("[0-9]", False), ("[1-9]", True), (r"\d", False), ("[a-zäö]", False)]
)  # fmt: skip
def test_narrow_are_those_that_name_letters_or_digits(pattern: str, ref: bool):
    assert any(a.is_narrow for a in alternatives(re.compile(pattern))) is ref


@pytest.mark.parametrize("pattern", [r"(a)\1", r"(a)?(?(1)b|c)"])
def test_what_is_not_understood_is_said(pattern: str):
    with pytest.raises(UnknownPattern):
        alternatives(re.compile(pattern))


def test_flags_are_part_of_a_set():
    assert {flags for a in alternatives(re.compile("(?i)k")) for _, flags in a.sets} == {int(re.IGNORECASE)}


@pytest.mark.parametrize(
    "text", ["", "a", "x" * 100 + "km", "." * 100, "x" * 100 + "." * 10, "5km", "!" * 80, "x" * 61 + "km."]
)
def test_suffix_search_equals_search(text: str):
    pattern = re.compile(r"(?<=x)km$|\.\.+$|!$|(?<=km)\.$")
    ref, comp = pattern.search(text), SuffixSearch(pattern)(text)
    assert (ref and ref.span()) == (comp and comp.span())


def test_url_match_equals_match():
    pattern = re.compile(r"[a-z]+\.[a-z]+$")
    for text in ("a.b", "ab", "a.b/", ""):
        ref, comp = pattern.match(text), UrlMatch(pattern)(text)
        assert (ref and ref.span()) == (comp and comp.span())
