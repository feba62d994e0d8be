import json
import time
from pathlib import Path

import pytest

from ulmpipe.journal import Run
from ulmpipe.reports.timing import timing


def write_curve(folder: Path, *rows: tuple[str, int, float]) -> Path:
    folder.mkdir()
    lines = [json.dumps({"phase": phase, "epoch": epoch, "seconds": seconds}) for phase, epoch, seconds in rows]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_phases_are_added_up_and_the_rest_of_the_run_is_told(tmp_path: Path):
    lm = write_curve(tmp_path / "lm", ("words", 0, 1.5), ("all", 0, 2.0), ("all", 1, 3.0))
    classifier = write_curve(tmp_path / "clf", ("head", 0, 4.0))
    run = Run(tmp_path / "clf", "finetune", "a.csv", {})
    run.begin_s = time.monotonic() - 20.0
    found = timing([lm, classifier], {"reading": 2.5, "nothing": 0.0}, run)
    rest = found.pop("everything else")
    assert found == {"reading": 2.5, "words": 1.5, "all": 5.0, "head": 4.0}
    assert rest == pytest.approx(20 - 13, abs=1)


def test_an_epoch_that_was_done_again_counts_once(tmp_path: Path):
    folder = write_curve(tmp_path / "lm", ("all", 0, 2.0), ("all", 0, 3.0))
    assert timing([folder], {}, Run(folder, "pretrain", "a.txt", {}))["all"] == 3.0


def test_a_resumed_run_took_less_than_its_phases(tmp_path: Path):
    folder = write_curve(tmp_path / "lm", ("all", 0, 1000.0))
    assert timing([folder], {}, Run(folder, "pretrain", "a.txt", {})) == {"all": 1000.0}
