"""Units that are done are known again, to the byte, and what was half written is not."""

from pathlib import Path

import pytest

from ulmpipe.durable import DONE_PREFIX, describe_file
from ulmpipe.text.done import LINES, done_folder, forget_done, keep, n_kept, read_done
from ulmpipe.text.pieces import Quarantined
from ulmpipe.text.shards import UnitRecord


def record_of(stage: Path, index: int, content: bytes = b"ids") -> UnitRecord:
    stage.mkdir(exist_ok=True)
    path = stage / f"unit-{index:05d}.arrow"
    path.write_bytes(content)
    quarantined = [Quarantined("a\nb", "ünreadable", 7)]
    return UnitRecord(index, 3, 40, 200, {"pos", "neg"}, quarantined, 9, 1, ["c"], ["d"], {path.name: describe_file(path)})  # fmt: skip


def test_records_come_back_as_they_were(tmp_path: Path):
    given = {index: record_of(tmp_path / "stage", index) for index in (3, 0, 12)}
    for record in given.values():
        keep(tmp_path, tmp_path / "stage", record)
    assert read_done(tmp_path) == given and list((tmp_path / "stage").iterdir()) == []


def test_nothing_is_done_at_first(tmp_path: Path):
    assert read_done(tmp_path) == {}


def test_a_line_that_was_cut_off_costs_its_unit_and_no_other(tmp_path: Path):
    for index in range(3):
        keep(tmp_path, tmp_path / "stage", record_of(tmp_path / "stage", index))
    whole = (tmp_path / LINES).read_bytes()
    last = whole.rindex(b"\n")
    for length in range(last, len(whole)):
        (tmp_path / LINES).write_bytes(whole[:length])
        assert sorted(read_done(tmp_path)) == [0, 1]
    keep(tmp_path, tmp_path / "stage", record_of(tmp_path / "stage", 2))
    assert sorted(read_done(tmp_path)) == [0, 1, 2]


@pytest.mark.parametrize("content", [b"idz", b"id", b""])
def test_files_that_are_not_as_they_were_said_to_be_are_made_again(tmp_path: Path, content: bytes):
    keep(tmp_path, tmp_path / "stage", record_of(tmp_path / "stage", 1))
    (tmp_path / "unit-00001.arrow").write_bytes(content)
    assert read_done(tmp_path) == {}


def test_names_that_lead_elsewhere_are_none(tmp_path: Path):
    (tmp_path / "secret").write_bytes(b"x")
    record = UnitRecord(0, files={"../secret": describe_file(tmp_path / "secret")})
    (tmp_path / "done").mkdir()
    keep_line = record_of(tmp_path / "stage", 0)
    keep(tmp_path / "done", tmp_path / "stage", keep_line)
    text = (tmp_path / "done" / LINES).read_text()
    (tmp_path / "done" / LINES).write_text(text.replace("unit-00000.arrow", next(iter(record.files))))
    assert read_done(tmp_path / "done") == {}


def test_folders_of_other_stores_are_removed(tmp_path: Path):
    first, second = (done_folder(tmp_path, key * 64) for key in "ab")
    for folder in (first, second):
        folder.mkdir()
        (folder / "unit").touch()
    assert first.name.startswith(DONE_PREFIX) and first != second
    forget_done(tmp_path, but=first)
    assert first.exists() and not second.exists()
    forget_done(tmp_path)
    assert not first.exists()


@pytest.mark.parametrize("line", [b"7", b"{}", b'{"index": 0}', b"[]", b'"x"', b"\xff", b'{"index": 0, "quarantined": [], "labels": [], "more": 1}'])  # fmt: skip
def test_lines_that_are_not_ours_are_none(tmp_path: Path, line: bytes):
    (tmp_path / LINES).write_bytes(b"\n" + line)
    assert read_done(tmp_path) == {}


def test_a_unit_of_which_a_file_changed_is_read_again(tmp_path: Path):
    record = record_of(tmp_path / "stage", 1)
    record.changed = True
    keep(tmp_path, tmp_path / "stage", record)
    assert read_done(tmp_path) == {} and n_kept(tmp_path) == 0 and (tmp_path / "unit-00001.arrow").exists()
