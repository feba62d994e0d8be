"""A run that was interrupted goes on with the units that are not done, to the same bytes; what is not its own is not used."""

import os
from pathlib import Path
from typing import Any

import pytest
from learnable import contents

from ulmpipe.config import TokenizeConfig
from ulmpipe.durable import DONE_PREFIX, STAGING_PREFIX
from ulmpipe.tasks import publish, units
from ulmpipe.tasks import tokenize as task
from ulmpipe.tasks.tokenize import tokenize, tokenize_plan
from ulmpipe.tasks.units import n_workers
from ulmpipe.text.done import read_done
from ulmpipe.text.shards import UnitRecord, tokenize_unit
from ulmpipe.text.source import plan_folder


@pytest.mark.parametrize("where", ["tokenize_unit", "keep", "merge_counts", "number_unit", "datasets_files", "publish"])
@pytest.mark.parametrize("n_before", [0, 2])
def test_a_run_goes_on_with_the_units_that_are_not_done(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, n_before: int
):
    plan = plan_folder(reviews, unit_bytes=50)
    in_units = where in ("tokenize_unit", "keep")
    n_done = n_before if in_units else len(plan.units)
    owner = units if in_units or where == "number_unit" else publish if where == "datasets_files" else task
    real, calls = getattr(owner, where), []

    def interrupt(*args: object, **options: object) -> object:
        calls.append(args)
        if not in_units or len(calls) > n_before:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, where, interrupt)
        tokenize_plan(plan, tmp_path / "out", TokenizeConfig(workers=1))
    assert (tmp_path / "out").exists() == (n_done > 0) and not list((tmp_path / "out").glob(f"{STAGING_PREFIX}*"))
    redone: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(
            units, "tokenize_unit", lambda index, *rest: (redone.append(index), tokenize_unit(index, *rest))[1]
        )
        tokenize_plan(plan, tmp_path / "out", TokenizeConfig(workers=1))
    assert len(plan.units) >= 4 and redone == list(range(n_done, len(plan.units)))
    tokenize_plan(plan, tmp_path / "ref", TokenizeConfig(workers=1))
    assert contents(tmp_path / "out") == contents(tmp_path / "ref")
    assert not list((tmp_path / "out").glob(f"{DONE_PREFIX}*"))


def test_what_is_done_with_other_settings_is_not_gone_on_from(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(task, "merge_counts", interrupted)
        tokenize(reviews, tmp_path / "out", workers=1, rules="course")
    tokenize(reviews, tmp_path / "out", workers=1)
    tokenize(reviews, tmp_path / "ref", workers=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "ref")
    assert "going on" not in capsys.readouterr().err and not list((tmp_path / "out").glob(f"{DONE_PREFIX}*"))


def test_with_functions_of_a_user_nothing_is_gone_on_from(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Their names stay the same when what they do does not."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(task, "merge_counts", interrupted)
        tokenize(reviews, tmp_path / "out", workers=1, read=lambda path: "the first")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"engine": "spacy"}, {"verify": 1.0}])
def test_units_of_another_engine_or_less_checked_are_not_gone_on_from(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: Any
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(task, "merge_counts", interrupted)
        tokenize(reviews, tmp_path / "out", workers=1)
    for name in ("out", "ref"):
        tokenize(reviews, tmp_path / name, workers=1, **options)
    assert "going on" not in capsys.readouterr().err and contents(tmp_path / "out") == contents(tmp_path / "ref")


def test_speed_is_that_of_the_units_of_this_run(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(task, "merge_counts", interrupted)
        tokenize(reviews, tmp_path / "out", workers=1)
    found = tokenize(reviews, tmp_path / "out", workers=1)
    assert found.n_tokens > 0 and found.tokens_per_s == found.mb_per_s == 0 and not found.reused


def test_a_store_of_which_a_file_changed_is_made_again(reviews: Path, tmp_path: Path):
    plan = plan_folder(reviews)
    os.utime(reviews / "pos/2.txt", (1, 1))  # after it was planned
    assert tokenize_plan(plan, tmp_path / "out", TokenizeConfig(workers=1)).n_quarantined == 1
    found = tokenize(reviews, tmp_path / "out", workers=1)
    assert found.n_quarantined == 0 and not found.reused and tokenize(reviews, tmp_path / "out", workers=1).reused


def test_a_file_that_is_gone_is_looked_for_by_the_next_run(reviews: Path, tmp_path: Path):
    plan, path = plan_folder(reviews), reviews / "pos/2.txt"
    text = path.read_text()
    path.unlink()
    store = tokenize_plan(plan, tmp_path / "out", TokenizeConfig(workers=1), fingerprint="f")
    assert store.n_quarantined == 1
    path.write_text(text)
    found = tokenize_plan(plan_folder(reviews), tmp_path / "out", TokenizeConfig(workers=1), fingerprint="f")
    assert found.n_quarantined == 0 and not found.reused


def test_a_store_without_documents_that_hung_is_told_of_and_made_again_by_force(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def left_out(index: int, *rest: Any) -> UnitRecord:
        record = tokenize_unit(index, *rest)
        record.n_left_out = 2
        return record

    with monkeypatch.context() as patch:
        patch.setattr(units, "tokenize_unit", left_out)
        tokenize(reviews, tmp_path / "out", workers=1)
    assert tokenize(reviews, tmp_path / "out", workers=1).reused
    assert "made without 2 documents that killed or stopped their worker" in capsys.readouterr().err
    assert not tokenize(reviews, tmp_path / "out", workers=1, force=True).reused
    capsys.readouterr()
    assert tokenize(reviews, tmp_path / "out", workers=1).reused and "made without" not in capsys.readouterr().err


def test_units_that_were_altered_are_done_again(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = plan_folder(reviews, unit_bytes=50)
    tokenize_plan(plan, tmp_path / "ref", TokenizeConfig(workers=1))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(task, "merge_counts", interrupted)
        tokenize_plan(plan, tmp_path / "out", TokenizeConfig(workers=1))
    (done,) = (tmp_path / "out").glob(f"{DONE_PREFIX}*")
    (done / "unit-00000.arrow").write_bytes((done / "unit-00000.arrow").read_bytes()[:-8])
    flipped = bytearray((done / "unit-00001.arrow").read_bytes())
    flipped[-40] ^= 1
    (done / "unit-00001.arrow").write_bytes(flipped)
    (done / "unit-00002.counts.arrow").unlink()
    lines = (done / "done.jsonl").read_bytes()
    (done / "done.jsonl").write_bytes(lines[: lines.rindex(b"\n") + 20])  # the last line is cut
    assert sorted(read_done(done)) == list(range(3, len(plan.units) - 1))
    tokenize_plan(plan, tmp_path / "out", TokenizeConfig(workers=1))
    assert contents(tmp_path / "out") == contents(tmp_path / "ref")


def interrupted(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("workers", "n_units", "ref"), [(1, 9, 1), (4, 9, 4), (4, 2, 2), (0, 1, 1), (3, 0, 1)])
def test_n_workers_are_never_more_than_units(workers: int, n_units: int, ref: int):
    assert n_workers(TokenizeConfig(workers=workers), n_units) == ref
