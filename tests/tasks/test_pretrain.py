"""`pretrain` leaves a model folder that says how it was made, learns, and goes on where it was stopped."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
from filelock import FileLock
from learnable import READ, TINY_LM, Trained, files_below, make_docs, write_csv

from ulmpipe.durable import LOCK, sha256_of
from ulmpipe.errors import ConfigError, OutputInUseError, SourceError, UlmpipeError
from ulmpipe.journal import newest
from ulmpipe.tasks.pretrain import pretrain
from ulmpipe.text.rules import Rules
from ulmpipe.text.store import TokenStore
from ulmpipe.train import Callback, Interrupted, Learner

pytestmark = pytest.mark.usefixtures("undrawn")

FEW = {**TINY_LM, "max_steps": 6}


def test_language_model_learns(trained: Trained):
    result = trained.pretrained
    assert result.valid_loss < 0.85 * math.log(result.vocab_size) and result.accuracy > 0.15
    assert result.perplexity == pytest.approx(math.exp(result.valid_loss))
    assert (result.n_steps, result.vocab_size, result.out) == (40, 51, str(trained.lm))


def test_config_says_how_it_was_made(trained: Trained):
    made = json.loads((trained.lm / "config.json").read_text())["trained"]
    assert made["task"] == "pretrain" and made["source"] == str(trained.train)
    assert made["options"]["lr"] == 1e-2 and made["results"]["valid_loss"] == trained.pretrained.valid_loss


def test_journal_says_how_it_was_made(trained: Trained):
    run = newest(trained.folder / "journal.db", 9)[-1]
    assert (run["task"], run["state"], run["source"]) == ("pretrain", "done", str(trained.train))
    assert run["options"]["lr"] == 1e-2 and run["result"] == asdict(trained.pretrained)
    assert run["data"] in {TokenStore(store).fingerprint for store in (trained.folder / "tokens").glob("train-*.tok")}
    assert run["curve"][-1]["phase"] == "pretrain" and run["curve"][-1]["step"] == 40


def test_same_seed_gives_the_same_bytes(trained: Trained, tmp_path: Path):
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        pretrain(trained.train, tmp_path / name, **{**FEW, "seed": seed})
        digests.append(sha256_of(tmp_path / name / "model.safetensors"))
    assert digests[0] == digests[1] != digests[2]


def test_default_output_is_named_after_the_source(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "films.csv", make_docs(30))
    assert pretrain("films.csv", **{**FEW, "max_steps": 1}).out == "models/films-lm"
    assert list((tmp_path / "models/tokens").glob("films-*.tok/manifest.json"))


def test_token_store_and_texts_give_the_same_model(trained: Trained, tmp_path: Path):
    store = next(trained.folder.glob("tokens/train-*"))
    comp = [
        pretrain(source, tmp_path / name, **FEW).valid_loss for name, source in (("a", store), ("b", trained.train))
    ]
    assert comp[0] == comp[1]


def test_stopped_training_is_refused_then_resumed(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = {**TINY_LM, "checkpoint_steps": 3, "max_steps": 10, "drop_mult": 1.0}
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("ulmpipe.tasks.training.GradientClip", lambda clip: StopAtStep(7))
        pretrain(trained.train, tmp_path / "out", **options)
    with pytest.raises(UlmpipeError, match="did not finish: go on with --resume"):
        pretrain(trained.train, tmp_path / "out", **options)
    pretrain(trained.train, tmp_path / "ref", **options)
    pretrain(trained.train, tmp_path / "out", **options, resume=True, note="after the storm")
    assert sha256_of(tmp_path / "out/model.safetensors") == sha256_of(tmp_path / "ref/model.safetensors")
    resumed, ref, stopped = newest(tmp_path / "journal.db", 9)
    assert [run["state"] for run in (resumed, ref, stopped)] == ["done", "done", "interrupted"]
    assert (resumed["goes_on_from"], resumed["note"], stopped["note"]) == (stopped["id"], "after the storm", None)


class StopAtStep(Callback):
    """Clip as `GradientClip` does, and stop as a kill would."""

    def __init__(self, step: int):
        self.step = step

    def before_step(self, learn: Learner) -> None:
        import torch

        torch.nn.utils.clip_grad_norm_(learn.model.parameters(), 0.1)
        if learn.step == self.step:
            raise KeyboardInterrupt


def test_resume_of_a_finished_training_changes_nothing(own: Path):
    ref = sha256_of(own / "lm/model.safetensors")
    comp = pretrain(own / "train.csv", own / "lm", **TINY_LM, resume=True)
    assert sha256_of(own / "lm/model.safetensors") == ref and comp.n_steps == 40


def test_training_killed_while_it_published_is_resumed(own: Path):
    ref = sha256_of(own / "lm/model.safetensors")
    (own / "lm/manifest.json").unlink()
    with pytest.raises(UlmpipeError, match="did not finish: go on with --resume"):
        pretrain(own / "train.csv", own / "lm", **TINY_LM)
    pretrain(own / "train.csv", own / "lm", **TINY_LM, resume=True)
    assert sha256_of(own / "lm/model.safetensors") == ref


def test_model_of_another_program_is_refused_and_untouched(trained: Trained, tmp_path: Path):
    (tmp_path / "model.safetensors").write_text("years of work")
    with pytest.raises(UlmpipeError, match=r"holds something else \(model.safetensors\)"):
        pretrain(trained.train, tmp_path, **TINY_LM)
    assert files_below(tmp_path) == {"model.safetensors"}


def test_finished_model_is_replaced(own: Path):
    ref = sha256_of(own / "lm/model.safetensors")
    assert pretrain(own / "train.csv", own / "lm", **FEW).n_steps == 6
    assert sha256_of(own / "lm/model.safetensors") != ref
    assert [path.name for path in (own / "lm").glob("checkpoint-*")] == ["checkpoint-6"]


def test_no_epochs_give_an_untrained_model(trained: Trained, tmp_path: Path):
    comp = pretrain(trained.train, tmp_path / "out", **{**TINY_LM, "epochs": 0})
    assert comp.n_steps == 0 and comp.valid_loss == pytest.approx(math.log(51), rel=0.05)


def test_custom_rules_reach_the_model(trained: Trained, tmp_path: Path):
    pretrain(trained.train, tmp_path / "out", **{**FEW, "max_steps": 1}, custom_rules=Rules(pre=(str.lower,), post=()))
    recipe = json.loads((tmp_path / "out/config.json").read_text())["recipe"]
    assert recipe["rules"] == "custom" and recipe["custom"] == ["builtins.str.lower"]


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_too_small_corpus_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one document")
    with pytest.raises(SourceError, match="1 documents are too few to hold out 1: give more, or --valid SOURCE"):
        pretrain(tmp_path / "a.txt", tmp_path / "out", **FEW)
    assert not (tmp_path / "out").exists()


def test_output_in_use_is_refused(trained: Trained, tmp_path: Path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / LOCK), pytest.raises(OutputInUseError):
        pretrain(trained.train, tmp_path / "out", **FEW)
    assert files_below(tmp_path) == set()


def test_output_that_holds_something_else_is_refused(trained: Trained, tmp_path: Path):
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(UlmpipeError, match=r"holds something else \(thesis.doc\)"):
        pretrain(trained.train, tmp_path, **FEW)
    with pytest.raises(UlmpipeError, match="holds a token store, expected a language model"):
        pretrain(trained.train, trained.store, **FEW)
    assert files_below(tmp_path) == {"thesis.doc"}


def test_output_that_holds_a_classifier_is_refused_and_untouched(own: Path):
    ref = {name: (own / name).read_bytes() for name in files_below(own)}
    for resume in (False, True):
        with pytest.raises(UlmpipeError, match="clf holds a classifier, expected a language model: choose another -o"):
            pretrain(own / "train.csv", own / "clf", **FEW, resume=resume)
    assert {name: (own / name).read_bytes() for name in files_below(own)} == ref


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch_size": 4}, "batch_size 8, not 4"),
        ({"seed": 3}, "seed 0, not 3"),
        ({"bptt": 10, "lr": 1.0}, "bptt 20, not 10, lr 0.01, not 1.0"),
        ({"source": "test.csv"}, r"tokens \w+, not \w+"),
    ],
)
def test_resume_with_other_options_is_refused(own: Path, options: dict, told: str):
    ref = {name: (own / "lm" / name).read_bytes() for name in files_below(own / "lm")}
    source = own / options.pop("source", "train.csv")
    with pytest.raises(
        ConfigError, match=f"checkpoint-40 was begun with {told}.*: resume with the options it was begun"
    ):
        pretrain(source, own / "lm", **{**TINY_LM, **options}, resume=True)
    assert {name: (own / "lm" / name).read_bytes() for name in files_below(own / "lm")} == ref


def test_resume_with_other_workers_and_checkpoints_goes_on(own: Path):
    ref = sha256_of(own / "lm/model.safetensors")
    (own / "lm/manifest.json").unlink()
    pretrain(own / "train.csv", own / "lm", **{**TINY_LM, "workers": 2, "checkpoint_steps": 3}, resume=True)
    assert sha256_of(own / "lm/model.safetensors") == ref


def test_token_store_with_options_that_decide_ids_is_refused(trained: Trained, tmp_path: Path):
    with pytest.raises(ConfigError, match="is a token store, which --rules, --min-freq can't change"):
        pretrain(trained.store, tmp_path / "out", **FEW, rules="course", min_freq=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"device": "mps"}, {"device": "cpu", "precision": "fp16"}, {"drop_mult": 9.0}])
def test_what_can_not_work_is_refused_before_the_texts_are_read(trained: Trained, tmp_path: Path, options: dict):
    with pytest.raises(ConfigError):
        pretrain(trained.train, tmp_path / "out", **{**FEW, **options})
    assert list(tmp_path.iterdir()) == []


def test_batch_that_processes_can_not_share_is_refused_before_the_texts_are_read(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ulmpipe.train.parallel.part", lambda: (0, 2))
    with pytest.raises(ConfigError, match="--batch-size 7 is shared by 2 processes: expected a multiple of 2, such as"):
        pretrain(trained.train, tmp_path / "out", **{**FEW, "batch_size": 7})
    assert list(tmp_path.iterdir()) == []


def test_wrong_options_are_named_together(trained: Trained, tmp_path: Path):
    with pytest.raises(
        ConfigError, match="did you mean 'batch_size'.; --size is 'huge'.*--lr is nan, expected a finite number"
    ):
        pretrain(trained.train, tmp_path / "out", **{**READ, "batchsize": 3, "size": "huge", "lr": float("nan")})  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "out").exists()
