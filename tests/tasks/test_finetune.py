"""`finetune` tunes, unfreezes and learns; its two stages are one training cut in two; wrong input is refused at once."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learnable import TINY_CLASSIFIER, Trained, files_below, make_docs, weights, write_csv

from ulmpipe.errors import ConfigError, SourceError, StoreError, UlmpipeError, VocabMismatchError
from ulmpipe.journal import newest
from ulmpipe.tasks.finetune import finetune
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.pretrain import pretrain
from ulmpipe.tasks.tokenize import tokenize
from ulmpipe.train import Interrupted, Progress

pytestmark = pytest.mark.usefixtures("undrawn")

SHORT = {**TINY_CLASSIFIER, "max_steps": 4, "epochs": 1, "batch_size": 64}


# ---- the training ---------------------------------------------------------------------------------------------------


def test_classifier_is_well_above_chance(trained: Trained):
    result = trained.finetuned
    assert result.accuracy is not None and result.accuracy > 0.9 and result.valid_loss < 0.3
    assert result.labels == ["neg", "pos"] and result.n_labels == 180
    assert result.share_mapped == 1.0 and result.started_from == str(trained.lm)
    assert result.lm_valid_loss is not None and result.lm_valid_loss < trained.pretrained.valid_loss


@pytest.fixture(scope="module")
def ref(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training with dropout, of both stages, that nothing stopped."""
    folder = tmp_path_factory.mktemp("ref") / "out"
    finetune(trained.train, folder, **{**SHORT, "from_model": str(trained.lm), "classifier_drop_mult": 0.5})
    return folder


def test_stage_lm_then_stage_classifier_is_stage_all(trained: Trained, ref: Path, tmp_path: Path):
    options = {**SHORT, "from_model": str(trained.lm), "classifier_drop_mult": 0.5}
    lm = finetune(trained.train, tmp_path / "two", **options, stage="lm")
    assert (lm.n_labels, lm.out) == (0, str(tmp_path / "two/lm"))
    assert lm.accuracy is None and lm.valid_loss == lm.lm_valid_loss and lm.tokens_per_s
    assert not (tmp_path / "two/manifest.json").exists()
    clf = finetune(trained.train, tmp_path / "two", **{**options, "from_model": None}, stage="classifier")
    assert (clf.tokens_per_s, clf.lm_valid_loss, clf.share_mapped) == (None, None, None) and clf.accuracy is not None
    assert clf.started_from == str(tmp_path / "two/lm")
    assert weights(tmp_path / "two/lm") == weights(ref / "lm") and weights(tmp_path / "two") == weights(ref)
    runs = [*newest(tmp_path / "journal.db", 9), *newest(ref.parent / "journal.db", 9)]
    curves = [[row["phase"].split(",")[0] for row in run["curve"]] for run in runs]
    lm_rows, classifier_rows = ["language model"] * len(curves[1]), ["classifier"] * len(curves[0])
    assert curves == [classifier_rows, lm_rows, lm_rows + classifier_rows] and lm_rows and classifier_rows


def test_stage_lm_needs_no_labels(trained: Trained, tmp_path: Path):
    source = write_csv(tmp_path / "a.csv", [(text,) for text, _ in make_docs(40)], header=["text"])
    result = finetune(source, tmp_path / "out", from_model=str(trained.lm), **SHORT, stage="lm")
    assert (result.accuracy, result.labels, result.n_labels) == (None, [], 0)
    assert Pretrained.from_pretrained(result.out).kind == "language model"


def test_share_of_words_carried_over(trained: Trained, tmp_path: Path):
    """Of the words of the texts: those that are kept for later do not count."""
    docs = [(text.replace("plot", "libretto").replace("camera", "lens"), label) for text, label in make_docs(40)]
    comp = finetune(
        write_csv(tmp_path / "a.csv", docs), tmp_path / "out", from_model=str(trained.lm), **SHORT, stage="lm"
    )
    tokenizer = Pretrained.from_pretrained(trained.lm).tokenizer()
    words = {token for text, _ in docs for token in tokenizer.tokenize(text) if not token.startswith("xx")}
    known = Pretrained.from_pretrained(trained.lm).vocab.stoi
    assert {"libretto", "lens"} <= words and comp.share_mapped is not None
    assert comp.share_mapped == pytest.approx(sum(word in known for word in words) / len(words))


