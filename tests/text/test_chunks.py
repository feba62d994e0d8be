"""How new chunks are worked out: rules on many at once, spaces around them, and what is refused."""

import numpy as np
import pytest

from ulmpipe.errors import UlmpipeError
from ulmpipe.text.chunks import Chunks, Lines, Unsupported, pads_of
from ulmpipe.text.rules import PRESETS, PostRule, PreRule, Rules, replace_rep, rm_useless_spaces, scope, spec_add_spaces
from ulmpipe.text.scan import LEAD, REFUSED, TRAIL
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe


def chunks(*tail: PreRule, post: tuple[PostRule, ...] = ()) -> Chunks:
    return Chunks(lambda: Tokenizer(TokenizerRecipe(rules=Rules(tail, post))), tail, post)


@pytest.mark.parametrize(
    ("text", "ref"),
    [("a", 0), (" a", LEAD), ("a ", TRAIL), (" a b ", LEAD | TRAIL), ("  a", REFUSED), ("a\n", REFUSED), ("", REFUSED), (" ", REFUSED)],
)  # fmt: skip
def test_pads_of(text: str, ref: int):
    assert pads_of(text) == ref


def test_lines_are_many_texts_in_one():
    lines = Lines.of(["one", "", "drei ß"])
    assert len(lines) == 3 and [lines[k] for k in range(3)] == ["one", "", "drei ß"]
    other = Lines.of(["one", "x", "drei s"])
    assert lines.different(other).tolist() == [1, 2] and lines.different(lines).tolist() == []
    assert [lines.apply(str.upper)[k] for k in range(3)] == ["ONE", "", "DREI SS"]


def test_chunk_rule_that_changes_white_space_is_told_so():
    with pytest.raises(UlmpipeError, match="scope 'chunk'"):
        Lines.of(["a", "b"]).apply(lambda text: text.replace("\n", " "))


def test_rewrite_runs_chunk_rules_and_leaves_gap_rules():
    made = chunks(replace_rep, spec_add_spaces, rm_useless_spaces)
    new = made.rewrite(Lines.of(["a/b", "so!!!!", "plain"])).lines
    assert [new[k] for k in range(3)] == ["a / b", "so xxrep 4 ! ", "plain"]


def test_chunk_that_a_late_rule_pads_after_gaps_were_closed_is_refused():
    pad = scope("chunk")(lambda text: text.replace("x", " x"))
    made = chunks(rm_useless_spaces, pad)
    assert made.rewrite(Lines.of(["xa", "ax", "a"])).refused == [0]


def test_token_rule_that_looks_at_neighbours_is_told_so():
    post = scope("token")(lambda tokens: tokens[::2])
    with pytest.raises(UlmpipeError, match="scope 'token'"):
        chunks(post=(post,))._ids_of_each(["a", "b"])


def test_token_rules_see_all_new_tokens_at_once():
    made = chunks(post=PRESETS["default"].post[:2])
    ids, offsets = made._ids_of_each(["The", "END", "of"])
    assert [made.itos[i] for i in ids] == ["xxmaj", "the", "xxup", "end", "of"]
    assert offsets.tolist() == [0, 2, 4, 5]


def test_rules_that_change_every_letter_are_not_supported():
    made = chunks(scope("chunk")(lambda text: text.upper()))
    with pytest.raises(Unsupported, match="every letter"):
        _ = made.probe


def test_forget_keeps_the_numbers_of_tokens():
    made = chunks()
    text = np.frombuffer(b"one two" + bytes(16), np.uint8)
    first = made.scan(text, np.array([0, 7]), np.ones(1, np.uint8))[0].tolist()
    made.forget()
    assert len(made.memo) == 0
    assert made.scan(text, np.array([0, 7]), np.ones(1, np.uint8))[0].tolist() == first
