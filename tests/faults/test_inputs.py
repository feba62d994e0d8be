"""Inputs of every bad kind, as a whole run meets them: each byte is read or quarantined by name, and nothing hangs."""

import bz2
import gzip
import lzma
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from defects import fatal, fatal_rules
from runs import ALL, gone, some, start

from ulmpipe.config import TokenizeConfig
from ulmpipe.errors import SourceError
from ulmpipe.tasks.tokenize import tokenize, tokenize_plan
from ulmpipe.text import shards
from ulmpipe.text.source import plan_files, plan_folder
from ulmpipe.text.store import TokenStore

MB = (1 << 20) * (100 if ALL else 3)
TIMEOUT_S = 30.0 if ALL else 2.0  # it passes twice until a document that hangs is found


def quarantined(out: Path) -> dict[str, str]:
    return {each["source"]: each["reason"] for each in TokenStore(out).manifest["quarantined"]}


def peak_mb(code: str, *args: object) -> int:
    """Run some Python in a process of its own; the MB of memory that it took at its peak.

    By the kernel's VmHWM: `ru_maxrss` of a new process begins at that of the one which started it.
    """
    wrapped = f"{code}\nprint(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", wrapped, *map(str, args)], capture_output=True, text=True, check=True, timeout=280)  # fmt: skip
    return int(done.stdout.partition("VmHWM:")[2].split()[0]) >> 10


TOKENIZE = (
    "import sys; from ulmpipe.tasks.tokenize import tokenize; tokenize(sys.argv[1], sys.argv[2], workers=1, min_freq=1)"
)


