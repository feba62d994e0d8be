"""Read documents: a piece of a file becomes texts with their labels, one at a time or many side by side.

Second in the flow, inside the workers. What can't be read becomes a `Quarantined` record with its place and reason, and
the reading goes on. Knows nothing of rules and tokens.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .pieces import (
    ARTICLE_TITLE,
    PAD_BYTES,
    UNREADABLE,
    Columns,
    Document,
    MayPass,
    Piece,
    Quarantined,
    ReadFunction,
    byte_lines,
    decode,
    open_bytes,
    refuse_utf16,
    side_by_side,
)
from .tables import Rows, read_csv, read_jsonl, read_row_texts, read_rows

BATCH_BYTES = 1 << 20  # of text in a batch: enough to make the cost of a call small, little enough to stay in a cache
NOT_UTF8 = "is not valid UTF-8: convert it, e.g. iconv -f LATIN1 -t UTF-8"


def read_piece(piece: Piece, columns: Columns, read: ReadFunction | None = None) -> Iterator[Document | Quarantined]:
    """Read the documents of a piece, in order; `read` replaces how a file of a folder becomes text."""
    readers = {
        "file": lambda: _read_file(piece, read),
        "lines": lambda: _read_lines(piece),
        "articles": lambda: _read_articles(piece),
        "csv": lambda: read_csv(piece, columns),
        "tsv": lambda: read_csv(piece, columns),
        "jsonl": lambda: read_jsonl(piece, columns),
        "parquet": lambda: read_rows(piece, columns),
        "arrow": lambda: read_rows(piece, columns),
    }
    try:
        for found in readers[piece.format]():
            checked = _checked(found)
            if isinstance(checked, Document) and not piece.has_label:
                checked = checked._replace(label=None)
            yield checked
    except UNREADABLE as err:
        yield _unreadable(piece, err)


class LeftOut(NamedTuple):
    """A document that is not read, for it kills or stops who does: its number in its piece, and why.

    `is_read` False: it could not even be read, nor what comes after it in the piece.
    """

    number: int
    is_read: bool
    reason: str


def read_but(
    piece: Piece, columns: Columns, left_out: Iterable[LeftOut], read: ReadFunction | None = None
) -> Iterator[Document | Quarantined]:
    """`read_piece` without some documents, which are quarantined."""
    reasons = {each.number: each for each in left_out}
    documents = read_piece(piece, columns, read)
    for number in count():
        out = reasons.get(number)
        if out and not out.is_read:
            yield Quarantined(piece.name, f"from its document {number} on (the first is 0): {out.reason}", piece.begin)
            return
        if (found := next(documents, None)) is None:
            return
        yield Quarantined(found.source, out.reason, _place(found.source, piece)) if out else found


def _place(source: str, piece: Piece) -> int:
    """The byte or row of a document, which its name ends with; of a file that is one document its begin."""
    place = re.search(r"[@#](\d+)$", source) if piece.format != "file" else None
    return int(place[1]) if place else piece.begin


def _unreadable(piece: Piece, err: Exception) -> Quarantined:
    """What is quarantined for an error; of the system (a file that is gone, a share that is away) only for this run.

    Not for want of permission, which the fingerprint of the store knows of.
    """
    reason = f"can't be read: {err}"
    if isinstance(err, OSError) and err.errno is not None and not isinstance(err, PermissionError):
        return MayPass(piece.name, reason, piece.begin)
    return Quarantined(piece.name, reason, piece.begin)


# ---- many at once ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """Documents side by side: text d is the UTF-8 `data[offsets[d]:offsets[d + 1]]`, and `PAD_BYTES` more bytes follow."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    labels: list[str | None]
    sources: list[str]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, doc: int) -> str:
        return self.data[self.offsets[doc] : self.offsets[doc + 1]].tobytes().decode()


