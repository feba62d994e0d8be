"""A training is a list of phases; it goes on in the phase where it was stopped, and never over one that did not finish."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ulmpipe.errors import ConfigError, UlmpipeError
from ulmpipe.train import Callback, FixedBatches, Learner, Phase, check_finished, check_resume, run_phases

OPTIONS = {"batch_size": 64, "seed": 0, "lr": None, "tokens": "abc"}
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


def run(
    learn: Learner, phases: list[Phase], out: Path, options: dict[str, Any] = OPTIONS, *, resume: bool = False
) -> dict[str, float]:
    return run_phases(learn, phases, out, options=options, resume=resume, checkpoint_steps=2)


def values_of(learn: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def test_phases_run_one_after_the_other(tmp_path: Path):
    row = run(make_learner(), [FIRST, SECOND], tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [("first", 5), ("second", 5), ("second", 10)]
    assert row["valid_loss"] == pytest.approx(lines[-1]["valid_loss"]) and row["targets_per_s"] > 0
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-10"]
    extra = json.loads((tmp_path / "checkpoint-10/state.json").read_text())["extra"]
    assert extra == {"phase": "second", "options": OPTIONS}


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
    comp_row = run(comp, [FIRST, SECOND], tmp_path / "out", resume=True)
    assert torch.equal(values_of(comp), values_of(ref)) and comp_row["valid_loss"] == ref_row["valid_loss"]


def test_resume_without_a_checkpoint_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(make_learner(), [FIRST], tmp_path, resume=True)
    assert "has no checkpoint to resume from: starting from the beginning" in capsys.readouterr().err
    steps = (tmp_path / "steps.jsonl").read_text()
    shutil.rmtree(tmp_path / "checkpoint-5")
    run(make_learner(), [FIRST], tmp_path, resume=True)
    assert len((tmp_path / "steps.jsonl").read_text().splitlines()) == len(steps.splitlines())  # of this run alone


def test_resume_with_other_options_names_each(tmp_path: Path):
    run(make_learner(), [FIRST], tmp_path)
    others = {"batch_size": 32, "seed": 7, "lr": 0.1, "tokens": "def"}
    with pytest.raises(ConfigError) as caught:
        run(make_learner(), [FIRST], tmp_path, others, resume=True)
    assert str(caught.value) == (
        f"{tmp_path / 'checkpoint-5'} was begun with batch_size 64, not 32, seed 0, not 7, lr None, not 0.1, "
        "tokens abc, not def: resume with the options it was begun with"
    )
    assert (tmp_path / "checkpoint-5/manifest.json").exists()
    with pytest.raises(ConfigError, match="was begun with first: resume with the options"):
        run(make_learner(), [SECOND], tmp_path, resume=True)


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


def test_resume_without_any_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(
        ConfigError,
        match="has no checkpoint to resume from: leave out --resume to begin .*, or check the spelling of -o",
    ):
        check_resume(True, tmp_path, tmp_path / "lm")
    (tmp_path / "lm" / "checkpoint-3").mkdir(parents=True)
    check_resume(True, tmp_path, tmp_path / "lm")
