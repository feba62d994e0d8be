"""What lies behind a URL is planned, read and fingerprinted as the same files of this machine; what can't be is said."""

import gzip
import lzma
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from servers import BEHIND, Plain, Sorted, http, in_memory

from ulmpipe.errors import SourceError
from ulmpipe.tasks.source import source_name
from ulmpipe.text import remote
from ulmpipe.text.documents import read_piece
from ulmpipe.text.pieces import UTF16_SAMPLE, Columns, Document, MayPass, Quarantined
from ulmpipe.text.remote import file_system, is_url, list_files, look, open_url, read_range
from ulmpipe.text.source import Plan, digest, plan_files, plan_folder, plan_url

LINES = b"".join(b'{"text": "number %d, \xc3\xa9", "label": "%d"}\n' % (i, i % 2) for i in range(300))
CSV = b"text,label\n" + b"".join(b'"a, ""b""\n%d",x%d\n' % (i, i % 2) for i in range(200))
WIKI = b"".join(b" \n = Title %d = \n \n some text , %d\n" % (i, i) for i in range(100))


def parquet() -> bytes:
    out = pa.BufferOutputStream()
    rows = {"text": [f"row {i}" * 9 for i in range(500)], "label": [str(i % 3) for i in range(500)]}
    pq.write_table(pa.table(rows), out, row_group_size=120)
    return out.getvalue().to_pybytes()


FILES: dict[str, Callable[[], bytes]] = {
    "a.jsonl": lambda: LINES,
    "a.csv": lambda: b"\xef\xbb\xbf" + CSV,
    "a.tsv": lambda: CSV.replace(b",", b"\t"),
    "a.txt": lambda: LINES,
    "wiki.tokens": lambda: WIKI,
    "a.parquet": parquet,
    "a.jsonl.gz": lambda: gzip.compress(LINES),
    "a.csv.xz": lambda: lzma.compress(CSV),
    "a.txt.zst": lambda: zstandard.ZstdCompressor().compress(LINES),
}


@pytest.fixture
def memory() -> Iterator[str]:
    with in_memory() as url:
        yield url


def found(plan: Plan) -> list[Document | Quarantined]:
    return [each for unit in plan.units for piece in unit for each in read_piece(piece, Columns())]


def check_same(comp: Plan, ref: Plan) -> None:
    """The same units, documents and fingerprint."""
    nowhere = [[[replace(piece, path="", stamp=None) for piece in unit] for unit in plan.units] for plan in (comp, ref)]
    assert nowhere[0] == nowhere[1] and found(comp) == found(ref)
    assert all(isinstance(each, Document) for each in found(comp))
    assert digest(comp) == digest(ref)


@pytest.mark.parametrize("behind", BEHIND)
def test_files_behind_a_url_are_read_as_files(tmp_path: Path, behind: str):
    for name, make in FILES.items():
        (tmp_path / name).write_bytes(make())
    with BEHIND[behind](tmp_path) as url:
        for name in FILES:
            ref = plan_files([tmp_path / name], unit_bytes=1000)
            check_same(plan_url(f"{url}/{name}", unit_bytes=1000), ref)
            assert len(ref.units) > 3 or name.endswith((".gz", ".xz", ".zst"))


@pytest.mark.parametrize("behind", BEHIND)
def test_a_folder_behind_a_url_is_read_as_a_folder(reviews: Path, behind: str):
    (reviews / "pos/deep/er").mkdir(parents=True)
    (reviews / "pos/deep/er/x.txt.gz").write_bytes(gzip.compress(b"deep"))
    (reviews / "pos/notes.md").write_text("another kind")
    (reviews / "neg/.hidden.txt").write_text("x")
    ref = plan_folder(reviews, unit_bytes=60)
    with BEHIND[behind](reviews) as url:
        for given in (url, url + "/"):
            comp = plan_url(given, unit_bytes=60)
            check_same(comp, ref)
            assert len(comp.notes) == len(ref.notes) == 2 and "hidden" in comp.notes[0]


