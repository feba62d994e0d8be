"""Pictures that are decoded once and those decoded each time are the same, whatever is broken, cut or killed."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ulmpipe import durable
from ulmpipe.durable import MANIFEST, STAGING_PREFIX
from ulmpipe.errors import SourceError, StoreError
from vision import store
from vision.data import usable
from vision.decode import decode
from vision.source import Plan, find_source
from vision.store import CachedPictures, StreamedPictures, open_pictures

from .pictures import colours, encode, encoded, pixels_of, png, write_classes

SIDE = 10
PIXELS = "pixels.bin"


def plan_of(folder: Path) -> Plan:
    plan = find_source(str(folder))
    assert plan is not None
    return plan


def cached(plan: Plan, beside: Path, side: int = SIDE, workers: int = 1) -> CachedPictures:
    pictures = open_pictures(plan, "pets", side, beside, workers=workers, cache="always")
    assert isinstance(pictures, CachedPictures)
    return pictures


def write_table(path: Path, pictures: list[bytes | None], row_group_size: int = 2) -> Path:
    pq.write_table(pa.table({"image": pictures, "label": [n % 2 for n in range(len(pictures))]}), path, row_group_size)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder of 4 cats and 3 dogs; a cat and a dog are broken."""
    folder = write_classes(tmp_path / "pets", {"cat": 4, "dog": 3})
    (folder / "cat" / "01.png").write_bytes(png(1)[:60])
    (folder / "dog" / "02.png").write_bytes(b"")
    return folder


BROKEN, WHOLE = [1, 6], [0, 2, 3, 4, 5]


@pytest.fixture(params=["folder", "table"])
def plan(request: pytest.FixtureRequest, pets: Path, tmp_path: Path) -> Plan:
    """The same pictures as files and as a table of four row groups."""
    if request.param == "folder":
        return plan_of(pets)
    return plan_of(write_table(tmp_path / "pets.parquet", encoded(plan_of(pets))))


# ---- what is stored -------------------------------------------------------------------------------------------------


def test_what_is_stored_is_what_is_decoded(tmp_path: Path, plan: Plan):
    pictures, data = cached(plan, tmp_path / "kept"), encoded(plan)
    assert pictures.names == plan.names and pictures.classes == plan.classes and pictures.side == SIDE
    assert np.array_equal(pictures.labels, plan.labels) and pictures.labels.dtype == np.int64
    assert pictures.pixels.shape == (7, SIDE, SIDE, 3) and pictures.pixels.dtype == np.uint8
    for record in WHOLE:
        assert np.array_equal(pictures.pixels[record], decode(data[record] or b"", SIDE))


def test_broken_pictures_are_listed_with_their_reasons_and_left_out(tmp_path: Path, plan: Plan):
    pictures = cached(plan, tmp_path / "kept")
    assert list(pictures.quarantined) == BROKEN
    assert pictures.quarantined[1].startswith("damaged: ") and pictures.quarantined[6] == "the file is empty"
    assert usable(pictures).tolist() == WHOLE
    ((records, pixels),) = pictures.read([np.arange(7)])
    assert records.tolist() == WHOLE and np.array_equal(pixels, pictures.pixels[WHOLE])


@pytest.mark.parametrize("batches", [[range(7)], [[6, 0, 3], [1], [2, 2, 5]], [[]], []])
def test_streamed_pictures_are_those_that_are_cached(tmp_path: Path, plan: Plan, batches: list[list[int]]):
    asked = [np.array(records, np.int64) for records in batches]
    ref, comp = cached(plan, tmp_path / "kept"), StreamedPictures(plan, SIDE, workers=1)
    for (ref_records, ref_pixels), (records, pixels) in zip(ref.read(asked), comp.read(asked), strict=True):
        assert np.array_equal(records, ref_records)
        assert np.array_equal(pixels, ref_pixels) and pixels.shape == (len(records), SIDE, SIDE, 3)
    seen = {record for records in batches for record in records}
    assert comp.quarantined == {record: why for record, why in ref.quarantined.items() if record in seen}


