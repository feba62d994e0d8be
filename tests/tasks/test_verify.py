"""`verify` finds every altered byte."""

import json
from pathlib import Path

import pytest
from learnable import Trained

from ulmpipe.durable import MANIFEST, publishing
from ulmpipe.errors import StoreError
from ulmpipe.tasks.verify import verify


def test_whole_folders_are_verified(trained: Trained):
    lm, clf, store = verify(trained.lm), verify(trained.clf), verify(trained.store)
    assert (lm.kind, lm.n_files) == ("language model", 3) and (clf.kind, clf.n_files) == ("classifier", 3)
    assert (store.kind, store.n_files) == ("token store", 4)


@pytest.mark.parametrize("folder", ["clf", "store"])
def test_one_altered_bit_in_any_file_is_found(trained: Trained, own: Path, folder: str):
    path = own / (trained.store.relative_to(trained.folder) if folder == "store" else folder)
    for name in json.loads((path / MANIFEST).read_text())["files"]:
        ref = (path / name).read_bytes()
        spoiled = bytearray(ref)
        spoiled[len(ref) * 2 // 3] ^= 1
        (path / name).write_bytes(spoiled)
        with pytest.raises(StoreError, match=f"{name} was altered|damaged|ids outside"):
            verify(path)
        (path / name).write_bytes(ref)
    verify(path)


@pytest.mark.parametrize("kind", ["image classifier", "picture store"])
def test_folders_of_vision_are_verified(tmp_path: Path, kind: str):
    with publishing(tmp_path, kind, 1) as stage:
        (stage / "model.safetensors").write_bytes(b"weights")
    assert (verify(tmp_path).kind, verify(tmp_path).n_files) == (kind, 1)
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    with pytest.raises(StoreError, match="model.safetensors was altered"):
        verify(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", "3", "{", '{"kind": "checkpoint"}', '{"kind": ["token store"]}'])
def test_foreign_manifest_is_refused(tmp_path: Path, content: str):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(StoreError, match="expected a token store or a model folder|is damaged"):
        verify(tmp_path)


@pytest.mark.parametrize("key", ["files", "n_docs", "labels", "fingerprint", "format_version"])
def test_manifest_that_lacks_a_part_is_refused(trained: Trained, own: Path, key: str):
    path = own / trained.store.relative_to(trained.folder) / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest[key]
    path.write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=f"manifest.json lacks {key}: it was altered"):
        verify(path.parent)


def test_store_with_fewer_documents_than_it_says_is_refused(trained: Trained, own: Path):
    path = own / trained.store.relative_to(trained.folder) / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"n_docs": 201}))
    with pytest.raises(StoreError, match="says n_docs 201, and 200 of its shards: it was altered"):
        verify(path.parent)


def test_a_url_is_to_be_copied_first():
    with pytest.raises(
        StoreError, match="s3://bucket/a.tok is a URL, expected a folder of this machine: copy it here first"
    ):
        verify("s3://bucket/a.tok")


def test_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match="does not exist, expected a token store"):
        verify(tmp_path / "absent")
