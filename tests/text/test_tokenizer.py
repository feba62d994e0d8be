"""The tokenizer is spaCy's, with rules around it; a recipe makes the same one again."""

import re
import time
from functools import partial

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokenizer import Tokenizer as SpacyTokenizer

from ulmpipe.errors import ConfigError
from ulmpipe.text.patterns import SuffixSearch, UrlMatch, linear_searches
from ulmpipe.text.rules import PRESETS, Rules
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe, build_spacy_tokenizer, cut_long_chunks, spacy_version

NO_RULES = Rules(pre=(), post=(), specials=())


def shout(text: str) -> str:
    return text.upper()


@pytest.fixture(scope="module")
def plain() -> tuple[Tokenizer, spacy.Language]:
    return Tokenizer(TokenizerRecipe(rules=NO_RULES)), spacy.blank("en")


@given(text=st.text(max_size=40) | st.text(alphabet="ab'.,:)(\n\t \u00a0-/$1Mr", max_size=40))
def test_no_rules_equal_plain_spacy(plain: tuple[Tokenizer, spacy.Language], text: str):
    tokenizer, nlp = plain
    assert tokenizer.tokenize(text) == [token.text for token in nlp(text)]


@pytest.mark.parametrize("lang", ["de", "xx"])
def test_no_rules_equal_plain_spacy_in_other_languages(lang: str):
    text = "Ich war's, z.B. um 10.30 Uhr (d.h. früh): :) http://a.b/c?d"
    comp = Tokenizer(TokenizerRecipe(lang, NO_RULES)).tokenize(text)
    assert comp == [token.text for token in spacy.blank(lang)(text)]


def test_special_tokens_stay_whole_where_spacy_would_split_them():
    special = "<x/y>"
    assert len(spacy.blank("en")(special)) > 1
    tokenizer = build_spacy_tokenizer(Rules((), (), (special,)), "en")
    assert [token.text for token in tokenizer(f"a {special} ({special}) b")] == ["a", special, "(", special, ")", "b"]


def test_rules_run_in_order_around_spacy():
    rules = Rules(pre=(str.strip, shout), post=(lambda tokens: tokens[::-1], lambda tokens: [*tokens, "end"]))
    assert Tokenizer(TokenizerRecipe(rules=rules)).tokenize(" so, what? ") == ["?", "WHAT", ",", "SO", "end"]


@pytest.mark.parametrize("preset", PRESETS)
def test_recipe_survives_json(preset: str):
    recipe = TokenizerRecipe("de", preset)
    value = recipe.to_json()
    assert TokenizerRecipe.from_json(value) == recipe
    assert value["specials"] == list(PRESETS[preset].specials) and value["spacy"] == spacy_version()


def test_recipe_with_own_rules_asks_for_them_again():
    rules = Rules(pre=(shout,), post=())
    value = TokenizerRecipe(rules=rules).to_json()
    assert value["rules"] == "custom" and value["custom"][0].endswith("shout")
    with pytest.raises(ConfigError, match="shout"):
        TokenizerRecipe.from_json(value)
    assert TokenizerRecipe.from_json(value, rules=rules).resolved_rules is rules


def test_recipe_refuses_rules_that_are_not_those_it_was_made_with():
    rules = Rules(pre=(shout,), post=())
    value = TokenizerRecipe(rules=rules).to_json()
    others = Rules(pre=(str.lower,), post=())
    with pytest.raises(
        ConfigError, match=r"rules of your own \(.*shout\), not with rules of your own \(builtins.str.low"
    ):
        TokenizerRecipe.from_json(value, rules=others)
    with pytest.raises(ConfigError, match="made with --rules course, not with rules of your own"):
        TokenizerRecipe.from_json(TokenizerRecipe(rules="course").to_json(), rules=rules)


def test_recipe_names_rules_of_every_kind():
    rules = Rules(pre=(shout, str.lower, partial(shout)), post=())
    comp = TokenizerRecipe(rules=rules).to_json()["custom"]
    assert comp == [f"{__name__}.shout", "builtins.str.lower", "functools.partial"]


def test_unknown_preset_is_named_with_the_known():
    with pytest.raises(ConfigError, match=r"--rules corse.*default, course, fastai1, fastai2"):
        Tokenizer(TokenizerRecipe(rules="corse"))


def test_unknown_language_is_named():
    with pytest.raises(ConfigError, match="--lang qq"):
        Tokenizer(TokenizerRecipe(lang="qq"))


def test_search_that_looks_at_the_end_first_finds_what_spacy_finds():
    """The long runs are those that take spaCy minutes at a hundred times the length."""
    plain = spacy.blank("en").tokenizer
    ours = build_spacy_tokenizer(NO_RULES, "en")
    for text in (
        "!" * 600,
        "." * 600,
        "a:" * 200,
        ":)" * 150,
        "(" * 90 + "a" + "...." * 30,
        "http://a.b/" + "☃" * 90,
        "'" * 150 + "5km" + "%" * 99,
    ):
        assert [token.text for token in ours(text)] == [token.text for token in plain(text)]


@pytest.mark.parametrize("lang", ["en", "de", "fr", "es", "ru", "tr", "sv"])
def test_search_that_looks_at_the_end_first_is_proven_for_languages(lang: str):
    searches = linear_searches(spacy.blank(lang).tokenizer)
    assert type(searches["suffix_search"]) is SuffixSearch and type(searches["url_match"]) is UrlMatch
    assert searches["prefix_search"].__name__ == "match"


@pytest.mark.parametrize("suffix", [r"[!]", r"x{80}$", r"(?:ab)+$"])
def test_search_is_left_alone_where_it_could_find_something_else(suffix: str):
    tokenizer = SpacyTokenizer(spacy.blank("xx").vocab, suffix_search=re.compile(suffix).search)
    assert type(linear_searches(tokenizer)["suffix_search"]) is not SuffixSearch


def test_no_quadratic_time():
    begin_s = time.monotonic()
    tokens = Tokenizer(TokenizerRecipe(rules=NO_RULES)).tokenize("!" * 100_000)
    assert tokens == ["!"] * 100_000 and time.monotonic() - begin_s < 30  # 4 s; plain spaCy takes minutes


@pytest.mark.parametrize("n", [19_999, 20_000, 20_001, 45_000])
def test_long_chunks_are_cut_and_counted(n: int):
    text = "a " + "x" * n + " b"
    parts = cut_long_chunks(text)
    assert "".join(parts) == text and len(parts) == 1 + (n - 1) // 20_000
    tokenizer = Tokenizer(TokenizerRecipe(rules=NO_RULES))
    assert [len(token) for token in tokenizer.tokenize(text)][1:-1] == [20_000] * ((n - 1) // 20_000) + [
        (n - 1) % 20_000 + 1
    ]
    assert tokenizer.n_cut == len(parts) - 1


def test_own_tokenizer_stands_in_for_the_language():
    tokenizer = Tokenizer(TokenizerRecipe(rules=Rules((), (), (), tokenizer=only_commas)))
    assert tokenizer.tokenize("so, what? (so,)") == ["so", ",", "what?", "(so,)"]


def only_commas() -> SpacyTokenizer:
    return SpacyTokenizer(spacy.blank("xx").vocab, suffix_search=re.compile(r",$").search)


def test_spacy_version_is_the_imported_one():
    assert spacy_version() == spacy.__version__
