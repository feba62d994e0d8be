"""What to read: a SOURCE of pictures becomes a plan of records, with labels, cut into work units. Decodes nothing.

a folder of class folders   pets/cat/1.jpg; `train` and `val` (valid, validation, test) may lie above them
a folder of tables          train.parquet, val.parquet; or shards whose names begin so
a table                     .parquet or .arrow with columns image and label
a name                      named.py: under $ULMPIPE_DATA, else from the hub; digits come with scikit-learn
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ulmpipe.errors import SourceError

from .named import DIGITS, HUB, NAMES, data_folder, digits, from_hub

SPLITS = {"train": ("train", "training"), "valid": ("val", "valid", "validation", "test")}
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
TABLES = (".parquet", ".arrow")
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img", "picture"), ("label", "labels", "class")
UNIT_PICTURES = 256  # of a folder: so many files are a work unit
MAX_BYTES = 1 << 30  # of one file: no picture is larger


@dataclass(frozen=True)
class Unit:
    """Records that one worker decodes: some files, or one batch of a table."""

    first: int  # number of its first record
    n: int
    path: Path  # of the table, or the folder of the files
    files: tuple[str, ...] = ()  # below `path`
    batch: int = 0  # row group of a parquet file, record batch of an Arrow file
    column: str = ""

    def read(self) -> list[bytes | None]:
        """Return the encoded pictures; None where there is none, or the file can't be read."""
        if self.files:
            return [_read_file(self.path / name) for name in self.files]
        if self.path == Path(DIGITS):  # a table has an ending
            return list(digits()[0])
        cells = _read_batch(self.path, self.batch, [self.column])[self.column].to_pylist()
        return [_bytes_of(value, self.path.parent) for value in cells]

    def sample(self, n: int) -> list[bytes | None]:
        """Return some n of them, evenly spread."""
        step = max(1, self.n // n)
        if self.files:
            return [_read_file(self.path / name) for name in self.files[::step]]
        return self.read()[::step]


@dataclass(frozen=True)
class Plan:
    """The records of one split, in a fixed order."""

    names: list[str]  # where each came from, for people
    labels: NDArray[np.int64]  # (N,) -1 without a label
    classes: list[str]
    units: list[Unit]
    stamp: list[Any] = field(default_factory=list)  # changes when a file does: names, sizes, times

    @property
    def digest(self) -> str:
        """Twelve characters that change when a file, a class or a column does."""
        said = json.dumps([self.classes, self.stamp], ensure_ascii=False)
        return sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def source_name(source: str) -> str:
    """Return what outputs are called after: the last part of a path, or the name."""
    path = Path(source.rstrip("/"))
    return (path.name if path.is_dir() else path.stem) or "pictures"


def find_source(source: str, split: str = "train", *, image_column: str = "", label_column: str = "") -> Plan | None:
    """Return the records of a split ("train" or "valid"); None where the source has no such split.

    A table, and a folder without splits, are all "train". Raises `SourceError` where there is nothing to read.
    """
    columns = (image_column, label_column)
    path = Path(source)
    if not path.exists():
        return _named(source, split, columns)
    if path.is_file():
        if path.suffix not in TABLES:
            raise SourceError(f"{source} is no table of pictures: expected {' or '.join(TABLES)}, or a folder")
        return _from_tables([path], columns) if split == "train" else None
    tables, folders = _split_paths(path, split)
    if tables:
        return _from_tables(tables, columns)
    if folders:
        return _from_folder(folders[0])
    if split != "train" or any(_split_paths(path, other) != ([], []) for other in SPLITS):
        return None
    tables = sorted(p for p in path.iterdir() if p.suffix in TABLES)
    return _from_tables(tables, columns) if tables else _from_folder(path)


def _named(name: str, split: str, columns: tuple[str, str]) -> Plan | None:
    if folder := data_folder(name):
        return find_source(str(folder), split, image_column=columns[0], label_column=columns[1])
    if name == DIGITS:
        return _from_digits() if split == "train" else None
    if name not in HUB:
        raise SourceError(
            f"{name} does not exist and is no name: expected a folder, a table, or one of {', '.join(NAMES)}"
        )
    return _from_tables(from_hub(name, split), columns)


def _from_digits() -> Plan:
    encoded, labels = digits()
    names = [f"{DIGITS}[{n}]" for n in range(len(encoded))]
    unit = Unit(0, len(encoded), Path(DIGITS))
    return Plan(names, labels, [str(n) for n in range(10)], [unit], [[DIGITS, len(encoded)]])


def _split_paths(folder: Path, split: str) -> tuple[list[Path], list[Path]]:
    """Tables and sub-folders of a folder whose names begin with one of the split's names, by the first name found."""
    entries = sorted(folder.iterdir())
    for name in SPLITS[split]:
        tables = [p for p in entries if p.suffix in TABLES and p.stem.split("-")[0].split("_")[0] == name]
        folders = [p for p in entries if p.name == name and p.is_dir()]
        if tables or folders:
            return tables, folders
    return [], []


# ---- folders --------------------------------------------------------------------------------------------------------


def _from_folder(root: Path) -> Plan:
    names = sorted(_files_below(root))
    if not names:
        raise SourceError(
            f"{root} holds no pictures: expected a folder for each class, with {', '.join(SUFFIXES[:3])} ..."
        )
    folders = [printable(name.split("/")[0]) if "/" in name else "" for name in names]
    classes = sorted(set(folders) - {""})
    number = {name: n for n, name in enumerate(classes)}
    labels = np.array([number.get(folder, -1) for folder in folders], np.int64)
    units = [
        Unit(first, len(names[first : first + UNIT_PICTURES]), root, files=tuple(names[first : first + UNIT_PICTURES]))
        for first in range(0, len(names), UNIT_PICTURES)
    ]
    stamp = [[name, *_stamp(root / name)] for name in names]
    return Plan([printable(name) for name in names], labels, classes, units, stamp)


def _files_below(root: Path) -> Iterator[str]:
    """Names of all pictures, hidden files and folders left out; a folder that links lead to twice is read once."""
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            subfolders[:] = []
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for file in files:
            path = Path(folder, file)
            if not file.startswith(".") and path.suffix.lower() in SUFFIXES and path.is_file():
                yield path.relative_to(root).as_posix()


def printable(name: str) -> str:
    """Escape what is no UTF-8 in the name of a file, so that it can be printed and stored."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def read_file(path: Path) -> bytes:
    """Return the bytes of a picture's file. Raises `OSError` where it can't be read, is no plain file, or larger than any picture."""
    found = path.stat()
    if not path.is_file():  # a pipe would be waited for, and a device has no end
        raise OSError("it is no plain file")
    if found.st_size > MAX_BYTES:
        raise OSError(f"it has {found.st_size:,} bytes, expected {MAX_BYTES:,} at most")
    return path.read_bytes()


def _read_file(path: Path) -> bytes | None:
    try:
        return read_file(path)
    except (OSError, ValueError):  # a table may name a path with a null in it
        return None


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


# ---- tables ---------------------------------------------------------------------------------------------------------


def _from_tables(paths: Sequence[Path], columns: tuple[str, str]) -> Plan:
    names: list[str] = []
    labels: list[Any] = []
    units: list[Unit] = []
    classes: list[str] | None = None
    for path in paths:
        schema = _schema(path)
        image = _pick_column(path, schema, columns[0], IMAGE_COLUMNS, "--image-column")
        label = _pick_column(path, schema, columns[1], LABEL_COLUMNS, "--label-column", needed=bool(columns[1]))
        if label and pa.types.is_nested(kind := schema.field(label).type):
            raise SourceError(
                f"{path}: column {label} holds {kind}, expected numbers or text: name another with --label-column"
            )
        classes = classes or _class_names(schema, label)
        _check_pictures(path, schema, image)
        has_path = (
            pa.types.is_struct(schema.field(image).type) and schema.field(image).type.get_field_index("path") >= 0
        )
        wanted = [*([f"{image}.path"] if has_path else []), *([label] if label else [])]
        first = len(names)
        for batch, n in enumerate(_batch_sizes(path)):
            rows = _read_batch(path, batch, wanted) if wanted else {}
            inner = _one_array(rows[image]).field("path").to_pylist() if has_path else [None] * n
            names += [name or f"{path.name}[{len(names) - first + k}]" for k, name in enumerate(inner)]
            labels += rows[label].to_pylist() if label else [None] * n
            units.append(Unit(len(names) - n, n, path, batch=batch, column=image))
    if not names:
        raise SourceError(f"{paths[0]} has no rows")
    numbers, classes = _number_labels(labels, classes)
    return Plan(names, numbers, classes, units, [[path.name, *columns, *_stamp(path)] for path in paths])


def _number_labels(labels: list[Any], classes: list[str] | None) -> tuple[NDArray[np.int64], list[str]]:
    """Labels as numbers below the number of classes, -1 where there is none; classes by their sorted names unless known."""
    if classes is None:
        found = {label for label in labels if label is not None}
        ordered = sorted(found) if all(isinstance(label, int) for label in found) else sorted(map(str, found))
        classes = [str(label) for label in ordered]
        number = {name: n for n, name in enumerate(classes)}
        return np.array([-1 if label is None else number[str(label)] for label in labels], np.int64), classes
    numbers = np.array([-1 if label is None else label for label in labels], np.int64)
    if numbers.max(initial=-1) >= len(classes):
        raise SourceError(f"a label is {numbers.max()}, and the table names {len(classes)} classes only")
    return numbers.clip(-1), classes


def _pick_column(path: Path, schema: pa.Schema, asked: str, usual: Sequence[str], flag: str, *, needed: bool = True) -> str:  # fmt: skip
    for name in [asked] if asked else usual:
        if name in schema.names:
            return name
    if not needed:
        return ""
    raise SourceError(
        f"{path} has columns {', '.join(schema.names)}, expected {asked or usual[0]}: name it with {flag}"
    )


def _check_pictures(path: Path, schema: pa.Schema, image: str) -> None:
    kind = schema.field(image).type
    inner = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(inner) or pa.types.is_large_binary(inner) or pa.types.is_null(inner)):
        raise SourceError(f"{path}: column {image} holds {kind}, expected the bytes of pictures: name another with --image-column")  # fmt: skip


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """The names of the classes where `datasets` has written them into the schema."""
    if not label or b"huggingface" not in (schema.metadata or {}):
        return None
    from datasets import ClassLabel, Features

    feature = Features.from_arrow_schema(schema).get(label)
    return list(feature.names) if isinstance(feature, ClassLabel) and feature.names else None


def _schema(path: Path) -> pa.Schema:
    with _naming(path):
        return pq.read_schema(path) if path.suffix == ".parquet" else _open_arrow(path)[0]


def _batch_sizes(path: Path) -> list[int]:
    if path.suffix == ".parquet":
        metadata = pq.read_metadata(path)
        return [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    return [batch.num_rows for batch in _open_arrow(path)[1]]


def _read_batch(path: Path, batch: int, columns: list[str]) -> Any:
    """One row group or record batch; `columns` may name a field of a struct, as `image.path`."""
    with _naming(path):
        if path.suffix == ".parquet":
            return pq.ParquetFile(path).read_row_group(batch, columns=columns)
        return _open_arrow(path)[1][batch]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what pyarrow says of a damaged table into a line that names it."""
    try:
        yield
    except (pa.ArrowException, OSError) as err:
        raise SourceError(f"{path} is no {path.suffix[1:]} file, or it is damaged: {str(err).splitlines()[0]}") from err


def _one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _open_arrow(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Schema and batches of an Arrow file or stream, mapped into memory."""
    mapped = pa.memory_map(str(path))
    try:
        reader = pa.ipc.open_file(mapped)
        return reader.schema, [reader.get_batch(n) for n in range(reader.num_record_batches)]
    except pa.ArrowInvalid:
        mapped.seek(0)
        reader = pa.ipc.open_stream(mapped)
        return reader.schema, list(reader)


def _bytes_of(value: Any, beside: Path) -> bytes | None:
    """The encoded picture of a cell: bytes, or a struct of bytes and path, which counts from the folder of the table."""
    if isinstance(value, dict):
        if value.get("bytes") is None and value.get("path"):
            return _read_file(beside / value["path"])
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None
