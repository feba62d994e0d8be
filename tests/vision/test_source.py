"""A source of any form gives the same pictures with the same labels, in the same order, or says what it expected."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ulmpipe.errors import SourceError
from vision.decode import decode
from vision.source import UNIT_PICTURES, Plan, find_source, source_name

from .pictures import encoded, labelled, png, write_classes

N = 7
PICTURES = [png(seed) for seed in range(N)]
LABELS = [0, 1, 2, 0, 1, 2, 1]
CLASSES = ["cat", "dog", "newt"]
FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})


def found(source: Path | str, split: str = "train", **columns: str) -> Plan:
    plan = find_source(str(source), split, **columns)
    assert plan is not None
    assert [unit.first for unit in plan.units] == [0, *np.cumsum([unit.n for unit in plan.units])[:-1]]
    assert sum(unit.n for unit in plan.units) == len(plan.names) == len(plan.labels)
    return plan


def structs(pictures: list[bytes | None]) -> pa.Array:
    return pa.array([data and {"bytes": data, "path": f"{n}.png"} for n, data in enumerate(pictures)])


def table(**columns: Any) -> pa.Table:
    return pa.table({"image": structs([*PICTURES]), "label": LABELS} | columns)


def named_table() -> pa.Table:
    """As `datasets` writes it: the names of the classes are in the schema."""
    return table().cast(FEATURES.arrow_schema)


def write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=3)


def write_stream(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_file(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


FORMS: dict[str, Callable[[Path, pa.Table], None]] = {
    "a.parquet": write_parquet,
    "stream.arrow": write_stream,
    "file.arrow": write_file,
}


# ---- folders --------------------------------------------------------------------------------------------------------


def test_class_folders(tmp_path: Path):
    write_classes(tmp_path, {"dog": 2, "cat": 3})
    plan = found(tmp_path)
    assert plan.names == ["cat/00.png", "cat/01.png", "cat/02.png", "dog/00.png", "dog/01.png"]
    assert plan.classes == ["cat", "dog"] and labelled(plan) == ["cat"] * 3 + ["dog"] * 2
    assert encoded(plan) == [png(3), png(4), png(5), png(1), png(2)]
    assert find_source(str(tmp_path), "valid") is None


@pytest.mark.parametrize(("train", "valid"), [("train", "val"), ("training", "validation"), ("train", "test")])
def test_class_folders_below_splits(tmp_path: Path, train: str, valid: str):
    write_classes(tmp_path / train, {"a": 2, "b": 1})
    write_classes(tmp_path / valid, {"a": 1, "b": 1}, seed=9)
    assert found(tmp_path).names == ["a/00.png", "a/01.png", "b/00.png"]
    assert found(tmp_path, "valid").names == ["a/00.png", "b/00.png"]
    assert encoded(found(tmp_path, "valid")) == [png(10), png(11)]


def test_val_goes_before_test(tmp_path: Path):
    for split, n in {"train": 1, "test": 3, "val": 2}.items():
        write_classes(tmp_path / split, {"a": n})
    assert len(found(tmp_path, "valid").names) == 2


def test_a_source_with_a_validation_split_alone_has_no_training_split(tmp_path: Path):
    write_classes(tmp_path / "val", {"a": 1, "b": 1})
    assert find_source(str(tmp_path), "train") is None


def test_folders_are_classes_at_the_first_level_however_deep_a_picture_lies(tmp_path: Path):
    write_classes(tmp_path, {"a/x/y": 1, "a": 1, "b": 1})
    plan = found(tmp_path)
    assert plan.names == ["a/00.png", "a/x/y/00.png", "b/00.png"] and labelled(plan) == ["a", "a", "b"]


def test_pictures_in_no_folder_have_no_label(tmp_path: Path):
    write_classes(tmp_path, {".": 3})
    plan = found(tmp_path)
    assert plan.labels.tolist() == [-1] * 3 and plan.classes == []
    write_classes(tmp_path, {"a": 1})
    assert labelled(found(tmp_path)) == [None, None, None, "a"]


def test_hidden_and_other_files_are_no_pictures_and_no_classes(tmp_path: Path):
    write_classes(tmp_path, {"a": 1, "b": 1, ".ipynb_checkpoints": 1, "a/.git": 1, "empty": 0})
    (tmp_path / "a" / "._00.png").write_bytes(b"\0")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.txt").touch()
    os.mkfifo(tmp_path / "b" / "pipe.png")
    os.symlink("nowhere.png", tmp_path / "b" / "broken.png")
    (tmp_path / "b" / "folder.png").mkdir()
    plan = found(tmp_path)
    assert plan.names == ["a/00.png", "b/00.png"] and plan.classes == ["a", "b"]


def test_a_loop_of_links_ends(tmp_path: Path):
    write_classes(tmp_path, {"a": 1, "b": 1})
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    os.symlink(tmp_path / "a" / "00.png", tmp_path / "b" / "linked.png")
    assert found(tmp_path).names == ["a/00.png", "b/00.png", "b/linked.png"]


def test_endings_of_any_case_and_kind(tmp_path: Path):
    (tmp_path / "a").mkdir()
    for name in ["1.JPG", "2.jpeg", "3.Png", "4.webp", "5.tif", "6.gif", "7.bmp"]:
        (tmp_path / "a" / name).write_bytes(png())
    assert len(found(tmp_path).names) == 7


def test_names_that_are_no_utf8_are_escaped(tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"l\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.png")).write_bytes(png())
    plan = found(tmp_path)
    assert plan.names == ["l\\udce9/\\udcff.png"] and plan.classes == ["l\\udce9"]
    assert encoded(plan) == [png()]


def test_a_large_folder_is_cut_into_units_in_order(tmp_path: Path):
    (tmp_path / "a").mkdir()
    for n in range(2 * UNIT_PICTURES + 3):
        (tmp_path / "a" / f"{n:04}.png").write_bytes(str(n).encode())
    plan = found(tmp_path)
    assert [unit.n for unit in plan.units] == [UNIT_PICTURES, UNIT_PICTURES, 3]
    assert encoded(plan) == [str(n).encode() for n in range(len(plan.names))]


def test_a_file_that_vanished_is_none(tmp_path: Path):
    plan = found(write_classes(tmp_path, {"a": 2}))
    (tmp_path / "a" / "00.png").unlink()
    assert encoded(plan) == [None, png(2)]


def test_a_folder_without_pictures_says_what_it_looks_for(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").touch()
    with pytest.raises(SourceError, match=r"holds no pictures: expected a folder for each class, with \.jpg"):
        find_source(str(tmp_path))


# ---- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_tables_give_back_their_rows(tmp_path: Path, form: str):
    FORMS[form](tmp_path / form, table())
    plan = found(tmp_path / form)
    assert encoded(plan) == PICTURES and plan.labels.tolist() == LABELS and plan.classes == ["0", "1", "2"]
    assert plan.names == [f"{n}.png" for n in range(N)]
    assert [unit.n for unit in plan.units] == [3, 3, 1]
    assert find_source(str(tmp_path / form), "valid") is None


@pytest.mark.parametrize("form", FORMS)
def test_class_names_of_a_datasets_schema(tmp_path: Path, form: str):
    FORMS[form](tmp_path / form, named_table())
    plan = found(tmp_path / form)
    assert plan.classes == CLASSES and plan.labels.tolist() == LABELS and encoded(plan) == PICTURES


@pytest.mark.parametrize("form", FORMS)
def test_binary_pictures_and_labels_of_text(tmp_path: Path, form: str):
    labels = ["b", "a", None, "b", "é", "a", "b"]
    FORMS[form](tmp_path / form, table(image=PICTURES, label=labels))
    plan = found(tmp_path / form)
    assert encoded(plan) == PICTURES and labelled(plan) == labels and plan.classes == ["a", "b", "é"]
    assert plan.names[4:] == [f"{form}[4]", f"{form}[5]", f"{form}[6]"]


@pytest.mark.parametrize("labels", [[3, 10, 7, 3, 3, 3, 3], [False, True, True, False, True, True, True]])
def test_labels_that_are_numbers_are_put_in_order(tmp_path: Path, labels: list[int]):
    write_parquet(tmp_path / "a.parquet", table(label=labels))
    plan = found(tmp_path / "a.parquet")
    assert plan.classes == [str(label) for label in sorted(set(labels))]
    assert labelled(plan) == [str(label) for label in labels]


@pytest.mark.parametrize("form", FORMS)
def test_null_pictures_and_null_labels(tmp_path: Path, form: str):
    pictures, labels = [None, *PICTURES[1:6], None], [0, None, 2, 0, None, 2, 1]
    FORMS[form](tmp_path / form, table(image=structs(pictures), label=labels).cast(FEATURES.arrow_schema))
    plan = found(tmp_path / form)
    assert encoded(plan) == pictures and plan.labels.tolist() == [0, -1, 2, 0, -1, 2, 1]


def test_a_struct_without_bytes_is_read_from_its_path(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(5))
    paths = [str(tmp_path / "a.png"), str(tmp_path / "gone.png"), "nu\0ll.png", "", None, str(tmp_path), "a"]
    image = pa.array([{"bytes": None, "path": path} for path in paths], pa.struct({"bytes": pa.binary(), "path": pa.string()}))  # fmt: skip
    write_parquet(tmp_path / "a.parquet", table(image=image))
    assert encoded(found(tmp_path / "a.parquet")) == [png(5), *[None] * 6]


def test_large_binary_and_a_table_without_labels(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", pa.table({"img": pa.array(PICTURES, pa.large_binary())}))
    plan = found(tmp_path / "a.parquet")
    assert encoded(plan) == PICTURES and plan.labels.tolist() == [-1] * N and plan.classes == []


def test_a_column_called_digits_holds_the_pictures_of_its_table(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", pa.table({"digits": PICTURES}))
    assert encoded(found(tmp_path / "a.parquet", image_column="digits")) == PICTURES


def test_columns_of_other_names_are_asked_for(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", pa.table({"photo": PICTURES, "breed": LABELS, "label": [1] * N}))
    plan = found(tmp_path / "a.parquet", image_column="photo", label_column="breed")
    assert encoded(plan) == PICTURES and plan.labels.tolist() == LABELS
    with pytest.raises(
        SourceError, match="has columns photo, breed, label, expected image: name it with --image-column"
    ):
        find_source(str(tmp_path / "a.parquet"))
    with pytest.raises(SourceError, match="expected race: name it with --label-column"):
        find_source(str(tmp_path / "a.parquet"), image_column="photo", label_column="race")


def test_shards_and_splits_of_a_folder_of_tables(tmp_path: Path):
    write_parquet(tmp_path / "train-00001-of-00002.parquet", named_table()[4:])
    write_parquet(tmp_path / "train-00000-of-00002.parquet", named_table()[:4])
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", named_table()[2:5])
    (tmp_path / "README.md").touch()
    assert encoded(found(tmp_path)) == PICTURES and found(tmp_path).labels.tolist() == LABELS
    assert encoded(found(tmp_path, "valid")) == PICTURES[2:5] and found(tmp_path, "valid").classes == CLASSES


def test_rows_are_counted_in_their_own_shard(tmp_path: Path):
    for n in range(2):
        write_parquet(tmp_path / f"train-0000{n}.parquet", table(image=PICTURES))
    assert found(tmp_path).names[N - 1 : N + 4] == [
        "train-00000.parquet[6]", "train-00001.parquet[0]", "train-00001.parquet[1]", "train-00001.parquet[2]", "train-00001.parquet[3]"
    ]  # fmt: skip


def test_tables_of_any_name_are_all_for_training(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", table()[:3])
    write_stream(tmp_path / "b.arrow", table()[3:])
    assert encoded(found(tmp_path)) == PICTURES and find_source(str(tmp_path), "valid") is None


def test_what_datasets_saves_to_disk(tmp_path: Path):
    dataset = datasets.Dataset.from_dict({"image": [{"bytes": data} for data in PICTURES], "label": LABELS}, FEATURES)
    dataset.save_to_disk(tmp_path / "saved")
    plan = found(tmp_path / "saved")
    assert encoded(plan) == PICTURES and plan.classes == CLASSES and plan.labels.tolist() == LABELS


def test_a_label_beyond_the_named_classes_is_refused(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", table(label=[3] * N).cast(FEATURES.arrow_schema))
    with pytest.raises(SourceError, match="a label is 3, and the table names 3 classes only"):
        find_source(str(tmp_path / "a.parquet"))


def test_labels_that_are_lists_are_refused(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", table(label=[[1, 2]] * N))
    with pytest.raises(SourceError, match="column label holds list.*expected numbers or text"):
        find_source(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("form", FORMS)
def test_a_table_without_rows_is_refused(tmp_path: Path, form: str):
    FORMS[form](tmp_path / form, table()[:0])
    with pytest.raises(SourceError, match="has no rows"):
        find_source(str(tmp_path / form))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("content", [b"", b"no table", b"PAR1" * 9, b"ARROW1\0\0" * 4, None])
def test_a_damaged_table_is_named(tmp_path: Path, form: str, content: bytes | None):
    if content is None:
        FORMS[form](tmp_path / form, table())
        content = (tmp_path / form).read_bytes()[:-900]
    (tmp_path / form).write_bytes(content)
    with pytest.raises(SourceError, match=f"{form} is no (parquet|arrow) file, or it is damaged: .") as caught:
        find_source(str(tmp_path / form))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["label", "image"])
def test_damage_within_a_parquet_file_is_named(tmp_path: Path, column: str):
    path = tmp_path / "a.parquet"
    pq.write_table(table(label=list(range(N)), image=PICTURES), path, compression="NONE", use_dictionary=False)
    at = pq.read_metadata(path).row_group(0).column(int(column == "label")).data_page_offset
    data = bytearray(path.read_bytes())
    data[at : at + 20] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(SourceError, match="a.parquet is no parquet file, or it is damaged: ."):
        encoded(found(path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "a.zip").touch()
    with pytest.raises(SourceError, match=r"a.zip is no table of pictures: expected \.parquet or \.arrow, or a folder"):
        find_source(str(tmp_path / "a.zip"))


def test_another_file_or_another_column_gives_another_stamp(tmp_path: Path):
    path = tmp_path / "a.parquet"
    write_parquet(path, pa.table({"a": PICTURES, "b": PICTURES[::-1], "x": LABELS, "y": LABELS[::-1]}))
    plans = [found(path, image_column=image, label_column=label) for image in "ab" for label in "xy"]
    assert len({str(plan.stamp) for plan in plans}) == 4 and len({str(plan.classes) for plan in plans}) == 1
    os.utime(path, ns=(0, 0))
    assert found(path, image_column="a", label_column="x").stamp != plans[0].stamp


@pytest.mark.parametrize(
    ("source", "name"),
    [("pets", "pets"), ("a/b/pets/", "pets"), ("a/train.parquet", "train"), ("/", "pictures"), (".", "pictures")],
)
def test_source_name(source: str, name: str):
    assert source_name(source) == name


@pytest.mark.data
def test_imagenette(data: Path):
    train, valid = found("imagenette"), found(data / "imagenette160", "valid")
    assert (len(train.names), len(valid.names)) == (9_469, 3_925)
    assert train.classes == valid.classes and len(train.classes) == 10 and train.classes[0] == "n01440764"
    assert set(train.labels) == set(valid.labels) == set(range(10))
    (first, *_) = train.units[0].read()
    assert first is not None and decode(first, 160).shape == (160, 160, 3)
