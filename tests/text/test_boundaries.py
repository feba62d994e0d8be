"""Where special cases could reach across white space is seen, and everywhere else chunks stand for themselves."""

from typing import Any

import numpy as np
import pytest
import spacy
from spacy.symbols import ORTH
from spacy.tokenizer import Tokenizer as SpacyTokenizer

from ulmpipe.text.boundaries import link_texts, link_tokens, matched_runs, special_cases, without_special_cases
from ulmpipe.text.pieces import padded
from ulmpipe.text.table import PAD_BYTES, words_of


def english(*rules: str) -> SpacyTokenizer:
    tokenizer: Any = spacy.blank("en").tokenizer
    for rule in rules:
        tokenizer.add_special_case(rule, [{ORTH: rule}])
    return tokenizer


def linked(tokenizer: SpacyTokenizer, left: str, right: str) -> bool:
    """Whether a chunk that ends in `left` and one that begins with `right` are linked, by their texts."""
    cases = special_cases(tokenizer, without_special_cases(tokenizer))
    data = padded((left + right).encode())
    n = len(left.encode())
    found, back = np.zeros((2, 2), np.int32), np.zeros(cases.longest + PAD_BYTES, np.uint8)
    link_texts(data, words_of(data), np.array([0, n]), np.array([n, len(data) - PAD_BYTES]), cases.begins.table, cases.ends.table, cases.longest, back, words_of(back), found)  # fmt: skip
    return bool(cases.matrix[found[0, 1], found[1, 0]])


@pytest.mark.parametrize(
    ("left", "right", "ref"),
    [("New", "York", True), ("(New", "York)", True), ("New", "Jersey", False), ("Old", "York", False), ("a(", ":)b", True), ("a;", "b", False), ("x:", ")y", True)],
)  # fmt: skip
def test_neighbours_are_linked_where_a_special_case_could_join_them(left: str, right: str, ref: bool):
    assert linked(english("New York"), left, right) is ref


def test_longer_ends_hold_shorter_ones():
    tokenizer = english("New York", "w York")
    assert linked(tokenizer, "new", "York") and linked(tokenizer, "New", "York")


def test_runs_are_what_the_last_stage_looks_for():
    tokenizer = english("New York")
    runs = matched_runs(tokenizer, without_special_cases(tokenizer))
    assert ["New", "York"] in runs and [":", ")"] in runs


def test_white_space_inside_a_special_case_is_refused():
    tokenizer = english("New  York")
    with pytest.raises(ValueError, match="white space"):
        special_cases(tokenizer, without_special_cases(tokenizer))


def test_link_tokens_goes_by_the_tokens_and_not_by_letters():
    tokenizer = english("New York")
    cases = special_cases(tokenizer, without_special_cases(tokenizer))
    data = padded(b"NewYorkNew")
    found, back = np.zeros((2, 2), np.int32), np.zeros(cases.longest + PAD_BYTES, np.uint8)
    begins, spans, ends = np.array([0, 0]), np.array([[0, 1], [1, 4]]), np.array([10, 3, 7, 10], np.int32)
    link_tokens(data, words_of(data), begins, spans, ends, cases.begins.table, cases.ends.table, cases.longest, back, words_of(back), found)  # fmt: skip
    assert found[0].tolist() == [0, 0] and found[1, 1] > 0  # one token `NewYorkNew`; three tokens, `New` the last


def test_tokens_of_rules_are_measured_in_bytes():
    tokenizer = SpacyTokenizer(spacy.blank("xx").vocab)
    tokenizer.add_special_case("éa", [{ORTH: "é"}, {ORTH: "a"}])
    cases = special_cases(tokenizer, without_special_cases(tokenizer))
    assert [(cases.rules.key(e).decode(), cases.rules.ids(e)) for e in range(len(cases.rules))] == [("éa", [2, 1])]
