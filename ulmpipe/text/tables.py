"""Tables: CSV, TSV, JSON lines, parquet and Arrow files, a document a row.

Beside documents.py, which calls it. Reads only the text and the label column, and only the rows of its piece.
"""

import csv
import json
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from .labels import read_label
from .pieces import UNREADABLE, Columns, Document, Piece, Quarantined, byte_lines, decode, file_stamp, open_bytes
from .remote import Stamp, is_url, open_url

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_A_BATCH = 1024  # of a parquet file: a row group can hold a whole corpus
csv.field_size_limit(1 << 30)  # Python's default of 128 kB is less than a long review


def class_names(schema: "pa.Schema", column: str) -> list[str]:
    """The names that `datasets` has put into a schema for the numbers of a ClassLabel column, or one of lists of them.

    [] where it has not.
    """
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        feature = feature.get("feature", feature)
        return list(feature["names"]) if feature["_type"] == "ClassLabel" else []
    except (KeyError, TypeError, ValueError):
        return []


def check_columns(piece: Piece, columns: Columns, found: list[str]) -> None:
    """Raise `SourceError` naming the columns there are, unless the text's is there and the label's if it was asked for."""
    asked = {"--text-column": columns.text} | (
        {"--label-column": columns.label} if columns.label != Columns.label else {}
    )
    for option, column in asked.items():
        if column not in found:
            if piece.format in ("csv", "tsv") and not any(found):
                raise SourceError(
                    f"{piece.path} is empty, or begins with an empty line, expected the names of its columns"
                )
            raise SourceError(
                f"{piece.path} has no column {column!r}, it has {', '.join(map(repr, found)) or 'none'}: name one with {option}"
            )


def csv_records(piece: Piece) -> Iterator[tuple[int, int, list[str]]]:
    """Records of a CSV or TSV piece as (begin, end, fields), the header line among them if `begin` is 0.

    Raises `csv.Error` where the piece ends inside quotes: a quote that is never closed would swallow all that follows.
    """
    end = begin = piece.begin
    exhausted = False  # the reader asks for a line behind the last one only when it is inside quotes

    def lines() -> Iterator[str]:
        nonlocal end, exhausted
        for offset, line in byte_lines(piece):
            end = offset + len(line) + (3 if offset == 0 and _has_bom(piece) else 0)
            yield decode(line)
        exhausted = True

    for fields in csv.reader(lines(), delimiter="\t" if piece.format == "tsv" else ","):
        if exhausted:
            raise csv.Error(
                f"a quote in the record that begins at byte {begin} is not closed, all from there on is lost"
            )
        yield begin, end, fields
        begin = end


def _has_bom(piece: Piece) -> bool:
    with open_bytes(piece.path) as file:
        return file.read(3) == b"\xef\xbb\xbf"


def csv_header(piece: Piece) -> list[str]:
    """The names of a CSV or TSV file's columns."""
    first = Piece(piece.path, piece.name, piece.format, piece.n_bytes)
    for _, _, fields in csv_records(first):
        return fields
    return []


def read_csv(piece: Piece, columns: Columns) -> Iterator[Document | Quarantined]:
    """Read the records of a CSV or TSV piece; a record of another length than the header is quarantined."""
    header = csv_header(piece)
    check_columns(piece, columns, header)
    text_at = header.index(columns.text)
    label_at = header.index(columns.label) if columns.label in header and piece.has_label else None
    for row, (begin, _, fields) in enumerate(csv_records(piece), start=piece.first_row):
        if row == 0 or not fields:  # the header, an empty line
            continue
        source = f"{piece.name}#{row - 1}"
        if len(fields) != len(header):
            yield Quarantined(
                source,
                f"the row has {len(fields)} fields, the header {len(header)}: quote texts that hold the separator",
                begin,
            )
        else:
            yield Document(
                fields[text_at], read_label(fields[label_at], columns) if label_at is not None else None, source
            )


