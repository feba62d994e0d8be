"""Read documents: a piece of a file becomes texts with their labels, one at a time.

Second in the flow, inside the workers. What can't be read becomes a `Quarantined` record with its place and reason, and
the reading goes on. Knows nothing of rules and tokens.
"""

from collections.abc import Iterator
from pathlib import Path

from .pieces import (
    ARTICLE_TITLE,
    UNREADABLE,
    Columns,
    Document,
    Piece,
    Quarantined,
    ReadFunction,
    byte_lines,
    decode,
    open_bytes,
    refuse_utf16,
)
from .tables import read_csv, read_jsonl, read_rows

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
        yield Quarantined(piece.name, f"can't be read: {err}", piece.begin)


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
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as err:
        refuse_utf16(data)
        yield Quarantined(piece.name, NOT_UTF8, err.start)
    else:
        yield Document(decode(data), piece.label, piece.name)


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
