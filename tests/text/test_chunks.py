"""How new chunks are worked out: rules on many at once, spaces around them, and what is refused."""

import numpy as np
import pytest

from ulmpipe.text.chunks import Chunks, Unsupported
from ulmpipe.text.rules import PostRule, PreRule, Rules, scope
from ulmpipe.text.token_ids import TokenIds
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe


def chunks(*tail: PreRule, post: tuple[PostRule, ...] = ()) -> Chunks:
    return Chunks(lambda: Tokenizer(TokenizerRecipe(rules=Rules(tail, post))), tail, post)


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
        patch.setattr(TokenIds, "give", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        made.scan(text, np.array([0, 7]), np.ones(1, np.uint8))
    ids = made.scan(text, np.array([0, 7]), np.ones(1, np.uint8))[0]
    assert [made.tokens.itos[i] for i in ids] == ["one", "two"]
