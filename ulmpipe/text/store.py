"""The token store: a folder of Arrow shards, a vocabulary and a manifest. Written here, read here, never copied.

    shard-00000.arrow ...  vocab.json  manifest.json   and two small files for `datasets.load_from_disk`

Columns: `ids` (list of uint16, or int32 where the vocabulary needs it), `label` (where there are labels; -1 where a
document has none; lists, and null, where it may have several), `source`. A reader gets NumPy arrays that lie in the mapped files. Arrow streams do not notice a cut
tail and no format here notices a flipped bit, so sizes are checked whenever a store is opened and digests by `verify`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..durable import MANIFEST, check_files, check_keys, read_manifest
from ..errors import StoreError
from .labels import label_matrix
from .vocab import VOCAB_FILE, Vocab

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

KIND = "token store"
FORMAT_VERSION = 1
DATASET_INFO, DATASET_STATE = "dataset_info.json", "state.json"  # what `datasets` writes beside its Arrow files
SMALL_FILES = (VOCAB_FILE, DATASET_INFO, DATASET_STATE)  # of a store, beside its shards
PARTS = {"labels": list, "n_docs": int, "n_tokens": int, "fingerprint": str, "recipe": dict, "vocab_sha256": str, "vocab_size": int, "quarantined": list}  # fmt: skip


def ids_dtype(vocab_size: int) -> type[np.uint16] | type[np.int32]:
    """The narrowest of the two types that holds every id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.int32


def shard_name(index: int) -> str:
    """`shard-00003.arrow`."""
    return f"shard-{index:05d}.arrow"


def shard_schema(vocab_size: int, *, has_labels: bool, multi_label: bool = False) -> "pa.Schema":
    """The columns of every shard of a store."""
    import pyarrow as pa

    fields = [pa.field("ids", pa.list_(pa.from_numpy_dtype(ids_dtype(vocab_size))))]
    if has_labels:
        fields.append(pa.field("label", pa.list_(pa.int64()) if multi_label else pa.int64()))
    return pa.schema([*fields, pa.field("source", pa.string())])


