"""What the fast engine remembers, in a file: so that the next run need not work it out, nor import spaCy.

    Chunks (chunks.py) <-> one Arrow stream: a row for each entry; the recipe and the links of special cases beside it

Workers write what a unit has taught them, the parent adds it up. A file is read only for the very recipe it was made
with, the version of spaCy included, and it is checked before any kernel sees it.
"""

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from .. import __version__
from ..durable import write_bytes
from ..errors import StoreError
from .chunks import Chunks
from .pieces import PAD_BYTES
from .scan import BEGINS, CHUNK, ENDS, JOINED_CORE, LATE, LEAD, MAX_KEY_BYTES, REFUSED, REWRITTEN, TRAIL, WORD
from .table import SLOW, add_settled, copy_ids, flags_at, n_ids_at, words_of
from .tokenizer import TokenizerRecipe

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 1
MAX_ENTRIES = 1 << 20  # in a file, half of what engine.MAX_BYTES holds: what is there stays, and new ones are left out
KNOWN_FLAGS = SLOW | LEAD | TRAIL | BEGINS | ENDS | WORD | LATE | REWRITTEN | REFUSED
COLUMNS = ("kind", "key", "flags", "begins", "ends", "tokens")


def dump(chunks: Chunks, recipe: TokenizerRecipe, path: Path, *, first: int = 0) -> None:
    """Write the entries from `first` on."""
    import pyarrow as pa

    table, last = chunks.memo.table, len(chunks.memo)
    first = min(first, last)
    slots = table.slot_of[first:last]
    n_ids = np.zeros(last - first + 1, np.int64)
    flags = np.zeros(last - first, np.int32)
    count(table, slots, n_ids, flags)
    ids = np.zeros(int(n_ids.sum()) + 3, np.int32)
    offsets = np.cumsum(n_ids)
    gather(table, slots, ids)
    itos = pa.array(chunks.tokens.itos, pa.string())
    keys = table.arena[table.starts[first] : table.starts[last]].tobytes()
    key_offsets = (table.starts[first : last + 1] - table.starts[first]).astype(np.int32)
    columns = [
        pa.array((table.slots[slots, 1] >> np.uint64(60)).astype(np.uint8)),
        pa.BinaryArray.from_buffers(pa.binary(), last - first, [None, pa.py_buffer(key_offsets), pa.py_buffer(keys)]),
        pa.array(flags),
        *(pa.array(chunks.links[first:last, side]) for side in (0, 1)),
        pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), itos.take(pa.array(ids[: offsets[-1]]))),
    ]
    _write(path, pa.Table.from_arrays(columns, COLUMNS), recipe, chunks.matrix)


def made_with(recipe: TokenizerRecipe) -> dict[str, Any]:
    """All that decides what is remembered: rules are code of ours, and Python's Unicode decides what a capital is."""
    return {"recipe": recipe.to_json(), "ulmpipe": __version__, "unicode": unicodedata.unidata_version}


def _write(path: Path, table: "pa.Table", recipe: TokenizerRecipe, matrix: np.ndarray) -> None:
    import pyarrow as pa

    described = {
        "format_version": FORMAT_VERSION,
        "made_with": made_with(recipe),
        "rows": table.num_rows,
        "matrix": [*matrix.shape, np.packbits(matrix).tobytes().hex()],
    }
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata({"ulmpipe": json.dumps(described)})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    write_bytes(path, sink.getvalue().to_pybytes())


def read(path: Path, recipe: TokenizerRecipe) -> tuple["pa.Table", np.ndarray]:
    """The entries of a file, and the links. Raises `StoreError` for a file that is damaged or of another recipe."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as mapped:
            table = pa.ipc.open_stream(mapped).read_all()
        described: dict[str, Any] = json.loads((table.schema.metadata or {})[b"ulmpipe"])
        n_rows, n_columns, bits = described["matrix"]
        matrix = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=n_rows * n_columns)
        if described["format_version"] != FORMAT_VERSION or described["rows"] != table.num_rows:
            raise ValueError(f"it has {table.num_rows} rows of format {described['format_version']}")
        table.validate(full=True)
        _check(table, n_rows, n_columns)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as err:
        raise StoreError(f"{path} is no file that --tables wrote, or is damaged: {err}. Name another") from err
    if described["made_with"] != made_with(recipe):
        raise StoreError(f"{path} was made with other rules, another language or another spaCy: name another --tables")
    return table, matrix.reshape(n_rows, n_columns).astype(np.bool_)


def _check(table: "pa.Table", n_rows: int, n_columns: int) -> None:
    """Raise `ValueError` for what kernels could not bear."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types = (pa.uint8(), pa.binary(), pa.int32(), pa.int32(), pa.int32(), pa.list_(pa.string()))
    if table.schema.names != list(COLUMNS) or any(c.type != t for c, t in zip(table.columns, types, strict=True)):
        raise ValueError(f"its columns are {', '.join(table.schema.names)}")
    if not len(table):
        return
    numbers = {name: table[name].to_numpy() for name in ("kind", "flags", "begins", "ends")}
    bounds = {"kind": JOINED_CORE + 1, "begins": n_columns, "ends": n_rows}
    is_wrong = any(numbers[name].min() < 0 or numbers[name].max() >= most for name, most in bounds.items())
    n_nulls = (
        sum(column.null_count for column in table.columns)
        + pc.call_function("list_flatten", [table["tokens"]]).null_count
    )
    if is_wrong or (numbers["flags"] & ~KNOWN_FLAGS).any() or n_nulls:
        raise ValueError("it holds numbers out of their bounds")
    lengths = pc.call_function("binary_length", [table["key"]]).to_numpy()
    if lengths.max() > MAX_KEY_BYTES or (lengths[numbers["kind"] == CHUNK] == 0).any():
        raise ValueError("it holds a key that is empty or too long")


