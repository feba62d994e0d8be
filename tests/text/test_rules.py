"""The presets do what lesson 12 and fastai did, defects included, and `default` does what they meant."""

import html
from pathlib import Path

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from ulmpipe.errors import ConfigError
from ulmpipe.text import rules
from ulmpipe.text.rules import PRESETS, scope, scope_of
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe, build_spacy_tokenizer

# What the rules look for, in pieces that make each other's patterns when they meet.
PIECES = [
    "#39;", "amp;", "&amp;", "&", "#146;", "nbsp;", "&nbsp;", "#36;", "\\n", "quot;", "&quot;", "<br />", "<br/>", "<BR>",
    "< br >", '\\"', "<unk>", " @.@ ", " @-@ ", " @,@ ", "\\", " ", "  ", "\n", "\t", "\u00a0", "a", "aaa", "aaaa", "....",
    "...", "word ", "word\n", "no, ", "The", "I", "II", "AM", "don't", "xxunk", "xxmaj", "/", "#", "<", ">", "!!!!", "é",
    "É", "ß", "ǅ", "İ", "日本", "1", "&lt;", "&amp;lt;", "lamp;", "Hello", '"Hi', ":)", "xxbos",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=14).map("".join)

PRESET_TABLE = [
    ("default", "The END", "xxbos xxmaj the xxup end xxeos"),
    ("default", "I am", "xxbos i am xxeos"),
    ("default", "", "xxbos xxeos"),
    ("default", "so goooood", "xxbos so g xxrep 5 o d xxeos"),
    ("default", "no no no no no end", "xxbos xxwrep 5 no   end xxeos"),
    ("default", "and/or #1", "xxbos and / or # 1 xxeos"),
    ("default", "a two @-@ part, 1 @,@ 000 @.@ 5 <unk>", "xxbos a two - part , 1,000.5 xxunk xxeos"),
    ("default", "R&amp;B &amp;lt;", "xxbos xxup r&b & lt ; xxeos"),
    ("course", "The END", "xxbos xxmaj the end xxeos"),
    ("course", "McDonald", "xxbos mcdonald xxeos"),
    ("course", "R&amp;B", "xxbos r&&b xxeos"),
    ("course", "so goooood", "xxbos so g xxrep 5 o d xxeos"),
    ("course", "it#39;s", "xxbos it 's xxeos"),
    ("fastai1", "The END", "xxbos xxmaj the xxup end"),
    ("fastai1", "so goooood", "xxbos so g xxrep 5 o d"),
    ("fastai2", 'The END of "Hello', 'xxbos xxmaj the xxup end of " hello'),
    ("fastai2", "sooo ab ab ab.", "xxbos s xxrep 3 o xxwrep 3 ab ."),
    ("fastai2", "wait...", "xxbos wait …"),
]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {name: Tokenizer(TokenizerRecipe(rules=name)) for name in PRESETS}


@pytest.mark.parametrize(("preset", "text", "ref_tokens"), PRESET_TABLE)
def test_preset_table(tokenizers: dict[str, Tokenizer], preset: str, text: str, ref_tokens: str):
    comp_tokens = tokenizers[preset].tokenize(text)
    assert [t for t in comp_tokens if t.strip()] == ref_tokens.split()


@given(text=TEXTS)
def test_course_equals_lesson_on_adversarial_texts(tokenizers: dict[str, Tokenizer], text: str):
    course = tokenizers["course"]
    ref = reference.course_tokens([t.text for t in course.spacy(reference.course_text(text))])
    assert course.tokenize(text) == ref


@given(text=TEXTS)
def test_fastai2_equals_its_transcription_on_adversarial_texts(tokenizers: dict[str, Tokenizer], text: str):
    fastai2 = tokenizers["fastai2"]
    ref = reference.fastai2_tokens([t.text for t in fastai2.spacy(reference.fastai2_text(text))])
    assert fastai2.tokenize(text) == ref


@pytest.mark.data
@pytest.mark.parametrize("preset", ["course", "fastai2"])
def test_preset_equals_transcription_on_imdb(tokenizers: dict[str, Tokenizer], data: Path, preset: str):
    import pyarrow.parquet as pq

    texts = pq.read_table(data / "imdb" / "train.parquet", columns=["text"])["text"].to_pylist()[::250]
    ref_pre, ref_post = getattr(reference, f"{preset}_text"), getattr(reference, f"{preset}_tokens")
    tokenizer = tokenizers[preset]
    assert len(texts) == 100
    for text in texts:
        assert tokenizer.tokenize(text) == ref_post([t.text for t in tokenizer.spacy(ref_pre(text))])


