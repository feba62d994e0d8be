import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Cli, check_refused
from learnable import TINY_CLASSIFIER, Trained, make_docs, write_csv
from torch.nn import functional as F

from ulmpipe.config import FinetuneConfig
from ulmpipe.errors import UlmpipeError
from ulmpipe.models import TextClassifier
from ulmpipe.reports.facts import Facts
from ulmpipe.tasks.corpus import Corpus
from ulmpipe.tasks.evaluate import evaluate
from ulmpipe.tasks.finetune import finetune
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.predict import from_pretrained
from ulmpipe.tasks.report import report, words_alone
from ulmpipe.text.labels import is_labelled
from ulmpipe.text.store import TokenStore


def test_every_training_writes_its_page(trained: Trained):
    for folder in (trained.lm, trained.clf, trained.clf / "lm"):
        facts = Facts.load(folder)
        assert (folder / "report.html").stat().st_size > 20_000
        assert facts.kind == Pretrained.from_pretrained(folder).kind
        assert facts.run["journal"] == str(trained.folder / "journal.db") and facts.run["number"] in (1, 2)
    assert Facts.load(trained.lm).results["perplexity"] == pytest.approx(trained.pretrained.perplexity)
    assert Facts.load(trained.clf).results["accuracy"] == trained.finetuned.accuracy


def test_data_is_counted(trained: Trained):
    facts = Facts.load(trained.clf)
    assert facts.data["documents to train on"] == 180 and facts.data["documents held out"] == 20
    assert facts.classes == {"neg": {"to train on": 90, "held out": 10}, "pos": {"to train on": 90, "held out": 10}}
    assert sum(facts.lengths["n"]) == 180
    assert facts.words["most frequent"]["."] > 180
    assert facts.data["words new to the language model"] == "0.0%"


def hard(folder: Path) -> tuple[Path, Path]:
    """A table with labels that can't be learned, and texts to judge by in a file of their own."""
    rows = make_docs(120)
    labels = np.random.default_rng(0).integers(0, 2, len(rows))
    noise = [(text, ("neg", "pos")[label]) for (text, _), label in zip(rows, labels, strict=True)]
    return write_csv(folder / "noise.csv", noise[:80]), write_csv(folder / "held.csv", noise[80:])


def test_held_out_documents_are_judged_as_evaluate_does(trained: Trained, tmp_path: Path):
    source, held = hard(tmp_path)
    finetune(source, tmp_path / "clf", valid=str(held), from_model=str(trained.lm), **TINY_CLASSIFIER)
    facts, evaluated = Facts.load(tmp_path / "clf"), evaluate(tmp_path / "clf", held, workers=1)
    judged = facts.judged
    assert judged is not None and judged.n == 40 and judged.confusion == evaluated.confusion
    assert evaluated.f1 is not None and [score["f1"] for score in judged.scores] == pytest.approx(list(evaluated.f1.values()))  # fmt: skip
    assert judged.confusion is not None
    n_wrong = judged.n - sum(judged.confusion[i][i] for i in range(2))
    assert n_wrong > 3 and len(facts.mistakes) == min(10, n_wrong)
    check_mistakes(facts, tmp_path / "clf", held)


def check_mistakes(facts: Facts, model: Path, held: Path) -> None:
    """Each is a document of another label than what was said, the worst first, with the words that `predict --explain` names."""
    import csv

    with open(held, newline="") as file:
        truth = {row["text"]: row["label"] for row in csv.DictReader(file)}
    predictor = from_pretrained(model)
    explained = {tuple(word for word, _ in p.words or []): p for p in predictor.predict(list(truth), explain=True)}
    losses = []
    for mistake in facts.mistakes:
        prediction = explained[tuple(word for word, _ in mistake.words)]
        assert mistake.said == prediction.label != mistake.label == truth[prediction.text]
        assert mistake.probability == pytest.approx(prediction.probability, abs=1e-4)
        scores = np.array([score for _, score in prediction.words or []])
        assert [share for _, share in mistake.words] == pytest.approx(list(scores / np.abs(scores).sum()), abs=2e-3)
        p = torch.tensor([prediction.probabilities[mistake.label]])
        assert mistake.loss == pytest.approx(float(F.nll_loss(p.log()[None], torch.tensor([0]))), abs=1e-2)
        losses.append(mistake.loss)
    assert losses == sorted(losses, reverse=True)


