"""What kills or stops a worker is found among the documents of its unit; where it is none of them, that is said."""

from pathlib import Path
from typing import Any

import pytest
from defects import fatal_rules

from ulmpipe.errors import UlmpipeError
from ulmpipe.text import killers
from ulmpipe.text.killers import without_killers
from ulmpipe.text.pieces import Columns
from ulmpipe.text.shards import Job
from ulmpipe.text.source import plan_files
from ulmpipe.text.tokenizer import TokenizerRecipe


def job_of(stage: Path, **others: Any) -> Job:
    stage.mkdir()
    return Job(str(stage), TokenizerRecipe("en", fatal_rules()), Columns(), **others)


def unit_of(path: Path, *bad: str) -> Any:
    lines = [f"line {n}" for n in range(5)]
    for n, word in enumerate(bad):
        lines[2 * n + 1] = word
    path.write_text("\n".join(lines) + "\n")
    (unit,) = plan_files([path]).units
    return unit


@pytest.mark.parametrize(("bad", "timeout_s"), [(("KILL it", "and KILL"), None), (("a HANG",), 2.0)])
def test_documents_are_found(tmp_path: Path, bad: tuple[str, ...], timeout_s: float | None):
    unit = unit_of(tmp_path / "a.txt", *bad)
    record = without_killers(0, unit, job_of(tmp_path / "stage"), timeout_s=timeout_s, name_of=str)
    assert record.n_docs == 5 - len(bad)
    offsets = [7, 7 + len(bad[0]) + 1 + 7][: len(bad)]
    assert [(each.source, each.offset) for each in record.quarantined] == [(f"a.txt@{n}", n) for n in offsets]
    assert record.n_left_out == len(bad)
    assert all(("longer than 2 s" if timeout_s else "was killed") in each.reason for each in record.quarantined)


def test_more_documents_than_can_be_chance_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(killers, "MAX_LEFT_OUT", 0)
    unit = unit_of(tmp_path / "a.txt", "KILL")
    with pytest.raises(UlmpipeError, match="unit 3: its worker process was killed, .* no single document's doing"):
        without_killers(3, unit, job_of(tmp_path / "stage"), timeout_s=None, name_of=lambda number: f"unit {number}")
