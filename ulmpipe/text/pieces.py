"""Pieces of files and what is found in them: the words that source.py, documents.py and tables.py share.

A piece is a part of one file, cut where a document ends. Here it is opened, decompressed and cut into lines; the bytes of a
line become text by `decode`. Knows nothing of what a line means.
"""

import bz2
import csv
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .remote import Stamp, is_url, look, open_url, read_range, without_query

FORMATS = {
    ".txt": "lines",  # a file by itself: one document a line, as `datasets` reads it; in a folder: one document a file
    ".tokens": "articles",  # WikiText: a document begins at a line ` = Title = `
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
TABLES = ("csv", "tsv", "jsonl", "parquet", "arrow")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
UTF16_SAMPLE = 1000  # bytes that are looked at
ARTICLE_TITLE = re.compile(rb" = [^=\n]+ = \r?\n")

PAD_BYTES = 16  # after texts that are scanned: kernels read 8 bytes at a time, and past the end

# What a file raises that is unreadable, truncated, or of another format inside.
UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error, csv.Error, ValueError)

ReadFunction = Callable[[Path], str]  # how a file of a folder becomes text, where a user says so


@dataclass(frozen=True)
class Piece:
    """A part of a file: bytes `begin` to `end` (excluded), or rows of a parquet or Arrow file. `end` None: to the end."""

    path: str  # of a file, or a URL
    name: str  # what the `source` column says, the same on every machine
    format: str  # "file" (one document), or a value of FORMATS
    n_bytes: int
    begin: int = 0
    end: int | None = None
    first_row: int = 0  # of a CSV piece: rows before `begin`, to name rows by
    label: str | None = None  # from the folder
    has_label: bool = True  # False: labels that are there are not read
    stamp: Stamp | None = None  # of the file when the run was planned, see `file_stamp`; None: it may change


class Document(NamedTuple):
    """One text. `label` is the value as a string; None where there is none."""

    text: str
    label: str | None
    source: str


class Quarantined(NamedTuple):
    """What was not read: where, why, and at which byte or row."""

    source: str
    reason: str
    offset: int


class MayPass(Quarantined):
    """What this run could not read, and the next one may: it changed, or was gone."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that hold the text and the label."""

    text: str = "text"
    label: str = "label"  # may be absent under this default name; a user's own choice must be there
    separator: str | None = None  # between the labels of a document that may have several; None: it has one


def split_suffixes(path: Path | str) -> tuple[str, str]:
    """`reviews.csv.gz` -> (".csv", ".gz"); the second is "" where the file is not compressed.

    >>> split_suffixes("https://host/reviews.CSV?signed=a/b.c")
    ('.csv', '')
    """
    suffixes = [s.lower() for s in Path(without_query(str(path))).suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        return (suffixes[0] if len(suffixes) == 2 else "", suffixes[-1])
    return (suffixes[-1] if suffixes else "", "")


def file_format(path: Path | str) -> str | None:
    """The value of FORMATS for a path, or None for another kind of file."""
    return FORMATS.get(split_suffixes(path)[0])


def is_compressed(path: Path | str) -> bool:
    """Whether the name ends in a compression that `documents.py` can read."""
    return split_suffixes(path)[1] != ""


def file_stamp(path: str | Path) -> Stamp | None:
    """Size, time of change and number of a file, which tell whether it is still the same; None where it can't be looked at.

    Of a URL its size, and what its server tells changes by.
    """
    if is_url(str(path)):
        return found.stamp if (found := look(str(path))) else None
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def open_bytes(path: str) -> IO[bytes]:
    """Open a file, or a URL, for reading bytes, decompressing by its ending."""
    ending = split_suffixes(path)[1]
    file = open_url(path) if is_url(path) else path
    if ending == ".zst":
        import pyarrow as pa  # and not zstandard, which takes a cut tail for the end

        return cast(IO[bytes], io.BufferedReader(pa.CompressedInputStream(file, "zstd")))  # pyright: ignore[reportArgumentType]
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    if ending in openers:
        return openers[ending](file, "rb")
    return open(file, "rb") if isinstance(file, str) else file


def byte_lines(piece: Piece) -> Iterator[tuple[int, bytes]]:
    """The lines of a piece with the offset of each; lines end at `\\n` only, as in every tool but Python's `splitlines`."""
    in_one = is_url(piece.path) and piece.end is not None  # with one request, and no byte more than the piece
    if in_one and piece.begin:
        refuse_utf16(read_range(piece.path, 0, UTF16_SAMPLE))
    with io.BytesIO(read_range(piece.path, piece.begin, piece.end or 0)) if in_one else open_bytes(piece.path) as file:
        if piece.begin and not in_one:
            refuse_utf16(file.read(UTF16_SAMPLE))
            file.seek(piece.begin)
        offset = piece.begin
        for line in file:
            if piece.end is not None and offset >= piece.end:
                return
            if offset == 0:
                refuse_utf16(line)
                yield 0, line.removeprefix(b"\xef\xbb\xbf")  # a byte order mark is no text
            else:
                yield offset, line
            offset += len(line)


def refuse_utf16(begin: bytes) -> None:
    """Raise `ValueError` if a file that begins so is UTF-16, where nothing could be read, or NUL after every letter.

    Without its mark UTF-16 is valid UTF-8 where it holds plain letters: every second byte of these is NUL.
    """
    sample = begin[:UTF16_SAMPLE]
    n_nul = max(sample[0::2].count(0), sample[1::2].count(0))
    if begin.startswith((b"\xff\xfe", b"\xfe\xff")) or n_nul > max(3, 0.3 * len(sample)):
        raise ValueError("it is UTF-16, expected UTF-8: convert it, e.g. iconv -f UTF-16 -t UTF-8")


def decode(data: bytes) -> str:
    """UTF-8 to text; bytes that are none survive as lone surrogates, for `_checked` to find and name."""
    return data.decode("utf-8", "surrogateescape")


def padded(data: bytes) -> NDArray[np.uint8]:
    """Bytes as an array with the padding that kernels read into."""
    return np.frombuffer(data + bytes(PAD_BYTES), np.uint8)


def side_by_side(texts: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Texts one after the other, padded, and their places: text k is `data[offsets[k]:offsets[k + 1]]`."""
    return padded(b"".join(texts)), np.cumsum([0, *map(len, texts)], dtype=np.int64)


def storable_name(name: str) -> str:
    """A file's name as a store can hold it: bytes in it that are no UTF-8 are written `\\udcff`."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
