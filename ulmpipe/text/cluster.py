"""Run calls on a dask cluster, through joblib: the first pass of `tokenize` on more machines than this one.

    units -> joblib's dask backend -> tokenize_afar, on a worker: a folder of its own in the staging folder, if it sees that
                                                                  else a folder of its machine, and the files come back as bytes
          -> land, in the parent: the files in the staging folder, as if they had been written there

In the place of workers.py, between tasks/units.py and shards.py. Distributes nothing itself: which worker does what, and
again what a dead one has left, is dask's affair. All that follows happens on this machine, so a store has the same bytes.
"""

import os
import platform
import shutil
import socket
import tempfile
import threading
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .. import __version__
from ..console import log
from ..durable import describe_file, fsync_file
from ..errors import ConfigError, SourceError, UlmpipeError
from .pieces import Piece, file_stamp
from .remote import Stamp, is_url
from .shards import Job, UnitRecord, tokenize_unit
from .source import Plan, Unit, file_digest

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 20.0  # that a scheduler has to answer
WORKERS_S = 60.0  # that the first worker has to come: a cluster that grows by itself needs a while
LOOK_S = 5.0
AHEAD = 2  # units that wait for each worker, so that none of them waits
MAX_WAITING = 64  # results, some MB each, that may wait for this process to write them
STAGE_TOKEN = "stage-token"  # a file in the staging folder, by which a worker knows that it sees that very folder
PROBES = 100  # files of a source that each worker is asked for before it is given work

_one_at_a_time = threading.Lock()  # a worker of several threads has one engine, which is no good for two units at once


@dataclass(frozen=True)
class Asked:
    """What a worker must be and see, so that the bytes are the same."""

    versions: tuple[str, ...]
    files: tuple[tuple[str, Stamp | None], ...] = ()  # some files of the source, and what they are
    run: str = ""  # another for each run: what was wrong in an earlier one may be mended


def versions() -> tuple[str, ...]:
    """What decides tokens: ulmpipe, spaCy, and Python for its tables of Unicode."""
    try:
        spacy = version("spacy")
    except PackageNotFoundError:
        spacy = "none"
    return f"ulmpipe {__version__}", f"spaCy {spacy}", f"Python {'.'.join(platform.python_version_tuple()[:2])}"


