"""`tokenize` makes a whole store or none, makes none twice, and says what it could not read."""

import json
from collections import Counter
from pathlib import Path

import pytest
from filelock import FileLock
from learnable import contents

from ulmpipe import console
from ulmpipe.config import TokenizeConfig
from ulmpipe.durable import LOCK, MANIFEST
from ulmpipe.errors import ConfigError, OutputInUseError, SourceError, UlmpipeError
from ulmpipe.tasks.tokenize import tokenize, tokenize_plan
from ulmpipe.text.rules import Rules
from ulmpipe.text.source import plan_folder
from ulmpipe.text.store import TokenStore
from ulmpipe.text.tokenizer import Tokenizer
from ulmpipe.text.vocab import Vocab


def test_result_counts_what_was_read(reviews: Path, tmp_path: Path):
    (reviews / "pos/1.txt").write_text("\ufeffé 日本\n", encoding="utf-8")
    comp = tokenize(reviews, tmp_path / "out", workers=1, min_freq=1)
    texts = [path.read_text(encoding="utf-8-sig") for path in reviews.glob("*/*.txt")]
    assert comp.n_docs == 11 and comp.n_quarantined == 0 and not comp.reused
    assert comp.n_bytes == sum(len(text.encode()) for text in texts)
    assert comp.n_tokens == sum(len(Tokenizer().tokenize(text)) for text in texts)
    assert comp.vocab_size == len(TokenStore(comp.out).vocab) and comp.unknown_fraction == 0
    assert comp.labels == ["neg", "pos"] and Path(comp.out) == tmp_path / "out"


def test_token_store_is_no_text(reviews: Path, tmp_path: Path):
    store = tokenize(reviews, tmp_path / "out", workers=1).out
    with pytest.raises(SourceError, match="out is a token store already, expected texts"):
        tokenize(store, tmp_path / "again", workers=1)
    assert not (tmp_path / "again").exists()


def test_minus_one_is_a_label_like_any_other(tmp_path: Path):
    (tmp_path / "a.csv").write_text("text,label\nbad,-1\ngood,1\nnone,\n")
    comp = tokenize(tmp_path / "a.csv", tmp_path / "out", workers=1)
    assert comp.labels == ["-1", "1"] and TokenStore(comp.out).doc_labels.tolist() == [0, 1, -1]


