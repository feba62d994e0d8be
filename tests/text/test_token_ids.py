"""Tokens are numbered as they come, and rules that see one token are run on all new ones at once."""

import pytest

from ulmpipe.errors import UlmpipeError
from ulmpipe.text.rules import PRESETS, scope
from ulmpipe.text.token_ids import TokenIds


def test_token_rule_that_looks_at_neighbours_is_told_so():
    post = scope("token")(lambda tokens: tokens[::2])
    with pytest.raises(UlmpipeError, match="scope 'token'"):
        TokenIds([post])._ids_of_each(["a", "b"])


def test_token_rules_see_all_new_tokens_at_once():
    made = TokenIds(PRESETS["default"].post[:2])
    ids, offsets = made._ids_of_each(["The", "END", "of"])
    assert [made.itos[i] for i in ids] == ["xxmaj", "the", "xxup", "end", "of"]
    assert offsets.tolist() == [0, 2, 4, 5]


def test_a_split_text_has_the_ids_that_its_tokens_have_one_by_one():
    made = TokenIds(PRESETS["default"].post[:2])
    tokens = ["The", "END", "of", "The", "END"]
    each, offsets = made._ids_of_each(tokens)
    assert made.of_split(tokens) == each.tolist() and len(offsets) == 6


def test_tokens_keep_their_numbers_whatever_is_forgotten():
    made = TokenIds([])
    first = made.ids(["one", "two", "one"])
    made.forget()
    assert made.ids(["two", "three", "one"]) == [first[1], 2, first[0]] and made.itos == ["one", "two", "three"]
    assert made.n_bytes > TokenIds([]).n_bytes
