"""The benches of accuracy: the baselines learn from the same reviews, a point is kept, the tables are drawn from points."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from learnable import make_docs

from bench import record
from bench.baselines import read
from bench.label_efficiency import asked, curve, labelled_rows, plot
from ulmpipe.config import FinetuneConfig
from ulmpipe.tasks.classify import choose_labelled
from ulmpipe.tasks.corpus import open_corpus
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe


@pytest.fixture
def imdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set called imdb of 90 labelled and 40 other documents."""
    folder = tmp_path / "data" / "imdb"
    folder.mkdir(parents=True)
    docs = make_docs(130)
    texts = [f"{text}<br />Number {i}." for i, (text, _) in enumerate(docs)]
    labels = [int(label == "pos") for _, label in docs]
    pq.write_table(pa.table({"text": texts[:90], "label": labels[:90]}), folder / "train.parquet")
    pq.write_table(pa.table({"text": texts[90:]}), folder / "unsup.parquet")
    monkeypatch.setenv("ULMPIPE_DATA", str(folder.parent))
    return folder


@pytest.mark.parametrize(("n_labels", "seed"), [(20, 0), (20, 1), (None, 0)])
@pytest.mark.parametrize("more", [False, True], ids=["imdb alone", "more texts"])
def test_baselines_learn_from_the_reviews_that_finetune_chooses(
    imdb: Path, n_labels: int | None, seed: int, more: bool
):
    config = FinetuneConfig(workers=1, n_labels=n_labels, seed=seed)
    unlabelled = str(imdb / "unsup.parquet") if more else None
    corpus = open_corpus("imdb", config, imdb.parent, labelled=True, unlabelled=unlabelled)
    ref = choose_labelled(corpus.store.doc_labels, corpus.train, n_labels, seed)
    texts, labels = read(imdb / "train.parquet")
    rows = labelled_rows(labels, n_labels, seed)
    assert rows.tolist() == ref.tolist() and len(rows) == (n_labels or 81)
    assert corpus.store.n_docs == 130 + 40 * more
    tokenizer = Tokenizer(TokenizerRecipe.from_json(corpus.store.manifest["recipe"]))
    raw = pq.read_table(imdb / "train.parquet")["text"].to_pylist()
    for row in rows[::7]:
        assert corpus.store.doc(row).tolist() == corpus.store.vocab.encode(tokenizer.tokenize(raw[row]))
        assert texts[row] == raw[row].replace("<br />", " ") and labels[row] == corpus.store.doc_labels[row]


def test_few_labels_have_several_seeds():
    assert list(asked(["100", "2000", "10000", "all"], 2)) == [
        (100, 0), (100, 1), (2000, 0), (2000, 1), (10000, 0), (None, 0),
    ]  # fmt: skip


def test_point_replaces_the_older_one_of_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert not record.has_point("some", seed=0)
    for seed, command in ((0, "old"), (1, "old"), (0, "new")):
        record.add_point("some", {"seed": seed}, {"command": command})
    assert [(p["seed"], p["command"]) for p in record.read_points("some")] == [(1, "old"), (0, "new")]
    assert record.has_point("some", seed=0, command="new") and not record.has_point("some", seed=0, command="old")


def test_curves_are_drawn_with_every_seed(tmp_path: Path):
    points = [
        {"method": method, "n_labels": n, "seed": seed, "accuracy": accuracy}
        for method, n, seed, accuracy in (("ulmpipe", 500, 0, 0.9), ("ulmpipe", 100, 1, 0.8), ("ulmpipe", 100, 0, 0.7), ("tfidf", 100, 0, 0.6))
    ]  # fmt: skip
    assert curve(points, "ulmpipe") == {100: [0.7, 0.8], 500: [0.9]}
    plot(points, tmp_path / "curve")
    first = (tmp_path / "curve.svg").read_bytes()
    plot(points, tmp_path / "curve")
    assert (tmp_path / "curve.svg").read_bytes() == first and (tmp_path / "curve.png").exists()
