"""What tokenizing needs of this machine, said before it begins: disk, and memory for its workers; the plan of `--dry-run`.

Beside tasks/tokenize.py, which asks. Estimates, not measurements: a disk that gets full all the same ends the run in one line,
and what is done is kept.
"""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..console import log
from ..durable import DONE_PREFIX
from ..errors import UlmpipeError
from ..text.pieces import file_stamp, is_compressed
from ..text.source import Plan

# On the 12,574 reviews of IMDB's test split, 16.2 MB: 24.7 MB of files at once, 414 MB the larger of two workers. Of short
# sentences, a document each: up to 3 times their bytes.
DISK_PER_BYTE = 2.0  # of text, at the peak: ids of 4 bytes, then of 2 or 4 beside them, and where each text came from
TEXT_PER_COMPRESSED_BYTE = 4
WORKER_BYTES = 600 << 20  # of memory
AMPLE = 1.5  # times the estimate, below which it is warned


@dataclass(frozen=True)
class TokenizePlan:
    """What `tokenize --dry-run` would do; the fields of its `--json`."""

    n_files: int
    n_units: int
    n_bytes: int  # of files, compressed as they are
    workers: int
    disk_bytes: int  # that are needed, about
    disk_free_bytes: int
    memory_bytes: int  # of the workers, about
    notes: list[str]
    out: str


def disk_needed(plan: Plan) -> int:
    """Bytes that the files of a run take at their peak, about."""
    pieces = [piece for unit in plan.units for piece in unit]
    n_bytes = sum(piece.n_bytes * (TEXT_PER_COMPRESSED_BYTE if is_compressed(piece.path) else 1) for piece in pieces)
    return round(DISK_PER_BYTE * n_bytes)


def _nearest(out: Path) -> Path:
    """`out`, or the nearest folder above it that is there."""
    return next(folder for folder in (out, *out.absolute().parents) if folder.exists())


def disk_free(out: Path) -> int:
    """Bytes that are free where `out` is to be."""
    return shutil.disk_usage(_nearest(out)).free


def check_room(plan: Plan, out: Path, *, force: bool) -> None:
    """Raise `UlmpipeError` where nothing can be written, or the disk is smaller than the estimate, unless `force`.

    Warns where it is not much larger. What an earlier run has done, and is gone on from, is not needed again.
    """
    if not os.access(_nearest(out), os.W_OK):
        raise UlmpipeError(f"{out} can't be written: {_nearest(out)} is read-only here, choose another -o")
    held = 0
    for path in out.glob(f"{DONE_PREFIX}*/*"):
        with suppress(FileNotFoundError):  # another run has just removed it
            held += path.stat().st_size
    needed, free = max(0, disk_needed(plan) - held), disk_free(out)
    told = f"about {needed / 1e6:,.0f} MB of disk are needed for {out}, {free / 1e6:,.0f} MB are free"
    if free < needed and not force:
        raise UlmpipeError(f"{told}: free some, choose another -o, or begin all the same with --force")
    if free < AMPLE * needed:
        log(f"warning: {told}")


def affordable_workers(wanted: int) -> int:
    """As many workers as the memory that is free can hold, one at least, and no more than are `wanted`."""
    free = memory_free()
    return wanted if free is None else max(1, min(wanted, int(free // WORKER_BYTES)))


def memory_free() -> int | None:
    """Bytes of memory that can be had without swapping, within the limit of this control group; None where it isn't told."""
    found = [free for free in (_of_the_machine(), _of_the_group()) if free is not None]
    return min(found, default=None)


def _of_the_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _of_the_group(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Of control groups, version 2; pages of files are given back when memory is wanted, so they count as free."""
    try:
        limit, used = ((group / f"memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current"))
        if limit == "max":
            return None
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return int(limit) - int(used) + int(stat["active_file"]) + int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):
        return None


def planned(plan: Plan, out: Path, workers: int) -> TokenizePlan:
    """What a run would read, write and take."""
    return TokenizePlan(
        n_files=len(plan.paths),
        n_units=len(plan.units),
        n_bytes=sum(int(stamp[0]) for _, path in plan.paths if (stamp := file_stamp(path))),
        workers=workers,
        disk_bytes=disk_needed(plan),
        disk_free_bytes=disk_free(out),
        memory_bytes=workers * WORKER_BYTES,
        notes=list(plan.notes),
        out=str(out),
    )
