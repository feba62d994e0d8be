"""The journal: a row a run, whatever became of it; found again by words; and no training that it could harm."""

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulmpipe import journal
from ulmpipe.durable import check_output, locked
from ulmpipe.errors import ConfigError, SourceError, UlmpipeError
from ulmpipe.journal import JOURNAL_FILE, add_note, find, git_state, newest, read_curve, recorded, search, written_down
from ulmpipe.train import Interrupted

OPTIONS = {"lr": 0.01, "resume": False, "note": None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / JOURNAL_FILE


def one_run(
    folder: Path, *, name: str = "out", error: BaseException | None = None, result: Any = None, **options: Any
) -> None:
    """A run that leaves one row of a curve, then ends well or with an error."""
    with locked(folder / name), recorded(folder / name, "pretrain", "films.csv", {**OPTIONS, **options}) as run:
        run.begin("f00d", curves=[folder / name])
        with open(folder / name / "metrics.jsonl", "a") as file:
            file.write('{"phase": "pretrain", "epoch": 0, "valid_loss": 4.5}\n')
        if error is not None:
            raise error
        run.finish(result or {"valid_loss": 4.5, "accuracy": float("nan")})


def git(folder: Path, *args: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *who, *args], check=True, capture_output=True)


# ---- what a run leaves ----------------------------------------------------------------------------------------------


def test_a_run_is_written_down(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/ulmpipe", "pretrain", "my films.csv"])
    one_run(path.parent, note="first try")
    (run,) = newest(path, 20)
    assert run.keys() == journal.COLUMNS.keys()
    assert (run["id"], run["task"], run["state"], run["source"]) == (1, "pretrain", "done", "films.csv")
    assert (run["out"], run["note"], run["data"]) == (str(path.parent / "out"), "first try", "f00d")
    assert run["command"] == "ulmpipe pretrain 'my films.csv'" and run["options"] == {"lr": 0.01, "resume": False}
    assert run["result"] == {"valid_loss": 4.5, "accuracy": None} and run["error"] is None
    assert run["curve"] == [{"phase": "pretrain", "epoch": 0, "valid_loss": 4.5}]
    assert run["date"].endswith("+00:00") and run["machine"]["packages"]["torch"]


def test_a_run_is_there_while_it_goes_on(path: Path):
    with recorded(path.parent / "out", "pretrain", "films.csv", OPTIONS) as run:
        assert not path.exists()
        run.begin("f00d", curves=[])
        assert find(path, 1)["state"] == "running" and find(path, 1)["seconds"] is None
        run.begin_s -= 90
    assert (
        find(path, 1)["state"] == "done"
        and find(path, 1)["seconds"] == pytest.approx(90, abs=20)
        and len(newest(path, 20)) == 1
    )


@pytest.mark.parametrize(
    ("error", "state", "told"),
    [
        (UlmpipeError("the loss is\nno number"), "failed", "the loss is no number"),
        (ZeroDivisionError("division by zero"), "failed", "ZeroDivisionError: division by zero"),
        (OSError(28, "No space left"), "failed", "OSError: [Errno 28] No space left"),
        (ConfigError("begun with others"), "refused", "begun with others"),
        (Interrupted(signal.SIGTERM), "interrupted", "Interrupted: stopped by SIGTERM"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (SystemExit(143), "interrupted", "SystemExit: 143"),
    ],
)
def test_an_error_is_written_and_passes_through(path: Path, error: BaseException, state: str, told: str):
    with pytest.raises(type(error)) as caught:
        one_run(path.parent, error=error)
    assert caught.value is error
    run = find(path, 1)
    assert (run["state"], run["error"], run["result"], len(run["curve"])) == (state, told, None, 1)


def test_what_could_not_begin_leaves_nothing_and_what_was_stopped_does(path: Path):
    for error in (SourceError("no documents"), ConfigError("no such option"), OSError("unreadable")):
        with pytest.raises(type(error)), recorded(path.parent / "out", "pretrain", "films.csv", OPTIONS):
            raise error
    assert not path.exists()
    with pytest.raises(KeyboardInterrupt), recorded(path.parent / "out", "pretrain", "films.csv", OPTIONS):
        raise KeyboardInterrupt
    assert (find(path, 1)["state"], find(path, 1)["data"]) == ("interrupted", None)


def test_a_resumed_run_says_which_it_goes_on_from(path: Path):
    one_run(path.parent, name="other")
    for error in (KeyboardInterrupt(), ConfigError("refused")):
        with pytest.raises(type(error)):
            one_run(path.parent, error=error)
    one_run(path.parent, resume=True)
    one_run(path.parent)
    assert [run["goes_on_from"] for run in newest(path, 20)] == [None, 2, None, None, None]
    one_run(path.parent, name="new", resume=True)
    assert find(path, 6)["goes_on_from"] is None


def test_a_killed_run_is_found_out_by_the_next_of_the_same_output(path: Path):
    for name in ("out", "other"):
        journal.Run(path.parent / name, "pretrain", "films.csv", OPTIONS).begin("f00d", curves=[])
    one_run(path.parent, resume=True)
    assert [run["state"] for run in newest(path, 20)] == ["done", "running", "killed"]
    assert find(path, 3)["goes_on_from"] == 1


def test_the_curve_of_an_older_run_is_not_taken_for_this_one(path: Path):
    one_run(path.parent)
    with recorded(path.parent / "out", "pretrain", "films.csv", OPTIONS) as run:
        run.begin("f00d", curves=[path.parent / "out"])
    with recorded(path.parent / "out", "pretrain", "films.csv", {**OPTIONS, "resume": True}) as run:
        run.begin("f00d", curves=[path.parent / "out"])
    assert [len(run["curve"]) for run in newest(path, 20)] == [1, 0, 1]


def test_of_an_epoch_that_stands_twice_the_later_row_counts(tmp_path: Path):
    rows = [("a", 0, 1), ("a", 1, 2), ("a", 1, 3), ("b", 0, 4)]
    lines = [json.dumps({"phase": phase, "epoch": epoch, "step": step}) for phase, epoch, step in rows]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"phase": "b", "ep']))
    found = read_curve([tmp_path / "absent", tmp_path / "metrics.jsonl"])
    assert [row["step"] for row in found] == [1, 3, 4]


def test_the_commit_and_whether_it_is_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    none = {"git_commit": None, "tree_clean": None}
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) == none
    git(tmp_path, "init")
    assert git_state(tmp_path) == none  # no commit yet
    (tmp_path / "a").write_text("a")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "a")
    assert len(git_state(tmp_path)["git_commit"]) == 40 and git_state(tmp_path)["tree_clean"] == 1
    (tmp_path / "a").write_text("b")
    assert git_state(tmp_path)["tree_clean"] == 0
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) == none


