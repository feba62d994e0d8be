"""Files are opened, decompressed and cut into lines the same way whatever they hold."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from ulmpipe.text.pieces import (
    UNREADABLE,
    Piece,
    byte_lines,
    decode,
    file_format,
    is_compressed,
    open_bytes,
    refuse_utf16,
    split_suffixes,
    storable_name,
)

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
LINES = b"".join(b"line %d\n" % i for i in range(5000))


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("a.csv", (".csv", "")), ("a.CSV.GZ", (".csv", ".gz")), ("a.b.txt", (".txt", "")), ("a", ("", "")),
        ("a.zst", ("", ".zst")), ("v1.2.jsonl.xz", (".jsonl", ".xz")), ("a.gz.txt", (".txt", "")), (".txt", ("", "")),
    ],
)  # fmt: skip
def test_split_suffixes_table(name: str, ref: tuple[str, str]):
    assert split_suffixes(Path(name)) == ref


@pytest.mark.parametrize(
    ("name", "ref"), [("a.txt", "lines"), ("a.tokens.bz2", "articles"), ("a.arrow", "arrow"), ("a.pdf", None), ("a", None)]
)  # fmt: skip
def test_file_format_table(name: str, ref: str | None):
    assert file_format(Path(name)) == ref
    assert is_compressed(Path(name)) == name.endswith("bz2")


@pytest.mark.parametrize("ending", COMPRESS)
def test_open_bytes_decompresses(tmp_path: Path, ending: str):
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(COMPRESS[ending](LINES))
    with open_bytes(str(path)) as file:
        assert file.read() == LINES


@pytest.mark.parametrize("ending", COMPRESS)
def test_open_bytes_reads_joined_streams(tmp_path: Path, ending: str):
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(COMPRESS[ending](b"one\n") + COMPRESS[ending](b"two\n"))
    with open_bytes(str(path)) as file:
        assert list(file) == [b"one\n", b"two\n"]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"garbage"])
@pytest.mark.parametrize("ending", COMPRESS)
def test_open_bytes_notices_damage(tmp_path: Path, ending: str, damage: Callable[[bytes], bytes]):
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(damage(COMPRESS[ending](LINES)))
    with pytest.raises(UNREADABLE), open_bytes(str(path)) as file:
        file.read()


def test_byte_lines_end_at_newlines_only(tmp_path: Path):
    data = "a\rb\u2028c\x0b\x85d\r\ne\n\nf".encode()
    (tmp_path / "a.txt").write_bytes(data)
    comp = list(byte_lines(Piece(str(tmp_path / "a.txt"), "a.txt", "lines", len(data))))
    assert [line for _, line in comp] == ["a\rb\u2028c\x0b\x85d\r\n".encode(), b"e\n", b"\n", b"f"]
    assert all(data[offset:].startswith(line) for offset, line in comp)


@pytest.mark.parametrize(("begin", "end", "ref"), [(0, 4, [b"ab\n", b"cd\n"]), (3, 6, [b"cd\n"]), (6, None, [b"ef"])])
def test_byte_lines_of_a_part(tmp_path: Path, begin: int, end: int | None, ref: list[bytes]):
    (tmp_path / "a.txt").write_bytes(b"ab\ncd\nef")
    piece = Piece(str(tmp_path / "a.txt"), "a.txt", "lines", 8, begin=begin, end=end)
    assert [line for _, line in byte_lines(piece)] == ref


def test_byte_lines_drop_the_byte_order_mark_once(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfab\n\xef\xbb\xbfcd\n")
    piece = Piece(str(tmp_path / "a.txt"), "a.txt", "lines", 12)
    assert list(byte_lines(piece)) == [(0, b"ab\n"), (6, b"\xef\xbb\xbfcd\n")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("begin", [0, 8])
def test_byte_lines_refuse_every_part_of_utf16(tmp_path: Path, encoding: str, begin: int):
    (tmp_path / "a.txt").write_bytes("\ufeffab\ncd\nef\n".encode(encoding))
    piece = Piece(str(tmp_path / "a.txt"), "a.txt", "lines", 20, begin=begin)
    with pytest.raises(ValueError, match="UTF-16.*iconv"):
        list(byte_lines(piece))


def test_decode_keeps_bytes_that_are_no_utf8():
    data = "é".encode() + b"\xe9\xff"
    assert decode(data).encode("utf-8", "surrogateescape") == data
    assert decode(data)[0] == "é"


def test_refuse_utf16_lets_utf8_pass():
    refuse_utf16(b"")
    refuse_utf16(b"\xef\xbb\xbfabc")
    with pytest.raises(ValueError, match="UTF-16"):
        refuse_utf16(b"\xfe\xff")


def test_storable_name_is_unicode_and_tells_names_apart():
    names = [b"\xff.txt", b"\xfe.txt", "é.txt".encode()]
    comp = [storable_name(name.decode("utf-8", "surrogateescape")) for name in names]
    assert comp == ["\\udcff.txt", "\\udcfe.txt", "é.txt"]
