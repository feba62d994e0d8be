"""Write files so that they are complete or absent: staging, flush, fsync, rename, fsync of the folder.

Used by the token store, checkpoints and model folders; knows nothing of what is in the files.
A folder is finished by its `manifest.json`, written last: a folder without one is not read.
"""

import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import OutputInUseError, StoreError, UlmpipeError

MANIFEST = "manifest.json"
LOCK = ".lock"
CURVE_FILE = "metrics.jsonl"  # of a training: a row an epoch; the journal, the page and train/ know it
STAGING_PREFIX, DONE_PREFIX = ".staging-", ".done-"  # of a run in hand; of what is done of a run (text/done.py)
PART_SUFFIX = ".part"  # of a file that is being written
FILE_NAME = re.compile(r"[a-z0-9_-][a-z0-9._-]*")  # a manifest may name nothing outside its folder
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # as a `Path` has it; what writes to URLs does not come here with one
MAX_JSON_BYTES = 64 << 20  # no file of ours is near it; a larger one is not ours


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in blocks (1.4 GB/s a core)."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not know.

    >>> finite({"loss": float("nan"), "folds": [1.0, float("inf")]})
    {'loss': None, 'folds': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write `value` as UTF-8 JSON, durably and all at once; NaN and infinity are refused."""
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, flush it to the disk, and rename it into place."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PART_SUFFIX}")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    fsync_folder(path.parent)


def read_json(path: Path) -> Any:
    """Read a JSON file of ours. Raises `StoreError` when it is absent, too large or no JSON; NaN and infinity are none."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise StoreError(
                f"{path} has {path.stat().st_size:,} bytes, expected at most {MAX_JSON_BYTES:,}: not a file of ulmpipe"
            )
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as err:
        raise StoreError(f"{path} is missing") from err
    except (ValueError, RecursionError) as err:  # of a thousand brackets, or a number of a thousand digits, too
        raise StoreError(f"{path} is damaged: {err}. Make it again, or restore it from a copy") from err


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def fsync_file(path: Path) -> None:
    """Flush a finished file to the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Flush a folder's list of names, so that a rename in it survives a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of an output folder. Raises `OutputInUseError` (exit code 4) when another run has it, unless `wait`."""
    from filelock import FileLock, Timeout

    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as err:
        raise OutputInUseError(f"{folder} is in use by another run: wait for it, or choose another -o") from err
    try:
        for left in folder.glob(f"{STAGING_PREFIX}*"):  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        for left in folder.glob(f".*{PART_SUFFIX}"):
            left.unlink()
        yield
    finally:
        if new and [path.name for path in folder.iterdir()] == [LOCK]:  # nothing came of it
            shutil.rmtree(folder, ignore_errors=True)  # while the lock is held: no other run has it
            with suppress(OSError):  # what stands in one of them by now is another's
                for parent in new[1:]:
                    parent.rmdir()
        lock.release()  # elsewhere the file stays: removing it now could take the lock from a run that has just got it


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Give an empty folder inside `folder`, on the same file system; it is removed at the end, come what may."""
    stage = folder / f"{STAGING_PREFIX}{uuid.uuid4().hex[:12]}"
    stage.mkdir(parents=True)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def publishing(folder: Path, kind: str, format_version: int) -> Iterator[Path]:
    """Give a staging folder; when the block ends well, its files take their places in `folder`, the manifest last.

    An older manifest goes first: from then on, until all is done, the folder is none of its kind.
    """
    with staging(folder) as stage:
        yield stage
        files = {}
        for path in sorted(stage.iterdir()):
            fsync_file(path)
            files[path.name] = describe_file(path)
        (folder / MANIFEST).unlink(missing_ok=True)
        for name in files:
            os.replace(stage / name, folder / name)
        fsync_folder(folder)
    write_json(folder / MANIFEST, {"kind": kind, "format_version": format_version, "files": files})


def check_output(folder: Path, *, expected: str, also: Container[str] = ()) -> None:
    """Refuse to write into a folder that holds something else than an `expected` kind of output.

    An empty or absent folder is fine, and so is one whose manifest says it is of the same `kind`; a folder that
    holds only what an interrupted run left behind, the names in `also` among it, is fine too.
    """
    if URL.match(str(folder)):
        raise UlmpipeError(
            f"the output {folder} is a URL, expected a folder of this machine: only tokenize writes to URLs"
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UlmpipeError(f"the output {folder} is a file, expected a folder: choose another -o")
    names = {p.name for p in folder.iterdir()}
    if MANIFEST in names:
        kind = manifest_kind(folder)
        if kind != expected:
            raise UlmpipeError(f"the output {folder} holds {a(kind)}, expected {a(expected)}: choose another -o")
        return
    ours = (STAGING_PREFIX, DONE_PREFIX, "checkpoint-")
    foreign = sorted(
        n for n in names if n != LOCK and n not in also and not n.startswith(ours) and not n.endswith(PART_SUFFIX)
    )
    if foreign:
        raise UlmpipeError(
            f"the output {folder} holds something else ({', '.join(foreign[:3])}): choose another -o, or empty it"
        )


# ---- manifests --------------------------------------------------------------------------------------------------------


def a(kind: str) -> str:
    """The kind with its article.

    >>> a("token store"), a("image classifier")
    ('a token store', 'an image classifier')
    """
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


def manifest_kind(folder: Path) -> str:
    """The kind of thing that a folder's manifest says it is."""
    manifest = read_json(folder / MANIFEST)
    kind = manifest.get("kind") if isinstance(manifest, dict) else None
    return kind if isinstance(kind, str) else "folder of another program"