def test_default_output_is_named_after_the_source(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert tokenize("reviews/", workers=1).out == "reviews.tok"
    assert (tmp_path / "reviews.tok" / MANIFEST).exists()


# ---- done before, or not --------------------------------------------------------------------------------------------


def test_same_again_is_reused_and_untouched(reviews: Path, tmp_path: Path):
    first = tokenize(reviews, tmp_path / "out", workers=1)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = tokenize(reviews, tmp_path / "out", workers=2)
    assert again.reused and again.seconds == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == times
    assert (again.n_docs, again.n_tokens, again.vocab_size, again.labels) == (first.n_docs, first.n_tokens, first.vocab_size, first.labels)  # fmt: skip


def test_changed_file_is_tokenized_again(reviews: Path, tmp_path: Path):
    tokenize(reviews, tmp_path / "out", workers=1, min_freq=1)
    (reviews / "neg/1.txt").write_text("something else")
    comp = tokenize(reviews, tmp_path / "out", workers=1, min_freq=1)
    store = TokenStore(comp.out)
    assert not comp.reused
    assert store.vocab.decode(store.doc(1)) == ["xxbos", "something", "else", "xxeos"]


@pytest.mark.parametrize("option", [{"rules": "course"}, {"min_freq": 1}, {"max_vocab": 12}, {"lang": "xx"}])
def test_changed_recipe_is_tokenized_again(reviews: Path, tmp_path: Path, option: dict):
    tokenize(reviews, tmp_path / "out", workers=1)
    assert not tokenize(reviews, tmp_path / "out", workers=1, **option).reused
    assert tokenize(reviews, tmp_path / "out", workers=1, **option).reused


def test_words_without_a_place_are_named(reviews: Path, tmp_path: Path):
    tokenize(reviews, tmp_path / "all", workers=1, min_freq=1)
    tokenize(reviews, tmp_path / "out", workers=1, min_freq=1, max_vocab=14)
    whole, cut = TokenStore(tmp_path / "all"), TokenStore(tmp_path / "out")
    counts = Counter(word for n in range(len(whole)) for word in whole.vocab.decode(whole.doc(n)))
    missing = [(-counts[word], word) for word in whole.vocab.itos if word not in cut.vocab.stoi and counts[word]]
    assert missing and [tuple(each) for each in cut.manifest["left_out_words"]] == [(w, -n) for n, w in sorted(missing)]
    assert "left_out_words" not in whole.manifest


def test_changed_column_is_tokenized_again(tmp_path: Path):
    (tmp_path / "a.csv").write_text("text,title,label,stars\nlong,short,x,y\n")
    options = [{}, {"text_column": "title"}, {"label_column": "stars"}]
    comp = [tokenize(tmp_path / "a.csv", tmp_path / "out", workers=1, min_freq=1, **option) for option in options]
    assert [c.reused for c in comp] == [False] * 3
    assert [c.labels for c in comp] == [["x"], ["x"], ["y"]]


def test_damaged_store_is_made_again(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tokenize(reviews, tmp_path / "out", workers=1)
    ref = contents(tmp_path / "out")
    (tmp_path / "out/shard-00000.arrow").write_bytes(ref["shard-00000.arrow"][:-8])
    assert not tokenize(reviews, tmp_path / "out", workers=1).reused
    assert contents(tmp_path / "out") == ref
    assert "truncated" in capsys.readouterr().err


# ---- interruptions --------------------------------------------------------------------------------------------------


def test_every_long_part_shows_how_far_it_is(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # fmt: skip
    monkeypatch.setattr(console, "PLAIN_INTERVAL_S", 0)
    tokenize(reviews, tmp_path / "out", workers=1)
    told = capsys.readouterr().err
    for part in ("looking at the files", "tokenize", "numbering"):
        assert f"{part} 100%" in told


# ---- outputs that are not ours --------------------------------------------------------------------------------------


def test_foreign_folder_is_refused_and_untouched(reviews: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.doc").write_text("years of work")
    with pytest.raises(UlmpipeError, match=r"holds something else \(thesis.doc\)"):
        tokenize(reviews, tmp_path / "out", workers=1)
    assert contents(tmp_path / "out") == {"thesis.doc": b"years of work"}


def test_model_folder_is_refused(reviews: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text('{"kind": "classifier"}')
    with pytest.raises(UlmpipeError, match="holds a classifier, expected a token store"):
        tokenize(reviews, tmp_path / "out", workers=1)


def test_output_in_use_is_refused(reviews: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / LOCK), pytest.raises(OutputInUseError, match="in use by another run") as caught:
        tokenize(reviews, tmp_path / "out", workers=1)
    assert caught.value.exit_code == 4
    assert tokenize(reviews, tmp_path / "out", workers=1).n_docs == 11


# ---- a vocabulary and labels that are given -------------------------------------------------------------------------


def test_given_vocabulary_is_used_and_not_extended(reviews: Path, tmp_path: Path):
    ref = Vocab([*Tokenizer().rules.specials, "film", "zebra"])
    ref.save(tmp_path / "vocab.json")
    comp = tokenize(reviews, tmp_path / "out", workers=1, vocab=str(tmp_path / "vocab.json"))
    store = TokenStore(comp.out)
    assert store.vocab.itos == ref.itos
    assert comp.unknown_fraction == pytest.approx(
        sum((store.doc(i) == 0).sum() for i in range(11)) / comp.n_tokens, abs=1e-6
    )
    assert tokenize(reviews, tmp_path / "other", workers=1, vocab=comp.out).vocab_size == len(ref)


def test_vocabulary_without_the_rules_tokens_is_refused(reviews: Path, tmp_path: Path):
    Vocab(Tokenizer().rules.specials).save(tmp_path / "vocab.json")
    with pytest.raises(ConfigError, match="lacks special tokens of --rules fastai2: xxfld"):
        tokenize(reviews, tmp_path / "out", workers=1, vocab=str(tmp_path / "vocab.json"), rules="fastai2")


def test_given_labels_keep_their_order(reviews: Path, tmp_path: Path):
    plan, config = plan_folder(reviews), TokenizeConfig(workers=1)
    comp = tokenize_plan(plan, tmp_path / "out", config, labels=["pos", "meh", "neg"])
    assert comp.labels == ["pos", "meh", "neg"]
    assert TokenStore(comp.out).doc_labels.tolist() == [2] * 5 + [0] * 6


@pytest.mark.parametrize(
    ("labels", "reason"), [(["neg"], "found labels pos, .* it has neg"), ([], "found labels neg, pos, .* it has none")]
)
def test_labels_the_training_set_has_not_are_refused(reviews: Path, tmp_path: Path, labels: list[str], reason: str):
    with pytest.raises(SourceError, match=reason):
        tokenize_plan(plan_folder(reviews), tmp_path / "out", TokenizeConfig(workers=1), labels=labels)
    assert not (tmp_path / "out" / MANIFEST).exists()


# ---- what can't be read, and how else to read -----------------------------------------------------------------------


def test_quarantine_is_reported_and_kept_in_the_manifest(
    reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for i in range(1, 5):
        (reviews / f"neg/{i}.txt").write_bytes(b"abc\xe9")
    for i in range(1, 4):
        (reviews / f"pos/{i}.txt").write_bytes(b"\xff\xfea\0")
    comp = tokenize(reviews, tmp_path / "out", workers=1)
    quarantined = json.loads((tmp_path / "out" / MANIFEST).read_text())["quarantined"]
    err = capsys.readouterr().err
    assert (comp.n_docs, comp.n_quarantined) == (4, 7)
    assert [q["source"] for q in quarantined] == [f"neg/{i}.txt" for i in range(1, 5)] + [
        f"pos/{i}.txt" for i in range(1, 4)
    ]
    assert quarantined[0]["offset"] == 3 and "UTF-16" in quarantined[-1]["reason"]
    assert err.count("iconv") == 5 and "2 more" in err


def test_names_that_are_no_utf8_reach_the_store(reviews: Path, tmp_path: Path):
    (reviews / b"pos/\xff.txt".decode("utf-8", "surrogateescape")).write_bytes(b"fine")
    (reviews / b"pos/\xfe.txt".decode("utf-8", "surrogateescape")).write_bytes(b"\xe9")
    comp = tokenize(reviews, tmp_path / "out", workers=1)
    assert (comp.n_docs, comp.n_quarantined) == (12, 1)


def test_read_function_reads_other_files(tmp_path: Path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.md").write_text("# one")
    comp = tokenize(
        tmp_path / "notes",
        tmp_path / "out",
        workers=1,
        min_freq=1,
        extensions=(".md",),
        read=lambda p: p.read_text()[2:] * 2,
    )
    store = TokenStore(comp.out)
    assert store.vocab.decode(store.doc(0)) == ["xxbos", "oneone", "xxeos"]


def read_upper(path: Path) -> str:
    return path.read_text().upper()


def read_as_it_is(path: Path) -> str:
    return path.read_text()


def test_fingerprint_knows_the_function_that_read(reviews: Path, tmp_path: Path):
    reads = (None, read_as_it_is, read_upper, read_upper)
    comp = [
        TokenStore(tokenize(reviews, tmp_path / str(i), workers=1, read=read).out).fingerprint
        for i, read in enumerate(reads)
    ]
    assert len(set(comp)) == 3 and comp[2] == comp[3]


def test_custom_rules_stand_in_for_a_preset(reviews: Path, tmp_path: Path):
    rules = Rules(pre=(str.lower,), post=())
    comp = tokenize(reviews, tmp_path / "out", workers=1, min_freq=1, custom_rules=rules)
    store = TokenStore(comp.out)
    assert store.doc_lengths[0] == 0 and store.manifest["recipe"]["rules"] == "custom"
    assert store.vocab.decode(store.doc(1))[:5] == ["review", "1", ":", "a", "neg"]
    assert not tokenize(reviews, tmp_path / "out", workers=1, min_freq=1, custom_rules=rules).reused


def test_wrong_options_are_named_together(reviews: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"'min_frq', did you mean 'min_freq'.*--rules is 'corse'"):
        tokenize(reviews, tmp_path / "out", min_frq=1, rules="corse")


def test_a_link_to_nowhere_is_a_text_that_is_missing(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (reviews / "neg/gone.txt").symlink_to(tmp_path / "elsewhere.txt")
    result = tokenize(reviews, tmp_path / "out", workers=1)
    assert result.n_docs == 11 and result.n_quarantined == 1
    assert "quarantined neg/gone.txt: can't be read: " in capsys.readouterr().err
    (tmp_path / "elsewhere.txt").write_text("it is there again")
    assert tokenize(reviews, tmp_path / "out", workers=1).n_docs == 12


def test_only_a_link_to_nowhere_is_named(tmp_path: Path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="no documents found: a.txt can't be read: .*No such file"):
        tokenize(tmp_path / "texts", tmp_path / "out", workers=1)


def test_what_was_left_out_is_told_again_when_a_store_is_used_again(
    reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (reviews / "neg/9.txt").write_bytes(b"caf\xe9")
    tokenize(reviews, tmp_path / "out", workers=1)
    capsys.readouterr()
    assert tokenize(reviews, tmp_path / "out", workers=1).reused
    assert "quarantined neg/9.txt: is not valid UTF-8" in capsys.readouterr().err


def test_a_vocabulary_has_room_for_words(reviews: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="^--max-vocab is 8, expected more than the 8 special tokens$"):
        tokenize(reviews, tmp_path / "out", workers=1, max_vocab=8)
    assert not (tmp_path / "out").exists()