def datasets_files(
    shards: Sequence[str], vocab_size: int, labels: Sequence[str], fingerprint: str, *, multi_label: bool = False
) -> dict[str, Any]:
    """The two JSON files with which `datasets.load_from_disk` opens the folder as it stands."""
    dtype = np.dtype(ids_dtype(vocab_size)).name
    features: dict[str, Any] = {"ids": {"feature": {"dtype": dtype, "_type": "Value"}, "_type": "List"}}
    if labels:
        one = {"names": list(labels), "_type": "ClassLabel"}
        features["label"] = {"feature": one, "_type": "List"} if multi_label else one
    features["source"] = {"dtype": "string", "_type": "Value"}
    state = {
        "_data_files": [{"filename": name} for name in shards],
        "_fingerprint": fingerprint[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    return {DATASET_INFO: {"features": features}, DATASET_STATE: state}


@dataclass(frozen=True)
class Segment:
    """One record batch of a shard, mapped: document `i` has tokens `ids[offsets[i]:offsets[i + 1]]`."""

    ids: NDArray[Any]  # (n_tokens,) uint16 or int32, read-only
    offsets: NDArray[np.int64]  # (n_docs + 1,)
    labels: NDArray[Any]  # (n_docs,) int64, or (n_docs, C) int8 of several: see labels.py


class TokenStore:
    """A finished store, open for reading."""

    def __init__(self, folder: Path | str):
        """Open and check it. Raises `StoreError` for an unfinished, truncated, foreign or newer store."""
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder, KIND, FORMAT_VERSION)
        check_keys(self.manifest, PARTS, self.folder / MANIFEST)
        check_files(self.folder, self.manifest)
        shards = [said for name, said in self.manifest["files"].items() if name.startswith("shard-")]
        for said in shards:
            check_keys(said, {"rows": int, "tokens": int}, self.folder / MANIFEST)
        for name, column in (("n_docs", "rows"), ("n_tokens", "tokens")):
            if (n := sum(said[column] for said in shards)) != self.manifest[name]:
                raise StoreError(f"{self.folder / MANIFEST} says {name} {self.manifest[name]:,}, and {n:,} of its shards: it was altered")  # fmt: skip
        self.labels: list[str] = self.manifest["labels"]
        self.multi_label: bool = self.manifest.get("multi_label", False)
        self.n_docs: int = self.manifest["n_docs"]
        self.n_tokens: int = self.manifest["n_tokens"]
        self.fingerprint: str = self.manifest["fingerprint"]

    def __len__(self) -> int:
        return self.n_docs

    def to_dataset(self) -> "datasets.Dataset":
        """It as a `datasets.Dataset`, in the mapped files: columns `ids`, `label` where there are labels, `source`."""
        import datasets

        return datasets.Dataset.load_from_disk(str(self.folder))

    @cached_property
    def vocab(self) -> Vocab:
        """The vocabulary its ids belong to."""
        return Vocab.load(self.folder / VOCAB_FILE)

    @cached_property
    def n_specials(self) -> int:
        """How many ids, from 0 on, are those of special tokens."""
        special = set(self.manifest["recipe"].get("specials", ()))
        return next((n for n, token in enumerate(self.vocab.itos) if token not in special), len(self.vocab))

    @cached_property
    def segments(self) -> list[Segment]:
        """All record batches, mapped and checked, in the order of the documents."""
        shards = [name for name in self.manifest["files"] if name.startswith("shard-")]
        return [segment for name in shards for segment in self._map_shard(name)]

    def _map_shard(self, name: str) -> list[Segment]:
        import pyarrow as pa

        try:
            with pa.memory_map(str(self.folder / name)) as mapped:
                batches = list(pa.ipc.open_stream(mapped))
            for batch in batches:
                batch.validate(full=True)
                if batch.schema != shard_schema(
                    len(self.vocab), has_labels=bool(self.labels), multi_label=self.multi_label
                ):
                    raise ValueError(f"its columns are {', '.join(batch.schema.names)}")
            segments = [_segment(batch, len(self.labels)) for batch in batches]
        except (pa.ArrowException, OSError, ValueError) as err:
            raise StoreError(f"{self.folder / name} is damaged: {err}. Tokenize again") from err
        largest = max((int(s.ids.max()) for s in segments if len(s.ids)), default=0)
        if largest >= len(self.vocab) or any(len(s.ids) and int(s.ids.min()) < 0 for s in segments):
            raise StoreError(f"{self.folder / name} holds ids outside the vocabulary ({largest}): tokenize again")
        if any(s.labels.ndim == 1 and len(s.labels) and s.labels.max() >= max(1, len(self.labels)) for s in segments):
            raise StoreError(f"{self.folder / name} holds labels outside {self.labels}: tokenize again")
        if sum(len(s.offsets) - 1 for s in segments) != self.manifest["files"][name]["rows"]:
            raise StoreError(f"{self.folder / name} has lost rows: tokenize again")
        return segments

    @cached_property
    def doc_labels(self) -> NDArray[Any]:
        """(n_docs,) int64, the label of each document, -1 where it has none; of several (n_docs, C) int8, see labels.py."""
        return np.concatenate([s.labels for s in self.segments] or [np.empty(0, np.int64)])

    @cached_property
    def doc_lengths(self) -> NDArray[np.int64]:
        """(n_docs,) tokens of each document."""
        return np.concatenate([np.diff(s.offsets) for s in self.segments] or [np.empty(0, np.int64)])

    def doc(self, index: int) -> NDArray[Any]:
        """(n_tokens,) ids of one document, in the mapped file."""
        if index < 0:
            raise IndexError(index)
        for segment in self.segments:
            if index < len(segment.offsets) - 1:
                return segment.ids[segment.offsets[index] : segment.offsets[index + 1]]
            index -= len(segment.offsets) - 1
        raise IndexError(index)


def _segment(batch: "pa.RecordBatch", n_classes: int) -> Segment:
    """Views into a record batch; nothing is copied but the offsets, which become int64."""
    column = batch.column("ids")
    offsets = np.asarray(column.offsets, dtype=np.int64)
    ids = column.values.to_numpy(zero_copy_only=True)
    if "label" not in batch.schema.names:
        labels = np.full(batch.num_rows, -1)
    elif (several := batch.column("label")).type != "int64":
        is_null = several.is_null().to_numpy(zero_copy_only=False)
        values = several.values.to_numpy(zero_copy_only=False)
        return Segment(ids, offsets, label_matrix(values, np.asarray(several.offsets, np.int64), is_null, n_classes))
    else:
        labels = several.to_numpy(zero_copy_only=False)
    return Segment(ids, offsets, labels.astype(np.int64))


def is_store(folder: Path) -> bool:
    """Whether a folder holds a finished token store."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == KIND