def read_manifest(folder: Path, kind: str, format_version: int) -> dict[str, Any]:
    """Read the manifest of a finished folder. Raises `StoreError` unless it is of this kind and version."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise StoreError(f"{folder} {found}, expected {a(kind)}: check the spelling")
    if not (folder / MANIFEST).exists():
        raise StoreError(f"{folder} has no {MANIFEST}: it is no {kind}, or the run that made it did not finish")
    if (found := manifest_kind(folder)) != kind:
        raise StoreError(f"{folder} holds {a(found)}, expected {a(kind)}")
    manifest = read_json(folder / MANIFEST)
    check_keys(manifest, {"format_version": int}, folder / MANIFEST)
    if manifest["format_version"] > format_version:
        raise StoreError(
            f"{folder} was written by a newer ulmpipe (format {manifest['format_version']}, this one reads {format_version}): upgrade"
        )
    check_keys(manifest, {"files": dict}, folder / MANIFEST)
    for said in manifest["files"].values():
        check_keys(said, {"bytes": int, "sha256": str}, folder / MANIFEST)
    return manifest


def check_keys(value: Any, kinds: Mapping[str, type], path: Path) -> None:
    """Raise `StoreError` unless what was read from `path` is a JSON object with these keys, of these types."""
    found = value if isinstance(value, dict) else {}
    if wrong := [name for name, kind in kinds.items() if not isinstance(found.get(name), kind)]:
        raise StoreError(f"{path} lacks {', '.join(wrong)}: it was altered. Make it again, or restore it from a copy")


def describe_file(path: Path) -> dict[str, Any]:
    """What a manifest says of a file: its size and digest."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def check_files(
    folder: Path, manifest: dict[str, Any], *, digests: bool = False, told: Callable[[int], None] | None = None
) -> int:
    """Compare a folder's files with its manifest: names and sizes, and every byte with `digests`. Returns how many.

    `told` is told the bytes of all files that are checked, after each.

    Raises `StoreError` that names the first file that differs.
    """
    n_bytes = 0
    for name, said in manifest["files"].items():
        path = folder / name
        if not FILE_NAME.fullmatch(name):
            raise StoreError(f"{folder / MANIFEST} names {name!r}, which is no file of ours: it was altered")
        if not path.is_file():
            raise StoreError(f"{path} is missing: make the folder again, or restore it from a copy")
        if path.stat().st_size != said["bytes"]:
            raise StoreError(
                f"{path} has {path.stat().st_size:,} bytes, expected {said['bytes']:,}: it was truncated or altered"
            )
        if digests and sha256_of(path) != said["sha256"]:
            raise StoreError(f"{path} was altered: its sha256 is not that of {MANIFEST}")
        n_bytes += said["bytes"]
        if told is not None:
            told(n_bytes)
    return len(manifest["files"])
