"""`doctor` counts what `finetune` would meet, and puts what looks off into words."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Cli, check_refused
from fastai_states import ITOS, make_state, write_pair
from learnable import Trained, files_below, make_docs, write_csv

from ulmpipe.errors import SourceError, StoreError
from ulmpipe.shown import examined
from ulmpipe.tasks.doctor import DoctorResult, doctor
from ulmpipe.tasks.import_fastai import import_fastai
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.tokenize import tokenize

READ: dict[str, Any] = {"workers": 1, "engine": "spacy"}
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund, während die Katze ruhig schläft"


def said(found: DoctorResult) -> str:
    return "\n".join(found.problems)


def test_source_of_the_model_has_no_problems(trained: Trained):
    found = doctor(trained.lm, trained.train, **READ)
    assert found.problems == [] and (found.words_mapped, found.tokens_mapped, found.unmapped) == (1.0, 1.0, {})
    assert (found.n_train, found.n_valid, found.kind) == (180, 20, "language model")
    assert found.recipe == found.model_recipe == {"lang": "en", "rules": "default"}
    assert sum(n["train"] + n["valid"] for n in found.labels.values()) == 200


def test_words_are_counted_as_they_come(trained: Trained, tmp_path: Path):
    """Of every document: 4 known words, `zebra` twice, `yak` once; the special tokens count nowhere."""
    valid = write_csv(tmp_path / "valid.csv", [("the zebra zebra gnu", "a"), ("the the the the", "b")])
    source = write_csv(tmp_path / "a.csv", [("the cast was dull zebra yak zebra", "ab"[i % 2]) for i in range(30)])
    found = doctor(trained.lm, source, valid=str(valid), **READ)
    assert found.unmapped == {"zebra": 60, "yak": 30} and list(found.unmapped) == ["zebra", "yak"]
    assert found.tokens_mapped == pytest.approx(4 / 7) and found.words_mapped == pytest.approx(4 / 6)
    assert found.unknown_train == 0 and found.unknown_valid == pytest.approx(1 / 12)  # gnu, with xxbos and xxeos
    assert found.lengths == {"median": 9, "p90": 9, "longest": 9} and found.n_tokens == 270
    assert found.labels == {"a": {"train": 15, "valid": 1}, "b": {"train": 15, "valid": 1}}
    assert "42.9% of the tokens are words new to the model" in said(found)
    assert "8.3% of the tokens of the valid documents have no id" in said(found)


def test_another_language_is_noticed(trained: Trained, tmp_path: Path):
    (tmp_path / "de.txt").write_text("\n".join([GERMAN] * 40))
    found = doctor(trained.lm, tmp_path / "de.txt", **READ)
    assert found.tokens_mapped is not None and found.tokens_mapped < 0.2
    assert "of another language, or of other --rules?" in said(found) and "there are no labels" in said(found)


def test_other_rules_and_language_are_told(own: Path):
    found = doctor(own / "lm", own / "train.csv", rules="course", lang="xx", **READ)
    assert "cut with --rules default, these are cut with --rules course: give --rules default" in said(found)
    assert "cut with --lang en, these are cut with --lang xx: give --lang en" in said(found)


def test_classifier_reads_by_its_own_rules_and_words(trained: Trained, tmp_path: Path):
    source = write_csv(tmp_path / "a.csv", [("the cast was dull zebra", "neg")] * 30 + [("superb", "meh")] * 15)
    found = doctor(trained.clf, source, rules="course", min_freq=50, **READ)
    assert found.recipe["rules"] == "default" and found.kind == "classifier"
    assert found.unmapped == {}  # its own vocabulary leaves rare words out
    n_zebra, n_tokens = found.labels["neg"]["train"], found.labels["neg"]["train"] * 7 + found.labels["meh"]["train"] * 3  # fmt: skip
    assert found.unknown_train == pytest.approx(n_zebra / n_tokens)
    assert "does not know the labels meh: it knows neg, pos" in said(found)


def test_held_out_documents_are_those_of_finetune(trained: Trained):
    found = doctor(trained.lm, trained.train, valid_fraction=0.5, seed=3, **READ)
    assert (found.n_train, found.n_valid) == (100, 100)


def test_named_set_brings_its_own_split(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ULMPIPE_DATA", str(tmp_path))
    (tmp_path / "mine").mkdir()
    for stem, n in (("train", 60), ("valid", 8)):
        write_csv(tmp_path / f"mine/{stem}.csv", make_docs(n))
    found = doctor(trained.lm, "mine", **READ)
    assert (found.n_train, found.n_valid) == (60, 8)


def test_token_store_is_taken_as_it_is(trained: Trained, tmp_path: Path):
    store = tokenize(trained.train, tmp_path / "store", rules="fastai2", **READ).out
    for model in (trained.lm, trained.clf):
        found = doctor(model, store, workers=1)
        assert found.recipe["rules"] == "fastai2" and "give --rules default" in said(found)


def test_labels_that_are_few_or_alike_are_told(trained: Trained, tmp_path: Path):
    docs = make_docs(100)
    one = write_csv(tmp_path / "one.csv", [(text, "pos") for text, _ in docs])
    assert "every label is pos: a classifier needs two or more" in said(doctor(trained.lm, one, **READ))
    skewed = write_csv(
        tmp_path / "skewed.csv", [(text, "rare" if i < 4 else "pos") for i, (text, _) in enumerate(docs)]
    )
    found = said(doctor(trained.lm, skewed, **READ))
    assert "of the labels are pos" in found and "labels with fewer than 5 documents to learn from: rare" in found


def test_labels_that_are_no_classes_are_told(trained: Trained, tmp_path: Path):
    prices = [(text, f"{n * 0.37:.2f}") for n, (text, _) in enumerate(make_docs(40))]
    found = doctor(trained.lm, write_csv(tmp_path / "prices.csv", prices), **READ)
    assert any("40 different labels in 40 labelled documents, numbers" in problem for problem in found.problems)
    shown = [line for line in examined(found) if line.startswith("label ")]
    assert len(shown) == 9 and shown[-1].endswith("and 32 more")


def test_long_documents_are_told(trained: Trained, tmp_path: Path):
    docs = [("the plot was dull " * 500, label) for _, label in make_docs(40)]
    found = doctor(trained.lm, write_csv(tmp_path / "a.csv", docs), **READ)
    assert "longer than 1,400 tokens" in said(found) and found.lengths["longest"] == 2002


def test_too_few_documents_are_a_problem_and_no_end(trained: Trained, tmp_path: Path):
    found = doctor(trained.lm, write_csv(tmp_path / "a.csv", make_docs(1)), **READ)
    assert (found.n_train, found.n_valid, found.unknown_valid) == (1, 0, None)
    assert "too few to hold out" in said(found)


def test_damaged_model_is_looked_at_as_far_as_it_goes(own: Path):
    (own / "lm/model.safetensors").write_bytes(b"x")
    found = doctor(own / "lm", own / "train.csv", **READ)
    assert found.tokens_mapped == 1.0 and "model.safetensors has 1 bytes" in said(found)
    (own / "lm/config.json").unlink()
    (own / "lm/vocab.json").unlink()
    found = doctor(own / "lm", own / "train.csv", **READ)
    assert (found.kind, found.model_vocab_size, found.tokens_mapped, found.model_recipe) == (None, None, None, None)
    assert found.unmapped == {} and "config.json is missing" in said(found) and "vocab.json is missing" in said(found)


def test_backward_model_is_told(trained: Trained, tmp_path: Path):
    pair = write_pair(tmp_path, make_state("fastai1"), ITOS, "lstm_bwd")
    import_fastai(*pair, tmp_path / "lm")
    found = doctor(tmp_path / "lm", trained.train, rules="fastai1", **READ)
    assert "trained on texts read backward" in said(found) and "learned from texts cut" not in said(found)


def test_nothing_is_left_behind(own: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(own)
    before = files_below(own)
    doctor("lm", "train.csv", **READ)
    assert files_below(own) == before


def test_nothing_to_look_at_is_refused(trained: Trained, tmp_path: Path):
    with pytest.raises(StoreError, match="does not exist, expected a model folder"):
        doctor(tmp_path / "absent", trained.train, **READ)
    with pytest.raises(SourceError, match="does not exist, and is no known name"):
        doctor(trained.lm, tmp_path / "absent.csv", **READ)


# ---- the command line -----------------------------------------------------------------------------------------------


def test_command_ends_well_with_problems_in_its_output(cli: Cli, own: Path, reviews: Path):
    (reviews / "pos/1.txt").write_bytes(b"\xe9")
    Pretrained.from_pretrained(own / "lm").save_pretrained(own / "copy")
    (own / "copy/vocab.json").unlink()
    words = ("doctor", own / "copy", reviews, "--workers", "1", "--engine", "spacy", "--min-freq", "1")
    ended = cli(*words, "--json")
    found = json.loads(ended.out)
    assert ended.code == 0 and found["n_quarantined"] == 1 and found["words_mapped"] is None
    assert any("vocab.json is missing" in problem for problem in found["problems"])
    ended = cli(*words)
    assert ended.code == 0 and "problem    " in ended.out and "label      neg: " in ended.out
    check_refused(cli("doctor", own / "absent", reviews), 1, "does not exist, expected a model folder")


def test_command_says_that_all_is_well(cli: Cli, trained: Trained):
    ended = cli("doctor", trained.lm, trained.train, "--workers", "1", "--engine", "spacy")
    assert ended.code == 0 and "mapped     100.0% of the tokens, 100.0% of the words" in ended.out
    assert ended.out.endswith("no problem found\n")


def test_packed_model_is_whole(trained: Trained, tmp_path: Path):
    Pretrained.from_pretrained(trained.lm).save_pretrained(tmp_path / "lm", packed=True)
    assert (
        doctor(tmp_path / "lm", trained.train, workers=1).problems
        == doctor(trained.lm, trained.train, workers=1).problems
    )


def test_several_labels_are_counted_each(trained: Trained, tmp_path: Path):
    labels = ["a|b", "b", "", "b|c"] * 30
    docs = [(text, label) for (text, _), label in zip(make_docs(120), labels, strict=True)]
    comp = doctor(trained.lm, write_csv(tmp_path / "a.csv", docs), workers=1, multi_label=True)
    assert {label: n["train"] + n["valid"] for label, n in comp.labels.items()} == {"a": 30, "b": 90, "c": 30}
    assert comp.n_unlabelled == 0
