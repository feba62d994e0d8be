"""The journal: every training is written down as a scientist would, in a SQLite file beside the model folders.

tasks (pretrain, finetune, vision) -> `recorded` -> models/journal.db, table `runs` -> `ulmpipe journal` (journal_cli.py)

A run gets its row when its texts are read and the training begins, and its end when it has one: `done`, `failed`,
`refused` (its options can't be), `interrupted`, or `killed`, which only the next run of the same output can tell. What
can't even begin leaves nothing. No training ever fails, or waits more than seconds, for its journal. It is plain SQL:
`datasette models/journal.db` opens it too.
"""

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import machine
from .console import log
from .durable import CURVE_FILE, finite
from .errors import ConfigError, UlmpipeError

if TYPE_CHECKING:
    from sqlite_utils.db import Table

Row = dict[str, Any]

JOURNAL_FILE = "journal.db"
DEFAULT_JOURNAL = Path("models") / JOURNAL_FILE
RUNNING, DONE, FAILED, REFUSED, INTERRUPTED, KILLED = "running", "done", "failed", "refused", "interrupted", "killed"
WAIT_S = 5.0  # for another run that writes: it takes milliseconds
GIT_TIMEOUT_S = 5.0

COLUMNS: dict[str, type] = {
    "id": int,
    "date": str,  # UTC, when the run began
    "task": str,
    "state": str,
    "source": str,
    "out": str,  # absolute
    "command": str,
    "options": str,  # JSON object
    "note": str,
    "goes_on_from": int,  # id of the run that this one resumes
    "git_commit": str,  # of the working directory's repository
    "tree_clean": int,  # 1 or 0: whether that commit is all there was
    "data": str,  # fingerprint of the texts or pictures
    "machine": str,  # JSON object
    "curve": str,  # JSON list, a row an epoch, as metrics.jsonl has them
    "result": str,  # JSON object
    "seconds": float,
    "error": str,
}
JSON_COLUMNS = ("options", "machine", "curve", "result")
SEARCHED = ("task", "source", "out", "command", "options", "note", "result", "error")


# ---- writing --------------------------------------------------------------------------------------------------------


def journal_of(out: Path) -> Path:
    """The journal of what is written to the folder `out`: beside it."""
    return out.resolve().parent / JOURNAL_FILE


@contextmanager
def recorded(out: Path, task: str, source: str, options: Mapping[str, Any], *, writes: bool = True) -> Iterator["Run"]:
    """Write down what the block does; the lock of `out` must be held. `options` may have a `note`, and `resume`.

    Of several processes that train together, one `writes`.

    with locked(out), recorded(out, "pretrain", source, asdict(config)) as run:
        run.begin(fingerprint, curves=[out])  # the row is written
        run.finish(asdict(result))  # its result, once the block has ended well
    """
    run = Run(out, task, source, options)
    run.writes = writes
    try:
        yield run
    except BaseException as err:
        # A usage error or an unreadable source, before anything began, is no run; a stop or a defect is one.
        if run.has_begun or not isinstance(err, UlmpipeError | OSError):
            run.end(_end_of(err), error=written_down(_told(err)))
        raise
    if run.has_begun:
        run.end(DONE)


def _end_of(err: BaseException) -> str:
    """The state in which an error leaves a run. What is no `Exception` is a stop from outside: train.Interrupted, Ctrl-C."""
    if isinstance(err, ConfigError):
        return REFUSED
    return FAILED if isinstance(err, Exception) else INTERRUPTED


