"""Calls run on workers: each gives its result once, whoever is killed; what kills or hangs is named; none stays behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ulmpipe.errors import UlmpipeError
from ulmpipe.text import workers
from ulmpipe.text.workers import Lost, mark, run_calls

N = 8


def square(number: int, *rest: Any) -> int:
    return number * number


def kill_once(number: int, folder: str, guilty: tuple[int, ...]) -> int:
    """Be killed in the first call of each that is guilty."""
    been = Path(folder) / f"been-{number}"
    if number in guilty and not been.exists():
        been.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def kill_always(number: int, marks: str, guilty: tuple[int, ...]) -> int:
    mark(marks, number, "at work")
    if number in guilty:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def kill_anywhere(number: int, marks: str) -> None:
    mark(marks, number, time.monotonic())
    os.kill(os.getpid(), signal.SIGKILL)


def hang(number: int, marks: str, guilty: tuple[int, ...], step_s: float = 0.1) -> int:
    for step in range(3):
        mark(marks, number, step)
        time.sleep(step_s)
    if number in guilty:
        time.sleep(200)
    return number * number


def slow_to_begin(number: int, marks: str) -> int:
    time.sleep(2)
    return number


def results(task: Callable[..., Any], marks: Path, *rest: Any, n: int = N, **options: Any) -> list[Any]:
    calls = [(number, str(marks), *rest) for number in range(n)]
    return sorted(run_calls(task, calls, marks=marks, **{"workers": 2, **options}), key=str)


def expected(*lost: Lost, n: int = N) -> list[Any]:
    return sorted([*lost, *(k * k for k in range(n) if k not in {each.number for each in lost})], key=str)


def test_one_worker_is_this_process_and_lazy(tmp_path: Path):
    ran: list[int] = []
    found = run_calls(lambda number: ran.append(number), [(k,) for k in range(5)], workers=1, marks=tmp_path)
    assert next(found) is None and ran == [0]
    assert list(found) == [None] * 4 and ran == [0, 1, 2, 3, 4]


def test_every_result_comes_once(tmp_path: Path):
    assert results(square, tmp_path) == expected() and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("guilty", "n"), [((0,), N), ((3,), N), ((0, 7), N), ((1,), 2), ((0,), 1)])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_replaced(tmp_path: Path, guilty: tuple[int, ...], n: int, workers: int):
    assert results(kill_once, tmp_path, guilty, n=n, workers=workers, apart=True) == expected(n=n)


def test_calls_that_kill_are_lost_and_no_others(tmp_path: Path):
    reason = "its worker process was killed, for memory or by a defect"
    assert results(kill_always, tmp_path, (2, 5)) == expected(Lost(2, reason, "at work"), Lost(5, reason, "at work"))


def test_a_call_that_is_killed_at_another_thing_each_time_blames_none(tmp_path: Path):
    (found,) = results(kill_anywhere, tmp_path, n=1)
    assert found.at is None and not found.hung


def test_calls_that_hang_are_ended_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(workers, "LONG_S", 0.2)
    found = results(hang, tmp_path, (1,), n=3, timeout_s=2.0, name_of=lambda number: f"number {number}")
    assert found == expected(Lost(1, "took longer than 2 s", 2, hung=True), n=3)
    assert "number 1 takes more than 0 s; --unit-timeout ends" in capsys.readouterr().err


def test_a_call_that_goes_on_marking_may_take_long(tmp_path: Path):
    """Longer than the timeout in all, and not from a mark to the next."""
    assert results(hang, tmp_path, (), 0.8, n=2, timeout_s=2.0) == expected(n=2)


def test_getting_ready_may_take_as_long_as_it_takes(tmp_path: Path):
    assert results(slow_to_begin, tmp_path, n=1, workers=1, timeout_s=0.5) == [0]


def test_a_timeout_holds_for_one_worker_too(tmp_path: Path):
    calls = [(number, str(tmp_path), (0,)) for number in range(2)]
    found = list(run_calls(hang, calls, workers=1, marks=tmp_path, timeout_s=2.0))
    assert found == [Lost(0, "took longer than 2 s", 2, hung=True), 1]


def test_workers_that_can_not_even_begin_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "_results", lambda *args: iter(()))
    with pytest.raises(UlmpipeError, match="killed as they begin: try fewer --workers"):
        results(square, tmp_path)


def test_an_error_in_a_call_is_raised_here(tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        results(lambda number, *rest: 1 / 0, tmp_path)


def loky_children(of: int | None = None) -> list[int]:
    """Worker processes of this one, or of another, that are there now."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == (of or os.getpid()) and b"popen_loky_posix" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks in /proc")
def test_workers_can_be_let_go(tmp_path: Path):
    results(square, tmp_path)
    assert loky_children()
    workers.end_workers()
    assert not loky_children()
    assert results(square, tmp_path) == expected()


def begin_and_stay(number: int, folder: str) -> None:
    """Say that this worker has begun, and take long."""
    (Path(folder) / "begun").touch()
    time.sleep(100)


@pytest.mark.skipif(sys.platform != "linux", reason="looks in /proc")
def test_workers_without_work_end_with_their_parent_too(tmp_path: Path):
    """One of two has a call when the parent is killed, and the other has had none yet."""
    code = "from tests.text.test_workers import *; list(run_calls(begin_and_stay, [(0, sys.argv[1])], workers=2, marks=Path(sys.argv[1])))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=env) as parent:
        until = time.monotonic() + 60
        while not (tmp_path / "begun").exists() or len(loky_children(parent.pid)) < 2:
            assert time.monotonic() < until and parent.poll() is None
            time.sleep(0.05)
        time.sleep(1)  # the other waits for a call by now
        orphans = loky_children(parent.pid)
        parent.kill()
    until = time.monotonic() + 10
    while left := [pid for pid in orphans if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


def test_calls_from_a_thread_leave_their_workers_when_it_ends(tmp_path: Path):
    """The kernel's signal would come at the end of the thread that started them."""
    workers.end_workers()
    thread = threading.Thread(target=results, args=(square, tmp_path))
    thread.start()
    thread.join()
    time.sleep(1)
    assert len(loky_children()) >= 2 or sys.platform != "linux"
    assert results(square, tmp_path) == expected()
    workers.end_workers()


def test_where_joblib_can_start_no_process_calls_are_made_in_this_one(tmp_path: Path):
    code = "from pathlib import Path; from tests.text.test_workers import *; print(results(square, Path(sys.argv[1])) == expected())"
    env = {
        **os.environ,
        "JOBLIB_MULTIPROCESSING": "0",
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])]),
    }
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and done.stdout == "True\n", done.stderr


def test_no_process_is_killed_that_is_not_ours():
    assert not workers._is_our_child(1) and not workers._is_our_child(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert workers._is_our_child(child.pid) or sys.platform != "linux"
