"""A store is read as it was written, or not at all: every damage has a name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from ulmpipe.console import set_quiet
from ulmpipe.durable import MANIFEST, check_files, read_manifest
from ulmpipe.errors import StoreError
from ulmpipe.tasks.tokenize import tokenize
from ulmpipe.text.rules import COURSE_SPECIALS
from ulmpipe.text.store import FORMAT_VERSION, KIND, TokenStore, ids_dtype, is_store, shard_name, shard_schema
from ulmpipe.text.tokenizer import Tokenizer
from ulmpipe.text.vocab import Vocab

SHARD = shard_name(0)


@pytest.fixture
def store(reviews: Path, tmp_path: Path) -> Path:
    set_quiet(True)
    tokenize(reviews, tmp_path / "out", workers=1, min_freq=1)
    set_quiet(False)
    return tmp_path / "out"


def alter_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def rewrite_shard(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replace the shard by another one and make the manifest believe it."""
    with pa.OSFile(str(folder / SHARD)) as file:
        table = change(pa.ipc.open_stream(file).read_all())
    with pa.OSFile(str(folder / SHARD), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    size = (folder / SHARD).stat().st_size
    alter_manifest(folder, lambda m: m["files"][SHARD].update(bytes=size))


@pytest.mark.parametrize(("size", "ref"), [(8, np.uint16), (65_536, np.uint16), (65_537, np.int32), (10**6, np.int32)])
def test_ids_dtype_holds_every_id(size: int, ref: type):
    assert ids_dtype(size) is ref
    assert size - 1 <= np.iinfo(ids_dtype(size)).max
    assert shard_schema(size, has_labels=False).field("ids").type == pa.list_(pa.from_numpy_dtype(ref))


def test_store_holds_the_tokens_of_every_document(store: Path, reviews: Path):
    comp, tokenizer = TokenStore(store), Tokenizer()
    files = sorted(reviews.glob("*/*.txt"))
    assert len(comp) == comp.n_docs == len(files) == 11
    for i, path in enumerate(files):
        assert comp.vocab.decode(comp.doc(i)) == tokenizer.tokenize(path.read_text())
    assert comp.doc_lengths.sum() == comp.n_tokens
    assert [comp.labels[i] for i in comp.doc_labels] == [path.parent.name for path in files]


@pytest.mark.parametrize("index", [-1, 11])
def test_store_has_no_document_outside(store: Path, index: int):
    with pytest.raises(IndexError):
        TokenStore(store).doc(index)


def test_segments_are_views_and_read_only(store: Path):
    (segment,) = TokenStore(store).segments
    assert segment.ids.dtype == np.uint16 and not segment.ids.flags.writeable
    assert segment.offsets[0] == 0 and segment.offsets[-1] == len(segment.ids)
    assert (np.diff(segment.offsets) >= 0).all()


@pytest.mark.parametrize("n_words", [65_536 - 8, 65_536 - 7])
def test_ids_widen_when_the_vocabulary_does(tmp_path: Path, reviews: Path, n_words: int):
    vocab = Vocab([*COURSE_SPECIALS, *(f"w{i}" for i in range(n_words - 1)), "film"])
    vocab.save(tmp_path / "vocab.json")
    tokenize(reviews, tmp_path / "out", workers=1, vocab=str(tmp_path / "vocab.json"))
    comp = TokenStore(tmp_path / "out")
    assert comp.segments[0].ids.dtype == (np.uint16 if len(vocab) <= 65_536 else np.int32)
    assert max(int(s.ids.max()) for s in comp.segments) == len(vocab) - 1
    assert datasets.load_from_disk(str(tmp_path / "out"))[1]["ids"] == comp.doc(1).tolist()


def test_datasets_opens_the_folder_as_it_stands(store: Path):
    ref, comp = TokenStore(store), datasets.load_from_disk(str(store))
    assert isinstance(comp, datasets.Dataset)
    assert comp.column_names == ["ids", "label", "source"]
    assert comp["ids"][:] == [ref.doc(i).tolist() for i in range(11)]
    assert comp["label"][:] == ref.doc_labels.tolist()
    assert isinstance(comp.features["label"], datasets.ClassLabel) and comp.features["label"].names == ["neg", "pos"]
    assert comp["source"][0] == "neg/0.txt"


def test_datasets_opens_a_store_without_labels(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    tokenize(tmp_path / "a.txt", tmp_path / "out", workers=1)
    comp = datasets.load_from_disk(str(tmp_path / "out"))
    assert isinstance(comp, datasets.Dataset) and comp.column_names == ["ids", "source"]
    assert TokenStore(tmp_path / "out").doc_labels.tolist() == [-1, -1]


# ---- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 8, 500])
def test_truncated_shard_is_noticed_when_opened(store: Path, n: int):
    data = (store / SHARD).read_bytes()
    (store / SHARD).write_bytes(data[:n] if n == 0 else data[:-n])
    with pytest.raises(StoreError, match=rf"{SHARD} has .* bytes, expected {len(data):,}: it was truncated"):
        TokenStore(store)


@pytest.mark.parametrize("name", [SHARD, "vocab.json", "dataset_info.json", "state.json"])
def test_missing_file_is_noticed_when_opened(store: Path, name: str):
    (store / name).unlink()
    with pytest.raises(StoreError, match=f"{name} is missing"):
        TokenStore(store)


@pytest.mark.parametrize("name", [SHARD, "vocab.json", "dataset_info.json"])
def test_one_altered_byte_is_noticed_by_verify(store: Path, name: str):
    manifest = read_manifest(store, KIND, FORMAT_VERSION)
    assert check_files(store, manifest, digests=True) == 4
    data = bytearray((store / name).read_bytes())
    data[len(data) // 2] ^= 1
    (store / name).write_bytes(data)
    assert check_files(store, manifest) == 4
    with pytest.raises(StoreError, match=f"{name} was altered"):
        check_files(store, manifest, digests=True)


def test_any_flipped_byte_raises_store_error_or_nothing(store: Path, rng: np.random.Generator):
    good, n_named = (store / SHARD).read_bytes(), 0
    for at in (*range(0, 300, 2), *rng.integers(0, len(good), 150)):
        (store / SHARD).write_bytes(good[:at] + bytes([good[at] ^ int(1 << rng.integers(8))]) + good[at + 1 :])
        try:
            assert len(TokenStore(store).segments) <= 1
        except StoreError as err:
            n_named += SHARD in str(err)
    assert n_named > 50


def test_missing_manifest_means_unfinished(store: Path):
    (store / MANIFEST).unlink()
    assert not is_store(store)
    with pytest.raises(StoreError, match="did not finish"):
        TokenStore(store)


def test_missing_folder_is_named(tmp_path: Path):
    assert not is_store(tmp_path / "gone")
    with pytest.raises(StoreError, match=r"gone does not exist, expected a token store"):
        TokenStore(tmp_path / "gone")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(format_version=FORMAT_VERSION + 1), "newer ulmpipe"),
        (lambda m: m.update(kind="language model"), "holds a language model, expected a token store"),
        (
            lambda m: m["files"].update({"../x": {"bytes": 1, "sha256": ""}}),
            r"names '\.\./x', which is no file of ours",
        ),
        (lambda m: m["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}}), "which is no file of ours"),
        (lambda m: m["files"].update({"..": {"bytes": 1, "sha256": ""}}), "no file of ours"),
        (lambda m: m["files"][SHARD].pop("bytes"), "lacks bytes"),
        (lambda m: m["files"][SHARD].pop("rows"), "lacks rows"),
        (lambda m: m.update(n_docs=m["n_docs"] + 1), "says n_docs"),
        (lambda m: m.update(n_tokens=m["n_tokens"] - 1), "says n_tokens"),
    ],
)
def test_altered_manifest_is_refused(store: Path, change: Callable, reason: str):
    (store.parent / "x").write_text("1")
    alter_manifest(store, change)
    with pytest.raises(StoreError, match=reason):
        TokenStore(store)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '"token store"', "\x00"])