def read_jsonl(piece: Piece, columns: Columns) -> Iterator[Document | Quarantined]:
    """One JSON object a line."""
    for offset, line in byte_lines(piece):
        source = f"{piece.name}@{offset}"
        if not line.strip():
            continue
        try:
            row = json.loads(decode(line))
        except (ValueError, RecursionError) as err:  # ValueError: also numbers of thousands of digits
            yield Quarantined(source, f"the line is no JSON: {err}", offset)
            continue
        if not isinstance(row, dict) or columns.text not in row:
            yield Quarantined(source, f"the line is no JSON object with {columns.text!r}", offset)
            continue
        text = row.get(columns.text)
        if not isinstance(text, str | None):
            yield Quarantined(source, f"{columns.text!r} holds {type(text).__name__}, expected a string", offset)
        else:
            label = row.get(columns.label) if piece.has_label else None
            yield Document(text or "", read_label(label, columns), source)


def arrow_batches(piece: Piece) -> Iterator["pa.RecordBatch"]:
    """Record batches of an Arrow IPC stream (as `datasets` writes) or file, mapped and not read."""
    import pyarrow as pa

    with pa.memory_map(piece.path) as mapped:
        try:
            reader = pa.ipc.open_stream(mapped)
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(mapped)
            yield from (file.get_batch(i) for i in range(file.num_record_batches))
        else:
            yield from reader


def table_schema(piece: Piece) -> "pa.Schema":
    """The schema of a parquet or Arrow file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(_parquet(piece.path)) if piece.format == "parquet" else next(arrow_batches(piece)).schema
    except (pa.ArrowException, OSError, StopIteration) as err:
        raise _damaged(piece, err) from err


def _damaged(piece: Piece, err: Exception) -> SourceError:
    return SourceError(f"{piece.path} is no {piece.format} file, or is damaged: {err}")


def table_rows_and_bytes(piece: Piece) -> tuple[int, int]:
    """How many rows a parquet or Arrow file has, and about how many bytes they take in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if piece.format == "parquet":
        meta = pq.read_metadata(_parquet(piece.path))
        return meta.num_rows, sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    try:
        sizes = [(batch.num_rows, batch.nbytes) for batch in arrow_batches(piece)]
    except (pa.ArrowException, OSError) as err:  # a cut tail: the schema, at the head, is still there
        raise _damaged(piece, err) from err
    return sum(rows for rows, _ in sizes), sum(n_bytes for _, n_bytes in sizes)


def _row_batches(piece: Piece, names: list[str]) -> Iterator[tuple[int, "pa.RecordBatch"]]:
    """Batches that hold the rows of a piece, each with the number of its first row."""
    if piece.format == "parquet":
        yield from _parquet_reader(piece.path, tuple(names), file_stamp(piece.path)).batches(piece)
        return
    first = 0
    for batch in arrow_batches(piece):
        yield first, batch.select(names)
        first += batch.num_rows


@lru_cache(maxsize=1)
def _parquet_reader(path: str, names: tuple[str, ...], stamp: Stamp | None) -> "ParquetReader":
    return ParquetReader(path, names)


def _parquet(path: str) -> Any:
    """What pyarrow takes for a parquet file: a path, or an open file behind a URL."""
    return open_url(path) if is_url(path) else path


class ParquetReader:
    """Reads pieces of one parquet file, one after the other, without beginning anew for each.

    Rows can only be reached by decoding all those before them in their row group, which may be the whole file.
    """

    def __init__(self, path: str, names: tuple[str, ...]):
        import pyarrow.parquet as pq

        self.path, self.names = path, names
        metadata = pq.read_metadata(_parquet(path))
        self.n_rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._begin(0)

    def _begin(self, row: int) -> None:
        """Begin with the row group that holds a row."""
        import pyarrow.parquet as pq

        group, self.at = self._group_of(row)
        groups = list(range(group, len(self.n_rows)))
        file = pq.ParquetFile(_parquet(self.path), memory_map=True)
        self.rest = file.iter_batches(ROWS_A_BATCH, row_groups=groups, columns=list(self.names))
        self.batch: pa.RecordBatch | None = None  # the one that was read last; `at` is its first row

    def _group_of(self, row: int) -> tuple[int, int]:
        """The row group that holds a row, or the end, and its first row."""
        first = 0
        for group, n_rows in enumerate(self.n_rows):
            if row < first + n_rows:
                return group, first
            first += n_rows
        return len(self.n_rows), first

    def batches(self, piece: Piece) -> Iterator[tuple[int, "pa.RecordBatch"]]:
        """Batches that hold the rows of a piece, each with the number of its first row."""
        if piece.begin < self.at or self._group_of(piece.begin) > self._group_of(
            self.at
        ):  # back, or past what none needs
            self._begin(piece.begin)
        while self.at < (piece.end or 0):
            if self.batch is None:
                self.batch = next(self.rest, None)
            if self.batch is None:
                return
            if self.at + self.batch.num_rows > piece.begin:
                yield self.at, self.batch
                if self.at + self.batch.num_rows > (piece.end or 0):
                    return  # the next piece begins in it
            self.at += self.batch.num_rows
            self.batch = None