def test_words_of_the_model_to_start_from_are_kept(trained: Trained, tmp_path: Path):
    """Few texts do not hold all words that will be read later; their own come first, as the sampled loss expects."""
    docs = [(text, label) for text, label in make_docs(200) if "camera" not in text]
    comp = finetune(
        write_csv(tmp_path / "a.csv", docs), tmp_path / "out", from_model=str(trained.lm), **SHORT, stage="lm"
    )
    itos = Pretrained.from_pretrained(comp.out).vocab.itos
    assert itos[-1] == "camera" and set(itos) >= set(Pretrained.from_pretrained(trained.lm).vocab.itos)
    cut = finetune(
        tmp_path / "a.csv", tmp_path / "cut", from_model=str(trained.lm), **SHORT, stage="lm", max_vocab=len(itos) - 1
    )
    assert Pretrained.from_pretrained(cut.out).vocab.itos == itos[:-1]


def test_classifier_is_numbered_with_the_words_of_its_language_model(trained: Trained, tmp_path: Path):
    finetune(trained.train, tmp_path / "out", from_model=str(trained.lm), **SHORT, stage="lm", max_vocab=40)
    comp = finetune(trained.train, tmp_path / "out", **SHORT, stage="classifier")  # --max-vocab need not be said again
    assert len(Pretrained.from_pretrained(comp.out).vocab) == 40


def test_from_none_starts_from_nothing(trained: Trained, tmp_path: Path):
    comp = finetune(trained.train, tmp_path / "out", from_model="none", size="tiny", **SHORT)
    assert comp.started_from is None and comp.share_mapped is None
    made = json.loads((tmp_path / "out/config.json").read_text())["trained"]
    assert made["task"] == "finetune" and made["n_labels"] == 180


