"""TensorBoard logs hold the losses, the rates and the epochs' numbers, of a resumed fit too; and are asked for in time."""

from pathlib import Path
from typing import Any

import pytest

from ulmpipe.errors import ConfigError
from ulmpipe.train import tensorboard
from ulmpipe.train.checkpoint import Checkpoint, latest_checkpoint
from ulmpipe.train.tensorboard import TensorBoardLog, check_tensorboard

from .toy import Raise, regressor

pytest.importorskip("tensorboard", reason="tensorboard is not installed")


def written(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of all that a log holds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log: Any = EventAccumulator(str(folder))
    log.Reload()
    return {tag: [(one.step, one.value) for one in log.Scalars(tag)] for tag in log.Tags()["scalars"]}


def test_losses_rates_and_epochs_are_written(tmp_path: Path):
    learn = regressor(n_batches=5)
    learn.fit_one_cycle(2, 0.1, callbacks=[TensorBoardLog(tmp_path / "log", every_steps=4)])
    found = written(tmp_path / "log")
    assert [step for step, _ in found["train/loss"]] == [4, 8, 10]
    rates = dict(found["lr/group 0"])
    assert rates[4] == pytest.approx(0.1, rel=0.1) and rates[10] < rates[8] < rates[4]
    ref = [(row["step"], pytest.approx(row["valid_loss"])) for row in learn.history]
    assert found["epoch/valid_loss"] == ref and [step for step, _ in ref] == [5, 10]
    assert {"epoch/train_loss", "epoch/seconds"} <= found.keys() and "epoch/step" not in found


def test_a_fit_from_the_beginning_replaces_the_log(tmp_path: Path):
    for n_epochs in (3, 1):
        regressor().fit(n_epochs, callbacks=[TensorBoardLog(tmp_path, every_steps=1)])
    assert [step for step, _ in written(tmp_path)["train/loss"]] == [1, 2, 3, 4]


def test_a_resumed_fit_goes_on_in_the_log(tmp_path: Path):
    def fit(*callbacks: Any, resume: Path | None = None) -> None:
        log = TensorBoardLog(tmp_path / "log", every_steps=1)
        regressor().fit(2, callbacks=[log, Checkpoint(tmp_path, every_steps=3, keep=2), *callbacks], resume=resume)

    with pytest.raises(KeyboardInterrupt):
        fit(Raise("before_step", KeyboardInterrupt(), at_step=5))
    fit(resume=latest_checkpoint(tmp_path))
    found = written(tmp_path / "log")
    assert [step for step, _ in found["train/loss"]] == list(range(1, 9))
    assert [step for step, _ in found["epoch/valid_loss"]] == [4, 8]


def test_the_log_is_closed_whatever_happens(tmp_path: Path):
    log = TensorBoardLog(tmp_path, every_steps=1)
    with pytest.raises(ZeroDivisionError):
        regressor().fit(1, callbacks=[log, Raise("before_step", ZeroDivisionError(), at_step=2)])
    assert log._writer is None and [step for step, _ in written(tmp_path)["train/loss"]] == [1, 2]


def test_what_is_not_installed_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed: pip install 'ulmpipe\[tensorboard\]'"):
        check_tensorboard()
    with pytest.raises(ConfigError):
        TensorBoardLog(tmp_path)