class Run:
    """A row of the journal while its run goes on. What can't be written is said once, in one line of the log."""

    def __init__(self, out: Path, task: str, source: str, options: Mapping[str, Any]):
        self.begin_s = time.monotonic()
        self.path = journal_of(out)
        self.resumes = bool(options.get("resume"))
        self.has_begun, self.is_told, self.writes = False, False, True
        self.id: int | None = None
        self.curves: dict[Path, tuple[int, ...] | None] = {}  # with what each file was before
        source = written_down(source)
        rest = {name: written_down(value) for name, value in options.items() if name != "note"}
        self.row: Row = {name: None for name in COLUMNS if name != "id"}
        self.row |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "task": task, "source": source}
        self.row |= {"out": str(out.resolve()), "options": rest, "note": options.get("note")}

    def begin(self, data: str, curves: Sequence[Path]) -> None:
        """Write the row. `data` is the fingerprint of what is trained on, `curves` the folders that get a metrics.jsonl."""
        self.has_begun = True
        self.curves = {path: _stamp(path) for path in (folder / CURVE_FILE for folder in curves)}
        self._save(state=RUNNING, data=data)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Give the result, which is written when the block ends."""
        self.row["result"] = result

    def end(self, state: str, error: str | None = None) -> None:
        """Write the end of the run, with the curve up to there."""
        self._save(state=state, error=error, seconds=round(time.monotonic() - self.begin_s, 1))

    def entry(self) -> Row:
        """What the journal says of this run so far, for people: its number, when, where and of which commit."""
        known: Any = self.row["machine"] or {}
        commit = self.row["git_commit"]
        found = {
            "number": self.id,
            "journal": str(self.path),
            "date": self.row["date"],
            "note": self.row["note"],
            "commit of the working folder": commit
            and commit[:12] + ("" if self.row["tree_clean"] else ", changed since"),
            "goes on from run": self.row["goes_on_from"],
            **{name: known.get(name) for name in ("processor", "cores", "memory_gb", "gpu", "python", "ulmpipe")},
            **dict(known.get("packages", {})),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _save(self, **columns: Any) -> None:
        """Bring the row up to date in the file."""
        if not self.writes:
            return
        try:
            if self.row["machine"] is None:
                self.row |= {"command": _command(), "machine": machine.info(), **git_state()}
            # A file that nobody touched is an older run's; a resumed run goes on in it.
            paths = [path for path, before in self.curves.items() if self.resumes or _stamp(path) != before]
            self.row |= {**columns, "curve": read_curve(paths)}
            row = {name: _stored(name, value) for name, value in self.row.items()}
            with _writing(self.path) as runs:
                if self.id is not None and runs.count_where("id = ? and date = ?", [self.id, row["date"]]):
                    runs.update(self.id, row, alter=True)
                else:
                    self._look_back(runs, row)
                    self.id = int(runs.insert(row, alter=True).last_pk)  # pyright: ignore[reportArgumentType]
        except Exception as err:  # whatever it is: the training is worth more than its journal
            if not self.is_told:
                log(f"note: the journal {self.path} can't be written ({_told(err)}): the training goes on without it")
            self.is_told = True

    def _look_back(self, runs: "Table", row: Row) -> None:
        """Find out what became of the earlier runs of this output; we have its lock, so that none of them runs."""
        here = {"out": row["out"], "running": RUNNING, "killed": KILLED, "refused": REFUSED}
        runs.db.execute("update runs set state = :killed where out = :out and state = :running", here)
        if self.resumes:
            query = "select max(id) from runs where out = :out and state != :refused"
            row["goes_on_from"] = self.row["goes_on_from"] = runs.db.execute(query, here).fetchone()[0]


@contextmanager
def _writing(path: Path) -> Iterator["Table"]:
    """The table of runs, in a transaction that begins as a writer's: no other can come between a look and a write."""
    from sqlite_utils import Database

    with closing(sqlite3.connect(path, timeout=WAIT_S)) as connection:
        connection.execute("begin immediate")
        with connection:  # commits, or rolls back
            runs = Database(connection, execute_plugins=False).table("runs")
            if runs.db.table_names():
                _check_ours(runs, path)
            runs.create(COLUMNS, pk="id", if_not_exists=True)
            if not runs.detect_fts():
                runs.enable_fts(SEARCHED, create_triggers=True)
            yield runs


def read_curve(paths: Sequence[Path]) -> list[Row]:
    """The rows of metrics.jsonl files; of an epoch that stands there twice, as after a resume, the later one."""
    rows: dict[tuple[Path, object, object], Row] = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                row = json.loads(line)
            except ValueError:  # the last line of a run that was killed
                continue
            rows[path, row.get("phase"), row.get("epoch")] = row
    return list(rows.values())


def git_state(folder: Path | None = None) -> Row:
    """`git_commit` and `tree_clean` of the repository that a folder, by default the working directory, belongs to."""
    commit = _git("rev-parse", "--verify", "HEAD", folder=folder)
    changed = _git("status", "--porcelain", folder=folder) if commit else None
    return {"git_commit": commit, "tree_clean": None if changed is None else int(not changed)}


def _git(*args: str, folder: Path | None) -> str | None:
    try:
        done = subprocess.run(
            ["git", *args],
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
            timeout=GIT_TIMEOUT_S,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # a look must not stand in the way of the user's own git
        )
    except (OSError, subprocess.SubprocessError, ValueError):  # no git, no repository, one of another user, too slow
        return None
    return done.stdout.strip()


# Of the temporary folder that stands for a `datasets.Dataset` (tasks/dataset_source.py), by which it is written down.
DATASET_PREFIX = "ulmpipe-dataset-"
DATASET = re.compile(rf"\S*/{DATASET_PREFIX}(\w+)-[^/\s]+/dataset(?:/[\w.]+)?")
URL = re.compile(r"\w[\w+.-]*://\S+")
# In a URL: who asks, up to the last @ (after a colon the password may hold a slash), and what is signed.
SECRETS = re.compile(r"(?<=://)(?:[^/?#:]*:[^?#]*|[^/?#]*)@|\?.*")


