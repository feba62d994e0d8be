"""Processes of a run are killed at any moment: the next run ends in the same bytes, and none of the first is left."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import wait_for
from runs import gone, some, start, tree_hash, write_corpus

from ulmpipe.tasks.verify import verify

CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts")


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """The hash of what a run makes that nobody disturbs, and its seconds, when the kernels are compiled."""
    folder = tmp_path_factory.mktemp("whole")
    for workers in (1, 2):
        begin_s = time.monotonic()
        assert start(corpus, folder / str(workers), workers).end()[0] == 3
        seconds = time.monotonic() - begin_s
    assert tree_hash(folder / "1") == tree_hash(folder / "2")
    return tree_hash(folder / "1"), seconds


@pytest.mark.parametrize("seed", some(50, 1))
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_at_any_moment(
    corpus: Path,
    whole: tuple[str, float],
    tmp_path: Path,
    survived: Callable[..., None],
    signum: signal.Signals,
    seed: int,
):
    out, code, delay_s = tmp_path / "out", 3, random.Random(seed).uniform(0.3, whole[1])
    while code == 3:  # where it had ended before, sooner
        shutil.rmtree(out, ignore_errors=True)
        run = start(corpus, out, 2)
        time.sleep(delay_s)
        os.kill(run.process.pid, signum)
        code, told = run.end()
        assert code in (CODES[signum], 3) and "Error" not in told
        assert signum != signal.SIGINT or code == 3 or "driver: interrupted" in told
        assert gone(run), "a worker has outlived its run"
        delay_s *= 0.7
    if (out / "manifest.json").exists():  # complete, or absent
        verify(out)
    again = start(corpus, out, 1 + seed % 3)
    assert again.end()[0] == 3 and gone(again)
    assert tree_hash(out) == whole[0]
    survived(f"{signum.name} of a run at any moment")


@pytest.mark.parametrize("seed", some(50, 2))
def test_a_worker_that_is_killed_at_any_moment(
    corpus: Path, whole: tuple[str, float], tmp_path: Path, survived: Callable[..., None], seed: int
):
    run = start(corpus, tmp_path / "out", 2)
    wait_for(run.workers, run.process)
    time.sleep(random.Random(seed).uniform(0, 0.4 * whole[1]))
    victims = run.workers()[: 1 + seed % 2]
    n_killed = 0
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):  # loky ends the others when it misses one
            os.kill(pid, signal.SIGKILL)
            n_killed += 1
    code, told = run.end()
    assert code == 3 and "Traceback" not in told, told
    assert tree_hash(tmp_path / "out") == whole[0] and gone(run)
    survived("SIGKILL of a worker at any moment", n_killed)


@pytest.mark.parametrize("seed", some(5, 1))
def test_many_runs_that_begin_at_once(
    corpus: Path, whole: tuple[str, float], tmp_path: Path, survived: Callable[..., None], seed: int
):
    n = len(some(20, 4))
    runs = [start(corpus, tmp_path / "out", 1) for _ in range(n)]
    ended = [run.end() for run in runs]
    assert {code for code, _ in ended} <= {3, 4} and 3 in {code for code, _ in ended}
    assert all("is in use by another run" in told for code, told in ended if code == 4)
    assert tree_hash(tmp_path / "out") == whole[0] and all(gone(run) for run in runs)
    survived("runs that begin at once on one output", n)
