"""Pictures ready to be read: decoded once into a file that is mapped into memory, or decoded again each time.

    FOLDER/pixels.bin      (N, S, S, 3) uint8
    FOLDER/pictures.json   names, labels, classes, and what could not be decoded
    FOLDER/manifest.json   sizes and digests; written last

Workers decode a unit of the plan each (source.py) and write it into its place in the file. Imports no torch, so that they
start soon; batches and splits are in data.py.
"""

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from joblib import cpu_count
from joblib.executor import get_memmapping_executor
from numpy.typing import NDArray

from ulmpipe import durable
from ulmpipe.console import log, progress
from ulmpipe.errors import OutputInUseError, SourceError, StoreError

from .decode import PictureError, decode, natural_side
from .source import UNIT_PICTURES, Plan, Unit, read_file

KIND, FORMAT_VERSION = "picture store", 1
PIXELS_FILE, PICTURES_FILE = "pixels.bin", "pictures.json"
SAMPLE = 64  # pictures whose headers say how large they are
READ_AHEAD = 2  # tasks a worker
MAX_ENCODED_BYTES = 2 << 30  # of tables that are read again and again, in memory

Pixels = NDArray[np.uint8]  # (B, S, S, 3)


class Pictures(Protocol):
    """Pictures of one size with their labels; record numbers 0 to N - 1 are those of the plan."""

    side: int
    names: list[str]
    labels: NDArray[np.int64]  # (N,) -1 without a label
    classes: list[str]
    quarantined: dict[int, str]  # record -> why it can't be decoded

    def read(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
        """Yield, for each list of records, those that can be decoded and their pixels."""
        ...


class CachedPictures:
    """Pictures that were decoded before, read from a memory map."""

    def __init__(self, folder: Path):
        """Open a finished store. Raises `StoreError` where it is none, or a file has not its size."""
        durable.check_files(folder, durable.read_manifest(folder, KIND, FORMAT_VERSION))
        found = durable.read_json(folder / PICTURES_FILE)
        durable.check_keys(
            found,
            {"side": int, "names": list, "labels": list, "classes": list, "quarantined": dict},
            folder / PICTURES_FILE,
        )
        self.folder, self.side, self.names, self.classes = folder, found["side"], found["names"], found["classes"]
        self.labels = np.array(found["labels"], np.int64)
        self.quarantined = {int(record): reason for record, reason in found["quarantined"].items()}
        shape = (len(self.names), self.side, self.side, 3)
        if len(self.labels) != shape[0] or (folder / PIXELS_FILE).stat().st_size != np.prod(shape):
            raise StoreError(f"{folder / PICTURES_FILE} does not fit {PIXELS_FILE}: it was altered. Remove the folder")
        self.pixels = np.memmap(folder / PIXELS_FILE, np.uint8, "r", shape=shape)

    def read(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
        """Copy them from the map; what could not be decoded is left out."""
        broken = list(self.quarantined)
        for records in batches:
            good = records[~np.isin(records, broken)]
            yield good, self.pixels[good]


class StreamedPictures:
    """Pictures that are decoded whenever they are read, by worker processes that run ahead: slower, and takes no disk."""

    def __init__(self, plan: Plan, side: int, workers: int = 0):
        self.side, self.workers = side, workers
        self.names, self.labels, self.classes = plan.names, plan.labels, plan.classes
        self.quarantined: dict[int, str] = {}
        self.units = plan.units
        self.first = np.array([unit.first for unit in plan.units])
        self.encoded: dict[int, list[bytes | None]] = {}  # of the units that are tables
        self.n_encoded_bytes = 0

    def read(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
        """Decode them; what can't be decoded is quarantined and left out."""
        tasks = (([self._source(int(record)) for record in records], self.side) for records in batches)
        for records, (pixels, reasons) in zip(batches, in_workers(decode_all, tasks, self.workers), strict=True):
            self.quarantined |= {int(records[k]): reason for k, reason in reasons.items()}
            good = [k for k in range(len(records)) if k not in reasons]
            yield records[good], pixels[good]

    def _source(self, record: int) -> Path | bytes | None:
        number = int(np.searchsorted(self.first, record, "right")) - 1
        unit = self.units[number]
        if unit.files:
            return unit.path / unit.files[record - unit.first]
        if number not in self.encoded:
            self.encoded[number] = unit.read()
            self.n_encoded_bytes += sum(len(data or b"") for data in self.encoded[number])
            while self.n_encoded_bytes > MAX_ENCODED_BYTES and len(self.encoded) > 1:  # the oldest goes
                oldest = self.encoded.pop(next(iter(self.encoded)))
                self.n_encoded_bytes -= sum(len(data or b"") for data in oldest)
        return self.encoded[number][record - unit.first]


def open_pictures(plan: Plan, name: str, side: int, beside: Path, *, workers: int = 0, cache: str = "auto") -> Pictures:
    """Return the pictures of a plan, `side` pixels at most, decoded into `beside/<name>-<fingerprint>` where that pays.

    `cache` is auto (where they fill less than half of what is free on the disk), always or never. What was decoded
    before is used again. Raises `SourceError` when not one picture can be decoded.
    """
    side = min(side, _natural_side(plan))
    n_bytes = len(plan.names) * side * side * 3
    folder = beside / f"{name}-{side}-{plan.digest}"
    if (folder / durable.MANIFEST).exists():
        return CachedPictures(folder)
    too_large = n_bytes > _free_bytes(beside) / 2 or 2 * sum(map(len, plan.names)) > durable.MAX_JSON_BYTES
    if cache == "never" or (cache == "auto" and too_large):
        if cache == "auto":
            log(f"{n_bytes / 1e9:.1f} GB of decoded pictures are too many to keep here: decoding as it goes")
        return StreamedPictures(plan, side, workers)
    with _locked_in_turn(folder):
        if not (folder / durable.MANIFEST).exists():
            _decode_to(folder, plan, side, workers)
    return CachedPictures(folder)


@contextmanager
def _locked_in_turn(folder: Path) -> Iterator[None]:
    """Hold the lock of a store; where another run decodes the same pictures, wait for it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(durable.locked(folder))
        except OutputInUseError:
            log("another run decodes these pictures: waiting for it")
            stack.enter_context(durable.locked(folder, wait=True))
        yield


def _decode_to(folder: Path, plan: Plan, side: int, workers: int) -> None:
    shape = (len(plan.names), side, side, 3)
    quarantined: dict[int, str] = {}
    n_done = 0
    with durable.publishing(folder, KIND, FORMAT_VERSION) as stage:
        with open(stage / PIXELS_FILE, "wb") as file:
            # a full disk says so now, and not by ending a worker that writes to the map
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
            file.truncate(int(np.prod(shape)))
        tasks = ((unit, stage / PIXELS_FILE, shape) for unit in plan.units)
        with progress("decode", len(plan.names)) as bar:
            for n, reasons in in_workers(decode_unit, tasks, workers if len(plan.units) > 1 else 1):
                n_done += n
                quarantined |= reasons
                bar.update(n_done, note=f"{n_done:,} pictures")
        if len(quarantined) == len(plan.names):
            raise SourceError(
                f"not one of {len(plan.names):,} pictures can be decoded: {next(iter(quarantined.values()))}"
            )
        found = {
            "side": side,
            "names": plan.names,
            "labels": plan.labels.tolist(),
            "classes": plan.classes,
            "quarantined": {str(record): quarantined[record] for record in sorted(quarantined)},
        }
        durable.write_json(stage / PICTURES_FILE, found)


# ---- what workers do ------------------------------------------------------------------------------------------------


def decode_unit(unit: Unit, path: Path, shape: tuple[int, ...]) -> tuple[int, dict[int, str]]:
    """Decode a unit into its place in the file of pixels; return how many records it has, and which failed and why."""
    out = np.memmap(path, np.uint8, "r+", shape=shape)  # pyright: ignore[reportArgumentType]
    encoded = unit.read()
    failed: dict[int, str] = {}
    for begin in range(0, unit.n, UNIT_PICTURES):  # a row group may be of any size
        first = unit.first + begin
        pixels, reasons = decode_all(encoded[begin : begin + UNIT_PICTURES], shape[1])
        out[first : first + len(pixels)] = pixels
        failed |= {first + k: reason for k, reason in reasons.items()}
    return unit.n, failed


def decode_all(sources: Sequence[Path | bytes | None], side: int) -> tuple[Pixels, dict[int, str]]:
    """Decode files or bytes: (n, side, side, 3) uint8, grey where that fails, and why it failed."""
    pixels = np.full((len(sources), side, side, 3), 127, np.uint8)
    reasons: dict[int, str] = {}
    for k, source in enumerate(sources):
        try:
            data = read_file(source) if isinstance(source, Path) else source
            if data is None:
                raise PictureError("it can't be read")
            pixels[k] = decode(data, side)
        except (PictureError, OSError) as err:
            reasons[k] = str(err)
    return pixels, reasons


def in_workers(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], workers: int) -> Iterator[Any]:
    """Yield `function(*task)` for each task, in order, from processes that are never more than a few tasks ahead.

    joblib's own generator runs ahead of a slow reader without end: a whole epoch of pixels would pile up.
    """
    workers = workers or cpu_count()
    if workers == 1:
        yield from (function(*task) for task in tasks)
        return
    # joblib's pool, shared with the tokenizer of this process.
    executor = get_memmapping_executor(workers, max_nbytes=None)
    ahead: deque[Any] = deque()
    try:
        for task in tasks:
            ahead.append(executor.submit(function, *task))
            if len(ahead) > READ_AHEAD * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()


# ---- what is asked before -------------------------------------------------------------------------------------------


def _natural_side(plan: Plan) -> int:
    """The longest of the shorter sides in a sample: nothing is kept larger than it came."""
    sides = []
    for unit in plan.units[:: max(1, len(plan.units) // 4)]:
        for data in unit.sample(SAMPLE // 4):
            with suppress(PictureError):
                sides.append(natural_side(data or b""))
    return max(sides, default=1 << 16)


def _free_bytes(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
