"""Run calls on worker processes: one that is killed is replaced, one that hangs is named and ended, none outlives its run.

    calls, each with its number -> loky's processes, started afresh and never forked -> results, in the order of getting done
                                   MARKS/<number>.running: what each of them is at

Between tasks/units.py, which calls (and killers.py), and shards.py, whose functions are called. Knows nothing of texts. That a process was
killed is all that is told of it, and all others die with it; so each call writes down that it has begun, and those which had
are tried again, in half as many processes, and at last alone.
"""

import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from ..console import log
from ..errors import UlmpipeError
from ..lean import for_tokens_only, is_for_tokens_only

MAX_BLAMED = (
    2  # times that a call may have been running when a worker was killed, before it is tried alone, or given up
)
MAX_UNEXPLAINED = 3  # workers that were killed while no call was running
LONG_S = 120.0  # a call that takes longer is told of
LOOK_S = 0.5

Call = tuple[Any, ...]  # its number, and the rest of its arguments


class Lost(NamedTuple):
    """A call without a result: its worker was killed with nothing else running, or it took too long."""

    number: int
    reason: str
    at: Any  # what `mark` said last of what it was at; None where that is not known, or was another thing each time
    hung: bool = False  # it took too long


def run_calls(
    task: Callable[..., Any],
    calls: Sequence[Call],
    *,
    workers: int,
    marks: Path,
    timeout_s: float | None = None,
    name_of: Callable[[int], str] = str,
    apart: bool = False,
) -> Iterator[Any]:
    """Call `task(*call)` for every call, on `workers` processes; results in the order in which they get done, or `Lost`.

    A call begins with its number. One worker means this process, unless `timeout_s` is given or it shall be `apart`: no pool,
    the same results, and no help where it is killed. `marks` is a folder for what the workers are at; `timeout_s` holds from
    one `mark` of a call to the next; `name_of` says what a number stands for.
    """
    if workers == 1 and timeout_s is None and not apart:
        yield from (task(*call) for call in calls)
        return
    todo = {call[0]: call for call in calls}
    blamed: Counter[int] = Counter()
    died_at: dict[int, Any] = {}
    n_unexplained = 0
    while todo:
        suspects = [number for number in todo if blamed[number] >= MAX_BLAMED][:1]
        batch = suspects or list(todo)[: 1 if workers == 1 else None]
        with _watched(marks, timeout_s, name_of) as hung:
            for number, result in _results(task, [todo[number] for number in batch], workers, marks):
                del todo[number]
                yield result
        if not todo.keys() & set(batch):
            continue
        running = {number: at for number, (_, at) in _read_marks(marks).items() if number in todo}
        _clear_marks(marks)
        if ended := hung & running.keys():
            for number in ended:
                del todo[number]
                yield Lost(number, f"took longer than {timeout_s:g} s", running[number], hung=True)
            continue  # the others were ended with it, and are to blame for nothing
        for number, at in running.items():
            blamed[number] += 1
            died_at[number] = at if died_at.get(number, at) == at else None
        if len(batch) == 1 and blamed[batch[0]] >= MAX_BLAMED:
            del todo[batch[0]]
            yield Lost(batch[0], "its worker process was killed, for memory or by a defect", died_at.get(batch[0]))
            continue
        n_unexplained += not running
        if n_unexplained > MAX_UNEXPLAINED:
            raise UlmpipeError("worker processes are killed as they begin: try fewer --workers, or free some memory")
        workers = max(1, workers // 2)
        log(f"a worker process was killed, probably for memory: its work is tried again, {workers} at a time")


def _results(task: Callable[..., Any], calls: Sequence[Call], workers: int, marks: Path) -> Iterator[tuple[int, Any]]:
    """The results of calls with their numbers, fewer where a process was killed: all others are ended with it."""
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    # max_nbytes=None: nothing goes through /dev/shm. batch_size=1: a unit is work enough for one message. With n_jobs=1
    # joblib would call the task in this process.
    options: dict[str, Any] = {"return_as": "generator_unordered", "batch_size": 1, "max_nbytes": None}
    in_main_thread = threading.current_thread() is threading.main_thread()
    options |= {"initializer": die_with_parent, "initargs": (os.getpid(), in_main_thread)}
    pool = Parallel(n_jobs=max(2, workers), backend="loky", **options)
    given = (is_for_tokens_only(), str(marks))
    try:
        yield from cast(Iterator[tuple[int, Any]], pool(delayed(_in_worker)(*given, task, call) for call in calls))
    except TerminatedWorkerError:
        return


def end_workers() -> None:
    """Let the worker processes go, with all that they hold; loky would keep them for five minutes. The next run starts its own."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


# ---- in a worker ----------------------------------------------------------------------------------------------------


def _in_worker(tokens_only: bool, marks: str, task: Callable[..., Any], call: Call) -> tuple[int, Any]:
    if tokens_only:  # workers of another program may be given other work later
        for_tokens_only()
    mark(marks, call[0])
    try:
        return call[0], task(*call)
    finally:
        _mark_path(marks, call[0]).unlink(missing_ok=True)
        _freeze()


@lru_cache(maxsize=1)
def _freeze() -> None:
    """Leave what the first call has made out of all collections: spaCy and the tables of tokens stay, nothing in them is free."""
    gc.freeze()


def die_with_parent(parent: int, in_main_thread: bool) -> None:
    """See to it that this worker ends when its parent does: loky's outlive a killed parent, and go on writing or wait for minutes.

    The kernel of Linux does it, but at the end of the *thread* that started the worker: from another than the main one, and
    on other systems, this process looks for itself.
    """
    if sys.platform == "linux" and in_main_thread:
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
    else:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


def mark(marks: str | Path, index: int, at: Any = None) -> None:
    """Write down that call `index` runs in this process, and what it is `at`, as JSON: what the parent reads if it is killed.

    With `at` None it is getting ready, which may take as long as it takes.
    """
    _mark_path(marks, index).write_text(json.dumps([os.getpid(), at]))


def _mark_path(marks: str | Path, index: int) -> Path:
    return Path(marks) / f"{index}.running"


# ---- in the parent --------------------------------------------------------------------------------------------------


def _read_marks(marks: Path) -> dict[int, tuple[int, Any]]:
    """(process, what it is at) of the calls that have begun and not ended, in their order."""
    found: dict[int, tuple[int, Any]] = {}
    for path in sorted(marks.glob("*.running"), key=lambda path: int(path.stem)):
        try:
            found[int(path.stem)] = tuple(json.loads(path.read_text()))
        except (OSError, ValueError):  # it has ended just now, or was killed as it wrote
            continue
    return found


def _clear_marks(marks: Path) -> None:
    for path in marks.glob("*.running"):
        path.unlink(missing_ok=True)


@contextmanager
def _watched(marks: Path, timeout_s: float | None, name_of: Callable[[int], str]) -> Iterator[set[int]]:
    """Name calls that take long, kill the processes of those that take longer than `timeout_s`; yields the set of these."""
    hung: set[int] = set()
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(marks, timeout_s, name_of, hung, done), daemon=True)
    thread.start()
    try:
        yield hung
    finally:
        done.set()
        thread.join()


def _watch(
    marks: Path, timeout_s: float | None, name_of: Callable[[int], str], hung: set[int], done: threading.Event
) -> None:
    told: set[int] = set()
    since: dict[tuple[int, int, str], float] = {}  # when a mark was first seen as it is, by the monotonic clock
    while not done.wait(LOOK_S):
        now_s = time.monotonic()
        found = [(index, pid, json.dumps(at)) for index, (pid, at) in _read_marks(marks).items()]
        since = {each: since.get(each, now_s) for each in found}
        for each, since_s in since.items():
            index, pid, at = each
            if timeout_s is not None and at != "null" and now_s - since_s > timeout_s and _is_our_child(pid):
                hung.add(index)
                with suppress(ProcessLookupError):  # it has ended just now
                    os.kill(pid, signal.SIGKILL)
            elif now_s - since_s > LONG_S and index not in told:
                told.add(index)
                log(f"{name_of(index)} takes more than {LONG_S:.0f} s; --unit-timeout ends what takes too long")


def _is_our_child(pid: int) -> bool:
    """Whether a process is a child of this one, so that no other is killed that has got its number."""
    if sys.platform != "linux":
        said = subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True).stdout
        return said.strip() == str(os.getpid())
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return int(status.rpartition(")")[2].split()[1]) == os.getpid()
