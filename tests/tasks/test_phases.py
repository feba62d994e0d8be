"""A training is a list of phases; it goes on in the phase where it was stopped, and never over one that did not finish."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from learnable import Trained
from torch.nn import functional as F

from ulmpipe.config import PretrainConfig, TrainConfig
from ulmpipe.errors import ConfigError, UlmpipeError
from ulmpipe.models import LanguageModel
from ulmpipe.tasks import phases as task
from ulmpipe.tasks.corpus import Corpus
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.phases import (
    MAY_CHANGE,
    Phase,
    check_finished,
    check_machine,
    common_callbacks,
    language_model_learner,
    language_model_loss,
    run_phases,
)
from ulmpipe.text.batches import LMBatches
from ulmpipe.text.store import TokenStore
from ulmpipe.train import Callback, FixedBatches, GradientClip, Learner, MixedPrecision

CONFIG = TrainConfig(checkpoint_steps=2)
FIRST = Phase("first", 1, (0.01, 0.01), freeze_to=-1)
SECOND = Phase("second", 2, (0.005, 0.01))


class StopAt(Callback):
    """Stop after a training batch of a phase, as a kill does: nothing is saved now."""

    order = 500

    def __init__(self, n_steps: int):
        self.n_left = n_steps

    def after_batch(self, learn: Learner) -> None:
        self.n_left -= learn.training
        if self.n_left < 0:
            raise KeyboardInterrupt


def make_learner(*callbacks: Callback) -> Learner:
    torch.manual_seed(0)
    x = torch.randn(5, 8, 3)
    batches = FixedBatches([(one, one.sum(1, keepdim=True)) for one in x])
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.2), torch.nn.Linear(4, 1))
    return Learner(model, batches, batches, loss_fn=F.mse_loss, groups=[model[0], model[2]], callbacks=callbacks)


def run(learn: Learner, phases: list[Phase], out: Path, config: TrainConfig = CONFIG, tokens: str = "abc") -> dict:
    """`run_phases` with as much of a corpus as it reads."""
    corpus: Any = SimpleNamespace(store=SimpleNamespace(fingerprint=tokens))
    return run_phases(learn, phases, out, config, corpus)


def values_of(learn: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def test_phases_run_one_after_the_other(tmp_path: Path):
    row = run(make_learner(), [FIRST, SECOND], tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [("first", 5), ("second", 5), ("second", 10)]
    assert row["valid_loss"] == pytest.approx(lines[-1]["valid_loss"]) and row["targets_per_s"] > 0
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-10"]
    extra = json.loads((tmp_path / "checkpoint-10/state.json").read_text())["extra"]
    options = {name: value for name, value in asdict(CONFIG).items() if name not in MAY_CHANGE}
    assert extra == {"phase": "second", "options": {**options, "tokens": "abc"}}


def test_first_phase_leaves_frozen_layers_alone(tmp_path: Path):
    learn = make_learner()
    before = learn.model[0].weight.detach().clone()
    run(learn, [FIRST], tmp_path / "a")
    assert torch.equal(learn.model[0].weight, before)
    run(learn, [SECOND], tmp_path / "b")
    assert not torch.equal(learn.model[0].weight, before)


@pytest.mark.parametrize("n_steps", [3, 6, 9, 14])
def test_resumed_phases_end_where_an_uninterrupted_run_ends(tmp_path: Path, n_steps: int):
    ref = make_learner()
    ref_row = run(ref, [FIRST, SECOND], tmp_path / "ref")
    with pytest.raises(KeyboardInterrupt):
        run(make_learner(StopAt(n_steps)), [FIRST, SECOND], tmp_path / "out")
    comp = make_learner()
    comp_row = run(comp, [FIRST, SECOND], tmp_path / "out", replace(CONFIG, resume=True))
    assert torch.equal(values_of(comp), values_of(ref)) and comp_row["valid_loss"] == ref_row["valid_loss"]


def test_resume_without_a_checkpoint_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(make_learner(), [FIRST], tmp_path, replace(CONFIG, resume=True))
    assert "has no checkpoint to resume from: starting from the beginning" in capsys.readouterr().err


def test_resume_with_other_options_names_each(tmp_path: Path):
    run(make_learner(), [FIRST], tmp_path)
    others = replace(CONFIG, resume=True, batch_size=32, seed=7, lr=0.1)
    with pytest.raises(ConfigError) as caught:
        run(make_learner(), [FIRST], tmp_path, others, tokens="def")
    assert str(caught.value) == (
        f"{tmp_path / 'checkpoint-5'} was begun with batch_size 64, not 32, lr None, not 0.1, seed 0, not 7, "
        "tokens abc, not def: resume with the options it was begun with"
    )
    assert (tmp_path / "checkpoint-5/manifest.json").exists()
    with pytest.raises(ConfigError, match="was begun with first: resume with the options"):
        run(make_learner(), [SECOND], tmp_path, replace(CONFIG, resume=True))


@pytest.mark.parametrize("name", sorted({f.name for f in fields(PretrainConfig)} - MAY_CHANGE))
def test_resume_with_any_other_option_is_refused(tmp_path: Path, name: str):
    run(make_learner(), [FIRST], tmp_path, PretrainConfig())
    value = getattr(PretrainConfig(), name)
    other = f"{value}x" if isinstance(value, str | None) else (not value if value is False else value + 1)
    with pytest.raises(ConfigError, match=f"was begun with {name} {value}, not {other}: resume with the options"):
        run(make_learner(), [FIRST], tmp_path, replace(PretrainConfig(resume=True), **{name: other}))


def test_resume_with_what_decides_nothing_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(make_learner(), [FIRST], tmp_path, PretrainConfig())
    others = PretrainConfig(resume=True, workers=3, checkpoint_steps=1, device="cpu")
    assert run(make_learner(), [FIRST], tmp_path, others)["step"] == 5
    assert "resuming first from checkpoint-5" in capsys.readouterr().err
    assert {f.name for f in fields(PretrainConfig) if getattr(others, f.name) != f.default} == MAY_CHANGE


def test_unfinished_training_is_refused_and_kept(tmp_path: Path):
    run(make_learner(), [FIRST], tmp_path)
    with pytest.raises(UlmpipeError, match=r"did not finish: go on with --resume, or remove .*checkpoint-5"):
        run(make_learner(), [FIRST], tmp_path)
    assert (tmp_path / "checkpoint-5/manifest.json").exists()


def test_finished_training_is_begun_anew(tmp_path: Path):
    run(make_learner(), [SECOND], tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    check_finished(tmp_path)
    run(make_learner(), [FIRST], tmp_path)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]


def test_phases_without_epochs_are_left_out(tmp_path: Path):
    learn = make_learner()
    row = run(learn, [replace(FIRST, n_epochs=0)], tmp_path)
    assert row["valid_loss"] == learn.validate()["valid_loss"] and row["targets_per_s"] == 0
    assert run(learn, [FIRST, replace(SECOND, n_epochs=0)], tmp_path)["step"] == 5


def test_max_steps_bound_a_phase(tmp_path: Path):
    learn = make_learner()
    run(learn, [replace(SECOND, max_steps=3)], tmp_path)
    assert learn.step == 3


def test_common_callbacks_follow_the_precision():
    assert [type(cb) for cb in common_callbacks(TrainConfig())] == [GradientClip]
    assert [type(cb) for cb in common_callbacks(TrainConfig(precision="fp16"))] == [GradientClip, MixedPrecision]


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
    logits, target = torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    ref = -logits.log_softmax(-1).gather(-1, target[..., None]).mean()
    assert language_model_loss(logits, target).item() == pytest.approx(ref.item())


def test_resume_without_any_checkpoint_is_refused_by_the_tasks(tmp_path: Path):
    with pytest.raises(ConfigError, match="has no checkpoint to resume from: check the spelling of -o"):
        task.check_resume(PretrainConfig(resume=True), tmp_path, tmp_path / "lm")
    (tmp_path / "lm" / "checkpoint-3").mkdir(parents=True)
    task.check_resume(PretrainConfig(resume=True), tmp_path, tmp_path / "lm")