def test_is_store_says_no_to_any_other_manifest(tmp_path: Path, content: str):
    (tmp_path / MANIFEST).write_text(content)
    assert not is_store(tmp_path)


def test_ids_outside_the_vocabulary_are_refused(store: Path):
    size = len(TokenStore(store).vocab)
    outside = pa.array([[0]] * 10 + [[size]], pa.list_(pa.uint16()))
    rewrite_shard(store, lambda table: table.set_column(0, "ids", outside))
    with pytest.raises(StoreError, match=rf"ids outside the vocabulary \({size}\)"):
        _ = TokenStore(store).segments


def test_lost_rows_are_noticed(store: Path):
    rewrite_shard(store, lambda table: table.slice(0, 10))
    with pytest.raises(StoreError, match="lost rows"):
        _ = TokenStore(store).segments


@pytest.mark.parametrize(
    "change", [lambda t: t.drop_columns(["label"]), lambda t: t.rename_columns(["id", "label", "source"])]
)
def test_other_columns_are_refused(store: Path, change: Callable):
    rewrite_shard(store, change)
    with pytest.raises(StoreError, match="its columns are"):
        _ = TokenStore(store).segments


def test_a_store_is_a_dataset(store: Path):
    ref, comp = TokenStore(store), TokenStore(store).to_dataset()
    assert comp.column_names == ["ids", "label", "source"] and comp.features["label"].names == ref.labels
    assert comp["ids"][:] == [ref.doc(i).tolist() for i in range(len(ref))]
    assert [file["filename"] for file in comp.cache_files] == [
        str(path) for path in sorted(store.glob("shard-*.arrow"))
    ]
