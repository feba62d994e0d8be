"""Files behind a URL (`s3://`, `gs://`, `https://`, `memory://` ...): listed, looked at, read by ranges, through fsspec.

Below pieces.py and source.py, which come here with a URL and with nothing else: a path of this machine never imports fsspec.
Knows nothing of texts. Nothing is cached, for a file may change while it is read: each look is a request.
"""

import errno
import io
import re
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ..errors import SourceError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
FIRST_BYTES, MOST_BYTES = 64 << 10, 4 << 20  # of a request: the first after a jump, and when much is read in order
# What tells a change, beside the size; the first one that a file system knows of, in its lists and of one file
# (where they differ, `list_files` asks for each).
STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "modify", "modified", "created")

Stamp = tuple[int | str, ...]


class RemoteFile(NamedTuple):
    """A file as its server lists it."""

    name: str  # relative to the URL that was listed, with `/`
    url: str
    n_bytes: int
    stamp: Stamp


def is_url(path: str) -> bool:
    """Whether a SOURCE, an output or the path of a piece is a URL.

    >>> is_url("s3://bucket/reviews.csv"), is_url("reviews.csv"), is_url("hf:owner/name")
    (True, False, False)
    """
    return URL.match(path) is not None


def is_web(url: str) -> bool:
    """Whether a URL is one of a web server, which gives files and takes none."""
    return url.startswith(("http://", "https://"))


def without_query(url: str) -> str:
    """A URL of the web without what is signed; anything else, where a name may have a `?`, as it is.

    >>> without_query("https://host/a.csv?sig=b/c"), without_query("s3://bucket/why?.csv")
    ('https://host/a.csv', 's3://bucket/why?.csv')
    """
    return url.partition("?")[0] if is_web(url) else url


def file_system(url: str) -> "tuple[AbstractFileSystem, str]":
    """The file system of a URL, and what it calls its path. Raises `SourceError` for one that is unknown, or not installed."""
    if "::" in url:
        raise SourceError(f"{url} joins several URLs: expected one, such as s3://bucket/folder")
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url, use_listings_cache=False)
    except ImportError as err:  # fsspec names the package
        raise SourceError(f"{url} needs a package that is not installed: {err} (with pip install)") from err
    except ValueError as err:
        raise SourceError(f"{url} can't be opened: {err}") from err


def look(url: str) -> RemoteFile | None:
    """The file at a URL as it is now; None where there is none, or it can't be looked at."""
    try:
        fs, path = file_system(url)
        info = fs.info(path)
    except SourceError:
        raise
    except Exception:  # each file system has errors of its own for what is not there, or not allowed
        return None
    return None if info["type"] == "directory" else _remote_file(without_query(url).rsplit("/", 1)[-1], url, info)


def list_files(url: str) -> list[RemoteFile]:
    """All files below a URL, sorted by name. Raises `SourceError` where it can't be listed."""
    try:
        fs, path = file_system(url)
        found: Mapping[str, Any] = fs.find(path, detail=True)  # pyright: ignore[reportAssignmentType]
        files: list[RemoteFile] = []
        for full, info in found.items():
            name = full.removeprefix(path.rstrip("/")).lstrip("/")
            # Consoles of object stores make empty objects for folders; a web server's index has links to itself, otherwise sorted.
            if name and not name.endswith("/") and not (is_web(url) and "?" in name):
                sized = info if info.get("size") is not None else fs.info(full)  # a list of HTTP has no sizes
                files.append(_remote_file(name, f"{url.rstrip('/')}/{name}", sized))
    except SourceError:
        raise
    except Exception as err:
        raise SourceError(f"{url} can't be listed: {type(err).__name__}: {err}") from err
    first = look(files[0].url) if files else None
    if first and first.stamp != files[0].stamp:  # its lists tell changes by something else than its looks
        files = [file._replace(stamp=now.stamp) for file in files if (now := look(file.url))]
    return sorted(files)


def _remote_file(name: str, url: str, info: Mapping[str, Any]) -> RemoteFile:
    if info.get("size") is None:
        raise SourceError(f"{url}: its server does not say how large it is: copy it to this machine first")
    told_by = next((str(info[key]) for key in STAMPS if key in info), "")
    return RemoteFile(name, url, info["size"], (info["size"], told_by))


def read_range(url: str, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end` (excluded) of a file, in one request; fewer where it has become shorter.

    Raises `OSError` where it can't be read now, `SourceError` where its server gives whole files only.
    """
    if begin >= end:
        return b""
    try:
        fs, path = file_system(url)
        data: Any = fs.cat_file(path, start=begin, end=end)
    except (SourceError, PermissionError):
        raise
    except Exception as err:  # of a dozen unrelated classes; with a number, as all that may pass (documents.py)
        raise OSError(errno.EIO, f"{type(err).__name__}: {err}") from err
    if len(data) > end - begin and begin > 0:
        raise SourceError(f"{url}: its server gives no parts of files: copy it to this machine first")
    return data[: end - begin]


def open_url(url: str) -> IO[bytes]:
    """Open a file for reading, from anywhere in it. Raises `OSError` where it is not there."""
    if (found := look(url)) is None:
        raise FileNotFoundError(errno.ENOENT, "it is not there, or can't be looked at", url)
    return io.BufferedReader(_Ranges(found), MOST_BYTES)  # pyright: ignore[reportReturnType]


class _Ranges(io.RawIOBase):
    """A file as a stream of requests: small after a jump (a header, the end of a line), larger as the reading goes on.

    fsspec's own files read ahead by a fixed amount, and those of `memory://` share one position.
    """

    def __init__(self, file: RemoteFile):
        self.file, self.at, self.ahead = file, 0, FIRST_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + (0, self.at, self.file.n_bytes)[whence]
        if at != self.at:
            self.at, self.ahead = at, FIRST_BYTES
        return at

    def readinto(self, buffer: Any) -> int:
        end = min(self.at + min(len(buffer), self.ahead), self.file.n_bytes)
        data = read_range(self.file.url, self.at, end)
        buffer[: len(data)] = data
        self.at, self.ahead = self.at + len(data), min(2 * self.ahead, MOST_BYTES)
        return len(data)

    def readall(self) -> bytes:
        data = read_range(self.file.url, self.at, self.file.n_bytes)
        self.at += len(data)
        return data
