"""What the tests of faults share: a corpus, runs as processes that can be killed, and what is left after them."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from commands import hear_interrupts

from ulmpipe.durable import LOCK, MANIFEST, describe_file
from ulmpipe.errors import UlmpipeError

LONGEST_S = 200  # that a run may take
ALL = os.environ.get("ULMPIPE_FAULTS") == "all"  # `make faults`; without it a part that takes a minute
DRIVER = Path(__file__).parent / "driver.py"
MARK = "ULMPIPE_FAULTS_RUN"  # in the environment of every process of a run, those of its workers too
WORDS = ("film", "GOOD", "bad", "don't", "A", "(well)", "it's", "the", "<br />", "ünïcode", "3.5", "e.g.", "wow!!!!")


def some(n_all: int, n_quick: int) -> range:
    """As many as `make faults` tries, or as `make test` does."""
    return range(n_all if ALL else n_quick)


def write_corpus(folder: Path, *, n_files: int = 60, n_words: int = 400) -> Path:
    """Labelled files with two that can't be read: some eight work units of `driver.py`."""
    rng = random.Random(0)
    for n in range(n_files):
        path = folder / ("pos" if n % 2 else "neg") / f"{n:03d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(rng.choices(WORDS, k=n_words)), encoding="utf-8")
    for n in (7, 30):
        (folder / ("pos" if n % 2 else "neg") / f"{n:03d}.txt").write_bytes(b"caf\xe9")
    return folder


def tree_hash(folder: Path) -> str:
    """Of the names and contents of all files below a folder, but the lock's."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LOCK):
        total.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


class Run(NamedTuple):
    """A run of driver.py that goes on."""

    process: subprocess.Popen[str]
    mark: str

    def end(self) -> tuple[int, str]:
        """Its exit code, and all that it said."""
        _, err = self.process.communicate(timeout=LONGEST_S)
        return self.process.returncode, err

    def alive(self) -> list[int]:
        """The processes of the run, its workers among them, that are there now."""
        return [pid for pid in _pids() if f"{MARK}={self.mark}\0".encode() in _environment(pid)]

    def workers(self) -> list[int]:
        """Its workers: those of the children of its first process that loky has started to work."""
        return [
            pid for pid in self.alive() if _parent(pid) == self.process.pid and b"popen_loky_posix" in _command(pid)
        ]


def start(source: Path, out: Path, workers: int, *prefix: str) -> Run:
    """Begin a run of driver.py, under another program where a `prefix` says so."""
    mark = f"{out}-{time.monotonic_ns()}"
    env = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(DRIVER.parents[2])}
    words = [*prefix, sys.executable, str(DRIVER), str(source), str(out), str(workers)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, preexec_fn=hear_interrupts)  # fmt: skip
    assert process.stdout is not None
    assert prefix or process.stdout.readline() == "ready\n"
    return Run(process, mark)


def gone(run: Run, within_s: float = 20.0) -> bool:
    """Whether nothing of a run is left, no process and nothing in shared memory, now or after a moment."""
    until = time.monotonic() + within_s
    its_own = re.compile(rf"[-_]{run.process.pid}[-_]")
    while run.alive() or (os.path.isdir("/dev/shm") and any(map(its_own.search, os.listdir("/dev/shm")))):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def say_so(folder: Path, name: str) -> None:
    """Let a folder's manifest describe a file as it is by now: who can alter the one can alter the other."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {**manifest["files"].get(name, {}), **describe_file(folder / name)}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _environment(pid: int) -> bytes:
    return _read(f"/proc/{pid}/environ")


def _command(pid: int) -> bytes:
    return _read(f"/proc/{pid}/cmdline")


def _parent(pid: int) -> int:
    status = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(status[1]) if status else 0


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


# ---- in a child of this process -------------------------------------------------------------------------------------


def in_child(function: Callable[[], object]) -> int:
    """Call a function in a fork of this process, in which spaCy and the kernels are loaded: its exit code, -9 where it was killed.

    An `OSError` or `UlmpipeError` is exit code 1, as of the command line, anything else that is raised 70.
    """
    pid = os.fork()
    if pid == 0:
        code = 70
        signal.alarm(LONGEST_S)
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.dup2(devnull, 2)
            function()
            code = 0
        except (OSError, UlmpipeError):
            code = 1
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def fail_at(owner: object, name: str, n: int, failure: Callable[[], None]) -> list[int]:
    """From now on call `failure` before the n-th call of `owner.name`; the list counts the calls."""
    real, n_calls = getattr(owner, name), [0]

    def call(*args: object, **options: object) -> object:
        n_calls[0] += 1
        if n_calls[0] == n:
            failure()
        return real(*args, **options)

    setattr(owner, name, call)
    return n_calls


def killed() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)