def test_the_command_makes_the_same_options(trained: Trained, monkeypatch: pytest.MonkeyPatch, cli: Cli):
    """What the page says would begin the run again does, but for what a resumed run and the journal were told."""
    facts = Facts.load(trained.clf)
    given: dict[str, object] = {}

    def note(source: str, out: str, **options: object) -> None:
        given.update(options)
        raise UlmpipeError("far enough")

    monkeypatch.setattr("ulmpipe.tasks.finetune.finetune", note)
    words = shlex.split(facts.command)
    assert words[0] == "ulmpipe" and cli(*words[1:]).code == 1
    assert FinetuneConfig(**given) == FinetuneConfig(**facts.options)  # pyright: ignore[reportArgumentType]


def test_the_page_of_the_language_model_tells_of_its_part_of_the_run(trained: Trained):
    lm, clf = Facts.load(trained.clf / "lm"), Facts.load(trained.clf)
    assert lm.options["stage"] == "lm" and " --stage lm" in lm.command and " --stage" not in clf.command
    assert not [stage for stage in lm.timing_s if stage.startswith("classifier") or stage == "everything else"]
    assert lm.timing_s.items() <= clf.timing_s.items() and "everything else" in clf.timing_s


def test_words_and_pairs_alone_are_judged_too(trained: Trained):
    """So that nobody credits the network with what they know."""
    facts, model = Facts.load(trained.clf), Pretrained.from_pretrained(trained.clf)
    assert facts.results["right_by_words_and_pairs_alone"] == 1.0  # words tell all in these texts
    assert "In training the loss is of the network alone" in facts.of_losses
    assert facts.of_losses in (trained.clf / "report.html").read_text()
    assert Facts.load(trained.lm).of_losses == ""
    store = TokenStore(trained.store)
    corpus = Corpus(store, np.arange(4), store, np.flatnonzero(is_labelled(store.doc_labels)))
    assert isinstance(model.model, TextClassifier) and model.model.ngrams is not None
    right = [int(model.model.ngrams(torch.tensor(store.doc(d).tolist())[None].long(), torch.tensor([len(store.doc(d))])).argmax()) == store.doc_labels[d] for d in corpus.valid]  # fmt: skip
    assert words_alone(model, corpus) == pytest.approx(np.mean(right))
    model.model.ngrams = None
    assert words_alone(model, corpus) is None


def test_folds_leave_nothing_to_judge_by(trained: Trained, tmp_path: Path):
    source = write_csv(tmp_path / "a.csv", make_docs(60))
    options = {**TINY_CLASSIFIER, "epochs": 1, "from_model": str(trained.lm), "folds": 2, "max_steps": 3}
    finetune(source, tmp_path / "clf", **options)
    facts = Facts.load(tmp_path / "clf")
    assert facts.judged is None and not facts.mistakes and facts.data["documents held out"] == 0
    assert facts.data["documents to train on"] == 60 and sum(facts.lengths["n"]) == 60
    assert facts.classes == {"neg": {"to train on": 30, "held out": 0}, "pos": {"to train on": 30, "held out": 0}}


def test_labels_that_are_not_learned_from_are_not_counted(trained: Trained, tmp_path: Path):
    source = write_csv(tmp_path / "a.csv", make_docs(60))
    options = {**TINY_CLASSIFIER, "epochs": 1, "from_model": str(trained.lm), "max_steps": 3, "n_labels": 20}
    finetune(source, tmp_path / "clf", **options)
    facts = Facts.load(tmp_path / "clf")
    assert facts.data["labelled documents to learn from"] == 20
    assert [parts["to train on"] for parts in facts.classes.values()] == [10, 10]


def write_held_out(folder: Path, rows: list[tuple[str, str]]) -> Path:
    return write_csv(folder / "held.csv", rows[60:])


