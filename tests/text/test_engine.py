"""The fast tokenizer gives the tokens of the reference, bit for bit: on any text, language, preset and rules of one's own."""

import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import reference
import spacy
from fuzz import texts
from hypothesis import given
from hypothesis import strategies as st
from spacy.symbols import ORTH
from spacy.tokenizer import Tokenizer as SpacyTokenizer

from ulmpipe.text.chunks import Unsupported
from ulmpipe.text.engine import Encoded, FastTokenizer, ReferenceTokenizer, join, split_pre_rules, usable_engine
from ulmpipe.text.rules import (
    PRESETS,
    Rules,
    add_bos_eos,
    fix_markup,
    replace_rep,
    replace_wrep,
    replace_wrep_fastai2,
    rm_useless_spaces,
    scope,
    spec_add_spaces,
)
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe

NO_RULES = Rules(pre=(), post=(), specials=())


def blank(lang: str) -> Any:
    return spacy.blank(lang).tokenizer


LANGUAGES = ["en", "de", "fr", "es", "ru", "gd", "tr", "hu", "el", "ar"]


def decoded(engine: FastTokenizer, found: Encoded) -> list[list[str]]:
    return [[engine.itos[i] for i in found.ids[b:e]] for b, e in zip(found.offsets, found.offsets[1:], strict=False)]


def assert_equal_to_reference(engine: FastTokenizer, docs: list[str]) -> None:
    tokenizer = Tokenizer(engine.recipe)
    for doc, comp in zip(docs, decoded(engine, engine.encode_texts(docs)), strict=True):
        assert comp == tokenizer.tokenize(doc), repr(doc)


# ---- the same tokens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("rules", ["none", "default"])
def test_fuzzed_texts_in_languages(lang: str, rules: str):
    recipe = TokenizerRecipe(lang, NO_RULES if rules == "none" else rules)
    docs = texts(400, list(blank(lang).rules), (lang, rules))
    assert_equal_to_reference(FastTokenizer(recipe), docs)


@pytest.mark.parametrize("preset", PRESETS)
def test_fuzzed_texts_in_presets(preset: str):
    docs = texts(800, list(blank("en").rules), preset)
    engine = FastTokenizer(TokenizerRecipe("en", preset))
    assert_equal_to_reference(engine, docs)
    assert_equal_to_reference(engine, docs[::-1])  # everything is known by now


@pytest.fixture(scope="module")
def default() -> tuple[FastTokenizer, Tokenizer]:
    return FastTokenizer(), Tokenizer()


@given(text=st.text(max_size=60) | st.text(alphabet="abN'.,:)(\n\t \xa0-/$1!<>&;xr", max_size=60))
def test_any_text(default: tuple[FastTokenizer, Tokenizer], text: str):
    engine, tokenizer = default
    assert engine.tokenize(text) == tokenizer.tokenize(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "  ", "\n", " a", "a ", "  a  b  ", "a\xa0b", "pair'' ''their", "no no no no no", "x - x - x - x - x", "!!!! 4 ! 4 ! 4 ! 4",
     "aaaa a a a", "ha-ha-ha-ha-ha!", "a/b / c", "!!!!", "4444", "w/ o", "and / or", "/", "#", "(:) :(", "a( :)b", "\u2003a\u3000", "<br>", "<br", "&lt;br&gt;",
     "no — no — no — no — end", "wow 😀 wow 😀 wow 😀 wow 😀 end", "no … no … no … no …", "@-@ foo", "@.@ x", "@,@ y", "\ue000\ue000 a", "abcdefghijklmnop vawIah3TT",
     "x" * 300, "!" * 300, "\n" * 300, "a b " * 300],
)  # fmt: skip
@pytest.mark.parametrize("preset", PRESETS)
def test_traps(text: str, preset: str):
    engine, _ = usable_engine(TokenizerRecipe("en", preset), "fast")
    assert engine.tokenize(text) == Tokenizer(TokenizerRecipe("en", preset)).tokenize(text)


