"""A store for a URL is the same store, whole or without a manifest there; a copy that was interrupted goes on."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from commands import Cli, check_refused
from learnable import contents
from servers import BEHIND, in_memory

from ulmpipe.config import TokenizeConfig
from ulmpipe.durable import MANIFEST
from ulmpipe.errors import ConfigError, SourceError, UlmpipeError
from ulmpipe.tasks import tokenize as task
from ulmpipe.tasks import upload as under_test
from ulmpipe.tasks.tokenize import dry_run, tokenize, tokenize_plan
from ulmpipe.tasks.upload import MARKER, local_folder, manifest_there, upload
from ulmpipe.text.source import plan_folder
from ulmpipe.text.store import TokenStore


@pytest.fixture
def memory() -> Iterator[str]:
    with in_memory():
        yield "memory://bucket/some.tok"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, where a store for a URL is made."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def there(url: str) -> dict[str, bytes]:
    """What lies at a URL."""
    fs, root = fsspec.url_to_fs(url)
    return {path.rsplit("/", 1)[-1]: fs.cat_file(path) for path in fs.find(root)}


def reference(reviews: Path, tmp_path: Path, **options: Any) -> dict[str, bytes]:
    tokenize(reviews, tmp_path / "ref", workers=1, **options)
    return contents(tmp_path / "ref")


def store_of_units(reviews: Path, folder: Path) -> dict[str, bytes]:
    """A store of several shards."""
    tokenize_plan(plan_folder(reviews, unit_bytes=60), folder, TokenizeConfig(workers=1))
    return contents(folder)


@pytest.mark.parametrize("behind", ["memory", "file"])
def test_source_and_output_behind_urls_give_the_same_store(reviews: Path, tmp_path: Path, here: Path, behind: str):
    with BEHIND[behind](reviews) as source:
        out = "memory://bucket/some.tok" if behind == "memory" else (tmp_path / "far/some.tok").as_uri()
        comp = tokenize(source, out, workers=1)
        ref = reference(reviews, tmp_path)
        assert there(out) == contents(here / "some.tok") == ref
        assert comp.out == out and comp.n_docs == 11 and not comp.reused
        assert tokenize(reviews, out, workers=1).reused


def test_a_source_behind_a_url_names_its_output(reviews: Path, here: Path):
    with BEHIND["http"](reviews.parent) as url:
        assert tokenize(f"{url}/reviews", workers=1).out == "reviews.tok"
        assert tokenize(reviews, "reviews.tok", workers=1).reused  # the same texts


def test_tokens_that_lie_there_are_not_made_again(reviews: Path, here: Path, memory: str, capsys: Any):
    first = tokenize(reviews, memory, workers=1)
    for path in sorted((here / "some.tok").iterdir()):
        path.unlink()
    capsys.readouterr()
    again = tokenize(reviews, memory, workers=1)
    assert again.reused and again.seconds == 0 and not any((here / "some.tok").iterdir())
    assert f"{memory} holds these tokens already" in capsys.readouterr().err
    assert (again.n_docs, again.n_tokens, again.labels, again.out) == (
        first.n_docs,
        first.n_tokens,
        first.labels,
        memory,
    )


def test_another_store_takes_the_place_of_an_older_one(reviews: Path, tmp_path: Path, here: Path, memory: str):
    store_of_units(reviews, here / "many.tok")
    upload(here / "many.tok", memory)
    assert len([name for name in there(memory) if name.startswith("shard-")]) > 3
    assert not tokenize(reviews, memory, workers=1, rules="course").reused
    assert there(memory) == reference(reviews, tmp_path, rules="course")


@pytest.mark.parametrize("n_puts", [0, 1, 4])
def test_a_copy_that_is_interrupted_goes_on(
    reviews: Path, here: Path, memory: str, monkeypatch: pytest.MonkeyPatch, n_puts: int
):
    """And while it is not whole there is no manifest, though an older store's was there."""
    tokenize(reviews, memory, workers=1, rules="course")
    ref = store_of_units(reviews, here / "many.tok")
    fs, _ = fsspec.url_to_fs(memory)
    sent: list[str] = []

    def put(self: Any, files: list[str], *rest: Any, **options: Any) -> None:
        if len(sent) == n_puts:
            raise KeyboardInterrupt
        sent.extend(files)
        real_put(self, files, *rest, **options)

    real_put = type(fs).put
    monkeypatch.setattr(under_test, "AT_A_TIME", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(fs), "put", put)
        upload(here / "many.tok", memory)
    assert set(there(memory)) == {MARKER, *(Path(path).name for path in sent)}
    before = len(sent)
    with monkeypatch.context() as patch:
        n_puts = 1000
        patch.setattr(type(fs), "put", put)
        upload(here / "many.tok", memory)
    assert there(memory) == ref
    assert len(sent) == len(ref) - 1 and len(set(sent)) == len(sent) > before


def test_what_another_run_left_half_copied_is_not_trusted(reviews: Path, here: Path, memory: str):
    ref = store_of_units(reviews, here / "many.tok")
    fs, root = fsspec.url_to_fs(memory)
    fs.pipe_file(f"{root}/{MARKER}", b'{"manifest_sha256": "another"}')
    fs.pipe_file(f"{root}/shard-00000.arrow", bytes(len(ref["shard-00000.arrow"])))
    upload(here / "many.tok", memory)
    assert there(memory) == ref


def test_a_store_there_that_lacks_bytes_is_made_again(reviews: Path, here: Path, memory: str):
    tokenize(reviews, memory, workers=1)
    ref = there(memory)
    fs, root = fsspec.url_to_fs(memory)
    fs.pipe_file(f"{root}/shard-00000.arrow", ref["shard-00000.arrow"][:-8])
    assert manifest_there(memory) is None
    assert not tokenize(reviews, memory, workers=1).reused
    assert there(memory) == ref


