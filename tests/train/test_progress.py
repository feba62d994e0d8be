import json

import pytest
import torch

from ulmpipe import console
from ulmpipe.train import DebugCallback, MetricsLog, Progress, one_cycle, progress
from ulmpipe.train.progress import StepLog, describe

from .toy import Raise, regressor


def test_progress_logs_a_line_an_epoch(capsys):
    regressor().fit(2, callbacks=[Progress("train")])
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and len(lines) == 2
    assert lines[0].startswith("train  epoch 1/2  train_loss ") and lines[1].endswith(" targets/s")


def test_bar_moves_and_is_closed_after_an_error(monkeypatch):
    told = []

    class FakeBar:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            told.append("closed")

        def update(self, done, note=""):
            told.append(done)

    monkeypatch.setattr(console, "progress", lambda description, total: FakeBar())
    regressor().fit(1, callbacks=[Progress("train")])
    assert told[-2:] == [4, "closed"]
    with pytest.raises(KeyError):
        regressor().fit(1, callbacks=[Progress("train"), Raise("after_loss", KeyError())])
    assert told[-1] == "closed"


def test_describe():
    row = {
        "epoch": 0,
        "step": 9,
        "train_loss": 1.5,
        "valid_loss": 2.0,
        "accuracy": 0.25,
        "seconds": 12.34,
        "targets_per_s": 53000.4,
    }
    assert (
        describe(row, 3) == "epoch 1/3  train_loss 1.5000  valid_loss 2.0000  accuracy 0.2500  12.3 s  53,000 targets/s"
    )


def test_metrics_log_appends_json_lines(tmp_path):
    path = tmp_path / "model" / "metrics.jsonl"
    learn = regressor()
    learn.fit(2, callbacks=[MetricsLog(path)])
    learn.fit(
        1,
        callbacks=[
            MetricsLog(path),
            DebugCallback("after_epoch", lambda learn: learn.history[-1].update(valid_loss=float("nan"))),
        ],
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 0]
    assert rows[2]["valid_loss"] is None


def test_the_bar_says_how_far_validation_is(monkeypatch):
    notes = []

    class FakeBar:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, done, note=""):
            notes.append(note)

    monkeypatch.setattr(console, "progress", lambda description, total: FakeBar())
    monkeypatch.setattr(progress, "NOTE_INTERVAL_S", -1.0)
    regressor().fit(1, callbacks=[Progress("train")])
    assert [note.split("  ")[1] for note in notes[-2:]] == ["validating 50%", "validating 100%"]


def test_step_log_has_the_rates_and_losses_of_the_steps(tmp_path):
    path, losses = tmp_path / "model" / "steps.jsonl", []
    keep = DebugCallback("after_loss", lambda learn: losses.append(learn.loss.item()) if learn.training else None)
    learn = regressor()
    learn.fit_one_cycle(3, 1e-2, moms=(0.8, 0.7, 0.8), callbacks=[StepLog(path, extra={"phase": "one"}), keep])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13)) and {row["phase"] for row in rows} == {"one"}
    assert [row["loss"] for row in rows] == losses
    expected = one_cycle(1e-2)
    assert [row["lr"] for row in rows] == [pytest.approx(expected(n / 11)) for n in range(12)]
    assert rows[0]["momentum"] == 0.8 and min(row["momentum"] for row in rows) < 0.72


def test_step_log_of_a_long_fit_is_thinned_and_has_the_last_step(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "N_POINTS", 5)
    regressor(n_batches=11).fit(2, callbacks=[StepLog(tmp_path / "steps.jsonl")])
    rows = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 22]


def test_step_log_writes_null_for_what_is_no_number(tmp_path):
    spoil = DebugCallback("after_step", lambda learn: setattr(learn, "loss", torch.tensor(float("nan"))))
    regressor().fit(1, callbacks=[spoil, StepLog(tmp_path / "steps.jsonl")])
    rows = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [None] * 4
