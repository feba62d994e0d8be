"""Tables: the text and the label of each row, and a reason for each row that has none to give."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ulmpipe.errors import SourceError
from ulmpipe.text import tables
from ulmpipe.text.documents import read_piece
from ulmpipe.text.pieces import Columns, Document, Piece, Quarantined, file_format
from ulmpipe.text.source import plan_files
from ulmpipe.text.tables import (
    arrow_batches,
    check_columns,
    csv_header,
    csv_records,
    read_csv,
    read_jsonl,
    read_rows,
    table_rows_and_bytes,
    table_schema,
)


def whole(path: Path) -> Piece:
    """The one piece of a small file."""
    (unit,) = plan_files([path]).units
    return unit[0]


def piece_of(path: Path, content: bytes | str) -> Piece:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Piece(str(path), path.name, file_format(path) or "", path.stat().st_size)


def write_arrow(path: Path, table: pa.Table, *, stream: bool = True, rows_a_batch: int = 100) -> None:
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)


def test_check_columns_names_the_columns_there_are(tmp_path: Path):
    piece = piece_of(tmp_path / "a.csv", "")
    with pytest.raises(SourceError, match=r"no column 'text', it has 'review', 'stars'.*--text-column"):
        check_columns(piece, Columns(), ["review", "stars"])
    with pytest.raises(SourceError, match=r"no column 'star'.*--label-column"):
        check_columns(piece, Columns("review", "star"), ["review", "stars"])
    check_columns(piece, Columns("review"), ["review", "stars"])  # a label under its default name may be absent


def test_a_csv_that_begins_with_an_empty_line_is_told_so(tmp_path: Path):
    with pytest.raises(
        SourceError, match="a.csv is empty, or begins with an empty line, expected the names of its columns"
    ):
        plan_files([piece_of(tmp_path / "a.csv", "\ntext,label\na,b\n") and tmp_path / "a.csv"])


def test_csv_records_tile_the_file(tmp_path: Path):
    data = b'\xef\xbb\xbftext,label\r\n"a\nb, c",1\n\n"say ""x""",2\nlast,3'
    records = list(csv_records(piece_of(tmp_path / "a.csv", data)))
    assert [fields for _, _, fields in records] == [["text", "label"], ["a\nb, c", "1"], [], ['say "x"', "2"], ["last", "3"]]  # fmt: skip
    assert [begin for begin, _, _ in records] == [0, *(end for _, end, _ in records[:-1])]
    assert records[-1][1] == len(data)


def test_csv_header_of_a_marked_file(tmp_path: Path):
    assert csv_header(piece_of(tmp_path / "a.csv", b'\xef\xbb\xbf"text",label\n')) == ["text", "label"]
    assert csv_header(piece_of(tmp_path / "b.tsv", b"a\tb c\n")) == ["a", "b c"]
    assert csv_header(piece_of(tmp_path / "c.csv", b"")) == []


def test_read_csv_quarantines_rows_of_another_length(tmp_path: Path):
    data = "id,text,label\n1,good,pos\n2,bad, worse,neg\n3\n4,fine,\n"
    comp = list(read_csv(piece_of(tmp_path / "a.csv", data), Columns()))
    assert [c for c in comp if isinstance(c, Document)] == [("good", "pos", "a.csv#0"), ("fine", None, "a.csv#3")]
    long, short = [c for c in comp if isinstance(c, Quarantined)]
    assert (long.source, long.offset) == ("a.csv#1", data.index("2,"))
    assert "4 fields, the header 3" in long.reason and "1 fields, the header 3" in short.reason


def test_read_csv_takes_texts_longer_than_pythons_limit(tmp_path: Path):
    text = "word " * 100_000
    (comp,) = read_csv(piece_of(tmp_path / "a.csv", f"text\n{text}\n"), Columns())
    assert comp == Document(text, None, "a.csv#0")


def test_read_tsv_splits_at_tabs_only(tmp_path: Path):
    (comp,) = read_csv(piece_of(tmp_path / "a.tsv", "text\tlabel\na, b\tx y\n"), Columns())
    assert comp == Document("a, b", "x y", "a.tsv#0")


def test_read_jsonl_quarantines_lines_and_reads_on(tmp_path: Path):
    good = '{"text": "a"}'
    bad = ["{oops", "[1]", "5", "null", '{"text": 0}', '{"text": []}', '{"text": {"a": 1}}', "[" * 100_000, "1" * 5000]
    lines = [line for b in bad for line in (b, good)]
    comp = list(read_jsonl(piece_of(tmp_path / "a.jsonl", "\n".join(lines)), Columns()))
    quarantined = comp[::2]
    assert all(isinstance(q, Quarantined) and q.reason and q.source == f"a.jsonl@{q.offset}" for q in quarantined)
    assert [c.text for c in comp[1::2] if isinstance(c, Document)] == ["a"] * len(bad)
    assert [c.offset for c in quarantined if isinstance(c, Quarantined)][:2] == [0, len("{oops\n" + good + "\n")]