@pytest.mark.parametrize("n", [19_990, 20_005])
def test_very_long_chunks(n: int):
    text = "so " + "ab" * (n // 2) + " there"
    engine = FastTokenizer()
    assert engine.tokenize(text) == Tokenizer().tokenize(text) and (engine.n_cut > 0) is (n > 20_000)


def test_quadratic_text_takes_seconds():
    begin_s = time.monotonic()
    assert FastTokenizer(TokenizerRecipe(rules=NO_RULES)).tokenize("!" * 100_000) == ["!"] * 100_000
    assert time.monotonic() - begin_s < 30


def test_course_equals_the_lesson_written_down():
    engine, _ = usable_engine(TokenizerRecipe("en", "course"), "fast")
    tokenizer = blank("en")
    for special in PRESETS["course"].specials:
        tokenizer.add_special_case(special, [{ORTH: special}])
    for text in texts(200, ["can't", "a.m.", ":)"], "lesson"):
        tokens = [token.text for token in tokenizer(reference.course_text(text))]
        assert engine.tokenize(text) == reference.course_tokens(tokens)


# ---- rules of one's own ---------------------------------------------------------------------------------------------


def first_two_words(text: str) -> str:
    return " ".join(text.split()[:2])


def reversed_tokens(tokens: list[str]) -> list[str]:
    return tokens[::-1]


@scope("chunk")
def no_vowels(text: str) -> str:
    return text.translate(str.maketrans("", "", "eiou"))


@scope("document", when=("secret",))
def no_secrets(text: str) -> str:
    return text.replace("secret", "*")


@scope("gap")
def no_newlines(text: str) -> str:
    return text.replace("\n", " ")


@scope("chunk")
def x_after(text: str) -> str:
    return re.sub(r"(\S+)", r"\1x", text)


@scope("chunk")
def no_hyphens(text: str) -> str:
    return text.replace("-", " ")


def shuffled(seed: int) -> Rules:
    """The library's own pre rules, in any order."""
    pre = [rule for rules in PRESETS.values() for rule in rules.pre]
    return Rules(tuple(random.Random(seed).sample(list(dict.fromkeys(pre)), 6)), PRESETS["default"].post)


OWN = {
    "a literal with a space, late": Rules((replace_rep, fix_markup), ()),
    "two rules that look for repeated words": Rules((replace_wrep, replace_wrep_fastai2), ()),
    "a chunk rule that never comes to rest": Rules((x_after,), ()),
    "a chunk rule that makes words of a chunk": Rules((no_hyphens, replace_wrep), ()),
    "a gap rule that takes newlines away": Rules((no_newlines,), ()),
    **{f"shuffled {seed}": shuffled(seed) for seed in range(12)},
    "a document rule first": Rules((first_two_words, replace_rep, rm_useless_spaces), ()),
    "a document rule last": Rules((replace_rep, spec_add_spaces, rm_useless_spaces, first_two_words), (add_bos_eos,)),
    "a document rule that says when, last": Rules((replace_rep, no_secrets), ()),
    "a post rule of documents": Rules((), (reversed_tokens, add_bos_eos)),
    "chunks that become nothing": Rules((no_vowels,), ()),
    "spaces that stay": Rules((replace_rep, spec_add_spaces), ()),
}


@pytest.mark.parametrize("name", OWN)
def test_own_rules_are_slower_and_never_wrong(name: str):
    docs = [*texts(300, ["can't", "e", "secret", "no — no", "no-no"], name), "e", "a e b", "the secret!!!! / #", "secret", "a @-@ b",
            "no no no, end", "y no no-no-no-! z", "a(\n:)b", "a b"]  # fmt: skip
    try:
        assert_equal_to_reference(FastTokenizer(TokenizerRecipe(rules=OWN[name])), docs)
    except Unsupported as err:  # the reference engine would run
        assert name == "a chunk rule that never comes to rest" and "every letter" in str(err)


def test_split_pre_rules():
    counts = {name: split_pre_rules(rules.pre) for name, rules in (PRESETS | OWN).items()}
    assert counts["default"] == (3, False) and counts["fastai1"] == (2, True)
    assert counts["a document rule first"] == (1, True) and counts["a document rule last"] == (4, True)
    assert counts["a document rule that says when, last"] == (0, False)


# ---- tokenizers -----------------------------------------------------------------------------------------------------


def spaced_rules() -> SpacyTokenizer:
    tokenizer = blank("en")
    for rule in ("New York", "New York City", "(don't know", "a b"):
        tokenizer.add_special_case(rule, [{ORTH: rule}])
    return tokenizer


def test_own_tokenizer_with_special_cases_that_hold_spaces():
    recipe = TokenizerRecipe(rules=Rules((), (), (), tokenizer=spaced_rules))
    docs = texts(400, ["New", "York", "City", "New York", "(don't", "know", "a", "b"], "spaced")
    engine = FastTokenizer(recipe)
    assert_equal_to_reference(engine, docs)
    assert engine.counts["n_fallback"] > 50  # chunks that were looked at together


def test_tokenizer_without_rules_is_not_supported():
    with pytest.raises(Unsupported, match="ChineseTokenizer"):
        FastTokenizer(TokenizerRecipe("zh")).tokenize("字符")


def test_usable_engine_says_why_it_is_the_reference():
    engine, note = usable_engine(TokenizerRecipe("zh"), "fast")
    assert isinstance(engine, ReferenceTokenizer) and "ChineseTokenizer" in note
    assert engine.tokenize("字符")[1:-1] == ["字", "符"]
    assert usable_engine(TokenizerRecipe(), "fast")[1] == usable_engine(TokenizerRecipe(), "spacy")[1] == ""


def impure() -> SpacyTokenizer:
    tokenizer = blank("en")
    return SpacyTokenizer(tokenizer.vocab, prefix_search=lambda text: None)


def test_tokenizer_with_searches_that_are_no_regular_expressions_is_not_supported():
    with pytest.raises(Unsupported, match="regular expressions"):
        FastTokenizer(TokenizerRecipe(rules=Rules((), (), (), tokenizer=impure))).tokenize("a")


def short_urls() -> SpacyTokenizer:
    tokenizer = blank("en")
    tokenizer.url_match = re.compile(r"https?://\S+").match
    return tokenizer


def test_urls_that_need_no_full_stop():
    recipe = TokenizerRecipe(rules=Rules((), (), (), tokenizer=short_urls))
    assert FastTokenizer(recipe).tokenize("see http://localhost/a-b/c~d") == ["see", "http://localhost/a-b/c~d"]


# ---- bounds and bad input -------------------------------------------------------------------------------------------


def test_lone_surrogates_are_an_error():
    with pytest.raises(UnicodeEncodeError):
        FastTokenizer().tokenize("a \ud800")


def test_table_is_forgotten_at_its_bound_and_the_tokens_are_the_same():
    docs = texts(300, ["can't"], "bound")
    small, large = FastTokenizer(max_bytes=1), FastTokenizer()
    comp = [decoded(small, small.encode_texts(docs[i : i + 30])) for i in range(0, 300, 30)]
    assert [doc for batch in comp for doc in batch] == decoded(large, large.encode_texts(docs))
    assert small.chunks.n_forgotten == 10 and large.chunks.n_forgotten == 0


def test_long_keys_with_one_hash_are_told_apart():
    """The mixing of bytes can be run backwards, so such pairs are easily made."""
    engine = FastTokenizer(TokenizerRecipe(rules=NO_RULES))
    words = ["abcdefghijklmnop", "vawIah3TT\\mS;\"r'"]
    assert [engine.tokenize(word) for word in words] == [Tokenizer(engine.recipe).tokenize(word) for word in words]


def test_failing_token_rule_leaves_nothing_half_known():
    failing = [True]

    @scope("token")
    def fails(tokens: list[str]) -> list[str]:
        if failing[0]:
            raise KeyboardInterrupt
        return tokens

    engine = FastTokenizer(TokenizerRecipe(rules=Rules((), (fails,))))
    with pytest.raises(KeyboardInterrupt):
        engine.tokenize("hello world")
    failing[0] = False
    assert engine.tokenize("hello world") == ["hello", "world"]


def test_reset_forgets_the_numbers_too():
    engine = FastTokenizer()
    engine.tokenize("some words")
    engine.reset()
    assert engine.itos == [] and engine.tokenize("other words") == Tokenizer().tokenize("other words")


def test_fallback_is_counted():
    engine = FastTokenizer()
    engine.encode_texts(["plain words only", "x: )y", "so so so so so so end"])
    assert engine.counts["n_chunks"] == 12 and engine.counts["n_fallback"] == 2 + 7


def test_join_and_take():
    first = Encoded(np.array([1, 2, 3], np.int32), np.array([0, 2, 3]))
    second = Encoded(np.array([7, 8], np.int32), np.array([0, 0, 2]))
    both = join(first, second, np.array([True, False, True, False]))
    assert both.ids.tolist() == [1, 2, 7, 8, 3] and both.offsets.tolist() == [0, 0, 2, 4, 5]
    assert both.take(np.array([3, 1])).ids.tolist() == [3, 1, 2]


def test_reference_engine_gives_the_same():
    engine = ReferenceTokenizer()
    found = engine.encode_texts(["One two.", "", "Two"])
    assert [engine.itos[i] for i in found.ids] == [token for text in ("One two.", "", "Two") for token in Tokenizer().tokenize(text)]  # fmt: skip
    assert engine.counts["n_fallback"] == engine.counts["n_chunks"] == 3


# ---- speed and start ------------------------------------------------------------------------------------------------


def test_one_document_is_encoded_in_little_time():
    engine = FastTokenizer()
    text = "This is a review of some thirteen hundred characters, with the words that reviews have. " * 15
    engine.encode_texts([text])
    times = []
    for _ in range(50):
        begin_s = time.perf_counter()
        engine.encode_texts([text])
        times.append(time.perf_counter() - begin_s)
    assert np.median(times) < 1e-3  # 0.1 ms where nothing else runs


def test_importing_the_engine_loads_no_spacy():
    code = "import ulmpipe.text.engine, sys; print(sorted({'spacy', 'torch', 'thinc'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- real text ------------------------------------------------------------------------------------------------------


def sample(data: Path, name: str) -> tuple[str, list[str]]:
    """Texts of a corpus, and their language."""
    if name in ("imdb", "enwiki"):
        file = {"imdb": "imdb/test.parquet", "enwiki": "enwiki/valid.parquet"}[name]
        return "en", pq.read_table(data / file)["text"].to_pylist()[:150]
    if name == "wikitext2":
        return "en", (data / "wikitext2/wiki.valid.tokens").read_text().split("\n =")[:40]
    return name, (data / f"ud/{name}.txt").read_text().split("\n")[:1500]


@pytest.mark.data
@pytest.mark.parametrize("name", ["imdb", "enwiki", "wikitext2", "de", "fr", "fi"])
@pytest.mark.parametrize("preset", PRESETS)
def test_real_text(data: Path, name: str, preset: str):
    lang, docs = sample(data, name)
    engine = FastTokenizer(TokenizerRecipe(lang, preset))
    assert_equal_to_reference(engine, docs)
    assert preset != "default" or engine.counts["n_fallback"] < 0.01 * engine.counts["n_chunks"]
