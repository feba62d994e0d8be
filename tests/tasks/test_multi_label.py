"""Several labels a document, from the cell to the prediction: `finetune --multi-label`, then `evaluate` and `predict`."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Cli
from learnable import BAD, GOOD, THINGS, TINY_CLASSIFIER, Trained, write_csv
from sklearn import metrics as sklearn_metrics
from torch.nn import functional as F

from ulmpipe.config import FinetuneConfig
from ulmpipe.durable import describe_file
from ulmpipe.errors import ConfigError, SourceError, StoreError
from ulmpipe.tasks.classify import training_loss
from ulmpipe.tasks.evaluate import evaluate
from ulmpipe.tasks.finetune import FinetuneResult, finetune
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.predict import predict
from ulmpipe.tasks.tokenize import tokenize
from ulmpipe.text.store import TokenStore

pytestmark = pytest.mark.usefixtures("undrawn")

SHORT = {**TINY_CLASSIFIER, "max_steps": 4, "epochs": 1, "multi_label": True}


def make_tagged(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Documents that praise, blame, do both, or neither; the cell says which, with `|` between."""
    rng = random.Random(seed)
    docs = []
    for i in range(n):
        said = [("blame", BAD), ("praise", GOOD)]
        chosen = [said[k] for k in (0, 1) if i >> k & 1]
        parts = [f"The {rng.choice(THINGS)} was {rng.choice(words)}, {rng.choice(words)}." for _, words in chosen]
        docs.append((" ".join([f"It has a {rng.choice(THINGS)}.", *parts]), "|".join(name for name, _ in chosen)))
    return docs


class Tagged:
    """A classifier that gives several labels, and documents it has not seen."""

    def __init__(self, trained: Trained, folder: Path):
        self.train, self.test = (write_csv(folder / f"{name}.csv", make_tagged(n, s)) for name, n, s in (("train", 600, 0), ("test", 60, 1)))  # fmt: skip
        self.lm, self.clf = trained.lm, folder / "clf"
        options = {
            **TINY_CLASSIFIER,
            "epochs": 10,
            "unfrozen_lr": 1e-2,
            "multi_label": True,
            "tune_thresholds": True,
            "ngrams": False,
        }
        self.result: FinetuneResult = finetune(self.train, self.clf, from_model=str(trained.lm), **options)


@pytest.fixture(scope="module")
def tagged(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Tagged:
    return Tagged(trained, tmp_path_factory.mktemp("tagged"))


def test_several_labels_are_learned(tagged: Tagged):
    result = tagged.result
    assert result.labels == ["blame", "praise"] and result.n_labels == 540
    assert result.exact_match is not None and result.accuracy == result.exact_match > 0.7
    assert result.f1_macro is not None and result.f1_macro > 0.8 and result.f1_micro is not None and result.f1_micro > 0.8  # fmt: skip
    rows = [json.loads(line) for line in (tagged.clf / "metrics.jsonl").read_text().splitlines()]
    last = rows[-1]
    assert (last["exact_match"], last["f1_macro"], last["f1_micro"]) == (result.exact_match, result.f1_macro, result.f1_micro)  # fmt: skip


def test_model_keeps_its_thresholds(tagged: Tagged, tmp_path: Path):
    config = json.loads((tagged.clf / "config.json").read_text())
    model = Pretrained.from_pretrained(tagged.clf)
    assert config["multi_label"] is True and len(config["thresholds"]) == 2
    assert model.multi_label and model.thresholds == config["thresholds"]
    model.thresholds = [0.25, 0.625]
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text()) == {**config, "thresholds": [0.25, 0.625]}
    assert Pretrained.from_pretrained(tmp_path / "again").thresholds == [0.25, 0.625]


