"""Run work units on worker processes: texts in, Arrow shards out; the parent sees small records only.

    1. tokenize_unit, in workers: a unit's tokens as its engine numbers them, and how often each came -> staging
    2. merge_counts, in the parent: counts in the order of the units -> the vocabulary
    3. number_unit, in workers: the engine's numbers -> the vocabulary's ids -> a finished shard -> staging

The parent alone moves files into place: those of the first pass among what is done (done.py), shards into the store
(tasks/publish.py). Two passes cost little: the second runs at the speed of memory, and no worker ever waits for another's counts.
"""

import time
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..durable import describe_file, fsync_file
from ..errors import EngineMismatchError
from .documents import LeftOut, Texts, batched, read_but, read_texts
from .labels import label_names
from .pieces import Columns, MayPass, Piece, Quarantined, ReadFunction, file_stamp
from .source import Unit
from .store import ids_dtype, shard_name, shard_schema
from .tokenizer import TokenizerRecipe, cut_long_chunks
from .vocab import VOCAB_FILE, Vocab
from .workers import mark

if TYPE_CHECKING:
    import pyarrow as pa

    from .engine import Encoded, Engine

MARK_S = 0.5  # seconds, after which a unit gives another sign of life
MERGED_AT_ONCE = 1000  # units whose counts are mapped at a time: Linux lets a process have 65,530 maps, 275 GB of text
BATCH_TOKENS = 1 << 20  # a record batch is written when it holds so many: bounds the memory of a unit that can't be cut


@dataclass(frozen=True)
class Job:
    """What every unit of a run has in common; small, and sent to the workers."""

    stage: str  # folder
    recipe: TokenizerRecipe
    columns: Columns
    read: ReadFunction | None = None
    engine: str = "fast"
    verify: float = 0.0  # share of the documents that the reference tokenizes too
    tables: str | None = None  # a file that remembers chunks: read, and `unit-<index>.tables.arrow` is added to it


@dataclass
class UnitRecord:
    """What a worker returns of a unit."""

    index: int
    n_docs: int = 0
    n_tokens: int = 0
    n_bytes: int = 0  # of text, UTF-8
    labels: set[str] = field(default_factory=set)
    quarantined: list[Quarantined] = field(default_factory=list)
    n_chunks: int = 0
    n_fallback: int = 0  # chunks that the reference tokenized where a table could not
    cut: list[str] = field(default_factory=list)  # documents with chunks longer than `MAX_CHUNK`
    notes: list[str] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # that it wrote, with their sizes and digests
    changed: bool = False  # whether a file is left out that changed, or was gone: the next run may find it at rest
    n_left_out: int = 0  # documents that killed or stopped their worker: the next run may have more memory, or time


# ---- pass 1 ---------------------------------------------------------------------------------------------------------


def tokenize_unit(
    index: int, unit: Unit, job: Job, left_out: Mapping[int, Sequence[LeftOut]] | None = None
) -> UnitRecord:
    """Tokenize a unit into `unit-<index>.arrow` (ids of the engine) and `unit-<index>.counts.arrow` (what they are).

    `left_out` are documents by the number of their piece in the unit. They are quarantined, and so is a piece whose file is
    not what it was when the run was planned, or changes meanwhile.
    """
    engine, note = get_engine(job)
    mark(job.stage, index, 0)  # it is ready: --unit-timeout counts from here
    n_known = engine.n_known
    while True:
        changed = {number for number, piece in enumerate(unit) if has_changed(piece)}
        record = UnitRecord(index, notes=[note] if note else [])
        try:
            _tokenize(record, unit, job, engine, left_out or {}, changed)
            break
        except _ChangedError:  # what is written is of no use; the file is left out from the start now
            continue
    if job.tables:
        engine.dump(Path(job.stage) / f"unit-{index:05d}.tables.arrow", first=n_known)
    for path in sorted(Path(job.stage).glob(f"unit-{index:05d}.*")):
        fsync_file(path)
        record.files[path.name] = describe_file(path)
    return record


def get_engine(job: Job) -> "tuple[Engine, str | None]":
    """This process's engine for a job, with empty tables where they have grown large; and what there is to say of it."""
    from .engine import MAX_BYTES, usable_engine

    engine, note = usable_engine(job.recipe, job.engine, job.tables)
    if engine.n_bytes > MAX_BYTES:
        engine.reset()
    return engine, note


def has_changed(piece: Piece) -> bool:
    """Whether a piece's file is not what it was when the run was planned, or is gone."""
    if piece.stamp is None:
        return False
    now = file_stamp(piece.path)
    return now is None or now[: len(piece.stamp)] != piece.stamp


class _ChangedError(Exception):
    """A file has changed while it was read."""


