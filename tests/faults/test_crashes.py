"""A crash, a full disk or a failing one at each step of a small run: what is there is whole, and the next run ends in the same bytes."""

import errno
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from runs import ALL, fail_at, in_child, killed, some, start, tree_hash, write_corpus

from ulmpipe.config import TokenizeConfig
from ulmpipe.durable import MANIFEST
from ulmpipe.tasks.tokenize import tokenize_plan
from ulmpipe.tasks.verify import verify
from ulmpipe.text.source import plan_folder

CALLS = {"rename": "replace", "fsync": "fsync", "unlink": "unlink", "mkdir": "mkdir"}
LIMIT = 200  # of the first calls of each kind
DONE = 3  # exit code of driver.py on this corpus: two files can't be read


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts", n_files=24, n_words=60)


def run(corpus: Path, out: Path) -> None:
    tokenize_plan(plan_folder(corpus, unit_bytes=1500), out, TokenizeConfig(workers=1))


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of what a run makes; spaCy and the kernels are loaded after it, for the children of this process."""
    out = tmp_path_factory.mktemp("whole") / "out"
    tokenize_plan(plan_folder(corpus, unit_bytes=1500), out, TokenizeConfig(workers=1))
    return tree_hash(out)


def calls_of(name: str, corpus: Path, out: Path) -> int:
    """How often a whole run calls a function of `os`."""
    counted = out.parent / "counted"

    def count() -> None:
        n_calls = fail_at(os, name, 0, lambda: None)
        run(corpus, out)
        counted.write_text(str(n_calls[0]))

    assert in_child(count) == 0
    shutil.rmtree(out)
    return int(counted.read_text())


def check_after(corpus: Path, out: Path, whole: str) -> None:
    """What is there is whole or no store; the next run makes it whole."""
    if (out / MANIFEST).exists():
        verify(out)
    assert in_child(partial(run, corpus, out)) == 0
    assert tree_hash(out) == whole


def steps(n: int) -> list[int]:
    """Which calls are disturbed: each of the first, or a few of them spread over all."""
    n = min(n, LIMIT)
    return list(range(1, n + 1)) if ALL else sorted({1, n // 2, n} - {0})


@pytest.mark.parametrize("kind", CALLS)
def test_a_crash_at_each_call(corpus: Path, whole: str, tmp_path: Path, survived: Callable[..., None], kind: str):
    name, out = CALLS[kind], tmp_path / "out"
    for n in steps(calls_of(name, corpus, out)):

        def crash(n: int = n) -> None:
            fail_at(os, name, n, killed)
            run(corpus, out)

        assert in_child(crash) == -9
        check_after(corpus, out, whole)
        shutil.rmtree(out)
        survived(f"a crash at a {kind}")


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_each_call(
    corpus: Path, whole: str, tmp_path: Path, survived: Callable[..., None], kind: str, number: int
):
    name, out = CALLS[kind], tmp_path / "out"

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for n in steps(calls_of(name, corpus, out)):

        def spoil(n: int = n) -> None:
            fail_at(os, name, n, fail)
            run(corpus, out)

        # What is only cleared away, or made by a library that can do without, may fail; what is promised may not.
        assert in_child(spoil) == 1 or (kind in ("unlink", "mkdir") and (out / MANIFEST).exists())
        check_after(corpus, out, whole)
        shutil.rmtree(out)
        survived(f"{errno.errorcode[number]} at a {kind}")


@pytest.fixture(scope="module")
def whole_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of what driver.py makes."""
    out = tmp_path_factory.mktemp("whole_run") / "out"
    assert start(corpus, out, 1).end()[0] == DONE
    return tree_hash(out)


# What is done to which call, and to every how many of them: there are a hundred writes, and fewer of the others.
INJECTED = {"write:signal=SIGKILL": 3, "write:error=ENOSPC": 3, "fsync:error=EIO": 1, "rename:signal=SIGKILL": 1}
AT = [(inject, n) for inject, step in INJECTED.items() for n in some(40 if step > 1 else 16, 1)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("inject", "n"), AT)
def test_a_system_call_that_fails(
    corpus: Path, whole_run: str, tmp_path: Path, survived: Callable[..., None], inject: str, n: int
):
    """As the kernel sees it, Arrow's own writes too; the first one is what driver.py says when it begins."""
    what, how = inject.split(":", 1)
    when = str(INJECTED[inject] * n + 1 + (what == "write"))
    run = start(corpus, tmp_path / "out", 1, "strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={what}", "-e", f"inject={what}:{how}:when={when}")  # fmt: skip
    code, told = run.end()
    was_hit = code != DONE
    assert not was_hit or code == (-9 if "SIGKILL" in how else 1), (code, told)
    assert "Traceback" not in told
    if (tmp_path / "out" / MANIFEST).exists():
        verify(tmp_path / "out")
    assert start(corpus, tmp_path / "out", 1).end()[0] == DONE
    assert tree_hash(tmp_path / "out") == whole_run
    if was_hit:
        survived(f"{inject}, injected by strace")
