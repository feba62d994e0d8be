import json

import pytest

from ulmpipe import console
from ulmpipe.train import DebugCallback, MetricsLog, Progress
from ulmpipe.train.progress import describe

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
