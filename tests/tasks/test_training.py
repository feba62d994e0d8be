"""What trainings of texts have in common: which options a resumed one must share, and how a language model is trained."""

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from learnable import Trained
from torch import nn
from torch.nn import functional as F

from ulmpipe.config import PretrainConfig, TrainConfig
from ulmpipe.errors import ConfigError
from ulmpipe.models import LanguageModel, WordScores
from ulmpipe.tasks import training as task
from ulmpipe.tasks.corpus import Corpus
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.training import (
    MAY_CHANGE,
    check_machine,
    common_callbacks,
    language_model_learner,
    language_model_loss,
    train_phases,
)
from ulmpipe.text.batches import LMBatches
from ulmpipe.text.store import TokenStore
from ulmpipe.train import FixedBatches, GradientClip, Learner, MixedPrecision, Phase

FIRST = Phase("first", 1, (0.01, 0.01), freeze_to=-1)


def make_learner() -> Learner:
    batches = FixedBatches([(torch.ones(8, 3), torch.ones(8, 1))] * 5)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    return Learner(model, batches, batches, loss_fn=F.mse_loss, groups=[model[0], model[1]])


def run(learn: Learner, phases: list[Phase], out: Path, config: TrainConfig) -> dict[str, float]:
    """`train_phases` with as much of a corpus as it reads."""
    corpus: Any = SimpleNamespace(store=SimpleNamespace(fingerprint="abc"))
    return train_phases(learn, phases, out, config, corpus, n_answers=100)


@pytest.mark.parametrize("name", sorted({f.name for f in fields(PretrainConfig)} - MAY_CHANGE))
def test_resume_with_any_other_option_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setattr(task, "pick_precision", lambda precision, device: precision)
    config = PretrainConfig(precision="fp32")
    run(make_learner(), [FIRST], tmp_path, config)
    value = getattr(config, name)
    other = f"{value}x" if isinstance(value, str | None) else (not value if value is False else value + 1)
    with pytest.raises(ConfigError, match=f"was begun with {name} {value}, not {other}: resume with the options"):
        run(make_learner(), [FIRST], tmp_path, replace(config, resume=True, **{name: other}))


def test_resume_with_what_decides_nothing_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(make_learner(), [FIRST], tmp_path, PretrainConfig())
    training: Any = {"checkpoint_steps": 1, "device": "cpu", "tensorboard": True, "report": False, "note": ""}
    tokens: Any = {"workers": 3, "unit_timeout": 9.0, "force": True}
    cluster: Any = {"backend": "dask", "scheduler": "tcp://host:8786"}
    changed: set[str] = set()
    for given in ({**training, **tokens}, cluster):
        others = PretrainConfig(resume=True, **given)
        assert run(make_learner(), [FIRST], tmp_path, others)["step"] == 5
        assert "resuming first from checkpoint-5" in capsys.readouterr().err
        changed |= {f.name for f in fields(PretrainConfig) if getattr(others, f.name) != f.default}
    assert changed == MAY_CHANGE


def test_common_callbacks_follow_the_precision():
    assert [type(cb) for cb in common_callbacks("fp32")] == [GradientClip]
    assert [type(cb) for cb in common_callbacks("fp16")] == [GradientClip, MixedPrecision]


@pytest.mark.parametrize(
    ("asked", "width", "ref"),
    [("auto", 8, "fp32"), ("auto", 256, "bf16"), ("fp32", 256, "fp32"), ("bf16", 8, "bf16")],
)
def test_half_precision_is_for_models_that_are_faster_in_it(
    monkeypatch: pytest.MonkeyPatch, asked: str, width: int, ref: str
):
    monkeypatch.setattr(task, "pick_precision", lambda precision, device: "bf16" if precision == "auto" else precision)
    model = nn.Sequential(nn.LSTM(4, width), nn.Linear(width, 2))
    assert task.precision_of(TrainConfig(precision=asked, device="cpu"), model) == ref


def test_check_machine_refuses_what_is_not_here():
    check_machine(TrainConfig(device="cpu"))
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        check_machine(TrainConfig(device="cpu", precision="fp16"))
    with pytest.raises(ConfigError, match="--device gpu is unknown"):
        check_machine(TrainConfig(device="gpu"))


def lm_learner(trained: Trained, **options: Any) -> Learner:
    store = TokenStore(trained.store)
    corpus = Corpus(store, np.arange(150), store, np.arange(150, 200))
    model = Pretrained.from_pretrained(trained.lm).model
    assert isinstance(model, LanguageModel)
    return language_model_learner(model, corpus, TrainConfig(batch_size=2, bptt=20, device="cpu", **options))


@pytest.mark.parametrize(("at_most", "ref"), [(50, 50), (500, 50), (20, 17), (1, 1)])
def test_language_model_is_validated_on_some_documents_spread_evenly(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, at_most: int, ref: int
):
    monkeypatch.setattr(task, "MAX_LM_VALID", at_most)
    learn = lm_learner(trained)
    valid, train = learn.valid_dl, learn.train_dl
    assert isinstance(valid, LMBatches) and isinstance(train, LMBatches)
    assert len(valid.which) == ref and valid.which[0] == 150 and len(train.which) == 150
    assert len(set(np.diff(valid.which).tolist())) <= 1 and 200 - valid.which[-1] <= 50 / ref + 1


def test_variable_bptt_is_of_the_training_only(trained: Trained):
    fixed, variable = lm_learner(trained), lm_learner(trained, variable_bptt=True)
    lengths = [[x.shape[1] for x, _ in dl.batches(0)] for dl in (fixed.train_dl, variable.train_dl)]
    assert len(set(lengths[0][:-1])) == 1 < len(set(lengths[1][:-1])) and sum(lengths[0]) == sum(lengths[1])
    valid = [[x.shape[1] for x, _ in dl.batches(0)] for dl in (fixed.valid_dl, variable.valid_dl) if dl]
    assert valid[0] == valid[1] and len(valid) == 2


def test_language_model_loss_is_the_mean_over_all_tokens():
    torch.manual_seed(0)
    scores, target = WordScores(torch.randn(2, 3, 4), torch.randn(5, 4), torch.randn(5)), torch.randint(5, (2, 3))
    ref = -scores.logits().log_softmax(-1).gather(-1, target[..., None]).mean()
    assert language_model_loss(scores, target).item() == pytest.approx(ref.item())
