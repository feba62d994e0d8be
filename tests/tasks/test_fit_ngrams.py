"""Words of classes are found, held-out logits know nothing of their labels, and guesses help or are not used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learnable import BAD, GOOD, TINY_CLASSIFIER, Trained, make_docs, write_csv
from torch.nn import functional as F

from ulmpipe.models.ngrams import NGramScores, distinct_rows
from ulmpipe.tasks import classify
from ulmpipe.tasks.classify import classifier_learner
from ulmpipe.tasks.corpus import hold_out
from ulmpipe.tasks.finetune import finetune
from ulmpipe.tasks.fit_ngrams import (
    Bags,
    FittedNGrams,
    bucket_count,
    fit_ngrams,
    keep_frequent,
    read_rows,
)
from ulmpipe.tasks.predict import from_pretrained
from ulmpipe.text.batches import Docs
from ulmpipe.text.padding import pad_documents
from ulmpipe.text.store import TokenStore

V, PAD_ID = 40, 1
pytestmark = pytest.mark.usefixtures("undrawn")

SHAPE = {"vocab_size": V, "n_specials": 2, "n_buckets": 64}
GIVEN: dict[str, Any] = {"vocab_size": V, "n_specials": 2, "pad_id": PAD_ID, "max_tokens": 100, "seed": 0}
ALONE: dict[str, Any] = {**GIVEN, "unlabelled": np.empty(0, np.int64)}


def docs_of_classes(
    n: int, n_classes: int = 2, *, sure: float = 1.0, seed: int = 0
) -> tuple[list[list[int]], np.ndarray]:
    """Documents of noise; with a chance of `sure` the word of their class is among it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    docs = [rng.integers(10, V, rng.integers(3, 12)).tolist() for _ in range(n)]
    for doc, label in zip(docs, labels, strict=True):
        if rng.random() < sure:
            doc[rng.integers(len(doc))] = 2 + int(label)
    return docs, labels


def scores_of(fitted: FittedNGrams, docs: list[list[int]]) -> torch.Tensor:
    ngrams = NGramScores(V, len(fitted.bias), n_buckets=fitted.n_buckets, n_specials=2)
    ngrams.load_state_dict({"table": fitted.table, "bias": fitted.bias})
    return ngrams(*map(torch.from_numpy, pad_documents(docs, pad_id=PAD_ID, max_tokens=100)))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_words_of_classes_are_found(n_classes: int):
    docs, labels = docs_of_classes(120, n_classes)
    fitted = fit_ngrams(Docs.from_ids(docs, labels.tolist()), np.arange(90), n_classes, **ALONE)
    assert (scores_of(fitted, docs[90:]).argmax(dim=1).numpy() == labels[90:]).mean() > 0.9
    assert (fitted.held_out.argmax(dim=1).numpy() == labels[:90]).mean() > 0.85


def test_logits_of_training_documents_know_nothing_of_labels_of_chance():
    """Learned by heart they would be right; held out they can be no better than guessing."""
    docs, _ = docs_of_classes(200, sure=0.0)
    labels = np.random.default_rng(1).permutation(np.arange(200) % 2)
    fitted = fit_ngrams(Docs.from_ids(docs, labels.tolist()), np.arange(200), 2, **ALONE)
    not_seen = (fitted.held_out.argmax(dim=1).numpy() == labels).mean()
    by_heart = (scores_of(fitted, docs).argmax(dim=1).numpy() == labels).mean()
    assert not_seen < 0.62 and by_heart > not_seen + 0.15
    assert F.cross_entropy(fitted.held_out, torch.from_numpy(labels)) < 0.72  # they are not sure of it either


def test_several_labels_are_questions_of_their_own():
    docs, labels = docs_of_classes(150)
    both = np.stack([labels == 0, np.ones(150)], axis=1).astype(np.int8)
    store = Docs.from_ids(docs)
    store.labels = both
    fitted = fit_ngrams(store, np.arange(120), 2, **ALONE)
    said = scores_of(fitted, docs[120:]) >= 0
    assert (said[:, 0].numpy() == (labels[120:] == 0)).mean() > 0.9 and said[:, 1].all()


