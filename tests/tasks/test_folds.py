"""Folds hold every document once and every class evenly; a stopped run of them goes on and ends with the same numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learnable import TINY_CLASSIFIER, Trained, files_below, make_docs, weights, write_csv

from ulmpipe.errors import ConfigError, SourceError, UlmpipeError
from ulmpipe.tasks import folds as task
from ulmpipe.tasks.finetune import FinetuneResult, finetune
from ulmpipe.tasks.folds import means, say_spread, summary
from ulmpipe.tasks.labels import fold_parts

pytestmark = pytest.mark.usefixtures("undrawn")

SHORT = {**TINY_CLASSIFIER, "max_steps": 4, "epochs": 1}


@pytest.mark.parametrize(("n", "k"), [(9, 2), (50, 5), (101, 10)])
def test_fold_parts_hold_every_document_once_and_each_class_evenly(rng: np.random.Generator, n: int, k: int):
    documents, classes = np.sort(rng.permutation(500)[:n]), rng.integers(0, 3, n)
    parts = fold_parts(documents, classes, k, seed=3)
    assert np.sort(np.concatenate(parts)).tolist() == documents.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    class_of = dict(zip(documents.tolist(), classes.tolist(), strict=True))
    counts = [np.bincount([class_of[d] for d in part.tolist()], minlength=3) for part in parts]
    assert (np.ptp(counts, axis=0) <= 1).all()


def test_fold_parts_are_a_function_of_the_seed():
    draws = [[p.tolist() for p in fold_parts(np.arange(30), np.arange(30) % 2, 3, seed)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_too_many_folds_are_refused():
    with pytest.raises(SourceError, match="--folds 6: expected at most 5, two of the 10 labelled documents a fold"):
        fold_parts(np.arange(10), np.arange(10) % 2, 6, 0)


def test_summary_has_values_mean_and_sample_deviation():
    comp = summary([{"accuracy": v, "f1_macro": v / 2} for v in (0.5, 0.7, 0.9)])
    assert comp["accuracy"] == [0.5, 0.7, 0.9] and comp["accuracy_mean"] == pytest.approx(0.7)
    assert comp["accuracy_std"] == pytest.approx(np.std([0.5, 0.7, 0.9], ddof=1))
    assert means(comp) == pytest.approx({"accuracy": 0.7, "f1_macro": 0.35})


def test_a_score_that_is_not_finite_has_no_mean(capsys: pytest.CaptureFixture[str]):
    comp = summary([{"accuracy": 0.5, "f1_macro": 0.5, "valid_loss": v} for v in (1.0, None, 2.0)])
    assert comp["valid_loss"] == [1.0, None, 2.0] and comp["valid_loss_mean"] is comp["valid_loss_std"] is None
    assert means(comp) == {"accuracy": 0.5, "f1_macro": 0.5, "valid_loss": None}
    say_spread(comp)
    assert "3 folds: accuracy 0.500" in capsys.readouterr().err


@pytest.mark.parametrize(("values", "warned"), [((0.80, 0.84, 0.88), False), ((0.7, 0.8, 0.9), True)])
def test_unsteady_folds_are_warned_of(capsys: pytest.CaptureFixture[str], values: tuple[float, ...], warned: bool):
    say_spread(summary([{"accuracy": v, "f1_macro": v} for v in values]))
    told = capsys.readouterr().err
    assert f"3 folds: accuracy {np.mean(values):.3f}, standard deviation" in told
    assert ("warning: the accuracy differs much from fold to fold" in told) == warned


# ---- the training -------------------------------------------------------------------------------------------------------


class Folded:
    """A classifier judged by three folds of 60 documents."""

    def __init__(self, trained: Trained, folder: Path):
        self.source = write_csv(folder / "few.csv", make_docs(60, seed=4))
        self.options: dict[str, Any] = {**SHORT, "from_model": str(trained.lm), "folds": 3, "checkpoint_steps": 2}
        self.out = folder / "clf"
        self.result = finetune(self.source, self.out, **self.options)


@pytest.fixture(scope="module")
def folded(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Folded:
    return Folded(trained, tmp_path_factory.mktemp("folded"))


def test_folds_judge_and_all_documents_are_learned_from(folded: Folded):
    result, folds = folded.result, folded.result.folds
    assert folds and len(folds["accuracy"]) == len(folds["f1_macro"]) == 3 and result.n_labels == 60
    assert result.accuracy == folds["accuracy_mean"] == pytest.approx(np.mean(folds["accuracy"]))
    assert result.f1_macro == folds["f1_macro_mean"] and result.valid_loss == folds["valid_loss_mean"]
    made = json.loads((folded.out / "config.json").read_text())["trained"]
    assert made["folds"] == folds and made["results"]["accuracy"] == result.accuracy and made["n_labels"] == 60
    last = [json.loads(line) for line in (folded.out / "metrics.jsonl").read_text().splitlines()][-1]
    assert "valid_loss" not in last and "train_loss" in last  # nothing was left to validate on


def test_folds_leave_small_files_and_no_weights(folded: Folded):
    assert files_below(folded.out / "folds") == {"1.json", "2.json", "3.json"}
    said = [json.loads((folded.out / f"folds/{n}.json").read_text()) for n in (1, 2, 3)]
    assert [(fold["n_train"], fold["n_valid"]) for fold in said] == [(40, 20)] * 3
    assert folded.result.folds and [fold["scores"]["accuracy"] for fold in said] == folded.result.folds["accuracy"]


def stop_in_fold(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C as a fold begins to learn."""
    real = task.fit_classifier

    def fit_classifier(*args: Any) -> Any:
        if args[-1].name == str(number):
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(task, "fit_classifier", fit_classifier)