def test_a_manifest_there_that_was_altered_is_made_again(reviews: Path, here: Path, memory: str):
    tokenize(reviews, memory, workers=1)
    ref = there(memory)
    fs, root = fsspec.url_to_fs(memory)
    for altered in ({"kind": "token store"}, {**json.loads(ref[MANIFEST]), "n_docs": None}):
        fs.pipe_file(f"{root}/{MANIFEST}", json.dumps(altered).encode())
        assert manifest_there(memory) is None
    tokenize(reviews, memory, workers=1)
    assert there(memory) == ref


def test_bytes_that_do_not_arrive_are_noticed(reviews: Path, here: Path, memory: str, monkeypatch: pytest.MonkeyPatch):
    store_of_units(reviews, here / "many.tok")
    fs, _ = fsspec.url_to_fs(memory)
    monkeypatch.setattr(type(fs), "put", lambda *args, **options: None)
    with pytest.raises(UlmpipeError, match=f"{memory}/shard-00000.arrow has 0 bytes, expected "):
        upload(here / "many.tok", memory)
    assert MANIFEST not in there(memory)


def test_a_store_that_can_not_be_written_is_one_line(
    reviews: Path, here: Path, memory: str, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError("not for you\nreally")

    fs, _ = fsspec.url_to_fs(memory)
    monkeypatch.setattr(type(fs), "put", refuse)
    with pytest.raises(
        UlmpipeError,
        match=r"memory://bucket/some.tok can't be written: PermissionError: not for you; some.tok is whole, the same command",
    ):
        tokenize(reviews, memory, workers=1)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert tokenize(reviews, memory, workers=1).n_docs == 11 and TokenStore("some.tok").n_docs == 11


def test_what_is_not_ours_there_is_refused_and_untouched(reviews: Path, here: Path, memory: str):
    fs, root = fsspec.url_to_fs(memory)
    fs.pipe_file(f"{root}/thesis.doc", b"years of work")
    with pytest.raises(UlmpipeError, match=r"some.tok holds something else \(thesis.doc\): choose another -o"):
        tokenize(reviews, memory, workers=1)
    assert there(memory) == {"thesis.doc": b"years of work"} and not any(here.iterdir())
    for manifest, kind in (({"kind": "classifier"}, "a classifier"), ([], "a folder of another program")):
        fs.pipe_file(f"{root}/{MANIFEST}", json.dumps(manifest).encode())
        with pytest.raises(UlmpipeError, match=f"holds {kind}, expected a token store"):
            tokenize(reviews, memory, workers=1)


def test_options_that_go_with_no_url(reviews: Path, here: Path, cli: Cli):
    with BEHIND["memory"](reviews) as url, pytest.raises(ConfigError, match="read= takes paths of this machine"):
        tokenize(url, workers=1, read=lambda path: "")
    with pytest.raises(SourceError, match="Protocol not known: nosuch"):
        tokenize(reviews, "nosuch://a/b", workers=1)
    check_refused(cli("pretrain", reviews, "-o", "s3://bucket/lm"), 1, "is a URL, expected a folder of this machine")
    assert not any(here.iterdir())


def test_a_store_behind_a_url_is_no_source(reviews: Path, here: Path, memory: str, cli: Cli):
    tokenize(reviews, memory, workers=1)
    check_refused(cli("pretrain", memory), 1, "holds a token store or a model, expected texts: copy it to this machine")


def test_the_plan_of_a_dry_run_knows_urls(reviews: Path, here: Path, memory: str):
    with BEHIND["http"](reviews) as url:
        comp, ref = dry_run(url, memory, workers=1), dry_run(reviews, "some.tok", workers=1)
    assert (
        replace(comp, out="some.tok", notes=comp.notes[:-1]) == ref and comp.n_files == 11 and not any(here.iterdir())
    )
    assert (
        comp.out == memory and comp.notes[-1] == f"the store is made in some.tok, which stays, and copied to {memory}"
    )
    for task_of in (dry_run, tokenize):
        with pytest.raises(
            ConfigError, match="-o https://host/a.tok is on the web, where files are read and not written"
        ):
            task_of(reviews, "https://host/a.tok", workers=1)
    fs, root = fsspec.url_to_fs(memory)
    fs.pipe_file(f"{root}/thesis.doc", b"years of work")
    with pytest.raises(UlmpipeError, match="some.tok holds something else"):
        dry_run(reviews, memory, workers=1)
    fs.rm_file(f"{root}/thesis.doc")
    tokenize(reviews, memory, workers=1)
    shutil.rmtree("some.tok")
    assert [note for note in dry_run(reviews, memory, workers=1).notes if "holds tokens already" in note][0].startswith(
        memory
    )


def test_what_can_not_work_is_refused_before_the_texts_are_read(
    reviews: Path, here: Path, memory: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(task, "digest", lambda *args: pytest.fail("the texts are read first"))
    with pytest.raises(ConfigError, match="--tables nosuch/t.arrow: its folder does not exist"):
        tokenize(reviews, memory, workers=1, tables="nosuch/t.arrow")
    with pytest.raises(ConfigError, match="--max-vocab is 3, expected more than"):
        tokenize(reviews, memory, workers=1, max_vocab=3)
    (here / "some.tok").mkdir()
    (here / "some.tok/thesis.doc").write_text("years of work")
    with pytest.raises(UlmpipeError, match="thesis.doc"):
        tokenize(reviews, memory, workers=1)


@pytest.mark.parametrize("url", ["s3://bucket/a/b.tok", "s3://bucket/a/b.tok/", "file:///b.tok", "memory://b.tok"])
def test_local_folder_is_the_last_part(url: str):
    assert local_folder(url) == Path("b.tok")