def test_links_of_an_index_to_itself_are_no_files(reviews: Path):
    """Apache offers its lists sorted by name, time and size."""
    with http(reviews, Sorted) as url:
        assert any("?" in name for name in fsspec.filesystem("http").find(url))
        check_same(plan_url(url), plan_folder(reviews))


def test_a_signed_url_is_read_as_the_file_that_it_names(tmp_path: Path):
    """As object stores sign them: with a slash, a dot and another ending in what is signed."""
    for name in ("a.csv", "a.jsonl.gz", "a.parquet"):
        (tmp_path / name).write_bytes(FILES[name]())
        with http(tmp_path) as url:
            check_same(plan_url(f"{url}/{name}?signature=a/b.txt&v=1.0"), plan_files([tmp_path / name]))
            assert source_name(f"{url}/{name}?signature=a/b.txt") == "a"


@pytest.mark.parametrize("behind", BEHIND)
def test_a_folder_of_tables_behind_a_url(tmp_path: Path, behind: str):
    (tmp_path / "part").mkdir()
    for name in ("b.csv", "a.csv", "part/c.csv"):
        (tmp_path / name).write_bytes(CSV)
    with BEHIND[behind](tmp_path) as url:
        check_same(plan_url(url, unit_bytes=900), plan_folder(tmp_path, unit_bytes=900))


def test_a_piece_is_read_with_requests_for_its_own_bytes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    plan = plan_url((tmp_path / "a.jsonl").as_uri(), unit_bytes=4000)
    asked: list[tuple[int, int]] = []

    def spy(url: str, begin: int, end: int) -> bytes:
        asked.append((begin, end))
        return read_range(url, begin, end)

    monkeypatch.setattr("ulmpipe.text.pieces.read_range", spy)
    ((piece,),) = plan.units[2:3]
    assert found(replace(plan, units=((piece,),)))
    assert asked == [(0, UTF16_SAMPLE), (piece.begin, piece.end)]


# ---- streams --------------------------------------------------------------------------------------------------------


def test_a_stream_of_requests_reads_what_a_file_reads(
    tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch, rng
):
    monkeypatch.setattr(remote, "FIRST_BYTES", 16)
    monkeypatch.setattr(remote, "MOST_BYTES", 128)
    data = rng.bytes(3000)
    (tmp_path / "a").write_bytes(data)
    fsspec.filesystem("memory").pipe_file("/copy/a", data)
    with open_url(f"{memory}/a") as comp, open_url(f"{memory}/a") as other, open(tmp_path / "a", "rb") as ref:
        for _ in range(200):
            at, n = int(rng.integers(0, 3100)), int(rng.integers(0, 400))
            other.read(3)  # has a position of its own
            if rng.integers(2):
                assert comp.seek(at) == ref.seek(at)
            assert comp.read(n) == ref.read(n) and comp.tell() == ref.tell()
            assert comp.readline() == ref.readline()
        assert comp.seek(-7, 2) == ref.seek(-7, 2) and comp.read() == ref.read()


def test_requests_grow_as_the_reading_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    sizes: list[int] = []

    def spy(url: str, begin: int, end: int) -> bytes:
        sizes.append((end - begin) >> 10)
        return read_range(url, begin, end)

    monkeypatch.setattr(remote, "read_range", spy)
    with open_url((tmp_path / "a").as_uri()) as file:
        while file.read(1000):
            pass
    assert sizes == [64, 128, 256, 512, 1024, 1088, 0, 0]


# ---- what changes, or goes wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", ["memory", "file", "http"])
def test_a_file_that_changes_is_noticed(tmp_path: Path, behind: str):
    (tmp_path / "a.txt").write_bytes(b"one\n")
    with BEHIND[behind](tmp_path) as url:
        before = look(f"{url}/a.txt")
        assert before and look(f"{url}/a.txt") == before and before.stamp[0] == 4
        assert list_files(url) == [before]
        if behind == "memory":
            fsspec.filesystem("memory").pipe_file("/copy/a.txt", b"one two\n")
        else:
            (tmp_path / "a.txt").write_bytes(b"one two\n")
        after = look(f"{url}/a.txt")
        assert after and after.stamp != before.stamp
        assert look(f"{url}/gone.txt") is None and look(f"{url}/gone/") is None