def _tokenize(
    record: UnitRecord,
    unit: Unit,
    job: Job,
    engine: "Engine",
    left_out: Mapping[int, Sequence[LeftOut]],
    changed: Container[int],
) -> None:
    engine.counts.clear()
    marked_s = time.monotonic()
    prefix = f"unit-{record.index:05d}."
    with UnitWriter(Path(job.stage) / f"{prefix}arrow") as writer:
        for found in _read_unit(unit, job, left_out, changed):
            if isinstance(found, Quarantined):
                record.quarantined.append(found)
                record.changed |= isinstance(found, MayPass)
                continue
            if time.monotonic() - marked_s > MARK_S:  # a sign of life
                marked_s = time.monotonic()
                mark(job.stage, record.index, record.n_docs)
            n_cut = engine.n_cut
            encoded = encode(engine, found, job)
            if engine.n_cut > n_cut:
                record.cut += [name for doc, name in enumerate(found.sources) if len(cut_long_chunks(found[doc])) > 1]
            writer.add(encoded, found)
            record.n_docs += len(found)
            record.n_tokens += len(encoded.ids)
            record.n_bytes += int(found.offsets[-1])
            record.labels |= {name for label in found.labels for name in label_names(label, job.columns)}
        counts = writer.finish()
    record.n_chunks, record.n_fallback = engine.counts["n_chunks"], engine.counts["n_fallback"]
    _write_counts(Path(job.stage) / f"{prefix}counts.arrow", engine.itos, counts)


def _read_unit(
    unit: Unit, job: Job, left_out: Mapping[int, Sequence[LeftOut]], changed: Container[int]
) -> Iterator[Texts | Quarantined]:
    """The documents of a unit in batches. Raises `_ChangedError` where a file, not among those `changed`, has changed."""
    for number, piece in enumerate(unit):
        if number in changed:
            there = file_stamp(piece.path) is not None
            reason = (
                "changed while it was read: tokenize again when it does not" if there else "is gone since the run began"
            )
            yield MayPass(piece.name, reason, piece.begin)
            continue
        if number in left_out:
            yield from batched(read_but(piece, job.columns, left_out[number], job.read))
        else:
            yield from read_texts(piece, job.columns, job.read)
        if has_changed(piece):
            raise _ChangedError


def encode(engine: "Engine", texts: Texts, job: Job) -> "Encoded":
    """The ids of documents, a share of them compared with the reference."""
    encoded = engine.encode_bytes(texts.data, texts.offsets)
    verify_texts(engine, texts, encoded, job.verify)
    return encoded


