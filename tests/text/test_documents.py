"""Pieces become documents; what can't be read says where and why, and the rest is read."""

import gzip
import lzma
import re
from pathlib import Path

import pytest

from ulmpipe.text.documents import read_piece
from ulmpipe.text.pieces import Columns, Document, Piece, Quarantined
from ulmpipe.text.source import plan_files, plan_folder

ICONV = r"not valid UTF-8: convert it, e.g. iconv"


def read_all(path: Path) -> tuple[list[Document], list[Quarantined]]:
    plan = plan_folder(path) if path.is_dir() else plan_files([path])
    found = [f for unit in plan.units for piece in unit for f in read_piece(piece, Columns())]
    return [f for f in found if isinstance(f, Document)], [f for f in found if isinstance(f, Quarantined)]


def test_lines_are_documents_and_empty_ones_none(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n\r\n two \nthree")
    docs, quarantined = read_all(tmp_path / "a.txt")
    assert docs == [("one", None, "a.txt@0"), (" two ", None, "a.txt@11"), ("three", None, "a.txt@17")]
    assert quarantined == []


def test_articles_begin_at_their_titles(tmp_path: Path):
    first, second = " \n = One = \n \n text , = no title = \n \n = = Section = = \n more \n", " = Two = \n end"
    (tmp_path / "wiki.tokens").write_text(" \n before \n" + first + second)
    docs, _ = read_all(tmp_path / "wiki.tokens")
    assert [d.text for d in docs] == [" \n before \n \n", first.removeprefix(" \n"), second]
    assert [d.source for d in docs] == ["wiki.tokens@0", "wiki.tokens@13", f"wiki.tokens@{11 + len(first)}"]


def test_files_of_a_folder_are_documents_with_its_names(reviews: Path):
    docs, quarantined = read_all(reviews)
    assert [d.source for d in docs] == [f"neg/{i}.txt" for i in range(5)] + [f"pos/{i}.txt" for i in range(6)]
    assert [d.label for d in docs] == ["neg"] * 5 + ["pos"] * 6
    assert docs[0].text == "" and docs[-1].text == (reviews / "pos/5.txt").read_text()
    assert quarantined == []


def test_read_function_replaces_the_reading(reviews: Path):
    plan = plan_folder(reviews)
    found = [
        f for unit in plan.units for piece in unit for f in read_piece(piece, Columns(), lambda path: path.stem * 2)
    ]
    assert [f[:2] for f in found[:2]] == [("00", "neg"), ("11", "neg")]


def test_read_function_that_fails_quarantines_its_file(reviews: Path):
    def read(path: Path) -> str:
        return (b"ok" if path.stem == "1" else b"\xff").decode()

    plan = plan_folder(reviews)
    found = [f for unit in plan.units for piece in unit for f in read_piece(piece, Columns(), read)]
    assert [f.source for f in found if isinstance(f, Document)] == ["neg/1.txt", "pos/1.txt"]
    assert sum(isinstance(f, Quarantined) and "read() failed: UnicodeDecodeError" in f.reason for f in found) == 9


@pytest.mark.parametrize(
    ("content", "reason", "offset"),
    [(b"abc\xe9", ICONV, 3), ("é".encode("utf-16"), "UTF-16.*iconv -f UTF-16", 0), (b"\xed\xa0\x80", ICONV, 0)],
)
def test_file_that_is_no_utf8_is_quarantined(reviews: Path, content: bytes, reason: str, offset: int):
    (reviews / "neg/2.txt").write_bytes(content)
    docs, (bad,) = read_all(reviews)
    assert len(docs) == 10
    assert bad.source == "neg/2.txt" and bad.offset == offset
    assert re.search(reason, bad.reason)


@pytest.mark.parametrize("bad_line", [b"abc\xe9", b"\xff\xfeab", b"\xfe\xff"])
def test_line_that_is_no_utf8_is_quarantined_alone(tmp_path: Path, bad_line: bytes):
    (tmp_path / "a.txt").write_bytes(b"one\n" + bad_line + b"\ntwo\n")
    docs, (bad,) = read_all(tmp_path / "a.txt")
    assert [d.text for d in docs] == ["one", "two"]
    assert bad.source == "a.txt@4" and "iconv" in bad.reason


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_utf16_is_quarantined_whole(tmp_path: Path, name: str):
    (tmp_path / name).write_text('text,label\n{"text": "a"}\n', encoding="utf-16")
    docs, (bad,) = read_all(tmp_path / name)
    assert docs == []
    assert bad.source == name and "UTF-16" in bad.reason


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.txt", "below/a.txt", "a.csv", "a.jsonl"])
def test_utf16_without_its_mark_is_quarantined_whole(tmp_path: Path, name: str, encoding: str):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes('text,label\n{"text": "a"}\n'.encode(encoding))
    docs, (bad,) = read_all(tmp_path / name if name != "below/a.txt" else tmp_path / "below")
    assert docs == [] and "UTF-16" in bad.reason


def test_some_nul_characters_are_text(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"a\0b and c\0\0 of more text\n")
    docs, bad = read_all(tmp_path / "a.txt")
    assert [d.text for d in docs] == ["a\0b and c\0\0 of more text"] and not bad


@pytest.mark.parametrize("row", [b'{"text": "a\\ud800"}', b'{"text": "a", "label": "\\udfff"}', b'{"text": "a\xff"}'])
def test_json_that_is_no_unicode_is_quarantined(tmp_path: Path, row: bytes):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n' + row + b'\n{"text": "\\ud83d\\ude00"}\n')
    docs, (bad,) = read_all(tmp_path / "a.jsonl")
    assert [d.text for d in docs] == ["one", "\U0001f600"]
    assert bad.source == "a.jsonl@16"


def test_csv_label_that_is_no_utf8_is_quarantined(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes("text,label\ngood,né\n".encode() + "bad,né\n".encode("latin1") + b"fine,x\n")
    docs, (bad,) = read_all(tmp_path / "a.csv")
    assert [d.label for d in docs] == ["né", "x"]
    assert bad.source == "a.csv#1"


@pytest.mark.parametrize("ending", [".gz", ".xz"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_truncated_file_gives_what_came_before(tmp_path: Path, name: str, ending: str):
    lines = {"a.txt": "text %d\n", "a.csv": "text %d,x\n", "a.jsonl": '{"text": "text %d"}\n'}[name]
    head = "text,label\n" if name == "a.csv" else ""
    data = (head + "".join(lines % (i * 7919 % 99991) for i in range(40_000))).encode()
    packed = gzip.compress(data) if ending == ".gz" else lzma.compress(data)
    (tmp_path / f"{name}{ending}").write_bytes(packed[: len(packed) // 2])
    docs, (bad,) = read_all(tmp_path / f"{name}{ending}")
    assert 1000 < len(docs) < 40_000
    assert docs[5].text == f"text {5 * 7919 % 99991}"
    assert bad.source == f"{name}{ending}" and bad.reason.startswith("can't be read: ")


def test_missing_file_is_quarantined(tmp_path: Path):
    (bad,) = read_piece(Piece(str(tmp_path / "gone.txt"), "gone.txt", "file", 3), Columns())
    assert isinstance(bad, Quarantined) and "No such file" in bad.reason


def test_csv_with_a_lone_carriage_return_is_quarantined(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(b"text,label\none,1\ntw\ro,2\n")
    docs, (bad,) = read_all(tmp_path / "a.csv")
    assert [d.text for d in docs] == ["one"]
    assert "new-line character" in bad.reason


def test_labels_are_left_unread_where_the_piece_says_so(reviews: Path):
    piece = Piece(str(reviews / "neg/1.txt"), "neg/1.txt", "file", 9, label="neg", has_label=False)
    (doc,) = read_piece(piece, Columns())
    assert isinstance(doc, Document) and doc.label is None


def test_read_function_that_returns_no_text_quarantines_its_file(reviews: Path):
    (unit,) = plan_folder(reviews).units
    (comp,) = read_piece(unit[0], Columns(), read=lambda path: path.read_bytes())  # pyright: ignore[reportArgumentType]
    assert isinstance(comp, Quarantined) and "it returned bytes, expected str" in comp.reason
