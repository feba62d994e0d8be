"""The vocabulary has one order, whatever order the counts came in, and lookups leave it as it is."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulmpipe.errors import StoreError
from ulmpipe.text.rules import COURSE_SPECIALS
from ulmpipe.text.vocab import Vocab, build_itos

ITOS = [*COURSE_SPECIALS, "the", "a", "\n", "\u2028", "日本", '"']


def test_build_itos_puts_specials_first_then_falling_count_then_the_token():
    counts = {"b": 5, "a": 5, "c": 9, "xxmaj": 100, "once": 1, "B": 5}
    comp = build_itos(counts, max_vocab=100, min_freq=2, specials=COURSE_SPECIALS)
    assert comp == [*COURSE_SPECIALS, "c", "B", "a", "b"]


def test_known_words_come_after_those_of_the_texts_once_and_within_the_limit():
    comp = build_itos(
        {"b": 2, "c": 9, "d": 1}, max_vocab=5, min_freq=2, specials=["xxunk"], known=["xxunk", "c", "d", "e", "f"]
    )
    assert comp == ["xxunk", "c", "b", "d", "e"]


@given(counts=st.dictionaries(st.text(max_size=3), st.integers(1, 4), max_size=12), data=st.data())
def test_build_itos_ignores_the_order_of_counts(counts: dict[str, int], data: st.DataObject):
    shuffled = dict(data.draw(st.permutations(list(counts.items()))))
    ref, comp = (build_itos(c, max_vocab=15, min_freq=2, specials=COURSE_SPECIALS) for c in (counts, shuffled))
    assert comp == ref
    assert len(set(comp)) == len(comp) <= 15


@pytest.mark.parametrize(("max_vocab", "ref_size"), [(0, 8), (8, 8), (9, 9), (11, 11), (100, 28)])
def test_build_itos_counts_specials_in_max_vocab(max_vocab: int, ref_size: int):
    counts = {f"w{i:02}": 20 - i for i in range(20)}
    comp = build_itos(counts, max_vocab=max_vocab, min_freq=1, specials=COURSE_SPECIALS)
    assert len(comp) == ref_size
    assert comp[8:] == [f"w{i:02}" for i in range(ref_size - 8)]


def test_encode_never_adds_what_it_does_not_know():
    vocab = Vocab(ITOS)
    assert vocab.encode(["the", "nobody", "nobody", "a"]) == [8, 0, 0, 9]
    assert len(vocab) == len(vocab.stoi) == len(ITOS)
    assert "nobody" not in vocab.stoi


@given(st.lists(st.sampled_from(ITOS)))
def test_decode_undoes_encode(tokens: list[str]):
    vocab = Vocab(ITOS)
    assert vocab.decode(vocab.encode(tokens)) == tokens


def test_save_load_round_trip(tmp_path: Path):
    ref = Vocab(ITOS)
    ref.save(tmp_path / "vocab.json")
    for path in (tmp_path / "vocab.json", tmp_path):
        comp = Vocab.load(path)
        assert comp.itos == ref.itos and comp.sha256 == ref.sha256
    assert (comp.unk_id, comp.pad_id) == (0, 1)


def test_sha256_tells_orders_apart():
    assert Vocab(ITOS).sha256 != Vocab([*ITOS[:-2], ITOS[-1], ITOS[-2]]).sha256
    assert Vocab([*ITOS, "x y"]).sha256 != Vocab([*ITOS, "x", "y"]).sha256


def test_load_takes_a_bare_list(tmp_path: Path):
    (tmp_path / "itos.json").write_text(json.dumps(ITOS))
    assert Vocab.load(tmp_path / "itos.json").itos == ITOS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b'{"itos": ["xxunk", "xx', "damaged"),
        (b"{}", "no list of tokens"),
        (b"7", "no list of tokens"),
        (b'{"itos": ["xxunk", "xxpad", "xxbos", 3]}', "no list of tokens"),
        (b'["xxunk", "xxpad", "xxbos", "a", "a"]', "twice"),
        (b'["the", "a"]', "lacks xxunk, xxpad, xxbos"),
    ],
)
def test_load_names_what_is_wrong(tmp_path: Path, content: bytes, reason: str):
    (tmp_path / "vocab.json").write_bytes(content)
    with pytest.raises(StoreError, match=reason):
        Vocab.load(tmp_path / "vocab.json")


def test_load_names_a_missing_file(tmp_path: Path):
    with pytest.raises(StoreError, match="nothing.json is missing"):
        Vocab.load(tmp_path / "nothing.json")
