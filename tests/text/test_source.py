"""A source of any form, cut anywhere, gives the same documents in the same order."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ulmpipe.errors import SourceError
from ulmpipe.text.documents import read_piece
from ulmpipe.text.pieces import Columns, Document, Piece
from ulmpipe.text.source import (
    UNIT_BYTES,
    Plan,
    digest,
    group_pieces,
    join_plans,
    plan_files,
    plan_folder,
    walk_folder,
    without_labels,
)

Row = tuple[str, str | None]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def documents(plan: Plan) -> list[Document]:
    found = [f for unit in plan.units for piece in unit for f in read_piece(piece, Columns())]
    assert all(isinstance(f, Document) for f in found), found
    return [f for f in found if isinstance(f, Document)]


def rows_of(plan: Plan) -> list[Row]:
    return [(d.text, d.label) for d in documents(plan)]


# ---- writers: the same rows in every form ---------------------------------------------------------------------------


def csv_bytes(rows: list[Row], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([["id", "text", "label"], *([i, text, label or ""] for i, (text, label) in enumerate(rows))])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def jsonl_bytes(rows: list[Row]) -> bytes:
    return b"".join(json.dumps({"label": label, "text": text}).encode() + b"\n" for text, label in rows)


def parquet_bytes(rows: list[Row]) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(table_of(rows), out, row_group_size=3)
    return out.getvalue().to_pybytes()


def arrow_bytes(rows: list[Row], *, stream: bool) -> bytes:
    out, table = pa.BufferOutputStream(), table_of(rows)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return out.getvalue().to_pybytes()


def table_of(rows: list[Row]) -> pa.Table:
    texts, labels = zip(*rows, strict=True)
    return pa.table(
        {"label": pa.array(labels, pa.string()), "text": pa.array(texts, pa.string()), "n": range(len(rows))}
    )


FORMS: dict[str, Callable[[list[Row]], bytes]] = {
    "a.csv": csv_bytes,
    "a.tsv": lambda rows: csv_bytes(rows, "\t"),
    "a.jsonl": jsonl_bytes,
    "a.parquet": parquet_bytes,
    "stream.arrow": lambda rows: arrow_bytes(rows, stream=True),
    "file.arrow": lambda rows: arrow_bytes(rows, stream=False),
}
ROWS: list[Row] = [
    ('one, "two"\nthree\r\n', "pos"),
    ("", "neg"),
    ("\ttab é 日本", None),
    ("\u2028 \x85 end", "pos"),
] * 3
TEXT = st.text(alphabet='ab,"\n\t é=\u2028', max_size=12)


@pytest.mark.parametrize("form", FORMS)
def test_tables_give_back_their_rows(tmp_path: Path, form: str):
    (tmp_path / form).write_bytes(FORMS[form](ROWS))
    assert rows_of(plan_files([tmp_path / form])) == ROWS


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("form", ["a.csv", "a.tsv", "a.jsonl"])
def test_compressed_tables_give_back_their_rows(tmp_path: Path, form: str, ending: str):
    path = tmp_path / f"{form}{ending}"
    path.write_bytes(COMPRESS[ending](FORMS[form](ROWS)))
    assert rows_of(plan_files([path], unit_bytes=10)) == ROWS


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25)
@given(
    rows=st.lists(st.tuples(TEXT, st.sampled_from(["1", "x", None])), min_size=1, max_size=12), unit=st.integers(1, 90)
)
def test_cut_tables_equal_uncut(tmp_path: Path, form: str, rows: list[Row], unit: int):
    path = tmp_path / form
    path.write_bytes(FORMS[form](rows))
    ref, comp = plan_files([path], unit_bytes=UNIT_BYTES), plan_files([path], unit_bytes=unit)
    assert documents(comp) == documents(ref)
    assert rows_of(ref) == rows


@given(lines=st.lists(st.text(alphabet="ab\r é\u2028", max_size=9), max_size=15), unit=st.integers(1, 40))
def test_cut_lines_equal_uncut(tmp_path: Path, lines: list[str], unit: int):
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join(lines).encode())
    plan = plan_files([path], unit_bytes=unit)
    assert documents(plan) == documents(plan_files([path]))
    assert [d.text for d in documents(plan)] == [t for line in lines if (t := line.rstrip("\r"))]


WIKI = st.sampled_from(
    [" = Title = \n", " = = Part = = \n", " \n", " some text , here \n", " = a = b = \n", " = X = \r\n"]
)


@given(lines=st.lists(WIKI, max_size=25), unit=st.integers(1, 60))
def test_cut_articles_equal_uncut(tmp_path: Path, lines: list[str], unit: int):
    path = tmp_path / "wiki.tokens"
    path.write_bytes("".join(lines).encode())
    comp, ref = plan_files([path], unit_bytes=unit), plan_files([path])
    assert documents(comp) == documents(ref)
    assert "".join(d.text for d in documents(comp)).split() == "".join(lines).split()


@pytest.mark.parametrize("form", [f for f in FORMS if f != "a.csv"])
def test_tiny_units_really_cut(tmp_path: Path, form: str):
    (tmp_path / form).write_bytes(FORMS[form](ROWS))
    plan = plan_files([tmp_path / form], unit_bytes=20)
    assert len(plan.units) >= 4
    assert all(len(unit) == 1 for unit in plan.units)


def test_pieces_of_a_file_tile_it(tmp_path: Path):
    for name, data in {"a.txt": b"line of text\n" * 50, "a.csv": csv_bytes(ROWS)}.items():
        (tmp_path / name).write_bytes(data)
        pieces = [piece for unit in plan_files([tmp_path / name], unit_bytes=64).units for piece in unit]
        assert [p.begin for p in pieces] == [0, *(p.end for p in pieces[:-1])]
        assert pieces[-1].end == len(data) == sum(p.n_bytes for p in pieces)


def test_group_pieces_puts_small_neighbours_together():
    pieces = [Piece(str(i), str(i), "file", n) for i, n in enumerate([3, 3, 3, 20, 1, 9, 1])]
    units = list(group_pieces(pieces, 10))
    assert [[p.n_bytes for p in unit] for unit in units] == [[3, 3, 3], [20], [1, 9], [1]]
    assert list(group_pieces([], 10)) == []


@pytest.mark.data
@pytest.mark.parametrize("unit_bytes", [10_000, 333_333])
def test_cut_wikitext_equals_uncut(data: Path, unit_bytes: int):
    path = data / "wikitext2" / "wiki.valid.tokens"
    ref, comp = plan_files([path]), plan_files([path], unit_bytes=unit_bytes)
    assert documents(comp) == documents(ref)
    assert len(documents(ref)) == 60 and len(comp.units) > len(ref.units) == 1


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gone.txt", "does not exist"), ("a.pdf", r"unknown kind, expected \.txt .*\.arrow .*\.zst"), ("noending", "unknown kind"),
     ("a.parquet.gz", "decompress it first"), ("a.arrow.zst", "decompress it first")],
)  # fmt: skip
def test_plan_files_refuses_with_a_reason(tmp_path: Path, name: str, reason: str):
    if name != "gone.txt":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=reason):
        plan_files([tmp_path / name])


@pytest.mark.parametrize("form", FORMS)
def test_missing_columns_are_named_before_any_work(tmp_path: Path, form: str):
    (tmp_path / form).write_bytes(FORMS[form](ROWS))
    with pytest.raises(SourceError, match="no column 'review', it has .*'text'.*--text-column"):
        plan_files([tmp_path / form], Columns("review"))
    with pytest.raises(SourceError, match="no column 'stars', it has .*'label'.*--label-column"):
        plan_files([tmp_path / form], Columns("text", "stars"))


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(SourceError, match="no plain file"):
        plan_files([tmp_path / "a.txt"])


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_garbage_is_planned_and_left_to_the_reading(tmp_path: Path, name: str, ending: str):
    (tmp_path / f"{name}{ending}").write_bytes(b"garbage, and no archive")
    (unit,) = plan_files([tmp_path / f"{name}{ending}"]).units
    (bad,) = read_piece(unit[0], Columns())
    assert not isinstance(bad, Document) and bad.source == f"{name}{ending}"


# ---- folders --------------------------------------------------------------------------------------------------------


def test_folder_labels_are_its_first_folders(reviews: Path):
    (reviews / "pos" / "deep" / "er").mkdir(parents=True)
    (reviews / "pos/deep/er/x.txt").write_text("deep")
    comp = {d.source: d.label for d in documents(plan_folder(reviews))}
    assert comp["pos/deep/er/x.txt"] == comp["pos/0.txt"] == "pos"
    assert comp["neg/4.txt"] == "neg" and len(comp) == 12


def test_folder_with_a_text_at_its_top_has_no_labels(reviews: Path):
    (reviews / "top.txt").write_text("top")
    assert {d.label for d in documents(plan_folder(reviews))} == {None}


def test_folder_order_is_that_of_names_and_not_of_the_disk(tmp_path: Path, rng):
    for i in rng.permutation(30):
        (tmp_path / f"{i:02}.txt").write_text(str(i))
    assert [d.text for d in documents(plan_folder(tmp_path, unit_bytes=7))] == [str(i) for i in range(30)]


def test_folder_takes_compressed_and_other_endings(tmp_path: Path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one"))
    (tmp_path / "b.TXT").write_bytes(b"two")
    (tmp_path / "c.md").write_bytes(b"three")
    assert [d.text for d in documents(plan_folder(tmp_path))] == ["one", "two"]
    assert [d.text for d in documents(plan_folder(tmp_path, extensions=(".md",)))] == ["three"]


def test_folder_ignores_with_a_note_what_is_no_plain_visible_file(reviews: Path):
    (reviews / ".hidden.txt").write_text("x")
    (reviews / "pos/.git").mkdir()
    (reviews / "pos/.git/a.txt").write_text("x")
    os.mkfifo(reviews / "pos/pipe.txt")
    os.symlink("self.txt", reviews / "pos/self.txt")
    os.symlink(reviews, reviews / "pos/loop")
    plan = plan_folder(reviews)
    assert len(documents(plan)) == 11
    ref = {".hidden.txt": "hidden", ".git": "hidden", "pipe.txt": "not a plain", "self.txt": "not a plain", "loop": "link"}  # fmt: skip
    assert len(plan.notes) == len(ref)
    assert all(any(f"/{name}: " in note and why in note for note in plan.notes) for name, why in ref.items())


def test_folder_reads_a_link_to_a_file(reviews: Path, tmp_path: Path):
    (tmp_path / "elsewhere.txt").write_text("linked")
    os.symlink(tmp_path / "elsewhere.txt", reviews / "pos/link.txt")
    assert documents(plan_folder(reviews))[-1] == ("linked", "pos", "pos/link.txt")


def test_folder_of_tables_is_planned_as_tables(tmp_path: Path):
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_bytes(csv_bytes(ROWS[:2]))
    assert [d.source for d in documents(plan_folder(tmp_path))] == ["a.csv#0", "a.csv#1", "b.csv#0", "b.csv#1"]


def test_folder_without_documents_says_what_it_found(tmp_path: Path):
    with pytest.raises(SourceError, match=r"no documents found under .*looked for \.txt, found nothing"):
        plan_folder(tmp_path)
    (tmp_path / "a.pdf").touch()
    with pytest.raises(SourceError, match=r"found \.pdf"):
        plan_folder(tmp_path)
    (tmp_path / "a.csv").write_bytes(csv_bytes(ROWS))
    (tmp_path / "a.jsonl").write_bytes(jsonl_bytes(ROWS))
    with pytest.raises(SourceError, match=r"found \.csv, \.jsonl, \.pdf"):
        plan_folder(tmp_path)


def test_names_that_are_no_utf8_can_be_stored(tmp_path: Path):
    (tmp_path / b"l\xe9".decode("utf-8", "surrogateescape")).mkdir()
    (tmp_path / b"l\xe9/\xff.txt".decode("utf-8", "surrogateescape")).write_text("hi")
    assert documents(plan_folder(tmp_path)) == [("hi", "l\\udce9", "l\\udce9/\\udcff.txt")]
    files, _ = walk_folder(tmp_path)
    assert Path(files[0][1]).read_text() == "hi"


# ---- plans ----------------------------------------------------------------------------------------------------------


def test_digest_knows_names_and_contents(reviews: Path):
    ref = digest(plan_folder(reviews))
    assert digest(plan_folder(reviews, unit_bytes=5)) == ref
    (reviews / "pos/1.txt").rename(reviews / "pos/9.txt")
    renamed = digest(plan_folder(reviews))
    (reviews / "pos/9.txt").write_text("other")
    assert len({ref, renamed, digest(plan_folder(reviews))}) == 3


def test_digest_leaves_a_vanished_file_to_the_reading(reviews: Path):
    plan = plan_folder(reviews)
    ref = digest(plan)
    (reviews / "pos/1.txt").unlink()
    assert digest(plan) != ref


def test_without_labels_reads_the_same_texts(reviews: Path):
    plan = plan_folder(reviews)
    assert rows_of(without_labels(plan)) == [(text, None) for text, _ in rows_of(plan)]


def test_join_plans_reads_one_after_the_other(reviews: Path, tmp_path: Path):
    (tmp_path / "a.txt").write_text("x\ny\n")
    plans = plan_folder(reviews), plan_files([tmp_path / "a.txt"])
    joined = join_plans(*plans)
    assert documents(joined) == documents(plans[0]) + documents(plans[1])
    assert joined.n_bytes == plans[0].n_bytes + plans[1].n_bytes and joined.paths == plans[0].paths + plans[1].paths
