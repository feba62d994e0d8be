"""Files behind URLs for the tests: in this process's memory, on the disk, and over HTTP with and without ranges."""

import functools
import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec


class Plain(SimpleHTTPRequestHandler):
    """Lists folders, and gives whole files only."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Ranges(Plain):
    """Gives parts of files too, as object stores and most servers do."""

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not asked or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{path.stat().st_size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return None


class Sorted(Ranges):
    """Its lists link to themselves in other orders, as those of Apache do."""

    def list_directory(self, path: Any) -> Any:
        links = "".join(
            f'<li><a href="{name}">{name}</a>'
            for name in ("?C=N;O=D", "?C=M;O=A", *(entry.name + "/" * entry.is_dir() for entry in Path(path).iterdir()))
        )
        body = f"<html><body><ul>{links}</ul></body></html>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)


@contextmanager
def http(folder: Path, handler: type[Plain] = Ranges) -> Iterator[str]:
    """The URL of a server of a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def in_memory(folder: Path | None = None) -> Iterator[str]:
    """The URL of a copy of a folder in this process; nothing of it is left behind."""
    fs = fsspec.filesystem("memory")
    try:
        if folder is not None:
            fs.put(str(folder), "/copy", recursive=True)
        yield "memory://copy"
    finally:
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]


@contextmanager
def on_disk(folder: Path) -> Iterator[str]:
    """A file:// URL of a folder."""
    yield folder.as_uri()


BEHIND = {"memory": in_memory, "file": on_disk, "http": http}