def test_model_without_a_threshold_for_each_label_is_refused(tagged: Tagged, tmp_path: Path):
    Pretrained.from_pretrained(tagged.clf).save_pretrained(tmp_path / "m")
    for name in ("config.json", "manifest.json"):
        said = json.loads((tmp_path / "m" / name).read_text())
        if name == "config.json":
            said["thresholds"] = [0.5]
        else:
            said["files"]["config.json"] = describe_file(tmp_path / "m/config.json")
        (tmp_path / "m" / name).write_text(json.dumps(said))
    with pytest.raises(StoreError, match="config.json lacks a threshold for each label"):
        Pretrained.from_pretrained(tmp_path / "m")


def test_classifier_of_one_label_knows_no_thresholds(trained: Trained):
    assert not {"multi_label", "thresholds"} & json.loads((trained.clf / "config.json").read_text()).keys()
    (comp,) = predict(trained.clf, ["A superb film"])
    assert comp.labels == [comp.label]


def test_evaluation_counts_what_is_predicted(tagged: Tagged):
    comp = evaluate(tagged.clf, tagged.test, workers=1)
    docs = make_tagged(60, 1)
    said = [p.labels for p in predict(tagged.clf, [text for text, _ in docs])]
    y, p = (np.array([[label in labels for label in ("blame", "praise")] for labels in of]) for of in ([cell.split("|") for _, cell in docs], said))  # fmt: skip
    assert comp.n == 60 and comp.accuracy == comp.exact_match == pytest.approx((y == p).all(axis=1).mean())
    assert comp.f1_macro == pytest.approx(sklearn_metrics.f1_score(y, p, average="macro"))
    assert comp.f1_micro == pytest.approx(sklearn_metrics.f1_score(y, p, average="micro"))
    assert comp.f1 and list(comp.f1) == comp.labels == ["blame", "praise"] and comp.confusion is None
    assert comp.exact_match is not None and comp.exact_match > 0.7


def test_predictions_are_the_labels_above_their_thresholds(tagged: Tagged):
    model = Pretrained.from_pretrained(tagged.clf)
    text = "The plot was superb, joyful. The cast was awful, dull."
    (comp,) = predict(model, [text])
    assert set(comp.probabilities) == {"blame", "praise"}
    assert comp.probability == max(comp.probabilities.values()) == comp.probabilities[comp.label]
    for thresholds, ref in (([0.0, 0.0], 2), ([1.1, 0.0], 1), ([1.1, 1.1], 0)):
        model.thresholds = thresholds
        (other,) = predict(model, [text])
        assert len(other.labels) == ref and other.probabilities == comp.probabilities and other.label == comp.label
    falling = [comp.probabilities[label] for label in comp.labels]
    assert falling == sorted(falling, reverse=True)


def test_command_line_shows_all_labels_or_none(tagged: Tagged, cli: Cli):
    done = cli("predict", tagged.clf, "--json", "The plot was superb, joyful.", "It has a plot.")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [p["labels"] for p in found] == [["praise"], []]
    shown = cli("predict", tagged.clf, "The plot was superb, joyful.", "It has a plot.").out.splitlines()
    assert shown[0].startswith("praise\t") and shown[1].startswith("none (nearest: ")
    assert "(all labels right), micro F1" in cli("evaluate", tagged.clf, tagged.test, "--workers", "1").out


def test_store_of_several_labels_is_trained_on(tagged: Tagged, tmp_path: Path):
    store = tokenize(tagged.train, tmp_path / "store", workers=1, multi_label=True).out
    ref = finetune(tagged.train, tmp_path / "a", from_model=str(tagged.lm), vocab=store, **SHORT)
    comp = finetune(store, tmp_path / "b", from_model=str(tagged.lm), **SHORT)
    assert (comp.valid_loss, comp.f1_macro) == (ref.valid_loss, ref.f1_macro)
    assert Pretrained.from_pretrained(tmp_path / "b").thresholds == [0.5, 0.5]