def test_several_labels_a_document(trained: Trained, tmp_path: Path):
    rows = [(text, f"{label}|{'long' if len(text) > 100 else 'short'}") for text, label in make_docs(80)]
    finetune(write_csv(tmp_path / "a.csv", rows[:60]), tmp_path / "clf", multi_label=True, valid=str(write_held_out(tmp_path, rows)), from_model=str(trained.lm), **{**TINY_CLASSIFIER, "epochs": 1, "max_steps": 3})  # fmt: skip
    facts = Facts.load(tmp_path / "clf")
    assert facts.judged is not None and facts.judged.labels == ["long", "neg", "pos", "short"]
    assert facts.judged.confusion is None
    for mistake in facts.mistakes:
        assert mistake.label != mistake.said
    evaluated = evaluate(tmp_path / "clf", write_held_out(tmp_path, rows), workers=1)
    assert evaluated.f1 is not None and facts.mistakes
    assert [score["f1"] for score in facts.judged.scores] == pytest.approx(list(evaluated.f1.values()))


def test_no_report_where_none_is_wanted(trained: Trained, tmp_path: Path):
    source = write_csv(tmp_path / "a.csv", make_docs(40))
    finetune(source, tmp_path / "clf", report=False, stage="lm", from_model=str(trained.lm), workers=1, max_steps=2)
    assert not (tmp_path / "clf/lm/report.json").exists()


def test_a_page_that_can_not_be_made_fails_no_training(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # fmt: skip
    def broken(folder: Path) -> Path:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("ulmpipe.tasks.report.write_report", broken)
    source = write_csv(tmp_path / "a.csv", make_docs(40))
    finetune(source, tmp_path / "clf", stage="lm", from_model=str(trained.lm), workers=1, max_steps=2)
    assert "report.html could not be written: RuntimeError: no fonts" in capsys.readouterr().err


def test_a_new_training_takes_the_old_page_away(own: Path):
    from ulmpipe.train.phases import start_over

    start_over(own / "clf")
    assert not list((own / "clf").glob("report.*")) and not (own / "clf/steps.jsonl").exists()


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_makes_the_page_again(own: Path, cli: Cli):
    page = (own / "clf/report.html").read_bytes()
    (own / "clf/report.html").unlink()
    ended = cli("report", own / "clf", "--json")
    assert ended.code == 0 and json.loads(ended.out)["out"] == str(own / "clf/report.html")
    assert (own / "clf/report.html").read_bytes() == page


def test_several_are_compared(own: Path, cli: Cli, tmp_path: Path):
    ended = cli("report", own / "clf", own / "lm", "-o", tmp_path / "both.html")
    assert ended.code == 0 and ended.out.strip() == str(tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    assert "2 runs compared" in page and "perplexity" in page and "f1 macro" in page


def test_no_file_of_others_is_written_over(own: Path, cli: Cli, tmp_path: Path):
    (tmp_path / "reviews.csv").write_text("text,label\n")
    check_refused(
        cli("report", own / "clf", "-o", tmp_path / "reviews.csv"), 1, "is no report of ours: choose another -o"
    )
    assert (tmp_path / "reviews.csv").read_text() == "text,label\n"
    for _ in range(2):
        assert cli("report", own / "clf", "-o", tmp_path / "page.html").code == 0


@pytest.mark.parametrize("part", [{"lengths": {"edges": "x"}}, {"judged": {"n": 1}}, {"timing_s": {"a": "b"}}, {"classes": {"a": 3}}])  # fmt: skip
def test_facts_that_no_training_writes_are_one_line(own: Path, cli: Cli, part: dict):
    facts = json.loads((own / "clf/report.json").read_text())
    (own / "clf/report.json").write_text(json.dumps(facts | part))
    ended = cli("report", own / "clf")
    assert ended.code == 1 and ended.err.count("\n") == 1 and "report" in ended.err


@pytest.mark.parametrize("name", ["nowhere", "train.csv", "tokens"])
def test_what_is_no_run_is_one_line(own: Path, cli: Cli, name: str):
    check_refused(
        cli("report", own / name), 1, "has no report.json: a training of this version writes it when it is done"
    )


def test_python_has_the_same(own: Path):
    assert report(own / "lm").out == str(own / "lm/report.html")
    with pytest.raises(UlmpipeError, match="expected one run folder or several"):
        report()
