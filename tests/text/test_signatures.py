"""What is settled by its signature has spaCy's tokens; what is not proven is left to spaCy."""

import random
from typing import Any

import numpy as np
import pytest
import spacy
from fuzz import chunk
from spacy.tokenizer import Tokenizer as SpacyTokenizer

from ulmpipe.text.boundaries import special_cases, without_special_cases
from ulmpipe.text.pieces import padded
from ulmpipe.text.signatures import ASK_SPACY, SETTLED, Signatures, cut_affixes, token_ends
from ulmpipe.text.table import Memo, find_or_add, words_of

LANGUAGES = ["en", "de", "fr", "es", "ru", "gd", "tr", "hu", "el", "ar"]


def signatures(tokenizer: SpacyTokenizer) -> Signatures:
    return Signatures(tokenizer, special_cases(tokenizer, without_special_cases(tokenizer)))


def settle(made: Signatures, chunks: list[str]) -> tuple[list[list[str]], np.ndarray]:
    """The tokens of each chunk that is settled, and every status."""
    memo = Memo(16)
    keys = [text.encode() for text in chunks]
    memo.make_room(entries=len(keys) + 1, key_bytes=sum(map(len, keys)))
    for key in keys:
        data = padded(key)
        find_or_add(memo.table, 0, data, words_of(data), 0, len(key))
    assert len(memo) == len(keys)
    settled = made.settle(memo.table, np.arange(len(keys)))
    found = []
    for key, (first, last) in zip(keys, settled.spans.tolist(), strict=True):
        ends = settled.ends[first:last].tolist()
        found.append([key[b:e].decode() for b, e in zip([0, *ends], ends, strict=False)])
    return found, settled.status


@pytest.mark.parametrize("lang", LANGUAGES)
def test_settled_chunks_have_the_tokens_of_spacy(lang: str):
    tokenizer: Any = spacy.blank(lang).tokenizer
    rng, rules = random.Random(lang), list(tokenizer.rules)
    chunks = sorted({part for _ in range(1500) for part in chunk(rng, rules).split()})
    found, status = settle(signatures(tokenizer), chunks)
    wrong = [(text, comp) for text, comp, s in zip(chunks, found, status, strict=True) if s == SETTLED and comp != [t.text for t in tokenizer(text)]]  # fmt: skip
    assert wrong == []
    assert (status == SETTLED).mean() > 0.7


@pytest.mark.parametrize("text", ["U$D", "A$A", "B$A", "a$", "5km", "5kn", "x's", "x't", "1.5.", "U.S", "u.s", "www.a.bc", "don't,", "(don't)", "it's", ":)", "a:)", "'60s", "100°C.", "100°X."])  # fmt: skip
def test_traps(text: str):
    """Where one letter may not stand for another: `A$` is a currency, `km` a unit, `'s` a suffix."""
    tokenizer = spacy.blank("en").tokenizer
    made = signatures(tokenizer)
    settle(made, ["A$A", "a$", "0aa", "a'a", "0.0.", "A.A", "a.a", "aa'a,", "000°A.", "'00a"])
    found, status = settle(made, [text])
    assert status[0] == ASK_SPACY or found[0] == [token.text for token in tokenizer(text)]


def test_one_chunk_stands_for_many():
    made = signatures(spacy.blank("en").tokenizer)
    words = ["".join(random.Random(i).choices("abcdefghijklmnopqrstuvwxyz", k=4 + i % 9)) + "," for i in range(300)]
    _, status = settle(made, sorted(set(words)))
    assert (status == SETTLED).mean() > 0.95 and len(made.cuts) < 10


def test_long_chunks_are_left_to_spacy():
    made = signatures(spacy.blank("en").tokenizer)
    assert settle(made, ["a" * 256, "a" * 257, "é" * 128, "é" * 129])[1].tolist() == [
        SETTLED,
        ASK_SPACY,
        SETTLED,
        ASK_SPACY,
    ]


def test_signature_on_which_spacy_disagrees_is_not_used(monkeypatch: pytest.MonkeyPatch):
    made = signatures(spacy.blank("en").tokenizer)
    monkeypatch.setattr("ulmpipe.text.signatures.token_ends", lambda cuts, n: [n])
    found, status = settle(made, ["(word)", "word"])
    assert status.tolist() == [ASK_SPACY, SETTLED] and found[1] == ["word"]


def test_cut_affixes_equals_spacy_without_special_cases():
    tokenizer = spacy.blank("en").tokenizer
    bare = without_special_cases(tokenizer)
    bare.url_match = None
    rng = random.Random(3)
    for _ in range(2000):
        for text in chunk(rng, ["a.m.", "can't"]).split():
            ends = token_ends(cut_affixes(text, tokenizer), len(text))
            assert [text[b:e] for b, e in zip([0, *ends], ends, strict=False)] == [token.text for token in bare(text)]


def test_new_characters_get_a_class_and_old_signatures_stay():
    made = signatures(spacy.blank("en").tokenizer)
    settle(made, ["word,"])
    n = len(made.classes.rows)
    found, status = settle(made, ["שלום,", "€5", "word;"])
    assert len(made.classes.rows) > n and status.tolist() == [SETTLED] * 3
    assert found == [["שלום", ","], ["€", "5"], ["word", ";"]]