def test_unlabelled_documents_teach_the_language_model_only(tagged: Tagged, tmp_path: Path):
    rows = [{"text": text, "label": cell.split("|") if cell else []} for text, cell in make_tagged(40)]
    rows += [{"text": text, "label": None} for text, _ in make_tagged(20, 5)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    comp = finetune(tmp_path / "a.jsonl", tmp_path / "out", from_model=str(tagged.lm), **SHORT)
    assert comp.n_labels == 36  # of 40, four held out
    assert TokenStore(next((tmp_path / "tokens").iterdir())).n_docs == 60


def test_folds_of_several_labels_choose_the_thresholds(tagged: Tagged, tmp_path: Path):
    source = write_csv(tmp_path / "few.csv", make_tagged(60, 2))
    comp = finetune(source, tmp_path / "out", from_model=str(tagged.lm), **SHORT, folds=3, tune_thresholds=True)
    assert comp.folds and len(comp.folds["exact_match"]) == 3 and comp.exact_match == comp.folds["exact_match_mean"]
    of_folds = [json.loads((tmp_path / f"out/folds/{n}.json").read_text())["thresholds"] for n in (1, 2, 3)]
    assert Pretrained.from_pretrained(tmp_path / "out").thresholds == pytest.approx(np.mean(of_folds, axis=0).tolist())


def test_rare_answers_weigh_more():
    labels = np.array([[1, 0], [0, 0], [0, 0], [0, 1]], np.int8)
    (comp,) = training_loss(FinetuneConfig(multi_label=True, class_weights="balanced"), labels, 2)
    pred, target = torch.tensor([[0.3, -1.0]]), torch.tensor([[1, 0]])
    each = F.binary_cross_entropy_with_logits(pred, target.float(), reduction="none")
    assert comp.loss_fn(pred, target).item() == pytest.approx((each * torch.tensor([[2.0, 2 / 3]])).mean().item())


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"multi_label": True, "label_smoothing": 0.1}, "--label-smoothing is for one label a document"),
        ({"tune_thresholds": True}, "--tune-thresholds is for several labels a document: add --multi-label"),
        ({"multi_label": True, "label_separator": " "}, "--label-separator is ' ', expected a character"),
    ],
)
def test_options_that_do_not_go_together_are_refused(trained: Trained, tmp_path: Path, options: Any, reason: str):
    with pytest.raises(ConfigError, match=reason):
        finetune(trained.train, tmp_path / "out", from_model="none", workers=1, **options)
    assert list(tmp_path.iterdir()) == []


def test_store_of_the_other_kind_is_refused(tagged: Tagged, trained: Trained, tmp_path: Path):
    several = tokenize(tagged.train, tmp_path / "several", workers=1, multi_label=True).out
    with pytest.raises(ConfigError, match="is a token store with several labels a document: add --multi-label"):
        finetune(several, tmp_path / "out", from_model="none", workers=1)
    with pytest.raises(ConfigError, match="with one label a document: tokenize it again with --multi-label"):
        finetune(trained.store, tmp_path / "out", from_model="none", workers=1, multi_label=True)
    one = tokenize(tagged.test, tmp_path / "one", workers=1, vocab=str(tagged.clf)).out
    with pytest.raises(ConfigError, match="with one label a document: tokenize it again with --multi-label"):
        evaluate(tagged.clf, one)


def test_another_separator_is_hinted_at(tagged: Tagged, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    docs = [(text, cell.replace("|", ";")) for text, cell in make_tagged(40)]
    finetune(write_csv(tmp_path / "a.csv", docs), tmp_path / "out", from_model=str(tagged.lm), **SHORT)
    assert "no document has several labels, and blame;praise hold ';': --label-separator ';'" in capsys.readouterr().err


def test_labels_the_model_does_not_know_are_refused(tagged: Tagged, tmp_path: Path):
    with pytest.raises(SourceError, match="found labels odd, which the training set has not: it has blame, praise"):
        evaluate(tagged.clf, write_csv(tmp_path / "a.csv", [("fine", "praise|odd")]), workers=1)
