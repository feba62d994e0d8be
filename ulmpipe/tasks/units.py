"""The two passes of `tokenize` over its work units, and what is kept of them when a run is interrupted.

    plan -> units that are not done yet -> workers, or a cluster -> OUT/.done-<key>/ -> vocabulary -> workers -> shards in the staging folder

Between tasks/tokenize.py and text/: shards.py knows what is made of a unit, workers.py and cluster.py how, done.py what was made before.
"""

import errno
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import TokenizeConfig
from ..console import log, progress
from ..errors import SourceError, UlmpipeError
from ..text.cluster import tokenize_on_cluster
from ..text.done import done_folder, forget_done, keep, n_kept
from ..text.killers import without_killers
from ..text.pieces import Columns
from ..text.shards import Job, UnitRecord, number_unit, tokenize_unit
from ..text.source import Plan
from ..text.workers import Lost, end_workers, run_calls
from .limits import affordable_workers, disk_free


def n_workers(config: TokenizeConfig, n_units: int) -> int:
    """Processes to use: `--workers`, or as many as there are processors and memory for, and never more than there are units."""
    import joblib

    return max(1, min(config.workers or affordable_workers(joblib.cpu_count()), n_units))


def done_key(fingerprint: str, config: TokenizeConfig) -> str:
    """What units that are done may be used again for: the same store by the same engine, checked alike, of this version."""
    decides = [fingerprint, config.engine, config.verify, config.tables is not None, __version__]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


@contextmanager
def going_on(out: Path, key: str, *, resumable: bool) -> Iterator[Path]:
    """Give the folder of the units that are done. It is removed at the end, unless what is done is worth going on from.

    What a user's own functions do can't be told from their names: such a run, not `resumable`, begins anew each time. The
    lock of `out` must be held.
    """
    folder = done_folder(out, key)
    forget_done(out, but=folder if resumable else None)
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    except BaseException as err:
        n_done = n_kept(folder) if resumable and not isinstance(err, SourceError) else 0
        if n_done:
            log(f"{n_done:,} work units are done and kept: the same command goes on from there")
        else:
            forget_done(out)
        if isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT):
            free_mb = disk_free(out) / 1e6
            raise UlmpipeError(f"the disk is full, {free_mb:,.0f} MB are free for {out}: free some, then give the same command again") from err  # fmt: skip
        raise
    forget_done(out)


def tokenize_units(
    plan: Plan,
    before: Mapping[int, UnitRecord],
    job: Job,
    done: Path,
    *,
    workers: int,
    timeout_s: float | None,
    scheduler: str | None = None,
) -> list[UnitRecord]:
    """Pass 1 on the units that were not done `before`, with progress; the records of all, in the order of the units.

    On `workers` processes of this machine, or on the cluster of a `scheduler`.
    """
    records = dict(before)
    if records:
        log(f"going on from an earlier run: {len(records):,} of {len(plan.units):,} work units are done")
    size = [sum(piece.n_bytes for piece in unit) for unit in plan.units]
    done_bytes = sum(size[index] for index in records)
    begin_s, n_docs, n_bytes = time.monotonic(), 0, 0
    todo = [index for index in range(len(plan.units)) if index not in records]
    with progress("tokenize", plan.n_bytes) as bar, ExitStack() as stack:
        if scheduler is None:
            found = _each_unit(plan, todo, job, workers=workers, timeout_s=timeout_s)
        else:
            units = [(index, plan.units[index]) for index in todo]
            found = stack.enter_context(closing(tokenize_on_cluster(units, job, scheduler)))
        for record in found:
            keep(done, Path(job.stage), record)
            records[record.index] = record
            done_bytes += size[record.index]
            n_docs, n_bytes = n_docs + record.n_docs, n_bytes + record.n_bytes
            mb_per_s = n_bytes / 1e6 / (time.monotonic() - begin_s)
            bar.update(done_bytes, note=f"{n_docs:,} docs  {mb_per_s:.2f} MB/s")
    return [records[index] for index in range(len(plan.units))]


def _each_unit(
    plan: Plan, todo: Sequence[int], job: Job, *, workers: int, timeout_s: float | None
) -> Iterator[UnitRecord]:
    """The records of units, in the order of getting done; of a unit that killed its worker, without what did so."""

    def name_of(index: int) -> str:
        first, *others = plan.units[index]
        return f"work unit {index}, {first.name} from {first.begin:,}" + (f" and {len(others)} more" if others else "")

    calls = [(index, plan.units[index], job) for index in todo]
    watching: dict[str, Any] = {"timeout_s": timeout_s, "name_of": name_of}
    for found in run_calls(tokenize_unit, calls, workers=workers, marks=Path(job.stage), **watching):
        if isinstance(found, Lost):
            log(f"{name_of(found.number)}: {found.reason}; it is looked through for the document that does it")
            found = without_killers(found.number, plan.units[found.number], job, **watching)
        yield found


def number_units(
    done: Path, stage: Path, n_units: int, labels: list[str], columns: Columns, *, workers: int
) -> list[dict[str, Any]]:
    """Pass 2; what the manifest says of each shard, in order."""
    calls = [(index, str(done), str(stage), labels, columns) for index in range(n_units)]
    shards = []
    with progress("numbering", n_units) as bar:
        for shard in run_calls(
            number_unit, calls, workers=workers, marks=stage, name_of=lambda index: f"shard {index}"
        ):
            shards.append(shard)
            bar.update(len(shards), note=f"{len(shards):,} of {n_units:,} shards")
    if workers > 1:
        end_workers()
    if lost := [shard for shard in shards if isinstance(shard, Lost)]:
        raise UlmpipeError(f"shard {lost[0].number}: {lost[0].reason}: try fewer --workers, or free some memory")
    return sorted(shards, key=lambda shard: shard["index"])
