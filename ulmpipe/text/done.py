"""The units of a run that are done, kept until all are: what a run that was interrupted goes on from.

    OUT/.done-<key>/    unit-00003.arrow  unit-00003.counts.arrow  ...   what shards.py made of a unit
                        done.jsonl                                       a line a unit: its record, sizes, digests

Between the workers, which write into a staging folder, and tasks/units.py, in the one process that writes here. A line is
written after its files are safe on the disk; what it says is compared with them when they are used again. The key
(tasks/units.py) knows nothing of workers: a run with more or fewer of them goes on just so.
"""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..durable import DONE_PREFIX, FILE_NAME, describe_file, fsync_folder
from .pieces import Quarantined
from .shards import UnitRecord

LINES = "done.jsonl"


def done_folder(out: Path, key: str) -> Path:
    """The folder for a store's units; those of other texts or settings are removed by `forget_done`."""
    return out / f"{DONE_PREFIX}{key[:16]}"


def forget_done(out: Path, *, but: Path | None = None) -> None:
    """Remove what is kept beside a store; its lock must be held."""
    for folder in out.glob(f"{DONE_PREFIX}*"):
        if folder != but:
            shutil.rmtree(folder, ignore_errors=True)


def read_done(folder: Path) -> dict[int, UnitRecord]:
    """The records of the units whose files are what they were, to the byte; a line that was cut off is none."""
    found: dict[int, UnitRecord] = {}
    if not (folder / LINES).is_file():
        return found
    for line in (folder / LINES).read_bytes().splitlines():
        try:
            record = _record(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError):  # the last one of a run that was killed, or not ours
            continue
        if all(_is_as_said(folder / name, said) for name, said in record.files.items()):
            found[record.index] = record
    return found


def n_kept(folder: Path) -> int:
    """How many units are kept, as far as their lines say."""
    path = folder / LINES
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _record(said: dict[str, Any]) -> UnitRecord:
    quarantined = [Quarantined(*each) for each in said.pop("quarantined")]
    return UnitRecord(**said | {"labels": set(said["labels"]), "quarantined": quarantined})


def _is_as_said(path: Path, said: dict[str, Any]) -> bool:
    return FILE_NAME.fullmatch(path.name) is not None and path.is_file() and describe_file(path) == said


def keep(folder: Path, stage: Path, record: UnitRecord) -> None:
    """Take a unit's files, which are on the disk already, out of the staging folder, and write its line.

    One of which something was left out that may be there next time gets no line: the next run shall read it again.
    """
    for name in record.files:
        os.replace(stage / name, folder / name)
    fsync_folder(folder)
    if record.changed or record.n_left_out:
        return
    # A line begins with its newline: what a killed run has left half written ends there.
    line = "\n" + json.dumps({**asdict(record), "labels": sorted(record.labels)})
    with open(folder / LINES, "ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
