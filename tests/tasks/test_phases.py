"""A training is a list of phases; it goes on in the phase where it was stopped, and never over one that did not finish."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ulmpipe.config import TrainConfig
from ulmpipe.errors import ConfigError, UlmpipeError
from ulmpipe.tasks.phases import Phase, check_finished, common_callbacks, language_model_loss, run_phases
from ulmpipe.train import Callback, FixedBatches, GradientClip, Learner

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


def values_of(learn: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def test_phases_run_one_after_the_other(tmp_path: Path):
    row = run_phases(make_learner(), [FIRST, SECOND], tmp_path, CONFIG)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 5, 10]
    assert row["valid_loss"] == pytest.approx(lines[-1]["valid_loss"]) and row["targets_per_s"] > 0
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-10"]


def test_first_phase_leaves_frozen_layers_alone(tmp_path: Path):
    learn = make_learner()
    before = learn.model[0].weight.detach().clone()
    run_phases(learn, [FIRST], tmp_path / "a", CONFIG)
    assert torch.equal(learn.model[0].weight, before)
    run_phases(learn, [SECOND], tmp_path / "b", CONFIG)
    assert not torch.equal(learn.model[0].weight, before)


@pytest.mark.parametrize("n_steps", [3, 6, 9, 14])
def test_resumed_phases_end_where_an_uninterrupted_run_ends(tmp_path: Path, n_steps: int):
    ref = make_learner()
    ref_row = run_phases(ref, [FIRST, SECOND], tmp_path / "ref", CONFIG)
    with pytest.raises(KeyboardInterrupt):
        run_phases(make_learner(StopAt(n_steps)), [FIRST, SECOND], tmp_path / "out", CONFIG)
    comp = make_learner()
    comp_row = run_phases(comp, [FIRST, SECOND], tmp_path / "out", replace(CONFIG, resume=True))
    assert torch.equal(values_of(comp), values_of(ref)) and comp_row["valid_loss"] == ref_row["valid_loss"]


def test_resume_without_a_checkpoint_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run_phases(make_learner(), [FIRST], tmp_path, replace(CONFIG, resume=True))
    assert "has no checkpoint to resume from: starting from the beginning" in capsys.readouterr().err


def test_resume_of_other_settings_is_refused(tmp_path: Path):
    run_phases(make_learner(), [FIRST], tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="of a phase 'first' with other settings: resume with the options"):
        run_phases(make_learner(), [replace(FIRST, lrs=(1.0, 1.0))], tmp_path, replace(CONFIG, resume=True))


def test_unfinished_training_is_refused_and_kept(tmp_path: Path):
    run_phases(make_learner(), [FIRST], tmp_path, CONFIG)
    with pytest.raises(UlmpipeError, match=r"did not finish: go on with --resume, or remove .*checkpoint-5"):
        run_phases(make_learner(), [FIRST], tmp_path, CONFIG)
    assert (tmp_path / "checkpoint-5/manifest.json").exists()


def test_finished_training_is_begun_anew(tmp_path: Path):
    run_phases(make_learner(), [SECOND], tmp_path, CONFIG)
    (tmp_path / "manifest.json").write_text("{}")
    check_finished(tmp_path)
    run_phases(make_learner(), [FIRST], tmp_path, CONFIG)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]


def test_phases_without_epochs_are_left_out(tmp_path: Path):
    learn = make_learner()
    row = run_phases(learn, [replace(FIRST, n_epochs=0)], tmp_path, CONFIG)
    assert row["valid_loss"] == learn.validate()["valid_loss"] and row["targets_per_s"] == 0
    assert run_phases(learn, [FIRST, replace(SECOND, n_epochs=0)], tmp_path, CONFIG)["step"] == 5


def test_max_steps_bound_a_phase(tmp_path: Path):
    learn = make_learner()
    run_phases(learn, [replace(SECOND, max_steps=3)], tmp_path, CONFIG)
    assert learn.step == 3


def test_common_callbacks_follow_the_precision():
    assert [type(cb) for cb in common_callbacks(TrainConfig(device="cpu"))] == [GradientClip]
    with pytest.raises(UlmpipeError, match="fp16"):
        common_callbacks(TrainConfig(device="cpu", precision="fp16"))


def test_language_model_loss_is_the_mean_over_all_tokens():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    ref = -logits.log_softmax(-1).gather(-1, target[..., None]).mean()
    assert language_model_loss(logits, target).item() == pytest.approx(ref.item())
