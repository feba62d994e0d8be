"""`tokenize -o URL`: a store is made in a folder of this machine, then copied to where the URL points, its manifest last.

    NAME.tok here, whole -> an older manifest there is removed -> older files -> uploading.json -> files -> manifest -> its end

Beside tasks/tokenize.py, which calls. Object stores have no rename: a reader takes nothing there without a manifest, as
everywhere. `uploading.json` says whose files lie there meanwhile, so that the same command goes on after an interruption.
Opens no store there: what reads one maps its files, so copy it to the machine that shall train.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..console import log, progress
from ..durable import MANIFEST, MAX_JSON_BYTES, a, locked
from ..errors import UlmpipeError
from ..text.remote import RemoteFile, file_system, list_files, read_range
from ..text.store import KIND, PARTS, SMALL_FILES, TokenStore

MARKER = "uploading.json"
AT_A_TIME = 16  # files: file systems that can send them side by side
OURS = (*SMALL_FILES, MARKER)


def local_folder(url: str) -> Path:
    """Where a store for a URL is made: in the working directory, by the last part of the URL."""
    return Path(url.rstrip("/").rsplit("/", 1)[-1])


def manifest_there(url: str) -> dict[str, Any] | None:
    """The manifest of the whole store at a URL, None where there is none yet.

    Raises `UlmpipeError` where something else lies there, or it can't be listed.
    """
    with _told(url):
        there = {file.name: file for file in list_files(url)}
        if MANIFEST not in there:
            if foreign := [name for name in there if not _is_ours(name)]:
                raise UlmpipeError(
                    f"the output {url} holds something else ({', '.join(foreign[:3])}): choose another -o"
                )
            return None
        manifest = _read(there[MANIFEST])
    kind = manifest.get("kind", "folder of another program")
    if kind != KIND:
        raise UlmpipeError(f"the output {url} holds {a(kind)}, expected {a(KIND)}: choose another -o")
    if not all(isinstance(manifest.get(part), kind) for part, kind in {**PARTS, "files": dict}.items()):
        return None  # altered: it is made again
    sizes = {name: file.n_bytes for name, file in there.items()}
    said = {name: each.get("bytes") for name, each in manifest["files"].items() if isinstance(each, dict)}
    return manifest if all(sizes.get(name, -1) == said.get(name) for name in manifest["files"]) else None


def upload(folder: Path, url: str) -> None:
    """Copy the store in `folder` to `url`, in the place of an older one; what an interrupted copy has done is kept.

    Raises `UlmpipeError` where it can't be written, and `StoreError` where the store is not whole.
    """
    fs, root = file_system(url)
    root = root.rstrip("/")
    with locked(folder), _told(url, f"; {folder} is whole, the same command goes on from there"):
        manifest = (folder / MANIFEST).read_bytes()
        sizes = {name: said["bytes"] for name, said in TokenStore(folder).manifest["files"].items()}
        mine = {"manifest_sha256": hashlib.sha256(manifest).hexdigest()}
        there = {file.name: file for file in list_files(url)}
        if MARKER not in there or MANIFEST in there or _read(there[MARKER]) != mine:
            for name in sorted(filter(_is_ours, there), key=lambda name: name != MANIFEST):  # the manifest first
                fs.rm_file(f"{root}/{name}")
            fs.makedirs(root, exist_ok=True)
            fs.pipe_file(f"{root}/{MARKER}", json.dumps(mine).encode())
            there = {}
        todo = [name for name, size in sizes.items() if name not in there or there[name].n_bytes != size]
        n_bytes = sum(sizes[name] for name in todo)
        log(f"copying {len(todo):,} files, {n_bytes / 1e6:,.1f} MB, to {url}; {folder} stays: delete it when you like")
        with progress("upload", n_bytes) as bar:
            n_done = 0
            for names in _batches(todo):
                fs.put([str(folder / name) for name in names], [f"{root}/{name}" for name in names])
                n_done += sum(sizes[name] for name in names)
                bar.update(n_done)
        there = {file.name: file.n_bytes for file in list_files(url)}
        if wrong := [name for name, size in sizes.items() if there.get(name) != size]:
            raise UlmpipeError(f"{url}/{wrong[0]} has {there.get(wrong[0], 0):,} bytes, expected {sizes[wrong[0]]:,}")
        fs.pipe_file(f"{root}/{MANIFEST}", manifest)
        fs.rm_file(f"{root}/{MARKER}")


def _is_ours(name: str) -> bool:
    return name in (*OURS, MANIFEST) or (name.startswith("shard-") and name.endswith(".arrow"))


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(names), AT_A_TIME):
        yield names[begin : begin + AT_A_TIME]


def _read(file: RemoteFile) -> dict[str, Any]:
    """A JSON object there; an empty one for what is none of ours."""
    if file.n_bytes > MAX_JSON_BYTES:
        return {}
    try:
        found = json.loads(read_range(file.url, 0, file.n_bytes))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _told(url: str, what_is_left: str = "") -> Iterator[None]:
    """Make one line of what a file system raises; each has errors of its own."""
    try:
        yield
    except UlmpipeError:
        raise
    except Exception as err:
        reason = (str(err).strip() or "it gives no reason").splitlines()[0]
        raise UlmpipeError(f"the output {url} can't be written: {type(err).__name__}: {reason}{what_is_left}") from err