def test_the_command_of_a_module_is_as_one_types_it(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/x/vision/__main__.py", "train", "digits"])
    one_run(path.parent)
    assert find(path, 1)["command"] == "python -m vision train digits"


def test_text_that_is_no_utf8_and_values_that_are_no_json(path: Path):
    one_run(path.parent, note="caf\udce9", result={"folder": Path("a"), "loss": [float("inf"), 1.0]})
    assert find(path, 1)["note"] == "caf\\udce9" and find(path, 1)["result"] == {"folder": "a", "loss": [None, 1.0]}


def test_a_journal_beside_an_output_is_not_in_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ulmpipe.tasks.model_folder import left_behind

    one_run(tmp_path)
    assert journal.journal_of(tmp_path / "out") == tmp_path / JOURNAL_FILE
    (tmp_path / "out/metrics.jsonl").rename(tmp_path / "metrics.jsonl")
    (tmp_path / "out/.lock").unlink()
    (tmp_path / "out").rmdir()
    check_output(tmp_path, expected="language model", also=left_behind(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert journal.journal_of(Path()) == tmp_path.parent / JOURNAL_FILE


# ---- found again ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    one_run(folder, note='Überall "gut", lr=0.01 NOT bad')
    with pytest.raises(UlmpipeError):
        one_run(folder, name="films-lm", error=UlmpipeError("the loss exploded"), n_labels=77)
    return folder / JOURNAL_FILE


@pytest.mark.parametrize(
    ("words", "ref"),
    [
        ("films.csv", [2, 1]),
        ("films", [2, 1]),
        ("film", [2, 1]),  # the beginning of a word
        ("exploded", [2]),
        ("films-lm", [2]),
        ("n_labels 77", [2]),
        ("überall", [1]),
        ("UBERALL gut", [1]),
        ("gut exploded", []),
        ('"gut"', [1]),
        ("NOT", [1]),
        ("lr=0.01", [2, 1]),  # as options are written, too
        ("pretrain", [2, 1]),
        ("", []),
        ("!!!", []),
    ],
)
def test_search_finds_runs_in_which_all_words_come(filled: Path, words: str, ref: list[int]):
    assert [run["id"] for run in search(filled, words)] == ref


def test_search_gives_whole_runs(filled: Path):
    assert search(filled, "gut") == [find(filled, 1)]


@given(st.text(st.characters(), max_size=20) | st.text("\"*()^:-+{}' NOTANDOREAR\0", max_size=12))
def test_no_word_breaks_a_search(filled: Path, words: str):
    assert isinstance(search(filled, words), list)


def test_what_is_written_later_is_found_too(path: Path):
    one_run(path.parent, result={"valid_loss": 4.5, "labels": ["zebra"]})
    assert not search(path, "quagga")
    add_note(path, 1, "no quagga")
    assert add_note(path, 1, "twice")["note"] == "no quagga\ntwice"
    assert [run["id"] for run in search(path, "quagga zebra")] == [1]


def test_newest_comes_first(path: Path):
    for n in range(4):
        one_run(path.parent, name=f"out{n}")
    assert [run["id"] for run in newest(path, 3)] == [4, 3, 2]


@pytest.mark.parametrize("number", [0, -1, 2, 1 << 63, -(1 << 70)])
def test_unknown_run_is_said(path: Path, number: int):
    one_run(path.parent)
    with pytest.raises(UlmpipeError, match=f"has no run {number}: `ulmpipe journal` lists them"):
        find(path, number)
    with pytest.raises(UlmpipeError, match="has no run"):
        add_note(path, number, "lost")


@pytest.mark.parametrize("read", [lambda p: newest(p, 1), lambda p: search(p, "a"), lambda p: add_note(p, 1, "a")])
def test_a_file_that_is_no_journal_is_refused_and_untouched(path: Path, read: Any):
    with pytest.raises(UlmpipeError, match="there is no journal at"):
        read(path)
    assert not path.exists()
    path.write_text("years of work " * 100)
    with pytest.raises(UlmpipeError, match="can't be used: file is not a database"):
        read(path)
    path.unlink()
    make_table(path, "runs")
    before = path.read_bytes()
    with pytest.raises(UlmpipeError, match="is no journal of ulmpipe"):
        read(path)
    one_run(path.parent)
    assert path.read_bytes() == before


def make_table(path: Path, name: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"create table {name} (kilometres)")
    connection.commit()
    connection.close()


def test_a_value_edited_by_hand_is_shown_as_it_is(path: Path):
    one_run(path.parent)
    with sqlite3.connect(path) as connection:
        connection.execute("update runs set result = '{half'")
    connection.close()
    assert find(path, 1)["result"] == "{half"


# ---- no harm --------------------------------------------------------------------------------------------------------


def spoil(path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "folder":
        path.mkdir()
    elif how == "no database":
        path.write_text("years of work " * 100)
    elif how == "another's":
        make_table(path, "rides")
    elif how == "no library":
        monkeypatch.setitem(sys.modules, "sqlite_utils", None)
    elif how == "defect":
        monkeypatch.setattr(journal, "read_curve", lambda paths: 1 / 0)


@pytest.mark.parametrize("how", ["folder", "no database", "another's", "no library", "defect"])
def test_a_journal_that_can_not_be_written_stops_no_training(
    path: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    spoil(path, how, monkeypatch)
    one_run(path.parent)
    assert (path.parent / "out/metrics.jsonl").exists()
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"the journal {path} can't be written (" in err
    with pytest.raises(KeyboardInterrupt):
        one_run(path.parent, error=KeyboardInterrupt())


def test_a_locked_journal_is_waited_for_then_left(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    one_run(path.parent)
    monkeypatch.setattr(journal, "WAIT_S", 0.05)
    other = sqlite3.connect(path)
    other.execute("begin immediate")
    with recorded(path.parent / "late", "pretrain", "films.csv", OPTIONS) as run:
        run.begin("f00d", curves=[])
        assert "database is locked" in capsys.readouterr().err
        other.close()
    assert find(path, 2)["state"] == "done"  # what could not be written at the beginning is at the end


def test_a_journal_that_vanished_is_made_again(path: Path):
    with recorded(path.parent / "out", "pretrain", "films.csv", OPTIONS) as run:
        run.begin("f00d", curves=[])
        path.unlink()
    assert find(path, 1)["state"] == "done"


def test_a_column_that_a_journal_lacks_is_added(path: Path):
    with sqlite3.connect(path) as connection:
        connection.execute("create table runs (id integer primary key, date, task, state, source, out, command, options, note, result, error)")  # fmt: skip
    connection.close()
    one_run(path.parent)
    assert find(path, 1)["goes_on_from"] is None and find(path, 1)["data"] == "f00d"


MANY = """
import sys
from pathlib import Path
from ulmpipe.journal import written_down, recorded
out = Path(sys.argv[1])
for n in range(15):
    with recorded(out.with_name(f"{out.name}{n}"), "pretrain", "films.csv", {"note": out.name}) as run:
        run.begin("f00d", curves=[])
        run.finish({"n": n})
"""


def test_several_processes_write_at_once(path: Path):
    processes = [
        subprocess.Popen([sys.executable, "-c", MANY, str(path.parent / name)], stderr=subprocess.PIPE, text=True)
        for name in ("anna", "berta", "clara")
    ]
    assert [process.communicate(timeout=120)[1] for process in processes] == ["", "", ""]
    runs = newest(path, 100)
    assert [run["id"] for run in runs] == list(range(45, 0, -1)) and {run["state"] for run in runs} == {"done"}
    assert sorted((run["note"], run["result"]["n"]) for run in runs) == [
        (name, n) for name in ("anna", "berta", "clara") for n in range(15)
    ]
    assert len(search(path, "berta")) == 15


def test_any_program_that_knows_sqlite_reads_it(path: Path):
    one_run(path.parent, note="first try")
    connection = sqlite3.connect(path)
    found = connection.execute("select json_extract(result, '$.valid_loss'), note from runs").fetchall()
    assert found == [(4.5, "first try")]
    assert connection.execute("select rowid from runs_fts where runs_fts match 'first'").fetchall() == [(1,)]
    assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert {file.name for file in path.parent.iterdir()} == {JOURNAL_FILE, "out"}


def test_datasette_opens_it(path: Path):
    pytest.importorskip("datasette", reason="datasette is not installed")
    one_run(path.parent)
    done = subprocess.run([sys.executable, "-m", "datasette", "inspect", str(path)], capture_output=True, text=True)
    assert json.loads(done.stdout)["journal"]["tables"]["runs"]["count"] == 1


@pytest.mark.parametrize("secret", ["me:hunter2@", "me:hunt@er2@", "me:it's-hunter2@", "me:hunter2/x@", "hunter2@", ""])
def test_passwords_of_urls_are_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str):
    url = f"https://{secret}host/a.csv?key=hunter2/x"
    monkeypatch.setattr("sys.argv", ["ulmpipe", "pretrain", url])
    with (
        pytest.raises(UlmpipeError),
        recorded(
            tmp_path / "lm", "pretrain", url, {"valid": url, "seed": 1, "note": "does it pay? see http://x"}
        ) as run,
    ):
        run.begin("data", curves=[])
        raise UlmpipeError(f"{url} is gone")
    row = find(tmp_path / "journal.db", 1)
    assert row["source"] == row["options"]["valid"] == "https://host/a.csv" and row["options"]["seed"] == 1
    assert row["command"] == "ulmpipe pretrain https://host/a.csv" and row["note"] == "does it pay? see http://x"
    assert row["error"] == "https://host/a.csv is gone"
    assert b"hunt" not in (tmp_path / "journal.db").read_bytes()


def test_what_is_no_secret_stays():
    for text in (
        "https://host/me@home/a.csv",
        "does it pay? see https://host/a, or me@host",
        "a?b",
        "s3://bucket/a.csv",
    ):
        assert written_down(text) == text