def stopped(folded: Folded, out: Path, number: int) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(BaseException, match="SIGINT"):
        stop_in_fold(patch, number)
        finetune(folded.source, out, **folded.options)


def test_stopped_folds_are_refused_then_resumed(folded: Folded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "clf"
    stopped(folded, out, 3)
    assert not (out / "manifest.json").exists() and weights(out / "lm") == weights(folded.out / "lm")
    with pytest.raises(UlmpipeError, match="clf holds a training that did not finish: go on with --resume, or remove .*folds"):  # fmt: skip
        finetune(folded.source, out, **folded.options)
    with pytest.raises(
        ConfigError, match="was begun with .*epochs 1, not 2.*: resume with the options it was begun with"
    ):
        finetune(folded.source, out, **{**folded.options, "epochs": 2, "stage": "classifier", "from_model": None}, resume=True)  # fmt: skip
    learned: list[str] = []
    real = task.fit_classifier
    monkeypatch.setattr(task, "fit_classifier", lambda *args: learned.append(args[-1].name) or real(*args))
    comp = finetune(folded.source, out, **folded.options, resume=True)
    assert learned == ["3"] and comp.folds == folded.result.folds
    assert weights(out) == weights(folded.out) and weights(out / "lm") == weights(folded.out / "lm")


def test_next_training_without_folds_clears_those_of_the_last(own: Path, folded: Folded):
    (own / "clf/folds").mkdir()
    (own / "clf/folds/1.json").write_text("{}")
    comp: FinetuneResult = finetune(own / "train.csv", own / "clf", from_model=str(own / "lm"), **SHORT)
    assert comp.folds is None and not (own / "clf/folds").exists()


# ---- bad input ----------------------------------------------------------------------------------------------------------


def test_folds_and_validation_documents_are_refused(trained: Trained, tmp_path: Path):
    with pytest.raises(ConfigError, match="--folds judges by parts of SOURCE, expected no --valid"):
        finetune(trained.train, tmp_path / "out", from_model="none", folds=3, valid=str(trained.test), **SHORT)
    assert list(tmp_path.iterdir()) == []


def test_too_many_folds_are_refused_before_the_language_model(trained: Trained, tmp_path: Path):
    with pytest.raises(SourceError, match="--folds 101: expected at most 100"):
        finetune(trained.train, tmp_path / "out", from_model=str(trained.lm), folds=101, **SHORT)
    assert not (tmp_path / "out").exists()