@pytest.mark.parametrize("text", ["x", "a word or two ", "!", "<br />", "\n\n \t"][: len(some(5, 2))])
def test_a_huge_line(tmp_path: Path, text: str, survived: Callable[..., None]):
    """100 MB of one line, with spaces and without one."""
    (tmp_path / "a.txt").write_text((text * (MB // len(text)))[:MB] + "\nthe end\n")
    begin_s = time.monotonic()
    assert peak_mb(TOKENIZE, tmp_path / "a.txt", tmp_path / "out") < 800 + 6 * (MB >> 20)
    store = TokenStore(tmp_path / "out")
    assert store.vocab.decode(store.doc(len(store) - 1)) == ["xxbos", "the", "end", "xxeos"]
    assert time.monotonic() - begin_s < 240
    survived("a huge line")


def test_very_many_tiny_files(tmp_path: Path, survived: Callable[..., None]):
    n = len(some(100_000, 2000))
    for i in range(n):
        if i % 1000 == 0:
            (tmp_path / f"texts/{i // 1000}").mkdir(parents=True)
        (tmp_path / f"texts/{i // 1000}/{i}.txt").write_text("tiny" * (i % 3))
    assert peak_mb(TOKENIZE, tmp_path / "texts", tmp_path / "out") < 600 + 3 * n / 1000
    assert TokenStore(tmp_path / "out").n_docs == n
    survived("very many tiny files")


@pytest.mark.parametrize("compress", [bz2.compress, gzip.compress, lzma.compress][: len(some(3, 1))])
def test_what_unpacks_to_very_much(tmp_path: Path, compress: Callable[[bytes], bytes], survived: Callable[..., None]):
    """A small file that is a hundred times larger inside, of many lines: it is read as it comes."""
    name = {gzip.compress: "a.txt.gz", bz2.compress: "a.txt.bz2", lzma.compress: "a.txt.xz"}[compress]
    (tmp_path / name).write_bytes(compress(b"zero zero zero\n" * (MB // 15)))
    assert peak_mb(TOKENIZE, tmp_path / name, tmp_path / "out") < 900
    assert TokenStore(tmp_path / "out").n_docs == MB // 15
    survived("a file that unpacks to very much")


def test_pipes_loops_and_sockets_are_not_waited_for(tmp_path: Path, survived: Callable[..., None]):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("a text")
    os.mkfifo(folder / "pipe.txt")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    (folder / "up").symlink_to(tmp_path)
    run = start(folder, tmp_path / "out", 1)
    assert run.end()[0] == 0 and gone(run)
    assert TokenStore(tmp_path / "out").n_docs == 1
    survived("pipes, loops of links", 3)


# ---- files that change ----------------------------------------------------------------------------------------------


def change(how: str, path: Path) -> None:
    if how == "grown":
        with open(path, "a") as file:
            file.write("more\n")
    elif how == "cut":
        os.truncate(path, 3)
    else:
        path.write_text("another")


@pytest.mark.parametrize("how", ["grown", "cut", "replaced"])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, survived: Callable[..., None]
):
    for name in ("a", "b", "c"):
        (tmp_path / f"texts/{name}").mkdir(parents=True)
        (tmp_path / f"texts/{name}/1.txt").write_text(f"this is {name}")
    plan = plan_folder(tmp_path / "texts")
    changed, real = tmp_path / "texts/b/1.txt", shards.read_texts

    def read_texts(piece, columns, read=None):
        yield from real(piece, columns, read)
        if piece.path == str(changed) and changed.read_text() == "this is b":
            change(how, changed)

    monkeypatch.setattr(shards, "read_texts", read_texts)
    tokenize_plan(plan, tmp_path / "out", TokenizeConfig(workers=1, min_freq=1))
    assert quarantined(tmp_path / "out") == {"b/1.txt": "changed while it was read: tokenize again when it does not"}
    store = TokenStore(tmp_path / "out")
    assert [store.vocab.decode(store.doc(n))[3] for n in range(2)] == ["a", "c"] and store.n_docs == 2
    survived("a file that changes while it is read")


def test_a_table_that_grows_while_it_is_read(tmp_path: Path, survived: Callable[..., None]):
    """A log that is written to all the time: what was there when the run began is read, or named."""
    path = tmp_path / "a.txt"
    path.write_text("a line\n" * 5000)
    plan = plan_files([path], unit_bytes=5000)
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.001):
            with open(path, "a") as file:
                file.write("one more\n")

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.2)  # it has changed since it was planned
    try:
        with pytest.raises(SourceError, match="no documents found: a.txt changed while it was read"):
            tokenize_plan(plan, tmp_path / "out", TokenizeConfig(workers=1))
    finally:
        done.set()
        thread.join()
    assert tokenize(path, tmp_path / "out", workers=1).n_docs > 5000
    survived("a file that is written to all the time")


# ---- documents that kill or hang ------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["KILL", "HANG"][: len(some(2, 1))])
def test_a_document_that_ends_its_worker_is_named(tmp_path: Path, word: str, survived: Callable[..., None]):
    lines = [f"line {n} of the text" for n in range(400)]
    lines[123] = f"this will {word} it"
    (tmp_path / "a.txt").write_text("\n".join(lines))
    config = TokenizeConfig(workers=2, unit_timeout=TIMEOUT_S if word == "HANG" else None)
    tokenize_plan(
        plan_files([tmp_path / "a.txt"], unit_bytes=2000), tmp_path / "out", config, custom_rules=fatal_rules()
    )
    (found,) = quarantined(tmp_path / "out").items()
    at = sum(len(line) + 1 for line in lines[:123])
    assert found[0] == f"a.txt@{at}" and ("killed" if word == "KILL" else f"longer than {TIMEOUT_S:g} s") in found[1]
    assert TokenStore(tmp_path / "out").n_docs == 399
    survived("a document that kills or hangs its worker")


@pytest.mark.parametrize("word", ["HANG", "KILL"][: len(some(2, 1))])
def test_a_file_that_ends_its_worker_as_it_is_read(tmp_path: Path, word: str, survived: Callable[..., None]):
    for n in range(6):
        (tmp_path / f"texts/{n}").mkdir(parents=True)
        (tmp_path / f"texts/{n}/a.txt").write_text(f"text {n}" if n != 3 else word)
    options = {"workers": 2, "unit_timeout": 60.0 if word == "KILL" else TIMEOUT_S}
    tokenize(tmp_path / "texts", tmp_path / "out", **options, read=lambda path: fatal(path.read_text()))
    (found,) = quarantined(tmp_path / "out").items()
    assert found[0] == "3/a.txt" and "from its document 0 on" in found[1] and TokenStore(tmp_path / "out").n_docs == 5
    survived("a file that kills or hangs its worker as it is read")