def test_texts_without_labels_help_where_a_few_words_are_known():
    """Each class has two words of its own that come together; of the labelled documents few have the second."""
    rng = np.random.default_rng(0)
    docs, labels = docs_of_classes(1200)
    for doc, label in zip(docs, labels, strict=True):
        doc.append(4 + int(label))
    for i in range(20):
        docs[i].pop()  # the second word: to be learned from the others
    told = [[*rng.integers(10, V, 6).tolist(), 4 + i % 2] for i in range(100)]
    store = Docs.from_ids(docs, labels.tolist())
    alone = fit_ngrams(store, np.arange(20), 2, **ALONE)
    taught = fit_ngrams(store, np.arange(20), 2, unlabelled=np.arange(20, 1200), **GIVEN)
    right = [(scores_of(fitted, told).argmax(dim=1).numpy() == np.arange(100) % 2).mean() for fitted in (alone, taught)]
    assert right[1] > 0.9 and right[1] > right[0] + 0.2


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_handful_of_documents_is_enough(n: int):
    docs, labels = docs_of_classes(n)
    fitted = fit_ngrams(Docs.from_ids(docs, labels.tolist()), np.arange(n), 2, **ALONE)
    assert torch.isfinite(fitted.table).all() and fitted.held_out.shape == (n, 2)
    assert n >= 4 or (fitted.held_out == 0).all()  # nothing could be held out


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [1, 1, 1, 1]])
def test_classes_without_documents_and_empty_documents_do_no_harm(labels: list[int]):
    fitted = fit_ngrams(Docs.from_ids([[], [3], [], [4, 5]], labels), np.arange(4), 2, **ALONE)
    assert torch.isfinite(fitted.held_out).all() and torch.isfinite(scores_of(fitted, [[], [9]])).all()


def test_balanced_classes_weigh_alike():
    """Nine in ten documents are of one class, and a word is in half of each: it is for the rare one if classes weigh alike."""
    docs, labels = [[10 + i % 7, *([2] * (i % 2))] for i in range(200)], [int(i % 10 == 0) for i in range(200)]
    for i in range(0, 200, 10):
        docs[i] = [10 + i % 7, *([2] * (i % 40 != 0))]  # three in four of the rare class
    store = Docs.from_ids(docs, labels)
    plain, balanced = (fit_ngrams(store, np.arange(200), 2, class_weights=w, **ALONE) for w in (None, torch.tensor([5 / 9, 5.0])))  # fmt: skip
    assert scores_of(plain, [[2]]).argmax() == 0 and scores_of(balanced, [[2]]).argmax() == 1


def test_smoothed_labels_make_it_less_sure():
    docs, labels = docs_of_classes(120)
    sure, unsure = (fit_ngrams(Docs.from_ids(docs, labels.tolist()), np.arange(120), 2, label_smoothing=e, **ALONE) for e in (0.0, 0.4))  # fmt: skip
    p, q = (scores_of(fitted, docs).softmax(dim=1).amax(dim=1).mean() for fitted in (sure, unsure))
    assert q < 0.9 < p


# ---- n-grams --------------------------------------------------------------------------------------------------------


def test_rows_of_documents_are_those_that_the_model_looks_up(rng: np.random.Generator):
    docs = [rng.integers(2, V, n).tolist() for n in (3, 30, 1, 12, 0, 30)]
    which = np.array([4, 1, 3, 0])
    offsets, rows = read_rows(Docs.from_ids(docs), which, max_tokens=10, pad_id=PAD_ID, shape=SHAPE)
    for place, doc in enumerate(which):
        ids, lengths = map(torch.from_numpy, pad_documents([docs[doc]], pad_id=PAD_ID, max_tokens=10))
        ref, is_first = distinct_rows(ids, lengths, **SHAPE)
        assert rows[offsets[place] : offsets[place + 1]].tolist() == ref[is_first].tolist()


def test_rare_ngrams_are_left_out_unless_documents_are_few():
    offsets, rows = np.array([0, 2, 3, *[3] * 1000]), np.array([7, 9, 7])
    bags, kept = keep_frequent(offsets, rows, 12)
    assert kept.tolist() == [7] and bags.columns.tolist() == [0, 0] and bags.offsets[:4].tolist() == [0, 1, 2, 2]
    bags, kept = keep_frequent(offsets[:3], rows, 12)
    assert kept.tolist() == [7, 9] and bags.columns.tolist() == [0, 1, 0]


def test_rows_of_a_matrix_have_length_one(rng: np.random.Generator):
    bags = Bags(np.array([0, 3, 3, 5]), np.array([0, 1, 2, 1, 3]), rng.uniform(1, 3, 4).astype(np.float32))
    dense = bags.matrix().to_dense()
    assert dense.square().sum(dim=1).tolist() == pytest.approx([1, 0, 1])
    assert bags.select(np.array([2, 0])).matrix(presence=True).to_dense().tolist() == [[0, 1, 0, 1], [1, 1, 1, 0]]


