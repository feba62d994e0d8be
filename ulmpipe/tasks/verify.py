"""`ulmpipe verify DIR`: is this folder what was written?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..console import progress
from ..durable import MANIFEST, a, check_files, manifest_kind, read_manifest
from ..errors import StoreError
from ..text.remote import is_url
from ..text.store import KIND as TOKEN_STORE
from ..text.store import TokenStore
from .model_folder import FORMAT_VERSION, KINDS, Pretrained, read_model_manifest

OF_VISION = ("image classifier", "picture store")  # known by name: nothing of `vision` is imported here


@dataclass(frozen=True)
class Verified:
    """What was checked."""

    kind: str
    n_files: int
    folder: str


def verify(folder: str | Path) -> Verified:
    """Check every byte of a token store or a model folder against its manifest, and that it can be opened.

    Raises `StoreError` that names the first file that is missing, truncated or altered.
    """
    if is_url(str(folder)):
        raise StoreError(f"{folder} is a URL, expected a folder of this machine: copy it here first")
    folder = Path(folder)
    if not folder.exists():
        raise StoreError(f"{folder} does not exist, expected a {TOKEN_STORE} or a model folder: check the spelling")
    kind = manifest_kind(folder) if (folder / MANIFEST).exists() else TOKEN_STORE
    if kind == TOKEN_STORE:
        store = TokenStore(folder)
        n_files = _check_digests(folder, store.manifest)
        _ = store.segments, store.vocab  # which are checked as they are opened
    elif kind in KINDS:
        n_files = _check_digests(folder, read_model_manifest(folder))
        Pretrained.from_pretrained(folder)
    elif kind in OF_VISION:
        n_files = _check_digests(folder, read_manifest(folder, kind, FORMAT_VERSION))
    else:
        raise StoreError(f"{folder} holds {a(kind)}, expected a {TOKEN_STORE} or a model folder")
    return Verified(kind, n_files, str(folder))


def _check_digests(folder: Path, manifest: dict[str, Any]) -> int:
    with progress("verify", sum(said["bytes"] for said in manifest["files"].values())) as bar:
        return check_files(folder, manifest, digests=True, told=bar.update)
