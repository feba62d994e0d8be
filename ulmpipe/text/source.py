"""What to read: a SOURCE becomes files, and files become work units of about `UNIT_BYTES` each.

First in the flow. A work unit is what one worker reads at a time, a tuple of pieces; a piece is a part of one file.
Units are cut by bytes and never by workers, so that the same source gives the same shards anywhere. Texts themselves
are read in documents.py.
"""

import csv
import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..durable import MANIFEST, read_json
from ..errors import SourceError, StoreError
from .labels import read_label
from .pieces import (
    ARTICLE_TITLE,
    COMPRESSIONS,
    FORMATS,
    TABLES,
    Columns,
    Piece,
    file_format,
    file_stamp,
    is_compressed,
    open_bytes,
    split_suffixes,
    storable_name,
)
from .remote import RemoteFile, Stamp, is_url, list_files, look, open_url
from .store import DATASET_INFO, DATASET_STATE
from .tables import check_source, csv_records, table_rows_and_bytes

DATASET_DICT = "dataset_dict.json"  # of a folder of several saved data sets
READ_BYTES = 1 << 20
UNIT_BYTES = 4 << 20  # text in a work unit: seconds for spaCy, small against the memory of a worker

Unit = tuple[Piece, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that will be read, in order."""

    units: tuple[Unit, ...]
    paths: tuple[tuple[str, str], ...]  # (name, path) of every file, in order: what the fingerprint is made of
    notes: tuple[str, ...] = ()  # what was ignored, and why

    @property
    def n_bytes(self) -> int:
        """Bytes of text to read; an estimate for parquet and Arrow."""
        return sum(piece.n_bytes for unit in self.units for piece in unit)


def without_labels(plan: Plan) -> Plan:
    """The same texts, their labels left unread: what a language model is trained on."""
    units = tuple(tuple(replace(piece, label=None, has_label=False) for piece in unit) for unit in plan.units)
    return replace(plan, units=units)


def join_plans(*plans: Plan) -> Plan:
    """All the texts of several plans, one after the other."""
    return Plan(
        tuple(unit for plan in plans for unit in plan.units),
        tuple(path for plan in plans for path in plan.paths),
        tuple(note for plan in plans for note in plan.notes),
    )


# ---- files ----------------------------------------------------------------------------------------------------------


def plan_files(paths: Iterable[Path], columns: Columns | None = None, *, unit_bytes: int = UNIT_BYTES) -> Plan:
    """Plan files of the known formats, each a table or a text of many documents.

    Raises `SourceError` for a missing file, an unknown format, a compressed parquet or Arrow file, or a table that
    lacks its columns.
    """
    found: list[Found] = []
    for path in paths:
        if not path.exists():
            raise SourceError(f"{path} does not exist: check the spelling")
        if not path.is_file():  # reading a pipe would wait for ever
            raise SourceError(f"{path} is no plain file: write it to one first")
        found.append(_find_file(path.name, str(path)))
    return _plan_tables(found, columns or Columns(), unit_bytes)


class Found(NamedTuple):
    """A file, of this machine or behind a URL."""

    name: str
    path: str
    n_bytes: int
    stamp: Stamp | None


def _find_file(name: str, path: str) -> Found:
    """A file of this machine; one that can't be looked at is quarantined when it is read."""
    stamp = file_stamp(path)
    return Found(name, path, os.stat(path).st_size if stamp else 0, stamp)


def _plan_tables(found: Iterable[Found], columns: Columns, unit_bytes: int) -> Plan:
    pieces: list[Piece] = []
    files: list[tuple[str, str]] = []
    for file in found:
        format = file_format(file.name)
        if format is None:
            raise SourceError(
                f"{file.path} is of an unknown kind, expected {' '.join(FORMATS)} (or these with {' '.join(COMPRESSIONS)})"
            )
        if format in ("parquet", "arrow") and is_compressed(file.name):
            raise SourceError(f"{file.path}: a {format} file can't be read compressed as a whole: decompress it first")
        if format == "arrow" and is_url(file.path):  # each unit would read all that comes before it
            raise SourceError(f"{file.path}: an Arrow file can't be read from afar: write parquet, or copy it first")
        whole = Piece(file.path, storable_name(file.name), format, file.n_bytes, stamp=file.stamp)
        check_source(whole, columns)
        files.append((whole.name, file.path))
        pieces += cut_file(whole, unit_bytes)
    return Plan(tuple(group_pieces(pieces, unit_bytes)), tuple(files))


def cut_file(whole: Piece, unit_bytes: int) -> list[Piece]:
    """Cut one file at places where a document ends."""
    format = whole.format
    if is_compressed(whole.path):
        return [whole]  # a compressed stream has no places to start from: it is one unit, read by one worker
    if format == "csv" or format == "tsv":
        return _cut_csv(whole, unit_bytes)
    if format in ("parquet", "arrow"):
        return _cut_rows(whole, unit_bytes)
    is_begin = ARTICLE_TITLE.fullmatch if format == "articles" else (lambda line: True)
    return _cut_lines(whole, unit_bytes, is_begin)


def _cut_lines(whole: Piece, unit_bytes: int, is_begin: Callable[[bytes], object]) -> list[Piece]:
    """Cut before the first line past each multiple of `unit_bytes` with which a document may begin."""
    cuts = [0]
    with open_bytes(whole.path) as file:
        while cuts[-1] + unit_bytes < whole.n_bytes:
            file.seek(cuts[-1] + unit_bytes)
            file.readline()  # the rest of the line that the seek fell into
            begin = file.tell()
            while (line := file.readline()) and not is_begin(line):
                begin = file.tell()
            if not line:
                break
            cuts.append(begin)
    ends = [*cuts[1:], whole.n_bytes]
    return [replace(whole, begin=b, end=e, n_bytes=e - b) for b, e in zip(cuts, ends, strict=True)]


def _cut_csv(whole: Piece, unit_bytes: int) -> list[Piece]:
    """Cut at ends of records. A newline may stand inside quotes, so only a reader of the whole file knows them."""
    pieces: list[Piece] = []
    begin, first_row, end = 0, 0, 0
    try:
        for row, (_, end, _) in enumerate(csv_records(whole)):
            if end - begin >= unit_bytes:
                pieces.append(replace(whole, begin=begin, end=end, n_bytes=end - begin, first_row=first_row))
                begin, first_row = end, row + 1
    except (csv.Error, ValueError):
        return [whole]  # quarantined, with the reason, when it is read
    if end > begin or not pieces:
        pieces.append(replace(whole, begin=begin, end=end, n_bytes=end - begin, first_row=first_row))
    return pieces


def _cut_rows(whole: Piece, unit_bytes: int) -> list[Piece]:
    """Cut a parquet or Arrow file at rows, by its mean bytes a row."""
    n_rows, n_bytes = table_rows_and_bytes(whole)
    rows_per_unit = max(1, int(unit_bytes * n_rows / max(n_bytes, 1)))
    begins = range(0, n_rows, rows_per_unit)
    return [
        replace(
            whole,
            begin=b,
            end=min(b + rows_per_unit, n_rows),
            n_bytes=n_bytes * (min(b + rows_per_unit, n_rows) - b) // n_rows,
        )
        for b in begins
    ]


def group_pieces(pieces: list[Piece], unit_bytes: int) -> Iterator[Unit]:
    """Put neighbours together until a unit has `unit_bytes`: many small files make one unit."""
    unit: list[Piece] = []
    n_bytes = 0
    for piece in pieces:
        if unit and n_bytes + piece.n_bytes > unit_bytes:
            yield tuple(unit)
            unit, n_bytes = [], 0
        unit.append(piece)
        n_bytes += piece.n_bytes
    if unit:
        yield tuple(unit)


# ---- folders --------------------------------------------------------------------------------------------------------


def plan_folder(
    folder: Path,
    columns: Columns | None = None,
    *,
    extensions: tuple[str, ...] = (".txt",),
    unit_bytes: int = UNIT_BYTES,
) -> Plan:
    """Plan a folder of texts, one document a file; where every text lies in a sub-folder, its first folder is the label.

    A folder without such texts that holds tables (.csv, .parquet, ...) of one kind is planned as these tables.
    Hidden names, links out of the way of plain files, pipes and devices are ignored, with a note.
    """
    names, notes = walk_folder(folder)
    files = (_find_file(name, path) for name, path in names)
    return _plan_found(str(folder), list(files), notes, columns or Columns(), extensions, unit_bytes)


def _plan_found(
    where: str,
    files: list[Found],
    notes: list[str],
    columns: Columns,
    extensions: tuple[str, ...],
    unit_bytes: int,
) -> Plan:
    texts = [file for file in files if split_suffixes(file.name)[0] in extensions]
    if not texts:
        tables = [file for file in files if file_format(file.name) in (*TABLES, "articles")]
        if len({file_format(file.name) for file in tables}) == 1:
            names = Counter(Path(file.name).name for file in tables)  # without folders, where that tells them apart
            tables = [
                file._replace(name=Path(file.name).name) if names[Path(file.name).name] == 1 else file
                for file in tables
            ]
            return replace(_plan_tables(tables, columns, unit_bytes), notes=tuple(notes))
        found = ", ".join(sorted({Path(name).suffix or Path(name).name for name, *_ in files})[:5]) or "nothing"
        raise SourceError(f"no documents found under {where}: looked for {' '.join(extensions)}, found {found}")
    if n_others := len(files) - len(texts):
        notes.append(f"ignored {n_others} files that are not {' '.join(extensions)}")
    beside = [file.name for file in texts if "/" not in file.name]
    labelled = not beside
    if beside and len(beside) < len(texts):
        notes.append(f"sub-folders are no labels: {beside[0]} lies in none")
    pieces = [
        Piece(
            file.path,
            file.name,
            "file",
            file.n_bytes,
            label=read_label(file.name.split("/")[0], columns) if labelled else None,
            stamp=file.stamp,
        )
        for file in texts
    ]
    return Plan(tuple(group_pieces(pieces, unit_bytes)), tuple((file.name, file.path) for file in texts), tuple(notes))


def is_saved_dataset(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` has written a folder."""
    return (folder / DATASET_DICT).is_file() or all((folder / name).is_file() for name in (DATASET_INFO, DATASET_STATE))


def plan_saved_dataset(folder: Path, columns: Columns | None = None, *, unit_bytes: int = UNIT_BYTES) -> Plan:
    """Plan what `Dataset.save_to_disk` wrote: its Arrow files, in its order; labels are named by their ClassLabel.

    Raises `SourceError` for several splits, naming them, and for a folder that is not whole.
    """
    if (folder / DATASET_DICT).is_file():
        splits = _read_state(folder / DATASET_DICT, "splits")
        shown = ", ".join(str(folder / str(split)) for split in splits[:5])
        raise SourceError(f"{folder} holds the splits of a DatasetDict: name one of them, {shown or 'of which it has none'}")  # fmt: skip
    if _read_state(folder / DATASET_STATE, "_indices_data_files", []):
        raise SourceError(f"{folder} has its rows in an order of their own (indices): flatten_indices() and save_to_disk() write them out")  # fmt: skip
    names: list[Any] = [file.get("filename") if isinstance(file, dict) else file for file in _read_state(folder / DATASET_STATE, "_data_files")]  # fmt: skip
    if wrong := [name for name in names if not isinstance(name, str) or Path(name).name != name or not name.endswith(".arrow")]:  # fmt: skip
        raise SourceError(f"{folder / DATASET_STATE} names {str(wrong[0])[:40]!r}, which is no Arrow file in its folder: it was altered")  # fmt: skip
    if not names:
        raise SourceError(f"{folder} is a dataset of no rows")
    return plan_files([folder / name for name in names], columns, unit_bytes=unit_bytes)


def _read_state(path: Path, key: str, default: list[Any] | None = None) -> list[Any]:
    """A list in one of the JSON files that `datasets` writes beside its data."""
    try:
        found = read_json(path)
    except StoreError as err:
        raise SourceError(str(err)) from err
    values = found.get(key) if isinstance(found, dict) else None
    values = default if values is None else values
    if not isinstance(values, list):
        raise SourceError(f"{path} lacks {key}: it was altered, or is of another program")
    return values


def walk_folder(folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """All plain files below a folder as (name relative to it with `/`, path), sorted by name; and notes on the rest."""
    files: list[tuple[str, str]] = []
    notes: list[str] = []
    for root, folders, names in os.walk(folder):
        hidden = [n for n in (*folders, *names) if n.startswith(".")]
        notes += [f"ignored {os.path.join(root, n)}: hidden" for n in sorted(hidden)]
        links = [n for n in folders if n not in hidden and os.path.islink(os.path.join(root, n))]
        notes += [f"ignored {os.path.join(root, n)}: a link to a folder" for n in links]
        folders[:] = [n for n in folders if not n.startswith(".")]
        for name in names:
            path = os.path.join(root, name)
            if name.startswith("."):
                continue
            try:
                is_file = stat.S_ISREG(os.stat(path).st_mode)
            except OSError as err:
                is_file = (
                    err.errno == errno.ENOENT
                )  # a link to nowhere: a text that is missing, and not to be passed by
            if is_file:
                files.append((storable_name(Path(path).relative_to(folder).as_posix()), path))
            else:
                notes.append(f"ignored {path}: not a plain file")
    return sorted(files), sorted(notes)


# ---- URLs -----------------------------------------------------------------------------------------------------------


def plan_url(
    url: str, columns: Columns | None = None, *, extensions: tuple[str, ...] = (".txt",), unit_bytes: int = UNIT_BYTES
) -> Plan:
    """Plan the file at a URL, or all below it, as `plan_files` and `plan_folder` do: the same texts give the same units.

    Raises `SourceError` also for a token store, which is mapped and so must lie on this machine.
    """
    columns = columns or Columns()
    if file_format(url) and (file := look(url)):
        return _plan_tables([_found(file)], columns, unit_bytes)
    files = sorted(file._replace(name=storable_name(file.name)) for file in list_files(url))
    if not files and (file := look(url)):
        return _plan_tables([_found(file)], columns, unit_bytes)  # which says that it is of an unknown kind
    if not files:
        raise SourceError(f"nothing is found at {url}: check the spelling, and whether you may list it")
    if any(file.name == MANIFEST for file in files):
        raise SourceError(
            f"{url} holds a token store or a model, expected texts: copy it to this machine and give that"
        )
    is_hidden = [any(part.startswith(".") for part in file.name.split("/")) for file in files]
    notes = [f"ignored {file.url}: hidden" for file, hidden in zip(files, is_hidden, strict=True) if hidden]
    shown = [_found(file) for file, hidden in zip(files, is_hidden, strict=True) if not hidden]
    return _plan_found(url, shown, notes, columns, extensions, unit_bytes)


def _found(file: RemoteFile) -> Found:
    return Found(file.name, file.url, file.n_bytes, file.stamp)


# ---- the fingerprint ------------------------------------------------------------------------------------------------


def file_digest(path: str, tell: Callable[[int], None] | None = None) -> bytes:
    """The sha256 of a file, or of one behind a URL; the number of the error where it can't be read.

    `tell` is called with the number of bytes whenever some were read.
    """
    total = hashlib.sha256()
    try:
        with open_url(path) if is_url(path) else open(path, "rb", buffering=0) as file:
            while data := file.read(READ_BYTES):
                total.update(data)
                if tell is not None:
                    tell(len(data))
            return total.digest()
    except OSError as err:  # quarantined, with the reason, when it is read
        return str(err.errno).encode()


def digest(plan: Plan, digests: Iterable[bytes] | None = None) -> str:
    """Hex sha256 over the names and contents of all files of a plan, in order: one part of a store's fingerprint.

    `digests` are the `file_digest` of each, in order, where the caller has them.
    """
    total = hashlib.sha256()
    each = (file_digest(path) for _, path in plan.paths) if digests is None else digests
    for (name, _), content in zip(plan.paths, each, strict=True):
        total.update(name.encode("utf-8") + b"\0")
        total.update(content)
    return total.hexdigest()