@pytest.mark.parametrize(
    ("n_tokens", "n_classes", "ref"),
    [(10, 2, 1 << 12), (5000, 2, 1 << 15), (10**9, 2, 1 << 20), (10**9, 1000, 1 << 12)],
)
def test_buckets_are_as_many_as_pairs_within_bounds(n_tokens: int, n_classes: int, ref: int):
    assert bucket_count(n_tokens, n_classes) == ref


# ---- in finetune ----------------------------------------------------------------------------------------------------


def test_classifier_is_better_with_them_where_labels_are_few(trained: Trained, tmp_path: Path):
    given = {**TINY_CLASSIFIER, "from_model": str(trained.lm), "n_labels": 20, "epochs": 1}
    losses = [finetune(trained.train, tmp_path / str(ngrams), ngrams=ngrams, **given).valid_loss for ngrams in (True, False)]  # fmt: skip
    assert losses[0] < losses[1]
    settings = [json.loads((tmp_path / str(n) / "config.json").read_text())["settings"] for n in (True, False)]
    assert settings[0]["n_buckets"] > 0 and settings[1]["n_buckets"] == 0


def test_texts_without_labels_are_read_where_they_are(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """By the words and pairs alone: the network learns from the documents with a given label."""
    read: list[np.ndarray] = []

    def spy(model: Any, corpus: Any, chosen: np.ndarray, config: Any) -> Any:
        made = classifier_learner(model, corpus, chosen, config)
        read.append(made.train_dl.which)  # pyright: ignore[reportAttributeAccessIssue]
        return made

    monkeypatch.setattr(classify, "classifier_learner", spy)
    docs = make_docs(400, seed=5)
    source = write_csv(tmp_path / "few.csv", [(text, label if i < 40 else "") for i, (text, label) in enumerate(docs)])
    found = finetune(source, tmp_path / "clf", from_model=str(trained.lm), **TINY_CLASSIFIER)
    told = capsys.readouterr().err
    assert "texts whose labels are guessed" in told and found.n_labels == 36 and found.accuracy == 1.0
    assert len(read[0]) == 36 and read[0].max() < 40
    finetune(source, tmp_path / "alone", from_model=str(trained.lm), **TINY_CLASSIFIER, self_training=False)
    assert "guessed" not in capsys.readouterr().err


def test_a_fold_learns_nothing_from_what_judges_it(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[tuple[set[int], set[int]]] = []

    def spy(docs: Docs, chosen: Any, n_classes: int, **given: Any) -> FittedNGrams:
        read.append((set(chosen.tolist()), set(given["unlabelled"].tolist())))
        return fit_ngrams(docs, chosen, n_classes, **given)

    monkeypatch.setattr(classify, "fit_ngrams", spy)
    finetune(trained.train, tmp_path / "clf", from_model=str(trained.lm), **TINY_CLASSIFIER, folds=2, n_labels=40)
    (first, others), (second, _), (everything, _) = read
    assert first | second == everything and not first & second and len(everything) == 40
    (store,) = (tmp_path / "tokens").glob("*.tok")
    _, held_out = hold_out(TokenStore(store), fraction=0.1, seed=0, labelled=True)  # for the language model
    assert others == set(range(200)) - everything - set(held_out.tolist())


def test_too_many_classes_for_a_table_are_left_to_the_network(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(classify, "MAX_WORD_TABLE", 10)
    finetune(trained.train, tmp_path / "clf", from_model=str(trained.lm), **TINY_CLASSIFIER)
    assert "words and pairs of words are left out" in capsys.readouterr().err
    assert json.loads((tmp_path / "clf/config.json").read_text())["settings"]["n_buckets"] == 0


def test_prediction_of_words_alone_names_them(trained: Trained):
    """Good words speak for the good class, bad ones against it."""
    predictor = from_pretrained(trained.clf)
    ngrams, vocab = predictor.model.ngrams, predictor.pretrained.vocab
    assert ngrams is not None and predictor.labels == ["neg", "pos"]
    for words, sign in ((GOOD, 1), (BAD, -1)):
        ids = torch.tensor([vocab.stoi[word] for word in words])
        neg, pos = ngrams.table[ids, :-1].T
        assert (sign * (pos - neg) > 0).all()