class Rows(NamedTuple):
    """Rows of a table, their texts as they lie in Arrow's memory."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]  # (n + 1,)
    labels: list[str | None]
    numbers: range


def read_rows(piece: Piece, columns: Columns) -> Iterator[Document | Quarantined]:
    """Read the rows of a parquet or Arrow piece; a null text is an empty document."""
    for numbers, texts, labels in _text_columns(piece, columns):
        for number, text, label in zip(numbers, texts.to_pylist(), labels, strict=True):
            yield Document(decode(text), label, f"{piece.name}#{number}")


def read_row_texts(piece: Piece, columns: Columns) -> Iterator[Rows | list[Document]]:
    """The same in batches: `Rows`, or documents where a text is no UTF-8."""
    import pyarrow as pa

    for numbers, texts, labels in _text_columns(piece, columns):
        try:
            texts.cast(pa.large_string())  # checks that it is UTF-8
        except pa.ArrowInvalid:
            rows = zip(numbers, texts.to_pylist(), labels, strict=True)
            yield [Document(decode(text), label, f"{piece.name}#{number}") for number, text, label in rows]
            continue
        _, offsets_buffer, data = texts.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int64, len(texts) + 1, 8 * texts.offset)
        flat = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
        yield Rows(flat[offsets[0] : offsets[-1]], offsets - offsets[0], labels, numbers)


def _text_columns(piece: Piece, columns: Columns) -> Iterator[tuple[range, "pa.LargeBinaryArray", list[str | None]]]:
    """The rows of a piece: their numbers, texts as bytes without nulls, and labels."""
    import pyarrow as pa

    schema = table_schema(piece)
    check_columns(piece, columns, schema.names)
    text_type = schema.field(columns.text).type
    value_type = text_type.value_type if pa.types.is_dictionary(text_type) else text_type
    if not (
        pa.types.is_string(value_type) or pa.types.is_large_string(value_type) or pa.types.is_string_view(value_type)
    ):
        raise SourceError(
            f"{piece.path}: column {columns.text!r} holds {text_type}, expected strings: name another with --text-column"
        )
    names = [columns.text, *([columns.label] if columns.label in schema.names and piece.has_label else [])]
    classes = class_names(schema, columns.label)
    for first, batch in _row_batches(piece, names):
        if first >= (piece.end or 0):
            return
        begin, end = max(piece.begin - first, 0), min((piece.end or 0) - first, batch.num_rows)
        if begin < end:
            rows = batch.slice(begin, end - begin)
            labels = rows.column(columns.label).to_pylist() if columns.label in names[1:] else [None] * rows.num_rows
            if classes:  # -1 is the hub's "unlabelled"
                labels = [_named(n, classes) for n in labels]
            texts = rows.column(columns.text).cast(value_type).cast(pa.large_binary()).fill_null(b"")
            yield range(first + begin, first + end), texts, [read_label(label, columns) for label in labels]


def _named(label: int | list[int] | None, classes: list[str]) -> str | list[str] | None:
    """The name of a ClassLabel's number, or the names of several."""
    if isinstance(label, list):
        return [classes[n] for n in label if n is not None and 0 <= n < len(classes)]
    return classes[label] if label is not None and 0 <= label < len(classes) else None


def check_source(piece: Piece, columns: Columns) -> None:
    """Raise `SourceError` before any work if a table lacks its columns. What can't be read at all is left to the reading."""
    if piece.format in ("parquet", "arrow"):
        check_columns(piece, columns, table_schema(piece).names)
    elif piece.format in ("csv", "tsv", "jsonl"):
        try:
            names = csv_header(piece) if piece.format != "jsonl" else _jsonl_keys(piece)
        except (*UNREADABLE, RecursionError):
            return
        check_columns(piece, columns, names)


def _jsonl_keys(piece: Piece) -> list[str]:
    for _, line in byte_lines(piece):
        row = json.loads(decode(line))
        if not isinstance(row, dict):
            raise ValueError("the line is no JSON object")
        return list(row)
    return []