def test_what_is_gone_or_fails_may_pass(memory: str, monkeypatch: pytest.MonkeyPatch):
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/copy/a.jsonl", LINES)
    plan = plan_url(f"{memory}/a.jsonl", unit_bytes=4000)
    fs.rm_file("/copy/a.jsonl")
    assert all(isinstance(each, MayPass) for each in found(plan)) and len(found(plan)) == len(plan.units)

    def broken(*args: object, **options: object) -> bytes:
        raise RuntimeError("the network is away")

    monkeypatch.setattr(type(fs), "cat_file", broken)
    assert {each.reason for each in found(plan) if isinstance(each, MayPass)} == {
        "can't be read: [Errno 5] RuntimeError: the network is away"
    }


def test_a_server_without_ranges_gives_small_files_only(tmp_path: Path, reviews: Path):
    (tmp_path / "a.txt").write_bytes(b"a line\n" * 100)
    with http(tmp_path, Plain) as url:
        check_same(plan_url(f"{url}/a.txt"), plan_files([tmp_path / "a.txt"]))
        check_same(plan_url(f"{url}/reviews"), plan_folder(reviews))
        with pytest.raises(
            SourceError, match="a.txt: its server gives no parts of files: copy it to this machine first"
        ):
            found(plan_url(f"{url}/a.txt", unit_bytes=50))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nosuch://a/b.txt", "Protocol not known: nosuch"),
        (
            "sftp://host/b.txt",
            "needs a package that is not installed: SFTPFileSystem requires .paramiko. .*pip install",
        ),
        ("zip://a.txt::file:///b.zip", "joins several URLs"),
        ("memory://copy/nosuch.csv", "nothing is found at memory://copy/nosuch.csv: check the spelling"),
        ("memory://copy/a.pdf", "memory://copy/a.pdf is of an unknown kind, expected .txt"),
        ("memory://nosuch", "nothing is found at memory://nosuch"),
        ("http://127.0.0.1:1/a", "nothing is found at http://127.0.0.1:1/a"),
        ("ftp://127.0.0.1:1/a", "ftp://127.0.0.1:1/a can't be listed: ConnectionRefusedError: .*refused"),
    ],
)
def test_what_can_not_be_opened_is_one_line(url: str, reason: str, memory: str):
    fsspec.filesystem("memory").pipe_file("/copy/a.pdf", b"x")
    with pytest.raises(SourceError, match=reason) as caught:
        plan_url(url)
    assert "\n" not in str(caught.value)


def test_a_token_store_or_an_arrow_file_is_to_be_copied_first(memory: str):
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/copy/a.arrow", b"x")
    with pytest.raises(SourceError, match="an Arrow file can't be read from afar: write parquet, or copy it first"):
        plan_url(f"{memory}/a.arrow")
    fs.pipe_file("/copy/manifest.json", b"{}")
    with pytest.raises(SourceError, match="holds a token store or a model, expected texts: copy it to this machine"):
        plan_url(memory)


@pytest.mark.parametrize("name", ["a.csv", "C:/a.csv", "hf:owner/name", "http", "/a://b", "", "a/b://c"])
def test_paths_and_names_are_no_urls(name: str):
    assert not is_url(name)


def test_file_systems_keep_no_lists(memory: str):
    fs, path = file_system(f"{memory}/a")
    assert path == "/copy/a" and not fs.dircache.use_listings_cache


def test_a_path_of_this_machine_imports_no_fsspec(reviews: Path):
    code = (
        "import sys; from pathlib import Path; from ulmpipe.text.source import *;"
        "plan = plan_folder(Path(sys.argv[1])); digest(plan); print(len(plan.units), 'fsspec' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(reviews)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]