def asked_for(units: Sequence[Unit]) -> Asked:
    """What the workers must be and see to tokenize these units: the versions of this process, files from all over the source."""
    pieces = list({piece.path: piece for unit in units for piece in unit}.values())
    some = pieces[:: max(1, len(pieces) // PROBES)]
    return Asked(versions(), tuple((piece.path, piece.stamp) for piece in map(_for_afar, some)), uuid.uuid4().hex)


def _for_afar(piece: Piece) -> Piece:
    """A piece as a worker finds it: by its whole path, its file known by size and time. Its number differs between machines."""
    return replace(piece, path=_whole_path(piece.path), stamp=piece.stamp and piece.stamp[:2])


def _whole_path(path: str) -> str:
    return path if is_url(path) else os.path.abspath(path)


@lru_cache(maxsize=8)
def misfit(asked: Asked) -> str | None:
    """Why this process can't be a worker, or None. Its versions first, then whether it sees the source as the parent does."""
    if (here := versions()) != asked.versions:
        return f"has {', '.join(here)}, expected {', '.join(asked.versions)}: install these there"
    for path, stamp in asked.files:
        try:
            found = file_stamp(path)
        except SourceError as err:  # a package is missing
            return str(err)
        if stamp is not None and (found is None or found[: len(stamp)] != stamp):
            sees = "does not see" if found is None else "sees another file at"
            return f"{sees} {path}: put the source where all workers see it, under the same path, or give it as a URL"
    return None


# ---- on a worker ----------------------------------------------------------------------------------------------------


def tokenize_afar(
    index: int, unit: Unit, job: Job, asked: Asked, token: str
) -> tuple[UnitRecord, str, dict[str, bytes]]:
    """`tokenize_unit` on a worker: its record, and the folder in the staging folder that holds the files, or the files.

    The folder is this call's own. Dask may have a unit done twice at a time, when it takes a worker for dead.
    """
    host = socket.gethostname()
    if why := misfit(asked):  # of one that has come since the others were looked at
        raise UlmpipeError(f"the worker on {host} {why}")
    seen = sees(job.stage, token)
    try:
        folder = tempfile.mkdtemp(prefix="afar-", dir=job.stage if seen else None)
        try:
            with _one_at_a_time:
                record = tokenize_unit(index, unit, replace(job, stage=folder))
            if seen:
                return record, Path(folder).name, {}
            return record, "", {name: (Path(folder) / name).read_bytes() for name in record.files}
        finally:
            if not seen:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as err:  # of writing; what can't be read is in the record
        where = "into the staging folder" if seen else "temporary files: free some of its disk, or set TMPDIR there"
        raise UlmpipeError(f"the worker on {host} can't write {where} ({err})") from err


def sees(stage: str, token: str) -> bool:
    """Whether this process sees the parent's staging folder, and is the same user: the parent moves what is written there."""
    path = Path(stage) / STAGE_TOKEN
    try:
        return path.read_text() == token and path.stat().st_uid == os.geteuid() and os.access(stage, os.W_OK)
    except (OSError, UnicodeDecodeError):
        return False


# ---- in the parent --------------------------------------------------------------------------------------------------


def tokenize_on_cluster(
    units: Sequence[tuple[int, Unit]], job: Job, scheduler: str
) -> Generator[UnitRecord, None, None]:
    """The records of numbered units, in the order of getting done, their files in the staging folder. Close it if it is left early.

    Raises `UlmpipeError` where there is no cluster, a worker is a misfit, or a unit kills one worker after the other.
    """
    stage, token = Path(job.stage).absolute(), uuid.uuid4().hex
    (stage / STAGE_TOKEN).write_text(token)
    job = replace(job, stage=str(stage), tables=job.tables and os.path.abspath(job.tables))
    asked = asked_for([unit for _, unit in units])
    asked_again = replace(asked, files=asked.files[:1])  # small: it goes with every call
    calls = [(index, tuple(map(_for_afar, unit)), job, asked_again, token) for index, unit in units]
    with connected(scheduler, asked) as client:
        log(f"dask workers: {len(cast(dict[str, int], client.nthreads())):,}")
        with closing(run_on_cluster(client, tokenize_afar, calls)) as results:
            for record, folder, files in results:
                land(stage, record, folder, files)
                yield record


def digests_on_cluster(plan: Plan, scheduler: str) -> list[bytes]:
    """`file_digest` of all files of a plan, in order: read by the workers, each of them a part, and not all of it by this process.

    Raises as `tokenize_on_cluster` does.
    """
    found: dict[str, bytes] = {}
    calls: list[tuple[list[str], list[str]]] = []
    for unit in plan.units:  # small files by the unit, a large one by itself
        if new := [path for path in dict.fromkeys(piece.path for piece in unit) if path not in found]:
            found |= dict.fromkeys(new, b"")
            calls.append(([_whole_path(path) for path in new], new))
    with connected(scheduler, asked_for(plan.units)) as client:
        for some in run_on_cluster(client, _digests, calls):
            found |= some
    return [found.get(path) or file_digest(path) for _, path in plan.paths]  # an empty table is in no unit


def _digests(paths: Sequence[str], names: Sequence[str]) -> dict[str, bytes]:
    return {name: file_digest(path) for path, name in zip(paths, names, strict=True)}


def land(stage: Path, record: UnitRecord, folder: str, files: dict[str, bytes]) -> None:
    """Have a unit's files in the staging folder: moved out of its own `folder` there, or written as they came, and compared."""
    for name, said in record.files.items():
        if folder:
            os.replace(stage / folder / name, stage / name)
            continue
        (stage / name).write_bytes(files[name])
        fsync_file(stage / name)
        if describe_file(stage / name) != said:
            raise UlmpipeError(
                f"{name} came back from its worker damaged: see to the network, then run the same command again"
            )
    if folder:
        shutil.rmtree(stage / folder, ignore_errors=True)


@contextmanager
def connected(scheduler: str, asked: Asked) -> "Iterator[Client]":
    """A client of the cluster, whose workers have been looked at.

    Raises `ConfigError` for an address that is none or a package that is not installed, `UlmpipeError` where nobody answers
    or a worker is a misfit, by name.
    """
    try:
        from distributed import Client
        from distributed.comm.addressing import parse_address
    except ImportError as err:
        raise ConfigError("--backend dask needs packages that are not installed: pip install 'ulmpipe[dask]'") from err
    try:
        parse_address(scheduler, strict=True)
        client = Client(scheduler, timeout=CONNECT_S, set_as_default=False, name="ulmpipe")
    except ValueError as err:
        raise ConfigError(f"--scheduler {scheduler} is no address, expected such as tcp://host:8786: {err}") from err
    except OSError as err:  # its TimeoutError is one
        raise UlmpipeError(
            f"no scheduler answers at {scheduler}: start one (dask scheduler), or see to the address"
        ) from err
    with client:
        try:
            if not client.nthreads():
                log(f"waiting for a worker of {scheduler}, {WORKERS_S:.0f} s at most")
            client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError as err:
            raise UlmpipeError(
                f"no worker has come to {scheduler} within {WORKERS_S:.0f} s: start some (dask worker {scheduler} --nthreads 1)"
            ) from err
        _look_at_workers(client, asked)
        yield client


def _look_at_workers(client: "Client", asked: Asked) -> None:
    """Raise `UlmpipeError` naming the misfits; say of workers with threads that they are slow."""
    found = cast(dict[str, Any], client.run(misfit, asked, on_error="return"))
    wrong = [f"{address} {why}" for address, why in found.items() if why is not None]
    if wrong:
        more = f" (and {len(wrong) - 1} more workers)" if len(wrong) > 1 else ""
        raise UlmpipeError(f"the worker {wrong[0]}{more}")
    if several := [address for address, n in cast(dict[str, int], client.nthreads()).items() if n > 1]:
        log(
            f"{several[0]} has several threads, of which a work unit uses one: start workers with --nthreads 1, one a core"
        )


def run_on_cluster(
    client: "Client", task: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
) -> Generator[Any, None, None]:
    """Call `task(*call)` for every call on the cluster; results in the order of getting done.

    Where they come sooner than the caller takes them, no more calls are handed out until all are taken: waiting results would
    fill the memory of this process.
    """
    from distributed import KilledWorker
    from joblib import Parallel, delayed

    options: dict[str, Any] = {"return_as": "generator_unordered", "batch_size": 1, "pre_dispatch": f"{AHEAD}*n_jobs"}
    todo = deque(calls)

    def some() -> Iterator[Any]:
        while todo and pool.n_completed_tasks - n_taken < MAX_WAITING:
            yield delayed(task)(*todo.popleft())

    try:
        with _telling_of_no_workers(client):
            while todo:
                pool, n_taken = Parallel(backend=_backend(client), **options), 0
                results = cast(Generator[Any, None, None], pool(some()))
                try:
                    for result in results:
                        n_taken += 1  # noqa: SIM113 (`some` reads it)
                        yield result
                finally:
                    with warnings.catch_warnings():  # joblib advises who leaves early to ask for less
                        warnings.simplefilter("ignore", UserWarning)
                        results.close()
    except KilledWorker as err:
        raise UlmpipeError(
            f"a work unit kills its workers ({err.allowed_failures + 1} so far): run the same command without --backend dask, which goes on from what is done and finds the document"
        ) from err
    except CancelledError as err:
        raise UlmpipeError("the cluster's scheduler is gone: run the same command again when it is back") from err


@contextmanager
def _telling_of_no_workers(client: "Client") -> Iterator[None]:
    """Say so where no worker is left: dask waits for new ones, for ever and without a word."""
    done = threading.Event()

    def look() -> None:
        told = False
        while not done.wait(LOOK_S):
            try:
                are_gone = not client.nthreads()
            except Exception:  # the scheduler is gone; the calls say so
                return
            if are_gone and not told:
                log("no worker is left: waiting for new ones. What is done is kept if you stop here")
            told = are_gone

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(LOOK_S)


def _backend(client: "Client") -> Any:
    """joblib's backend for a cluster, mended in two places."""
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, super().effective_n_jobs(n_jobs))  # with one joblib makes the calls in this process

        def submit(self, func: Any, callback: Any = None) -> Any:
            """joblib 1.6 calls nobody back for a worker that was killed, and waits for ever."""
            future = super().submit(func, callback)
            future.add_done_callback(lambda done: callback(done.exception()) if done.exception() else None)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            if isinstance(out, BaseException):
                raise out
            return super().retrieve_result_callback(out)

    return Backend(client=client)
