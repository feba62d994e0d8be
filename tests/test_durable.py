"""A file or folder of ours is whole or absent, whatever happens while it is written, and one run writes it at a time."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ulmpipe import durable
from ulmpipe.durable import (
    LOCK,
    MANIFEST,
    STAGING_PREFIX,
    check_files,
    check_output,
    describe_file,
    fsync_file,
    fsync_folder,
    locked,
    publishing,
    read_json,
    read_manifest,
    sha256_of,
    staging,
    write_bytes,
    write_json,
)
from ulmpipe.errors import OutputInUseError, StoreError, UlmpipeError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("value", [{}, {"a": [1, 2.5, None, "é\u2028日本"]}, [], "x", {"b": 1, "a": 2}])
def test_write_json_round_trip(tmp_path: Path, value: Any):
    write_json(tmp_path / "a.json", value)
    comp = read_json(tmp_path / "a.json")
    assert comp == value and list(comp) == list(value)
    assert names(tmp_path) == {"a.json"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_write_json_that_fails_leaves_the_old_file(tmp_path: Path, value: Any):
    write_json(tmp_path / "a.json", "old")
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", [value])
    assert read_json(tmp_path / "a.json") == "old" and names(tmp_path) == {"a.json"}


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_write_bytes_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str):
    def fail(*args: object) -> None:
        raise OSError("no space left on device")

    write_bytes(tmp_path / "a", b"old")
    monkeypatch.setattr(durable.os, where, fail)
    with pytest.raises(OSError, match="no space"):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == {"a"}


def test_write_bytes_flushes_file_then_renames_then_flushes_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(durable.os, "fsync", lambda fd: (calls.append("fsync"), real_fsync(fd)))
    monkeypatch.setattr(durable.os, "replace", lambda a, b: (calls.append("replace"), real_replace(a, b)))
    write_bytes(tmp_path / "a", b"data")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize(("content", "reason"), [(b"", "damaged"), (b'{"a": ', "damaged"), (b"\xff", "damaged")])
def test_read_json_names_a_damaged_file(tmp_path: Path, content: bytes, reason: str):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(StoreError, match=f"a.json is {reason}"):
        read_json(tmp_path / "a.json")


def test_read_json_names_a_missing_or_huge_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(StoreError, match="a.json is missing"):
        read_json(tmp_path / "a.json")
    monkeypatch.setattr(durable, "MAX_JSON_BYTES", 10)
    (tmp_path / "a.json").write_text("[1, 2, 3, 4]")
    with pytest.raises(StoreError, match="has 12 bytes, expected at most 10"):
        read_json(tmp_path / "a.json")


def test_digests_are_those_of_the_bytes(tmp_path: Path, rng):
    data = rng.bytes(300_000)
    (tmp_path / "a").write_bytes(data)
    fsync_file(tmp_path / "a")
    fsync_folder(tmp_path)
    ref = hashlib.sha256(data).hexdigest()
    assert sha256_of(tmp_path / "a") == ref
    assert describe_file(tmp_path / "a") == {"bytes": 300_000, "sha256": ref}


# ---- locks and staging ----------------------------------------------------------------------------------------------


def test_locked_keeps_others_out(tmp_path: Path):
    with locked(tmp_path / "out"):
        with pytest.raises(OutputInUseError, match="in use by another run") as caught, locked(tmp_path / "out"):
            pass
        assert names(tmp_path / "out") == {LOCK}
    assert caught.value.exit_code == 4


def test_locked_removes_a_folder_of_which_nothing_came(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "out"), staging(tmp_path / "out"):
        _ = 1 / 0
    assert names(tmp_path) == set()


def test_locked_removes_the_parents_it_made_unless_something_came_in(tmp_path: Path):
    with locked(tmp_path / "models" / "deep" / "net"):
        pass
    assert not any(tmp_path.iterdir())
    with locked(tmp_path / "models" / "net"):
        (tmp_path / "models" / "pictures").mkdir()
    assert names(tmp_path / "models") == {"pictures"}


def test_locked_keeps_a_folder_that_was_there_or_holds_something(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with locked(tmp_path / "empty"):
        pass
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "out"):
        (tmp_path / "out/checkpoint-1").mkdir()
        _ = 1 / 0
    assert names(tmp_path / "empty") == {LOCK} and names(tmp_path / "out") == {LOCK, "checkpoint-1"}


def test_locked_lets_go_after_an_error(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _ = 1 / 0
    with locked(tmp_path):
        assert names(tmp_path) == {LOCK}


def test_locked_takes_a_dead_runs_lock(tmp_path: Path):
    (tmp_path / LOCK).touch()
    with locked(tmp_path), pytest.raises(OutputInUseError), locked(tmp_path):
        pass


def test_locked_uses_one_file_for_every_run(tmp_path: Path):
    with locked(tmp_path):
        ref_inode = (tmp_path / LOCK).stat().st_ino
    assert (tmp_path / LOCK).exists()  # were it removed after the release, the next run could hold a lock nobody sees
    with locked(tmp_path):
        assert (tmp_path / LOCK).stat().st_ino == ref_inode


@pytest.mark.parametrize("fails", [False, True])
def test_staging_is_empty_inside_and_gone_after(tmp_path: Path, fails: bool):
    try:
        with staging(tmp_path) as stage:
            assert stage.parent == tmp_path and stage.name.startswith(STAGING_PREFIX) and not names(stage)
            (stage / "deep").mkdir()
            (stage / "deep" / "a").touch()
            assert not fails
    except AssertionError:
        assert fails
    assert names(tmp_path) == set()


# ---- outputs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "leftovers", [[], [LOCK], [f"{STAGING_PREFIX}12ab", ".a.json.1.part", "checkpoint-100"], ["also.arrow"]]
)
def test_check_output_takes_an_empty_or_interrupted_folder(tmp_path: Path, leftovers: list[str]):
    for name in leftovers:
        (tmp_path / name).touch()
    check_output(tmp_path, expected="model", also={"also.arrow"})
    check_output(tmp_path / "absent", expected="model")


def test_check_output_takes_its_own_kind_only(tmp_path: Path):
    write_json(tmp_path / MANIFEST, {"kind": "model"})
    (tmp_path / "anything").touch()
    check_output(tmp_path, expected="model")
    with pytest.raises(UlmpipeError, match="holds a model, expected a token store"):
        check_output(tmp_path, expected="token store")


@pytest.mark.parametrize("name", ["a.txt", "shard-00000.arrow", ".git", "manifest.json.bak"])
def test_check_output_refuses_foreign_files(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    with pytest.raises(UlmpipeError, match=f"something else .{name}.: choose another -o"):
        check_output(tmp_path, expected="model")


def test_check_output_refuses_a_file_and_a_foreign_manifest(tmp_path: Path):
    (tmp_path / "a").touch()
    with pytest.raises(UlmpipeError, match="is a file, expected a folder"):
        check_output(tmp_path / "a", expected="model")
    write_json(tmp_path / MANIFEST, {"name": "a browser extension"})
    with pytest.raises(UlmpipeError, match="holds a folder of another program"):
        check_output(tmp_path, expected="model")


@pytest.mark.parametrize("value", [[], "x", 7, None])
def test_manifest_that_is_no_object_is_refused(tmp_path: Path, value: Any):
    write_json(tmp_path / MANIFEST, value)
    with pytest.raises(UlmpipeError, match="another program"):
        check_output(tmp_path, expected="model")
    with pytest.raises(StoreError):
        read_manifest(tmp_path, "model", 1)


# ---- manifests ------------------------------------------------------------------------------------------------------


def folder_with(path: Path, **manifest: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "a.bin").write_bytes(b"1234")
    value = {"kind": "model", "format_version": 2, "files": {"a.bin": describe_file(path / "a.bin")}}
    write_json(path / MANIFEST, value | manifest)
    return path


def test_read_manifest_reads_this_version_and_older(tmp_path: Path):
    folder = folder_with(tmp_path / "m")
    assert read_manifest(folder, "model", 2)["format_version"] == 2
    assert read_manifest(folder, "model", 3)["kind"] == "model"
    with pytest.raises(StoreError, match=r"newer ulmpipe \(format 2, this one reads 1\): upgrade"):
        read_manifest(folder, "model", 1)


def test_read_manifest_refuses_what_is_not_there(tmp_path: Path):
    with pytest.raises(StoreError, match="does not exist, expected a model"):
        read_manifest(tmp_path / "gone", "model", 1)
    with pytest.raises(StoreError, match="did not finish"):
        read_manifest(tmp_path, "model", 1)
    with pytest.raises(StoreError, match="holds a model, expected a token store"):
        read_manifest(folder_with(tmp_path / "m"), "token store", 2)


def test_check_files_compares_sizes_and_with_digests_bytes(tmp_path: Path):
    folder = folder_with(tmp_path / "m")
    manifest = json.loads((folder / MANIFEST).read_text())
    assert check_files(folder, manifest, digests=True) == 1
    (folder / "a.bin").write_bytes(b"1235")
    assert check_files(folder, manifest) == 1
    with pytest.raises(StoreError, match="a.bin was altered"):
        check_files(folder, manifest, digests=True)
    (folder / "a.bin").write_bytes(b"123")
    with pytest.raises(StoreError, match="has 3 bytes, expected 4"):
        check_files(folder, manifest)


@pytest.mark.parametrize("name", ["../a.bin", "/etc/passwd", "sub/a.bin", "a b", "", "A.bin", "a.bin\n"])
def test_check_files_refuses_names_that_lead_out(tmp_path: Path, name: str):
    (tmp_path / "a.bin").write_bytes(b"1234")
    folder = folder_with(tmp_path / "m", files={name: describe_file(tmp_path / "a.bin")})
    with pytest.raises(StoreError, match="no file of ours: it was altered"):
        check_files(folder, read_manifest(folder, "model", 2))


# ---- publishing -----------------------------------------------------------------------------------------------------


def publish(folder: Path, content: bytes, *, fails: bool = False) -> None:
    with publishing(folder, "thing", 1) as stage:
        (stage / "a.bin").write_bytes(content)
        (stage / "b.bin").write_bytes(b"b")
        if fails:
            raise KeyboardInterrupt


def test_publishing_makes_a_folder_of_its_kind(tmp_path: Path):
    publish(tmp_path / "out", b"one")
    assert names(tmp_path / "out") == {"a.bin", "b.bin", MANIFEST}
    assert check_files(tmp_path / "out", read_manifest(tmp_path / "out", "thing", 1), digests=True) == 2


def test_publishing_that_fails_leaves_the_old_folder(tmp_path: Path):
    publish(tmp_path / "out", b"one")
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "out", b"two", fails=True)
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"one"
    check_files(tmp_path / "out", read_manifest(tmp_path / "out", "thing", 1), digests=True)


@pytest.mark.parametrize("n_moved", [0, 1])
def test_publishing_that_is_killed_between_two_files_leaves_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_moved: int
):
    publish(tmp_path / "out", b"one")
    move, left = os.replace, [n_moved]

    def killed(source: Any, target: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(durable.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "out", b"two")
    with pytest.raises(StoreError, match="has no manifest.json: it is no thing"):
        read_manifest(tmp_path / "out", "thing", 1)
