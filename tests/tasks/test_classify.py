"""How layers are unfrozen and classes weighed. What a classifier learns is in test_finetune.py."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learnable import TINY_CLASSIFIER, Trained, make_docs, write_csv
from torch.nn import functional as F

from ulmpipe.config import FinetuneConfig
from ulmpipe.models import CLASSIFIER_DROPOUTS, TextClassifier, scaled_dropouts
from ulmpipe.models.heads import LEAST_STD
from ulmpipe.models.transfer import load_encoder
from ulmpipe.tasks.classify import classifier_phases, default_epochs, measure_features, training_loss
from ulmpipe.tasks.corpus import Corpus
from ulmpipe.tasks.finetune import finetune
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.predict import predict
from ulmpipe.text.batches import ClassifierBatches, Docs
from ulmpipe.text.store import TokenStore

pytestmark = pytest.mark.usefixtures("undrawn")

# ---- phases ---------------------------------------------------------------------------------------------------------


def test_classifier_is_unfrozen_from_the_top():
    phases = classifier_phases(FinetuneConfig(classifier_lr=0.04, unfrozen_lr=0.01, layer_factor=2.0, epochs=3), 4)
    assert [(p.n_epochs, p.freeze_to) for p in phases] == [(1, -1), (1, -2), (3, 0)]
    assert [p.lrs[-1] for p in phases] == [0.04, 0.01, 0.01]
    assert phases[-1].lrs == pytest.approx((0.00125, 0.0025, 0.005, 0.01))


@pytest.mark.parametrize(("n_docs", "ref"), [(10, 8), (1000, 3), (2000, 4), (100_000, 1)])
def test_few_documents_are_read_more_often(n_docs: int, ref: int):
    assert default_epochs(n_docs) == ref


def test_folds_are_read_as_often_as_all(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ulmpipe.tasks.finetune.default_epochs", lambda n_docs: 3 if n_docs == 40 else 1)
    options = {name: value for name, value in TINY_CLASSIFIER.items() if name not in ("epochs", "max_steps")}
    finetune(trained.train, tmp_path / "clf", from_model=str(trained.lm), **options, folds=2, n_labels=40)
    rows = [json.loads(line) for line in (tmp_path / "clf/metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 5  # of the head, of the last layer, and 3 of all
    said = json.loads((tmp_path / "clf/folds/1.json").read_text())
    assert said["options"]["epochs"] == 3


def test_without_gradual_unfreezing_all_layers_have_as_many_epochs():
    gradual = classifier_phases(FinetuneConfig(epochs=3), 4)
    (at_once,) = classifier_phases(FinetuneConfig(epochs=3, gradual=False), 4)
    assert at_once.n_epochs == sum(p.n_epochs for p in gradual) == 5
    assert (at_once.lrs, at_once.freeze_to) == (gradual[-1].lrs, 0)


def test_uneven_classes_are_weighed_and_scored(tmp_path: Path, trained: Trained, capsys: pytest.CaptureFixture[str]):
    docs = [(text, label) for i, (text, label) in enumerate(make_docs(220)) if label == "pos" or i % 20 == 0]
    source = write_csv(tmp_path / "uneven.csv", docs)  # 110 pos, 11 neg
    comp = finetune(source, tmp_path / "clf", from_model=str(trained.lm), **TINY_CLASSIFIER, class_weights="balanced")
    (neg, pos) = re.findall(r"class weights: neg (\S+), pos (\S+)", capsys.readouterr().err)[0]
    assert float(neg) > 4 and 0.5 < float(pos) < 0.6
    made = json.loads((tmp_path / "clf/config.json").read_text())["trained"]
    assert made["options"]["class_weights"] == "balanced" and comp.f1_macro == made["results"]["f1_macro"]
    rows = [json.loads(line) for line in (tmp_path / "clf/metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["f1_macro"] <= 1 for row in rows) and rows[-1]["f1_macro"] == comp.f1_macro


def test_training_loss_is_there_when_it_is_asked_for():
    labels = np.array([0, 0, 0, 1])
    assert training_loss(FinetuneConfig(), labels, 2) == []
    (comp,) = training_loss(FinetuneConfig(class_weights="balanced"), labels, 2)
    pred, target = torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1])
    ref = F.cross_entropy(pred, target, reduction="none") @ torch.tensor([2 / 3, 2.0]) / 2
    assert comp.loss_fn(pred, target).item() == pytest.approx(ref.item())


def test_smoothed_labels_are_those_of_pytorch():
    (comp,) = training_loss(FinetuneConfig(label_smoothing=0.2), np.array([0, 1]), 2)
    pred, target = torch.tensor([[3.0, 1.0], [0.5, 1.0]]), torch.tensor([0, 1])
    assert comp.loss_fn(pred, target).item() == pytest.approx(F.cross_entropy(pred, target, label_smoothing=0.2).item())


def test_smoothed_labels_make_a_classifier_less_sure(tmp_path: Path, trained: Trained):
    comp = finetune(trained.train, tmp_path / "clf", from_model=str(trained.lm), **TINY_CLASSIFIER, label_smoothing=0.5)
    texts = [text for text, _ in make_docs(40, seed=3)]
    sure, unsure = (np.mean([p.probability for p in predict(f, texts)]) for f in (trained.clf, tmp_path / "clf"))
    assert 0.6 < unsure < 0.85 < sure  # it is told 0.75
    assert comp.valid_loss > trained.finetuned.valid_loss  # the plain one: it minds that the classifier is less sure


def test_head_knows_the_features_before_it_learns(trained: Trained):
    """Those that the encoder gives, before any training, have mean 0 for the head, and deviation 1 but for those that hardly change."""
    lm = Pretrained.from_pretrained(trained.lm)
    store = TokenStore(trained.store)
    corpus = Corpus(store, np.arange(0, 200, 2), store, np.empty(0, np.int64))
    model = TextClassifier(**{name: lm.settings[name] for name in ("vocab_size", "emb_size", "hidden_size", "n_layers")}, n_classes=2, **scaled_dropouts(CLASSIFIER_DROPOUTS, 0))  # fmt: skip
    load_encoder(model, lm.model.state_dict())
    measure_features(model, corpus, FinetuneConfig(max_tokens=50))
    features: list[Any] = []
    model.head.layers[0].register_forward_hook(lambda layer, given, out: features.append(out))
    (batch,) = ClassifierBatches(Docs.from_store(store), corpus.train, batch_size=500, pad_id=1, max_tokens=50, shuffle=False).batches(0)  # fmt: skip
    model.eval()(*batch[:2])
    torch.testing.assert_close(features[0].mean(dim=0), torch.zeros(features[0].shape[1]), rtol=0, atol=1e-3)
    measured: Any = model.head.layers[0].std
    raw = features[0].detach().std(dim=0, correction=0) * measured  # as the encoder gives them
    torch.testing.assert_close(measured, raw.clamp(min=LEAST_STD * float(raw.median())), rtol=1e-3, atol=0)


def test_few_documents_get_smaller_batches(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    finetune(trained.train, tmp_path / "clf", from_model=str(trained.lm), **{**TINY_CLASSIFIER, "batch_size": 64})
    assert "180 documents are few: batches of 8 instead of 64" in capsys.readouterr().err