def read_texts(piece: Piece, columns: Columns, read: ReadFunction | None = None) -> Iterator[Texts | Quarantined]:
    """The documents of a piece in batches; strings that lie in Arrow's memory never become Python's."""
    if piece.format not in ("parquet", "arrow"):
        yield from batched(read_piece(piece, columns, read))
        return
    try:
        for rows in read_row_texts(piece, columns):
            if isinstance(rows, Rows):
                yield _beside(rows, piece)
            else:  # some are no UTF-8
                yield from batched(_checked(found) for found in rows)
    except UNREADABLE as err:
        yield _unreadable(piece, err)


def _beside(rows: Rows, piece: Piece) -> Texts:
    n = len(rows.data)
    data = np.empty(n + PAD_BYTES, np.uint8)
    data[:n], data[n:] = rows.data, 0
    labels = [label if piece.has_label else None for label in rows.labels]
    return Texts(data, rows.offsets, labels, [f"{piece.name}#{row}" for row in rows.numbers])


def batched(found: Iterable[Document | Quarantined]) -> Iterator[Texts | Quarantined]:
    """Documents side by side, in batches; what is quarantined comes before the batch it would be in."""
    docs: list[Document] = []
    n_bytes = 0
    for each in found:
        if isinstance(each, Quarantined):
            yield each
            continue
        docs.append(each)
        n_bytes += len(each.text)
        if n_bytes >= BATCH_BYTES:
            yield _together(docs)
            docs, n_bytes = [], 0
    if docs:
        yield _together(docs)


def _together(docs: list[Document]) -> Texts:
    data, offsets = side_by_side([doc.text.encode() for doc in docs])
    return Texts(data, offsets, [doc.label for doc in docs], [doc.source for doc in docs])


# ---- one at a time --------------------------------------------------------------------------------------------------


def _checked(found: Document | Quarantined) -> Document | Quarantined:
    """Refuse a text or label that is not Unicode: bytes that are no UTF-8 (they arrive as surrogates) and lone surrogates."""
    if isinstance(found, Quarantined):
        return found
    try:
        found.text.encode("utf-8")
        (found.label or "").encode("utf-8")
    except UnicodeEncodeError as err:
        return Quarantined(found.source, NOT_UTF8, len(err.object[: err.start].encode("utf-8", "surrogatepass")))
    return found


# ---- texts ----------------------------------------------------------------------------------------------------------


def _read_file(piece: Piece, read: ReadFunction | None) -> Iterator[Document | Quarantined]:
    """One document a file."""
    if read is not None:
        try:
            text = read(Path(piece.path))
            if not isinstance(text, str):
                raise TypeError(f"it returned {type(text).__name__}, expected str")
            yield Document(text, piece.label, piece.name)
        except Exception as err:  # a user's code, on a file of any kind: the others are read all the same
            yield Quarantined(piece.name, f"read() failed: {type(err).__name__}: {err}", 0)
        return
    with open_bytes(piece.path) as file:
        data = file.read().removeprefix(b"\xef\xbb\xbf")
    refuse_utf16(data)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as err:
        yield Quarantined(piece.name, NOT_UTF8, err.start)
    else:
        yield Document(text, piece.label, piece.name)


def _read_lines(piece: Piece) -> Iterator[Document]:
    """One document a line; empty lines are none."""
    for offset, line in byte_lines(piece):
        if text := decode(line).rstrip("\r\n"):
            yield Document(text, None, f"{piece.name}@{offset}")


def _read_articles(piece: Piece) -> Iterator[Document]:
    """WikiText: a document begins at a line ` = Title = `, and holds its lines as they are."""
    begin, lines = piece.begin, list[bytes]()
    for offset, line in byte_lines(piece):
        if ARTICLE_TITLE.fullmatch(line):
            if b"".join(lines).strip():
                yield Document(decode(b"".join(lines)), None, f"{piece.name}@{begin}")
            begin, lines = offset, []
        lines.append(line)
    if b"".join(lines).strip():
        yield Document(decode(b"".join(lines)), None, f"{piece.name}@{begin}")
