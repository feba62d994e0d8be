"""`ulmpipe verify DIR` and `ulmpipe info`: is this folder what was written, and what machine is this?"""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..durable import MANIFEST, a, check_files, manifest_kind, read_manifest
from ..errors import StoreError
from ..text.store import KIND as TOKEN_STORE
from ..text.store import TokenStore
from .model_folder import FORMAT_VERSION, KINDS, Pretrained, read_model_manifest

OF_VISION = ("image classifier", "picture store")  # known by name: nothing of `vision` is imported here
PACKAGES = ("torch", "spacy", "numpy", "numba", "pyarrow", "datasets", "joblib", "safetensors")


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
    folder = Path(folder)
    kind = manifest_kind(folder) if (folder / MANIFEST).exists() else TOKEN_STORE
    if kind == TOKEN_STORE:
        store = TokenStore(folder)
        n_files = check_files(folder, store.manifest, digests=True)
        if sum(len(segment.offsets) - 1 for segment in store.segments) != store.n_docs:
            raise StoreError(f"{folder} has not the {store.n_docs:,} documents of its manifest: tokenize again")
    elif kind in KINDS:
        n_files = check_files(folder, read_model_manifest(folder), digests=True)
        Pretrained.from_pretrained(folder)
    elif kind in OF_VISION:
        n_files = check_files(folder, read_manifest(folder, kind, FORMAT_VERSION), digests=True)
    else:
        raise StoreError(f"{folder} holds {a(kind)}, expected a {TOKEN_STORE} or a model folder")
    return Verified(kind, n_files, str(folder))


def info() -> dict[str, object]:
    """Versions, processor, GPU, threads: what a bug report needs."""
    import torch

    return {
        "ulmpipe": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "ULMPIPE_DATA": os.environ.get("ULMPIPE_DATA"),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None