def test_read_jsonl_labels_and_nothing(tmp_path: Path):
    rows = [
        {"text": "a", "label": 1},
        {"text": "b", "label": -1},
        {"text": None, "label": "x"},
        {"text": "", "label": ""},
    ]
    comp = list(read_jsonl(piece_of(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))), Columns()))
    assert [c[:2] for c in comp] == [("a", "1"), ("b", "-1"), ("", "x"), ("", None)]


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_batches_of_streams_and_files(tmp_path: Path, stream: bool):
    table = pa.table({"text": ["a", "b", "c"], "label": [0, 1, -1]})
    write_arrow(tmp_path / "a.arrow", table, stream=stream, rows_a_batch=2)
    piece = whole(tmp_path / "a.arrow")
    assert pa.Table.from_batches(arrow_batches(piece)) == table
    ref = [("a", "0", "a.arrow#0"), ("b", "1", "a.arrow#1"), ("c", "-1", "a.arrow#2")]
    assert list(read_rows(piece, Columns())) == ref


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_read_rows_names_a_class_label_and_leaves_out_the_unlabelled(tmp_path: Path, format: str):
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
    }
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path = tmp_path / f"a.{format}"
    pq.write_table(table, path) if format == "parquet" else write_arrow(path, table, stream=True)
    assert [doc[1] for doc in read_rows(whole(path), Columns())] == ["pos", "neg", None]


@pytest.mark.parametrize(
    "type", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_read_rows_of_every_string_type(tmp_path: Path, type: pa.DataType):
    texts = ["a", None, "", "d"]
    array = pa.array(texts).dictionary_encode() if pa.types.is_dictionary(type) else pa.array(texts, type)
    write_arrow(tmp_path / "a.arrow", pa.table({"text": array}))
    assert [d.text for d in read_rows(whole(tmp_path / "a.arrow"), Columns()) if isinstance(d, Document)] == ["a", "", "", "d"]  # fmt: skip


def test_read_rows_refuses_a_column_of_numbers(tmp_path: Path):
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="holds int64, expected strings.*--text-column"):
        list(read_rows(whole(tmp_path / "a.parquet"), Columns()))


def test_read_rows_reads_the_rows_of_its_piece(tmp_path: Path):
    pq.write_table(pa.table({"text": [f"t{i}" for i in range(10)]}), tmp_path / "a.parquet", row_group_size=3)
    piece = Piece(str(tmp_path / "a.parquet"), "a.parquet", "parquet", 0, begin=4, end=8)
    assert [(d.text, d.source) for d in read_rows(piece, Columns()) if isinstance(d, Document)] == [(f"t{i}", f"a.parquet#{i}") for i in range(4, 8)]  # fmt: skip


def test_row_groups_that_no_piece_needs_are_left_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By a worker that has every second work unit, forward and back."""
    pq.write_table(pa.table({"text": [f"t{i}" for i in range(100)]}), tmp_path / "a.parquet", row_group_size=10)
    read: list[int] = []
    iter_batches = pq.ParquetFile.iter_batches

    def counting(*args: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        for batch in iter_batches(*args, **options):
            read.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    monkeypatch.setattr(tables, "ROWS_A_BATCH", 10)
    reader = tables.ParquetReader(str(tmp_path / "a.parquet"), ("text",))
    for begin, end in ((5, 15), (15, 20), (20, 30), (85, 95), (40, 50), (0, 100)):
        piece = Piece("", "", "parquet", 0, begin=begin, end=end)
        found = [f"t{i}" for first, batch in reader.batches(piece) for i in range(first, first + batch.num_rows)]
        assert {f"t{i}" for i in range(begin, end)} <= set(found)
        if (begin, end) == (40, 50):
            assert sum(read) == 60
    assert found == [f"t{i}" for i in range(100)]


def test_table_rows_and_bytes_counts_rows(tmp_path: Path):
    table = pa.table({"text": ["some text"] * 250})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    write_arrow(tmp_path / "a.arrow", table)
    for path in (tmp_path / "a.parquet", tmp_path / "a.arrow"):
        n_rows, n_bytes = table_rows_and_bytes(whole(path))
        assert n_rows == 250 and n_bytes > 0


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_table_schema_names_a_file_that_is_none(tmp_path: Path, name: str, content: bytes):
    with pytest.raises(SourceError, match=f"{name} is no (parquet|arrow) file, or is damaged"):
        table_schema(piece_of(tmp_path / name, content))


@pytest.mark.parametrize("stream", [True, False])
def test_truncated_arrow_is_named_when_planned(tmp_path: Path, stream: bool):
    path = tmp_path / "a.arrow"
    write_arrow(path, pa.table({"text": ["some text"] * 1000}), stream=stream)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"a\.arrow is no arrow file, or is damaged"):
        plan_files([path])


def test_flipped_parquet_footers_raise_source_error_or_nothing(tmp_path: Path, rng):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["some text"] * 100}), path)
    good = path.read_bytes()
    for at in rng.integers(len(good) // 2, len(good), 60):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        try:
            plan_files([path])
        except SourceError as err:
            assert "a.parquet" in str(err)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_an_empty_table_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    with pytest.raises(
        SourceError, match="it has none" if name.endswith("jsonl") else "is empty, or begins with an empty line"
    ):
        plan_files([tmp_path / name])


@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_read_csv_with_a_quote_that_is_not_closed_says_where(tmp_path: Path, format: str):
    sep = "," if format == "csv" else "\t"
    rows = [("text", "label"), ("fine", "1"), ('"open', "0"), ("swallowed", "1")]
    piece = piece_of(tmp_path / f"a.{format}", "".join(sep.join(row) + "\n" for row in rows))
    found = list(read_piece(piece, Columns()))
    assert [f.text for f in found if isinstance(f, Document)] == ["fine"]
    (comp,) = [f for f in found if isinstance(f, Quarantined)]
    assert "a quote in the record that begins at byte 18 is not closed" in comp.reason


def test_read_jsonl_line_without_the_text_is_quarantined(tmp_path: Path):
    (comp,) = read_jsonl(piece_of(tmp_path / "a.jsonl", '{"label": 1}'), Columns())
    assert isinstance(comp, Quarantined) and "'text'" in comp.reason
