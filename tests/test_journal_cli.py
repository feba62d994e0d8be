"""`ulmpipe journal`: lists, searches, shows, annotates; one JSON object; one line where there is nothing to read."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ulmpipe.cli import app
from ulmpipe.errors import UlmpipeError
from ulmpipe.journal import JOURNAL_FILE, recorded
from ulmpipe.journal_cli import main_result


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journal of two runs, at its usual place."""
    (tmp_path / "models/clf").mkdir(parents=True)
    rows = [{"phase": "head", "epoch": n, "valid_loss": 0.6 - n / 10} for n in range(2)]
    options = {"lr": None, "epochs": 2, "note": "a note that is far too long for one line of a list\nand has two lines"}
    with recorded(tmp_path / "models/clf", "finetune", "films.csv", options) as run:
        run.begin("f00d", curves=[tmp_path / "models/clf"])
        (tmp_path / "models/clf/metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        run.finish({"valid_loss": 0.5, "accuracy": 0.87654, "labels": ["neg", "pos"]})
    with pytest.raises(UlmpipeError), recorded(tmp_path / "models/lm", "pretrain", "wiki", {}) as run:
        run.begin("beef", curves=[])
        raise UlmpipeError("the loss exploded")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models" / JOURNAL_FILE


def run(*args: object) -> Result:
    return CliRunner().invoke(app, ["journal", *map(str, args)])


def test_the_newest_runs_are_listed(path: Path):
    second, first = run().stdout.splitlines()
    assert second.startswith("2  20") and second.endswith("pretrain  failed  wiki")
    told = ["finetune", "done", "films.csv", "accuracy 0.8765", "a note that is far too long for one lin…"]
    assert [cell.strip() for cell in first.split("  ") if cell][2:] == told


@pytest.mark.parametrize(("words", "ref"), [(["films"], [1]), (["exploded", "wiki"], [2]), (['"', "NOT zebra"], [])])
def test_search_lists_runs(path: Path, words: list[str], ref: list[int]):
    assert [one["id"] for one in json.loads(run("search", *words, "--json").stdout)["runs"]] == ref
    listed = run("search", *words).stdout.splitlines()
    assert [line[0] for line in listed] == [f"{number}" for number in ref] or listed[0].startswith("no run in models/")


def test_show_says_all(path: Path):
    out = run("show", 1).stdout
    assert "task:         finetune\n" in out and "  epochs               2\n" in out and "neg, pos" in out
    assert "  phase  epoch  valid_loss\n  head   0      0.6\n  head   1      0.5\n" in out
    assert "lr  " not in out and "\nerror:" not in out
    assert "note:         a note" in out and "\n              and has two lines\n" in out
    assert "error:        the loss exploded\n" in run("show", 2).stdout


def test_note_adds_a_line(path: Path):
    assert run("note", 2, "lower lr next time").stdout == "lower lr next time\n"
    assert json.loads(run("note", 2, "done", "--json").stdout)["note"] == "lower lr next time\ndone"


def test_json_is_one_object(path: Path):
    for args in (["--json"], ["search", "films", "--json"], ["show", 1, "--json"], ["--json", "show", 1]):
        assert isinstance(json.loads(run(*args).stdout), dict)
    assert [one["id"] for one in json.loads(run("--json").stdout)["runs"]] == [2, 1]
    assert json.loads(run("show", 1, "--json").stdout)["curve"][1]["epoch"] == 1


def test_another_journal_is_named_before_or_after(path: Path, tmp_path: Path):
    path = path.rename(tmp_path / "other.db")
    assert run("--journal", path).stdout == run("--journal", "other.db").stdout != ""
    assert run("show", 1, "--journal", path).stdout == run("--journal", path, "show", 1).stdout != ""


@pytest.mark.parametrize("args", [[], ["show", 1], ["search", "a"], ["note", 1, "a"]])
def test_no_journal_is_said(path: Path, args: list[Any]):
    path.unlink()
    ended = run(*args)
    assert isinstance(ended.exception, UlmpipeError) and "there is no journal at models/journal.db" in str(ended.exception)  # fmt: skip
    assert ended.stdout == "" and not path.exists()


@pytest.mark.parametrize(
    ("result", "ref"),
    [
        ({"perplexity": 45.678, "accuracy": 0.3}, "perplexity 45.68"),
        ({"accuracy": None, "valid_loss": 3.0}, "valid_loss 3"),
        ({"perplexity": None, "accuracy": 0.0}, "accuracy 0"),
        ({}, ""),
        (None, ""),
        ("{half", ""),
    ],
)
def test_main_result(result: Any, ref: str):
    assert main_result(result) == ref