def written_down(value: Any) -> Any:
    """What is written down of a SOURCE, an option or a command line: a URL without user, password and query, a Dataset by its fingerprint.

    >>> written_down({"valid": "https://me:word@host/a.csv?key=1", "seed": 3})
    {'valid': 'https://host/a.csv', 'seed': 3}
    >>> written_down("/tmp/ulmpipe-dataset-1f0c-x2_y/dataset")
    'datasets.Dataset(1f0c)'
    """
    if isinstance(value, Mapping):
        return {name: written_down(one) for name, one in value.items()}
    if not isinstance(value, str):
        return value
    return DATASET.sub(r"datasets.Dataset(\1)", URL.sub(lambda url: SECRETS.sub("", url[0]), value))


def _command() -> str:
    """This process's command line, as one would type it again, but for the passwords of URLs."""
    program = Path(sys.argv[0])
    name = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    n_here = os.environ.get("LOCAL_WORLD_SIZE") if os.environ.get("WORLD_SIZE", "1") != "1" else None
    name = ["torchrun", "--nproc-per-node", n_here, *name[1:]] if n_here and name[0] == "python" else name
    return shlex.join([*name, *map(written_down, sys.argv[1:])])


def _told(err: BaseException) -> str:
    """An error as one line; the kind is said where the message alone may say little."""
    told = " ".join(str(err).split())
    if isinstance(err, UlmpipeError) and told:
        return told
    return f"{type(err).__name__}: {told}" if told else type(err).__name__


def _stored(name: str, value: Any) -> Any:
    """A value as its column holds it: some as JSON, and text as valid UTF-8, for a file's name may hold other bytes."""
    if name in JSON_COLUMNS and value is not None:
        value = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, default=str)
    return _text(value) if isinstance(value, str) else value


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


# ---- reading --------------------------------------------------------------------------------------------------------


def newest(path: Path, n: int) -> list[Row]:
    """The last `n` runs, newest first. Raises `UlmpipeError`, as all that reads, where there is no journal."""
    with _reading(path) as runs:
        return [_decoded(row) for row in runs.rows_where(order_by="id desc", limit=n)]


def search(path: Path, words: str) -> list[Row]:
    """The runs in which all these words come, or longer words that begin so, newest first."""
    query = " ".join('"' + word.replace('"', '""') + '"*' for word in _text(words).replace("\0", " ").split())
    with _reading(path) as runs:
        found = runs.search(query, order_by="id desc", columns=runs.columns_dict) if query else []
        return [_decoded(row) for row in found]


def find(path: Path, number: int) -> Row:
    """One run. Raises `UlmpipeError` where there is none of this number."""
    with _reading(path) as runs:
        return _decoded(_row(runs, path, number))


def add_note(path: Path, number: int, text: str) -> Row:
    """Add a line to the notes of a run, and return the run."""
    find(path, number)  # refused here, where nothing is made that was not there
    with _said(path), _writing(path) as runs:
        before = _row(runs, path, number)["note"]
        runs.update(number, {"note": "\n".join(filter(None, [before, _text(text)]))})
        return _decoded(_row(runs, path, number))


def _row(runs: "Table", path: Path, number: int) -> Row:
    for row in runs.rows_where("id = ?", [number]) if abs(number) < 1 << 63 else ():
        return row
    raise UlmpipeError(f"{path} has no run {number}: `ulmpipe journal` lists them")


@contextmanager
def _reading(path: Path) -> Iterator["Table"]:
    from sqlite_utils import Database

    if not path.is_file():
        raise UlmpipeError(f"there is no journal at {path}: a training writes it, --journal names another")
    # Not `mode=ro`: what a killed run left half written is rolled back by who opens the file next.
    with _said(path), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=WAIT_S)) as found:
        runs = Database(found, execute_plugins=False).table("runs")
        _check_ours(runs, path)
        yield runs


def _check_ours(runs: "Table", path: Path) -> None:
    if not {"id", "date", "task", "state"} <= (runs.columns_dict.keys() if runs.exists() else set()):
        raise UlmpipeError(f"{path} is no journal of ulmpipe: it has no table of runs")


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """What SQLite says of a file that it can't read or write, as an error of ours."""
    try:
        yield
    except sqlite3.Error as err:
        raise UlmpipeError(f"the journal {path} can't be used: {err}") from err


def _decoded(row: Row) -> Row:
    """The row with its JSON columns as objects."""
    return {name: _loads(value) if name in JSON_COLUMNS else value for name, value in row.items()}


def _loads(value: Any) -> Any:
    try:
        return value if value is None else json.loads(value)
    except (TypeError, ValueError):  # edited by hand
        return value