def test_any_number_of_workers_and_units_gives_the_same_bytes(
    tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch
):
    ref = cached(plan_of(pets), tmp_path / "one")
    monkeypatch.setattr("vision.source.UNIT_PICTURES", 2)
    plan = plan_of(pets)
    comp = cached(plan, tmp_path / "two", workers=2)
    assert len(plan.units) == 4
    for name in (PIXELS, "pictures.json"):
        assert (comp.folder / name).read_bytes() == (ref.folder / name).read_bytes()
    assert np.array_equal(pixels_of(StreamedPictures(plan, SIDE, workers=2)), ref.pixels[WHOLE])


def test_reading_may_stop_early(pets: Path):
    streamed = StreamedPictures(plan_of(pets), SIDE, workers=1)
    batches: Iterator[Any] = iter(streamed.read([np.array([n]) for n in (0, 2, 3)]))
    assert next(batches)[0].tolist() == [0]
    assert np.array_equal(pixels_of(streamed, [3])[0], decode((pets / "cat/03.png").read_bytes(), SIDE))


def test_a_missing_picture_is_quarantined(tmp_path: Path, pets: Path):
    plan = plan_of(pets)
    (pets / "cat" / "00.png").unlink()
    assert cached(plan, tmp_path / "kept").quarantined[0] == "it can't be read"
    streamed = StreamedPictures(plan, SIDE, workers=1)
    assert len(pixels_of(streamed)) == 4 and "No such file" in streamed.quarantined[0]
    table = write_table(tmp_path / "a.parquet", [None, png()])
    assert cached(plan_of(table), tmp_path / "kept").quarantined == {0: "it can't be read"}


def test_where_all_are_broken_there_is_no_store(tmp_path: Path):
    plan = plan_of(write_table(tmp_path / "a.parquet", [b"x", b""]))
    with pytest.raises(SourceError, match="not one of 2 pictures can be decoded: no picture"):
        cached(plan, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_names_that_are_no_utf8_can_be_stored(tmp_path: Path):
    folder = tmp_path / "pets" / os.fsdecode(b"l\xe9")
    folder.mkdir(parents=True)
    (folder / os.fsdecode(b"\xff.png")).write_bytes(png())
    assert cached(plan_of(tmp_path / "pets"), tmp_path / "kept").names == ["l\\udce9/\\udcff.png"]


# ---- how large ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "side"), [(160, 30), (30, 30), (20, 20)])
@pytest.mark.parametrize("cache", ["always", "never"])
def test_nothing_is_kept_larger_than_it_came(tmp_path: Path, asked: int, side: int, cache: str):
    (tmp_path / "pets").mkdir()
    for n, size in enumerate([(12, 12), (40, 30), (8, 90)]):
        (tmp_path / "pets" / f"{n}.png").write_bytes(encode(colours(*size)))
    pictures = open_pictures(plan_of(tmp_path / "pets"), "pets", asked, tmp_path / "kept", workers=1, cache=cache)
    assert pictures.side == side and pixels_of(pictures).shape == (3, side, side, 3)


def test_broken_pictures_have_no_say_in_the_size(tmp_path: Path):
    plan = plan_of(write_table(tmp_path / "a.parquet", [png(), b"x", None]))
    assert cached(plan, tmp_path / "kept", side=160).side == 12


# ---- used again, or made again --------------------------------------------------------------------------------------


def test_what_was_decoded_is_used_again(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch):
    ref = cached(plan, tmp_path)
    monkeypatch.setattr(store, "decode_unit", None)  # calling it fails
    comp = cached(plan, tmp_path)
    assert comp.folder == ref.folder and np.array_equal(comp.pixels, ref.pixels)
    assert comp.quarantined == ref.quarantined and usable(comp).tolist() == WHOLE
    assert isinstance(open_pictures(plan, "pets", SIDE, tmp_path, cache="never"), CachedPictures)


def test_other_files_have_a_store_of_their_own(tmp_path: Path, pets: Path):
    folders = [cached(plan_of(pets), tmp_path / "kept").folder]
    os.utime(pets / "cat" / "00.png", ns=(1, 1))
    folders.append(cached(plan_of(pets), tmp_path / "kept").folder)
    (pets / "cat" / "00.png").write_bytes(png(77))
    folders.append(cached(plan_of(pets), tmp_path / "kept").folder)
    assert np.array_equal(CachedPictures(folders[-1]).pixels[0], decode(png(77), SIDE))
    (pets / "cat" / "00.png").rename(pets / "cat" / "0.png")
    folders.append(cached(plan_of(pets), tmp_path / "kept").folder)
    (pets / "cat").rename(pets / "cow")
    folders.append(cached(plan_of(pets), tmp_path / "kept").folder)
    folders.append(cached(plan_of(pets), tmp_path / "kept", side=8).folder)
    assert len(set(folders)) == len(folders) == 6
    assert cached(plan_of(pets), tmp_path / "kept").folder == folders[4]


def test_another_column_has_a_store_of_its_own(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [png(1), png(2)], "b": [png(3), png(4)], "x": [0, 1], "y": [1, 0]}), path)
    for image, label, seeds in [("a", "x", [1, 2]), ("b", "x", [3, 4]), ("a", "y", [1, 2])]:
        plan = find_source(str(path), image_column=image, label_column=label)
        assert plan is not None
        pictures = cached(plan, tmp_path / "kept")
        assert np.array_equal(pictures.pixels, [decode(png(seed), SIDE) for seed in seeds])
        assert pictures.labels.tolist() == ([0, 1] if label == "x" else [1, 0])


