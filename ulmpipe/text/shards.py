"""Run work units on worker processes: texts in, Arrow shards out; the parent sees small records only.

    1. tokenize_unit, in workers: a unit's tokens under a numbering of its own, and how often each came -> staging
    2. merge_counts, in the parent: counts in the order of the units -> the vocabulary
    3. number_unit, in workers: the unit's numbering -> the vocabulary's ids -> a finished shard -> staging

The parent alone moves shards into place (tasks/tokenize.py). Two passes cost little: the second runs at the speed of
memory, and no worker ever waits for another's counts.
"""

import ctypes
import os
import signal
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..durable import describe_file, fsync_file
from ..errors import UlmpipeError
from .documents import read_piece
from .pieces import Columns, Quarantined, ReadFunction
from .source import Unit
from .store import ids_dtype, shard_name, shard_schema
from .tokenizer import TokenizerRecipe, cached_tokenizer
from .vocab import Vocab

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_TOKENS = 1 << 20  # a record batch is written when it holds so many: bounds the memory of a unit that can't be cut


@dataclass(frozen=True)
class Job:
    """What every unit of a run has in common; small, and sent to the workers."""

    stage: str  # folder
    recipe: TokenizerRecipe
    columns: Columns
    read: ReadFunction | None = None


@dataclass
class UnitRecord:
    """What a worker returns of a unit."""

    index: int
    n_docs: int = 0
    n_tokens: int = 0
    n_bytes: int = 0  # of text, UTF-8
    labels: set[str] = field(default_factory=set)
    quarantined: list[Quarantined] = field(default_factory=list)


def run_units(task: Callable[..., Any], calls: Iterable[tuple[Any, ...]], *, workers: int) -> Iterator[Any]:
    """Call `task(*call)` for every call, on `workers` processes; results in the order in which they get done.

    One worker means this process: no pool, the same bytes. Processes are loky's, started afresh and never forked.
    """
    if workers == 1:
        yield from (task(*call) for call in calls)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    # max_nbytes=None: nothing goes through /dev/shm. batch_size=1: a unit is work enough for one message.
    options: dict[str, Any] = {"return_as": "generator_unordered", "batch_size": 1, "max_nbytes": None}
    pool = Parallel(n_jobs=workers, backend="loky", **options)
    results = pool(delayed(_in_worker)(os.getpid(), task, call) for call in calls)
    try:
        yield from cast(Iterator[Any], results)
    except TerminatedWorkerError as err:
        raise UlmpipeError("a worker process was killed, probably for memory: try fewer --workers") from err


def _in_worker(parent: int, task: Callable[..., Any], call: tuple[Any, ...]) -> Any:
    die_with_parent(parent)
    return task(*call)


@lru_cache(maxsize=1)
def die_with_parent(parent: int) -> None:
    """Ask the kernel, once, to kill this worker when its parent dies: loky's outlive a killed parent and go on writing."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


# ---- pass 1 ---------------------------------------------------------------------------------------------------------


def tokenize_unit(index: int, unit: Unit, job: Job) -> UnitRecord:
    """Tokenize a unit into `unit-<index>.arrow` (tokens by order of first appearance) and `unit-<index>.counts.arrow`."""
    tokenizer = cached_tokenizer(job.recipe)
    record = UnitRecord(index)
    order: dict[str, int] = {}  # token -> its place in this unit's own numbering
    counts = np.zeros(0, np.int64)
    with UnitWriter(Path(job.stage) / f"unit-{index:05d}.arrow") as writer:
        for found in (found for piece in unit for found in read_piece(piece, job.columns, job.read)):
            if isinstance(found, Quarantined):
                record.quarantined.append(found)
                continue
            tokens = tokenizer.tokenize(found.text)
            writer.add([order.setdefault(token, len(order)) for token in tokens], found.label, found.source)
            record.n_docs += 1
            record.n_tokens += len(tokens)
            record.n_bytes += len(found.text.encode("utf-8"))
            if found.label is not None:
                record.labels.add(found.label)
            if len(writer.ids) >= BATCH_TOKENS:
                counts = _add_counts(counts, writer.flush(), len(order))
        counts = _add_counts(counts, writer.flush(), len(order))
    _write_counts(Path(job.stage) / f"unit-{index:05d}.counts.arrow", list(order), counts)
    return record


def _add_counts(counts: np.ndarray, ids: np.ndarray, n: int) -> np.ndarray:
    """Add the counts of `ids` to `counts`, which grows to (n,) int64."""
    total = np.bincount(ids, minlength=n)
    total[: len(counts)] += counts
    return total


class UnitWriter:
    """Writes a unit's documents under its own numbering, a record batch at a time: ids int32, label and source as text."""

    def __init__(self, path: Path):
        import pyarrow as pa

        self.pa = pa
        self.schema = pa.schema([("ids", pa.list_(pa.int32())), ("label", pa.string()), ("source", pa.string())])
        self.file = pa.OSFile(str(path), "wb")
        self.stream = pa.ipc.new_stream(self.file, self.schema)
        self._clear()

    def _clear(self) -> None:
        self.ids, self.offsets = array("i"), array("i", [0])
        self.labels: list[str | None] = []
        self.sources: list[str] = []

    def add(self, ids: list[int], label: str | None, source: str) -> None:
        """Add one document."""
        self.ids.extend(ids)
        self.offsets.append(len(self.ids))
        self.labels.append(label)
        self.sources.append(source)

    def flush(self) -> np.ndarray:
        """Write what was added as a record batch and return its ids (n_tokens,) int32."""
        ids, offsets = np.array(self.ids, np.int32), np.array(self.offsets, np.int32)
        if self.sources:
            columns = [
                self.pa.ListArray.from_arrays(offsets, ids),
                self.pa.array(self.labels, self.pa.string()),
                self.pa.array(self.sources, self.pa.string()),
            ]
            self.stream.write_batch(self.pa.record_batch(columns, schema=self.schema))
        self._clear()
        return ids

    def __enter__(self) -> "UnitWriter":
        return self

    def __exit__(self, *exc: object) -> None:
        self.stream.close()
        self.file.close()