def test_special_tokens_have_the_lessons_order():
    assert rules.COURSE_SPECIALS == ("xxunk", "xxpad", "xxbos", "xxeos", "xxrep", "xxwrep", "xxup", "xxmaj")
    assert rules.FASTAI_SPECIALS == ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj")
    assert PRESETS["course"].specials == PRESETS["default"].specials == rules.COURSE_SPECIALS
    assert PRESETS["fastai1"].specials == PRESETS["fastai2"].specials == rules.FASTAI_SPECIALS


@given(text=TEXTS.filter(lambda text: "xxup" not in text.lower()))
def test_course_never_says_xxup(tokenizers: dict[str, Tokenizer], text: str):
    assert "xxup" not in tokenizers["course"].tokenize(text + " IT IS LOUD")
    assert "xxup" in tokenizers["default"].tokenize(text + " IT IS LOUD")


@pytest.mark.parametrize("br", ["<br>", "<br/>", "<br />", "<BR>", "<Br />", "< br >", "<br\n/>", "<br  />"])
def test_default_turns_every_break_into_a_newline(tokenizers: dict[str, Tokenizer], br: str):
    assert tokenizers["default"].tokenize(f"one{br}two") == ["xxbos", "one", "\n", "two", "xxeos"]


def test_course_leaves_the_break_without_a_space_broken(tokenizers: dict[str, Tokenizer]):
    assert "br" in tokenizers["course"].tokenize("one<br/>two")
    assert "br" not in tokenizers["course"].tokenize("one<br>two<br />three")


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("&amp;", "&"), ("&amp;lt;", "&lt;"), ("&amp;amp;", "&amp;"), ("&#39;", "'"), ("&#x27;", "'"), ("#39;", "'"),
        ("amp;", "&"), ("lamp;", "lamp;"), ("&quot;x&quot;", '"x"'), ("nbsp;", "\u00a0"), ("AT&T;", "AT&T;"),
        ("&nosuchthing;", "&nosuchthing;"), ("a#36;5", "a#36;5"), ("&eacute;", "é"),
    ],
)  # fmt: skip
def test_unescape_entities_once(text: str, ref: str):
    assert rules.unescape_entities(text) == ref


@given(text=st.text(alphabet="abé<>&\"' ", max_size=20))
def test_unescape_entities_undoes_one_escape(text: str):
    escaped = html.escape(text)
    assert rules.unescape_entities(escaped) == text
    assert rules.unescape_entities(html.escape(escaped)) == escaped


@pytest.mark.parametrize(
    ("text", "ref"), [(" @.@ ", "."), ("1 @-@ 2", "1-2"), ("1 @,@ 000", "1,000"), ("<unk>", "xxunk"), ("@-@", "@-@")]
)
def test_fix_markup_undoes_wikitext(text: str, ref: str):
    assert rules.fix_markup(text) == ref


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 100])
def test_replace_rep_threshold(n: int):
    said = f"a xxrep {n} z b"
    assert rules.replace_rep("a" + "z" * n + "b").split() == (said.split() if n >= 4 else ["a" + "z" * n + "b"])
    assert rules.replace_rep_fastai2("a" + "z" * n + "b").split() == (said.split() if n >= 3 else ["a" + "z" * n + "b"])
    assert rules.replace_rep("a" + "\n" * n) == "a" + "\n" * n


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 100])
def test_replace_wrep_threshold(n: int):
    assert ("xxwrep" in rules.replace_wrep("word " * n + "end")) == (n >= 4)
    assert ("xxwrep" in rules.replace_wrep_fastai2("word " * n + "end")) == (n >= 3)
    if n >= 4:
        assert rules.replace_wrep("word " * n + "end") == f" xxwrep {n} word  end"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", ["a" * 100_000, "word " * 50_000, "a " + "!" * 100_000, "&" * 100_000, "<br" * 30_000])
def test_rules_take_linear_time(text: str):
    for preset in PRESETS.values():
        comp = text
        for rule in preset.pre:
            comp = rule(comp)
        assert comp


def test_capitals_rules_keep_the_words():
    tokens = ["The", "USA", "I", "iPhone", "ÉTÉ", "É", "", "1A", "ß"]
    assert rules.replace_all_caps(tokens) == ["The", "xxup", "usa", "I", "iPhone", "xxup", "été", "É", "", "xxup", "1a", "ß"]  # fmt: skip
    assert rules.replace_maj(["The", "I", "McX", ""]) == ["xxmaj", "the", "i", "mcx"]


def test_specials_of_every_preset_stay_whole():
    for name, preset in PRESETS.items():
        comp = [t.text for t in build_spacy_tokenizer(preset, "en")(" ".join(preset.specials))]
        assert comp == list(preset.specials), name


def test_scope_of_a_rule_is_one_of_those_there_are():
    with pytest.raises(ConfigError, match="'sentence': expected one of chunk, gap"):
        scope("sentence")
    assert scope_of(str.lower).sees == "document" and scope_of(PRESETS["default"].pre[0]).when == ("<",)