def load(chunks: Chunks, recipe: TokenizerRecipe, path: Path) -> None:
    """Fill empty tables from a file. Raises `StoreError`."""
    table, matrix = read(path, recipe)
    if not len(table):
        return
    table = table.combine_chunks()
    column = {name: table[name].chunk(0) for name in COLUMNS}
    tokens = column["tokens"].flatten().dictionary_encode()
    for token in tokens.dictionary.to_pylist():
        chunks.tokens.id(token)
    ids = tokens.indices.to_numpy().astype(np.int32)
    id_offsets = column["tokens"].offsets.to_numpy().astype(np.int64)
    _, offsets, data = column["key"].buffers()
    key_offsets = np.frombuffer(offsets, np.int32)[: len(table) + 1].astype(np.int64)
    keys = np.frombuffer((data.to_pybytes() if data else b"") + bytes(PAD_BYTES), np.uint8)
    chunks.memo.make_room(entries=len(table) + 1, key_bytes=len(keys), ids=len(ids))
    add_settled(chunks.memo.table, column["kind"].to_numpy(), keys, words_of(keys), key_offsets, ids, id_offsets - id_offsets[0], column["flags"].to_numpy())  # fmt: skip
    chunks.matrix = matrix
    chunks.links = np.zeros((len(chunks.memo.table.slot_of), 2), np.int32)
    chunks.links[: len(table)] = np.stack([column["begins"].to_numpy(), column["ends"].to_numpy()], axis=1)
    if len(chunks.memo) != len(table):
        raise StoreError(f"{path} holds an entry twice: remove it")
    chunks.n_settled = len(table)


def merge(parts: Iterable[Path], recipe: TokenizerRecipe, out: Path) -> int:
    """Add what `parts` hold to the file `out`, which may not be there yet; how many entries it holds then."""
    import pyarrow as pa

    read_ones = [(entries, matrix) for entries, matrix in (read(path, recipe) for path in parts) if len(entries)]
    if out.exists():
        read_ones.insert(0, read(out, recipe))
        if len(read_ones) == 1:  # nothing new
            return len(read_ones[0][0])
    table = pa.concat_tables([entries for entries, _ in read_ones]).combine_chunks()
    keep = first_of_each(table)[:MAX_ENTRIES]
    matrix = max((matrix for _, matrix in read_ones), key=np.size)
    _write(out, table.take(keep), recipe, matrix)
    return len(keep)


def first_of_each(table: "pa.Table") -> np.ndarray:
    """The rows of the first entry of each kind and key, in order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds = table["kind"].cast(pa.string()).cast(pa.binary())
    keys = pc.call_function("binary_join_element_wise", [kinds, table["key"], pa.scalar(b" ", pa.binary())])
    codes = keys.combine_chunks().dictionary_encode()
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    return np.unique(codes.indices.to_numpy(), return_index=True)[1]


# ---- kernels --------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def count(table, slots, n_ids, flags):
    """How many ids the entries in `slots` have, in `n_ids[1:]`, and their flags."""
    for k in range(len(slots)):
        n_ids[k + 1] = n_ids_at(table, slots[k])
        flags[k] = flags_at(table, slots[k])


@numba.njit(cache=True, nogil=True)
def gather(table, slots, ids):
    """The ids of the entries in `slots`, one after the other; `ids` has room for 3 more."""
    n = 0
    for k in range(len(slots)):
        n = copy_ids(table, slots[k], ids, n)
