"""How new chunks are worked out: rules on many at once, spaces around them, and what is refused."""

import numpy as np
import pytest

from ulmpipe.errors import UlmpipeError
from ulmpipe.text.chunks import Chunks, Unsupported
from ulmpipe.text.rules import PRESETS, PostRule, PreRule, Rules, scope
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe


def chunks(*tail: PreRule, post: tuple[PostRule, ...] = ()) -> Chunks:
    return Chunks(lambda: Tokenizer(TokenizerRecipe(rules=Rules(tail, post))), tail, post)


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


def test_failure_while_chunks_are_worked_out_leaves_none_half_known(monkeypatch: pytest.MonkeyPatch):
    made = chunks()
    text = np.frombuffer(b"one two" + bytes(16), np.uint8)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Chunks, "_settle_tokens", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        made.scan(text, np.array([0, 7]), np.ones(1, np.uint8))
    ids = made.scan(text, np.array([0, 7]), np.ones(1, np.uint8))[0]
    assert [made.itos[i] for i in ids] == ["one", "two"]