def test_newest_model_is_the_start_and_named(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(own)
    (own / "models").mkdir()
    (own / "lm").rename(own / "models/wiki-lm")
    assert finetune("train.csv", "b", **SHORT, stage="lm").started_from == "models/wiki-lm"
    assert "starting from models/wiki-lm" in capsys.readouterr().err


@pytest.fixture
def box(own: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A box with a tiny language model of English, and a folder without any to work in."""
    monkeypatch.chdir(own)
    monkeypatch.setattr("ulmpipe.tasks.model_folder.BOX", own / "box")
    Pretrained.from_pretrained("lm").save_pretrained(own / "box/en-tiny", packed=True)
    (own / "lm").rename(own / "models")  # models/ itself is no model below models/
    return own / "box"


def test_language_model_in_the_box_is_the_start_where_there_is_no_other(box: Path, capsys: pytest.CaptureFixture[str]):
    comp = finetune("train.csv", "a", **SHORT, stage="lm")
    assert comp.started_from == str(box / "en-tiny") and comp.share_mapped == 1.0
    assert f"starting from {box / 'en-tiny'}" in capsys.readouterr().err
    named = finetune("train.csv", "b", **SHORT, stage="lm", from_model="en-tiny")
    assert weights(Path(named.out)) == weights(Path(comp.out))


def test_texts_of_a_language_that_is_not_in_the_box_start_from_nothing(box: Path, capsys: pytest.CaptureFixture[str]):
    store = tokenize("train.csv", "de.tok", workers=1, lang="de").out
    given: list[tuple[str, dict[str, Any]]] = [("train.csv", {"lang": "de"}), (store, {})]
    for source, options in given:
        comp = finetune(source, "out", size="tiny", **SHORT, **options, stage="lm")
        assert comp.started_from is None and comp.share_mapped is None
        assert "none of 'de' in the box: starting from nothing" in capsys.readouterr().err


def test_few_labels_and_unlabelled_texts(trained: Trained, tmp_path: Path):
    comp = finetune(
        trained.train,
        tmp_path / "out",
        from_model="none",
        size="tiny",
        unlabelled=str(trained.test),
        n_labels=20,
        **SHORT,
    )
    store = next((tmp_path / "tokens").glob("train-*/manifest.json"))
    assert comp.n_labels == 20 and json.loads(store.read_text())["n_docs"] == 260


def test_no_language_model_epochs_still_give_a_classifier(trained: Trained, tmp_path: Path):
    comp = finetune(trained.train, tmp_path / "a", from_model="none", size="tiny", **SHORT, lm_epochs=0)
    assert comp.lm_valid_loss == pytest.approx(np.log(51), rel=0.05)
    finetune(trained.train, tmp_path / "b", from_model=str(trained.lm), **{**SHORT, "epochs": 0}, lm_epochs=0)


@pytest.mark.parametrize("stop_in", ["language model", "classifier, all layers"])
def test_stopped_training_is_refused_then_resumed(
    trained: Trained, ref: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_in: str
):
    options = {**SHORT, "from_model": str(trained.lm), "checkpoint_steps": 1, "classifier_drop_mult": 0.5}
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("ulmpipe.train.phases.MetricsLog.after_epoch", interrupt_in(stop_in, patch))
        finetune(trained.train, tmp_path / "out", **options)
    with pytest.raises(UlmpipeError, match="did not finish: go on with --resume"):
        finetune(trained.train, tmp_path / "out", **options)
    finetune(trained.train, tmp_path / "out", **options, resume=True)
    assert weights(tmp_path / "out") == weights(ref) and weights(tmp_path / "out/lm") == weights(ref / "lm")


def interrupt_in(phase: str, patch: pytest.MonkeyPatch):
    """An `after_epoch` that ends the run in a phase, before its last checkpoint."""
    begun: list[str] = []
    patch.setattr("ulmpipe.train.phases.Progress", lambda name: begun.append(name) or Progress(name))

    def after_epoch(self: object, learn: object) -> None:
        if begun[-1] == phase:
            raise KeyboardInterrupt

    return after_epoch


def test_unfinished_classifier_is_refused_before_its_language_model(own: Path):
    (own / "clf/manifest.json").unlink()
    ref = weights(own / "clf/lm")
    with pytest.raises(UlmpipeError, match="clf holds a training that did not finish"):
        finetune(own / "train.csv", own / "clf", from_model=str(own / "lm"), **SHORT)
    assert weights(own / "clf/lm") == ref and not (own / "clf/manifest.json").exists()


def test_resumed_training_starts_from_what_it_was_begun_with(box: Path, own: Path, monkeypatch: pytest.MonkeyPatch):
    """And not from what is the newest by now."""
    ref = finetune("train.csv", "ref", **SHORT, stage="lm")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("ulmpipe.train.phases.MetricsLog.after_epoch", interrupt_in("language model", patch))
        finetune("train.csv", "out", **SHORT, checkpoint_steps=1, stage="lm")
    pretrain("train.csv", "models/newer-lm", workers=1, size="tiny", max_steps=1)
    comp = finetune("train.csv", "out", **SHORT, checkpoint_steps=1, stage="lm", resume=True)
    assert comp.started_from == ref.started_from and weights(Path(comp.out)) == weights(Path(ref.out))


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_bad_n_labels_are_refused_before_the_language_model(trained: Trained, tmp_path: Path):
    with pytest.raises(SourceError, match="--n-labels 500: expected from 2"):
        finetune(trained.train, tmp_path / "out", from_model=str(trained.lm), **SHORT, n_labels=500)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["all", "lm", "classifier"])
def test_classifier_to_start_from_is_refused(trained: Trained, tmp_path: Path, stage: str):
    with pytest.raises(UlmpipeError, match="clf is a classifier, expected a language model: its own is .*clf/lm"):
        finetune(trained.train, tmp_path / "out", from_model=str(trained.clf), **SHORT, stage=stage)
    assert list(tmp_path.iterdir()) == []


def test_model_of_texts_read_backward_is_refused(own: Path):
    backward = Pretrained.from_pretrained(own / "lm")
    backward.trained["backward"] = True
    backward.save_pretrained(own / "bwd")
    with pytest.raises(UlmpipeError, match="was trained on texts read backward, and these are read forward"):
        finetune(own / "train.csv", own / "out", from_model=str(own / "bwd"), **SHORT)


def test_classifier_of_texts_cut_by_other_rules_is_refused(trained: Trained, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"train.csv was cut with --rules course, not default.*: give the options"):
        finetune(
            trained.train, tmp_path / "out", from_model=str(trained.lm), **SHORT, rules="course", stage="classifier"
        )


def test_missing_model_to_start_from_is_refused(trained: Trained, tmp_path: Path):
    with pytest.raises(StoreError, match="nowhere does not exist, expected a model folder: check the spelling"):
        finetune(trained.train, tmp_path / "out", from_model=str(tmp_path / "nowhere"), **SHORT)
    assert list(tmp_path.iterdir()) == []


def test_stage_classifier_without_a_tuned_model_is_refused(trained: Trained, tmp_path: Path):
    with pytest.raises(ConfigError, match="--stage classifier needs a tuned language model: --stage lm makes one"):
        finetune(trained.train, tmp_path / "out", from_model="none", **SHORT, stage="classifier")
    with pytest.raises(StoreError, match="out/lm does not exist, expected a model folder"):
        finetune(trained.train, tmp_path / "out", **SHORT, stage="classifier")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "gpu"}, "--device gpu is unknown"),
        ({"device": "mps"}, "--device mps is unknown"),
        ({"device": "cpu", "precision": "fp16"}, "fp16 needs a GPU"),
        ({"drop_mult": 9.0}, "drop_mult is 9.0, expected 0 <= drop_mult < "),
        ({"classifier_drop_mult": 9.0}, "drop_mult is 9.0, expected 0 <= drop_mult < "),
    ],
)
def test_what_can_not_work_is_refused_before_the_texts_are_read(
    trained: Trained, tmp_path: Path, options: dict, reason: str
):
    with pytest.raises(ConfigError, match=reason):
        finetune(trained.train, tmp_path / "out", **{**SHORT, "from_model": str(trained.lm), **options})
    assert list(tmp_path.iterdir()) == []


def test_batches_may_be_of_one_document(trained: Trained, tmp_path: Path):
    options = {**SHORT, "batch_size": 1, "max_steps": 2}
    finetune(trained.train, tmp_path / "out", from_model=str(trained.lm), **options)
    assert (tmp_path / "out/manifest.json").exists() and (tmp_path / "out/lm/manifest.json").exists()


def test_output_that_holds_a_language_model_is_refused_and_untouched(own: Path):
    ref = {name: (own / name).read_bytes() for name in files_below(own)}
    given: list[dict[str, Any]] = [{}, {"stage": "lm"}, {"resume": True}]
    for options in given:
        with pytest.raises(UlmpipeError, match="lm holds a language model, expected a classifier: choose another -o"):
            finetune(own / "train.csv", own / "lm", from_model="none", size="tiny", **SHORT, **options)
    assert {name: (own / name).read_bytes() for name in files_below(own)} == ref


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch_size": 4}, "batch_size 16, not 4"),
        ({"seed": 3}, "seed 0, not 3"),
        ({"source": "test.csv"}, r"tokens \w+, not \w+"),
    ],
)
def test_resume_with_other_options_is_refused(own: Path, trained: Trained, options: dict, told: str):
    ref = {name: (own / "clf" / name).read_bytes() for name in files_below(own / "clf")}
    source = own / options.pop("source", "train.csv")
    options = {**TINY_CLASSIFIER, "from_model": str(trained.lm), **options}
    with pytest.raises(ConfigError, match=f"was begun with {told}.*: resume with the options it was begun with"):
        finetune(source, own / "clf", **options, resume=True)
    assert {name: (own / "clf" / name).read_bytes() for name in files_below(own / "clf")} == ref


def test_store_of_another_vocabulary_is_refused(trained: Trained, tmp_path: Path):
    store = tokenize(trained.train, tmp_path / "store", workers=1, max_vocab=30).out
    with pytest.raises(
        VocabMismatchError,
        match=r"numbered with another vocabulary \(30 tokens, expected the one with 51\): tokenize it again",
    ):
        finetune(store, tmp_path / "out", from_model=str(trained.lm), **SHORT, stage="classifier")


def test_source_without_labels_is_refused(trained: Trained, tmp_path: Path):
    source = write_csv(tmp_path / "a.csv", [(text,) for text, _ in make_docs(20)], header=["text"])
    with pytest.raises(
        SourceError, match="has no labels: expected a column of labels .--label-column., or a folder for each"
    ):
        finetune(source, tmp_path / "out", from_model="none", **SHORT)


def test_store_and_unlabelled_are_refused(trained: Trained, tmp_path: Path):
    with pytest.raises(ConfigError, match="--unlabelled can't be added to"):
        finetune(trained.store, tmp_path / "out", from_model="none", unlabelled=str(trained.test), **SHORT)


def test_other_rules_than_the_models_are_told(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    finetune(trained.train, tmp_path / "out", from_model=str(trained.lm), **SHORT, rules="course", stage="lm")
    assert "learned from --rules default, these texts have course" in capsys.readouterr().err


def test_default_output_is_named_after_the_source(own: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(own)
    assert finetune("train.csv", **SHORT, from_model="lm", stage="lm").out == "models/train/lm"
    assert pretrain("train.csv", workers=1, size="tiny", max_steps=1).out == "models/train-lm"


def test_language_model_that_no_finetune_made_is_not_replaced(trained: Trained, tmp_path: Path):
    shutil.copytree(trained.lm, tmp_path / "models" / "lm")
    before = (tmp_path / "models" / "lm" / "model.safetensors").read_bytes()
    refused = pytest.raises(UlmpipeError, match="lm is a model of its own, which this would replace: choose another -o")
    with refused:
        finetune(trained.train, tmp_path / "models", from_model="none")
    assert (tmp_path / "models" / "lm" / "model.safetensors").read_bytes() == before
    for foreign in ('{"model_type": "bert"}', '{"trained": 3}', "[]"):
        (tmp_path / "models" / "lm" / "config.json").write_text(foreign)
        with refused:
            finetune(trained.train, tmp_path / "models", from_model="none")
