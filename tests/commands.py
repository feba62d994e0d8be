"""Command lines as the tests run them: in a process of their own, or in several; `cli` of conftest.py runs them in this one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LM = ("--workers", "1", "--size", "tiny", "--batch-size", "8", "--bptt", "20")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Ended]


def start(*args: str | Path, n_processes: int = 1, **environment: str) -> subprocess.Popen[str]:
    """Begin a command line in a process of its own, or in several by torchrun."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
    command = [sys.executable, *(torchrun if n_processes > 1 else []), "-m", "ulmpipe", *map(str, args)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
        preexec_fn=hear_interrupts,
    )  # fmt: skip


def hear_interrupts() -> None:
    """A shell ignores SIGINT for its background jobs, and what they start inherits that: not these processes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end(process: subprocess.Popen[str], stdin: str = "") -> Ended:
    out, err = process.communicate(stdin, timeout=120)
    return Ended(process.returncode, out, err)


def wait_for(found: Callable[[], object], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not found():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.005)


def check_refused(ended: Ended, code: int, reason: str) -> None:
    """One line on stderr, that says `reason`, and nothing on stdout."""
    assert ended.code == code and ended.out == ""
    assert ended.err.startswith("ulmpipe: ") and ended.err.count("\n") == 1 and ended.err.endswith("\n"), ended.err
    assert reason in ended.err