def verify_texts(engine: "Engine", texts: Texts, encoded: "Encoded", fraction: float) -> None:
    """Tokenize that share of the documents with the reference too. Raises `EngineMismatchError` where it differs."""
    for doc, source in enumerate(texts.sources):
        if zlib.crc32(source.encode()) >= fraction * (1 << 32):
            continue
        found = [engine.itos[i] for i in encoded.ids[encoded.offsets[doc] : encoded.offsets[doc + 1]]]
        expected = engine.reference.tokenize(texts[doc])
        if found != expected:
            at = next(
                (k for k, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
                min(len(found), len(expected)),
            )
            around = slice(max(0, at - 5), at + 5)
            raise EngineMismatchError(
                f"{source}: the fast tokenizer and the reference differ at token {at}: found {found[around]}, "
                f"expected {expected[around]}. Please report it; --engine spacy does without the fast one"
            )


class UnitWriter:
    """Writes a unit's documents, a record batch at a time: ids int32 as the engine numbers them, label and source as text."""

    def __init__(self, path: Path):
        import pyarrow as pa

        self.pa = pa
        self.schema = pa.schema([("ids", pa.list_(pa.int32())), ("label", pa.string()), ("source", pa.string())])
        self.file = pa.OSFile(str(path), "wb")
        self.stream = pa.ipc.new_stream(self.file, self.schema)
        self.counts = np.zeros(0, np.int64)  # of each id
        self.waiting: list[tuple[Encoded, Texts]] = []
        self.n_waiting = 0  # tokens

    def add(self, encoded: "Encoded", texts: Texts) -> None:
        """Add documents."""
        self.waiting.append((encoded, texts))
        self.n_waiting += len(encoded.ids)
        if self.n_waiting >= BATCH_TOKENS:
            self._flush()

    def _flush(self) -> None:
        if not self.waiting:
            return
        ids = np.concatenate([encoded.ids for encoded, _ in self.waiting])
        lengths = np.concatenate([np.diff(encoded.offsets) for encoded, _ in self.waiting])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        columns = [
            self.pa.ListArray.from_arrays(offsets, ids),
            self.pa.array([label for _, texts in self.waiting for label in texts.labels], self.pa.string()),
            self.pa.array([source for _, texts in self.waiting for source in texts.sources], self.pa.string()),
        ]
        self.stream.write_batch(self.pa.record_batch(columns, schema=self.schema))
        total = np.bincount(ids, minlength=len(self.counts))
        total[: len(self.counts)] += self.counts
        self.counts, self.waiting, self.n_waiting = total, [], 0

    def finish(self) -> np.ndarray:
        """Write the rest; how often each id came."""
        self._flush()
        return self.counts

    def __enter__(self) -> "UnitWriter":
        return self

    def __exit__(self, *exc: object) -> None:
        self.stream.close()
        self.file.close()


def _write_counts(path: Path, itos: list[str], counts: np.ndarray) -> None:
    """Write the tokens that came, their ids and how often."""
    import pyarrow as pa

    ids = np.flatnonzero(counts)
    tokens = pa.array([itos[i] for i in ids], pa.string())
    table = pa.table({"token": tokens, "id": pa.array(ids, pa.int32()), "count": pa.array(counts[ids], pa.int64())})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


# ---- between: the vocabulary ----------------------------------------------------------------------------------------


def merge_counts(done: Path, n_units: int, *, min_freq: int = 1) -> dict[str, int]:
    """How often each token came in all units, if `min_freq` times or more."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = pa.table({"token": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
    for begin in range(0, n_units, MERGED_AT_ONCE):
        some = range(begin, min(begin + MERGED_AT_ONCE, n_units))
        units = [_read_all(done / f"unit-{index:05d}.counts.arrow").select(["token", "count"]) for index in some]
        merged = pa.concat_tables([total, *units]).group_by("token").aggregate([("count", "sum")])
        total = merged.rename_columns(["token", "count"])
    frequent = total.filter(pc.field("count") >= min_freq)
    return dict(zip(frequent["token"].to_pylist(), frequent["count"].to_pylist(), strict=True))


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
def _vocab(path: str) -> "tuple[Vocab, pa.Array]":
    import pyarrow as pa

    vocab = Vocab.load(Path(path))
    return vocab, pa.array(vocab.itos, pa.string())


def number_unit(index: int, done: str, stage: str, labels: list[str], columns: Columns) -> dict[str, Any]:
    """Write `stage/shard-<index>.arrow` from a unit in `done` and the vocabulary in `stage`; returns the manifest's lines on it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    vocab, itos = _vocab(str(Path(stage) / VOCAB_FILE))
    counts = _read_all(Path(done) / f"unit-{index:05d}.counts.arrow")
    places = pc.index_in(counts["token"], value_set=itos)  # pyright: ignore[reportAttributeAccessIssue]
    numbers = pc.fill_null(places, vocab.unk_id).to_numpy()
    unit_ids = counts["id"].to_numpy()
    remap = np.zeros(unit_ids.max(initial=0) + 1, ids_dtype(len(vocab)))  # the engine's ids -> the vocabulary's
    remap[unit_ids] = numbers
    schema = shard_schema(len(vocab), has_labels=bool(labels), multi_label=columns.separator is not None)
    path = Path(stage) / shard_name(index)
    n_rows = n_tokens = n_unknown = 0
    with (
        pa.memory_map(str(Path(done) / f"unit-{index:05d}.arrow")) as mapped,
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, schema) as stream,
    ):
        for batch in pa.ipc.open_stream(mapped):
            ids = remap[batch.column("ids").values.to_numpy()]
            arrays = [pa.ListArray.from_arrays(batch.column("ids").offsets, pa.array(ids))]
            if labels:
                arrays.append(_number_labels(batch.column("label"), labels, columns))
            stream.write_batch(pa.record_batch([*arrays, batch.column("source")], schema=schema))
            n_rows, n_tokens = n_rows + batch.num_rows, n_tokens + len(ids)
            n_unknown += int((ids == vocab.unk_id).sum())
    fsync_file(path)
    return {"index": index, "n_unknown": n_unknown, "rows": n_rows, "tokens": n_tokens} | describe_file(path)


def _number_labels(column: "pa.Array", labels: list[str], columns: Columns) -> "pa.Array":
    """The label of each document by its place in `labels`, -1 for none; of several the places, rising, null for none."""
    import pyarrow as pa

    place = {label: i for i, label in enumerate(labels)}
    if columns.separator is None:
        return pa.array([place.get(label, -1) for label in column.to_pylist()], pa.int64())
    several = [v if v is None else sorted(place[n] for n in label_names(v, columns)) for v in column.to_pylist()]
    return pa.array(several, pa.list_(pa.int64()))


def _read_all(path: Path) -> "pa.Table":
    import pyarrow as pa

    with pa.memory_map(str(path)) as mapped:
        return pa.ipc.open_stream(mapped).read_all()