def _write_counts(path: Path, tokens: list[str], counts: np.ndarray) -> None:
    import pyarrow as pa

    table = pa.table({"token": pa.array(tokens, pa.string()), "count": pa.array(counts, pa.int64())})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


# ---- between: the vocabulary ----------------------------------------------------------------------------------------


def merge_counts(stage: Path, n_units: int) -> Counter[str]:
    """How often each token came in all units."""
    total: Counter[str] = Counter()
    for index in range(n_units):
        table = _read_all(stage / f"unit-{index:05d}.counts.arrow")
        for token, n in zip(table["token"].to_pylist(), table["count"].to_pylist(), strict=True):
            total[token] += n
    return total


def order_labels(labels: Iterable[str]) -> list[str]:
    """Labels in the order that gives them their ids: as numbers where all are, else by their letters.

    >>> order_labels(["10", "9", "-1"]), order_labels(["pos", "neg"])
    (['-1', '9', '10'], ['neg', 'pos'])
    """
    labels = sorted(set(labels))
    try:
        return sorted(labels, key=int)
    except ValueError:
        return labels


# ---- pass 2 ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _vocab(path: str) -> Vocab:
    return Vocab.load(Path(path))


def number_unit(index: int, stage: str, vocab_path: str, labels: list[str]) -> dict[str, Any]:
    """Write `shard-<index>.arrow` from a tokenized unit; returns the manifest's lines on it."""
    import pyarrow as pa

    vocab = _vocab(vocab_path)
    tokens = _read_all(Path(stage) / f"unit-{index:05d}.counts.arrow")["token"].to_pylist()
    remap = np.array(vocab.encode(tokens), dtype=ids_dtype(len(vocab)))  # the unit's numbering -> ids
    schema = shard_schema(len(vocab), has_labels=bool(labels))
    label_ids = {label: i for i, label in enumerate(labels)}
    path = Path(stage) / shard_name(index)
    n_rows = n_tokens = n_unknown = 0
    with (
        pa.memory_map(str(Path(stage) / f"unit-{index:05d}.arrow")) as mapped,
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, schema) as stream,
    ):
        for batch in pa.ipc.open_stream(mapped):
            ids = remap[batch.column("ids").values.to_numpy()]
            columns = [pa.ListArray.from_arrays(batch.column("ids").offsets, pa.array(ids))]
            if labels:
                columns.append(pa.array([label_ids.get(v, -1) for v in batch.column("label").to_pylist()], pa.int64()))
            stream.write_batch(pa.record_batch([*columns, batch.column("source")], schema=schema))
            n_rows, n_tokens = n_rows + batch.num_rows, n_tokens + len(ids)
            n_unknown += int((ids == vocab.unk_id).sum())
    fsync_file(path)
    return {"index": index, "n_unknown": n_unknown, "rows": n_rows, "tokens": n_tokens} | describe_file(path)


def _read_all(path: Path) -> "pa.Table":
    import pyarrow as pa

    with pa.memory_map(str(path)) as mapped:
        return pa.ipc.open_stream(mapped).read_all()