def test_killed_half_way_it_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def die(*task: Any) -> Any:
        done.append(real(*task))
        if len(done) == 2:  # as a kill would leave it
            (folder,) = (tmp_path / "kept").iterdir()
            shutil.copytree(folder, tmp_path / "killed" / folder.name)
            raise KeyboardInterrupt
        return done[-1]

    plan = plan_of(write_table(tmp_path / "a.parquet", [png(n) for n in range(6)]))
    done, real = [], store.decode_unit
    monkeypatch.setattr(store, "decode_unit", die)
    with pytest.raises(KeyboardInterrupt):
        cached(plan, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    (killed,) = (tmp_path / "killed").iterdir()
    assert not (killed / MANIFEST).exists() and list(killed.glob(f"{STAGING_PREFIX}*/{PIXELS}"))
    with pytest.raises(StoreError, match="did not finish"):
        CachedPictures(killed)
    monkeypatch.setattr(store, "decode_unit", real)
    pictures = cached(plan, tmp_path / "killed")
    assert pictures.folder == killed and not list(killed.glob(f"{STAGING_PREFIX}*"))
    assert np.array_equal(pictures.pixels, [decode(png(n), SIDE) for n in range(6)])


def test_a_second_run_waits_for_the_one_that_decodes(tmp_path: Path, pets: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "kept" / cached(plan_of(pets), tmp_path / "ref").folder.name
    with ThreadPoolExecutor() as pool:
        with durable.locked(folder):
            (folder / "held").touch()
            second = pool.submit(cached, plan_of(pets), tmp_path / "kept")
            time.sleep(0.5)
            assert not second.done()
        assert len(second.result().names) == 7
    assert capsys.readouterr().err.startswith("another run decodes these pictures: waiting for it")


def test_workers_are_of_a_pool_that_the_tokenizer_can_use_after_them(tmp_path: Path):
    """loky has one pool a process, and joblib fails on one that it did not make; nothing may have made one before."""
    code = """if True:
        import pathlib
        from ulmpipe.text.workers import run_calls
        from vision.store import in_workers
        print(list(in_workers(abs, [(-1,), (-2,)], 2)))
        print(sorted(run_calls(abs, [(-3,), (-4,)], workers=2, marks=pathlib.Path())))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "[1, 2]\n[3, 4]\n"


def test_workers_run_ahead_no_further_than_a_few_tasks():
    begun: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for number in range(100):
            begun.append(number)
            yield (-number,)

    results = store.in_workers(abs, tasks(), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.5)
    assert len(begun) <= 3 + 2 * store.READ_AHEAD
    assert list(results) == list(range(3, 100))


def test_tables_that_are_read_again_and_again_stay_within_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "many.parquet"
    pq.write_table(pa.table({"image": [png(k) for k in range(12)], "label": ["a", "b"] * 6}), path, row_group_size=3)
    plan = plan_of(path)
    ref = dict(pixels_of_all(StreamedPictures(plan, 8, 1)))
    monkeypatch.setattr(store, "MAX_ENCODED_BYTES", 1)
    small = StreamedPictures(plan, 8, 1)
    for record in (0, 11, 4, 5, 0, 7):
        ((_, pixels),) = small.read([np.array([record])])
        assert np.array_equal(pixels[0], ref[record]) and len(small.encoded) == 1


def pixels_of_all(pictures: store.Pictures) -> Iterator[tuple[int, np.ndarray]]:
    for records, pixels in pictures.read([np.arange(len(pictures.names))]):
        yield from zip(records.tolist(), pixels, strict=True)


def test_a_row_group_of_any_size_is_decoded_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "many.parquet"
    rows = [png(k) if k != 4 else b"broken" for k in range(11)]
    pq.write_table(pa.table({"image": rows, "label": ["a", "b"] * 5 + ["a"]}), path)
    ref = cached(plan_of(path), tmp_path / "ref")
    monkeypatch.setattr(store, "UNIT_PICTURES", 3)
    comp = cached(plan_of(path), tmp_path / "comp")
    assert (
        np.array_equal(comp.pixels, ref.pixels) and comp.quarantined == ref.quarantined and list(ref.quarantined) == [4]
    )


@pytest.mark.parametrize("name", [PIXELS, "pictures.json"])
def test_a_damaged_store_is_refused(tmp_path: Path, pets: Path, name: str):
    path = cached(plan_of(pets), tmp_path / "kept").folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(StoreError, match=f"{name} has .* bytes, expected .*: it was truncated or altered"):
        cached(plan_of(pets), tmp_path / "kept")
    path.unlink()
    with pytest.raises(StoreError, match=f"{name} is missing"):
        cached(plan_of(pets), tmp_path / "kept")


@pytest.mark.parametrize("change", [{"side": "10"}, {"names": None}, {"names": ["a"]}, {"side": 11}, {"labels": [0]}])
def test_an_altered_list_of_pictures_is_refused(tmp_path: Path, pets: Path, change: dict[str, Any]):
    folder = cached(plan_of(pets), tmp_path / "kept").folder
    text = json.dumps(json.loads((folder / "pictures.json").read_text()) | change)
    (folder / "pictures.json").write_text(text)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["pictures.json"]["bytes"] = len(text)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="altered"):
        CachedPictures(folder)


# ---- cached or streamed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "free", "kind"),
    [("never", 10**9, StreamedPictures), ("always", 0, CachedPictures), ("auto", 10**9, CachedPictures),
     ("auto", 2 * 7 * SIDE * SIDE * 3, CachedPictures), ("auto", 2 * 7 * SIDE * SIDE * 3 - 2, StreamedPictures)],
)  # fmt: skip
def test_cache_is_as_asked_or_as_the_disk_allows(
    tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch, cache: str, free: int, kind: type
):
    monkeypatch.setattr(store.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    pictures = open_pictures(plan_of(pets), "pets", SIDE, tmp_path / "not" / "yet", workers=1, cache=cache)
    assert type(pictures) is kind and len(pixels_of(pictures)) == 5
    assert (tmp_path / "not").exists() == (kind is CachedPictures)
