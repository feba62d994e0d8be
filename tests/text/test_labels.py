"""A cell's label, or its labels: nothing, none of the classes and some of them are three things, all the way to arrays."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ulmpipe.errors import ConfigError, SourceError, StoreError
from ulmpipe.tasks.tokenize import tokenize
from ulmpipe.text.labels import is_labelled, label_matrix, label_names, label_value, read_label, split_labels
from ulmpipe.text.pieces import Columns
from ulmpipe.text.store import TokenStore

SEVERAL = Columns(separator="|")


@pytest.mark.parametrize(
    ("value", "ref"),
    [(None, None), ("", None), (-1, "-1"), (0, "0"), (1, "1"), ("pos", "pos"), ("-1", "-1"), (True, "True"), (False, "False")],
)  # fmt: skip
def test_label_value_table(value: object, ref: str | None):
    assert label_value(value) == ref


@pytest.mark.parametrize(("value", "ref"), [(float("nan"), None), (1.0, "1"), (2.5, "2.5")])
def test_label_value_of_floats_that_were_integers_with_gaps(value: float, ref: str | None):
    assert label_value(value) == ref


@pytest.mark.parametrize(
    ("value", "ref"),
    [
        ("a", ["a"]),
        ("b|a", ["a", "b"]),
        (" b | a |a|| ", ["a", "b"]),
        ("", []),
        ("|", []),
        ("a;b", ["a;b"]),
        ('["b", "a|c"]', ["a|c", "b"]),
        ("[]", []),
        ("[sic]", ["[sic]"]),
        (["b", "a", "a"], ["a", "b"]),
        ([], []),
        ([None, "a", 2.0], ["2", "a"]),
        (3, ["3"]),
        (None, None),
        (float("nan"), None),
    ],
)
def test_split_labels_table(value: object, ref: list[str] | None):
    assert split_labels(value, "|") == ref
    label = read_label(value, SEVERAL)
    assert (label is None) == (ref is None) and label_names(label, SEVERAL) == (ref or [])


def test_one_label_is_carried_as_it_is():
    assert read_label("a|b", Columns()) == "a|b" and label_names("a|b", Columns()) == ["a|b"]
    assert label_names(None, Columns()) == label_names(None, SEVERAL) == []


def test_list_where_one_label_was_expected_is_refused():
    with pytest.raises(SourceError, match=r"column 'tags' holds a list \(\['a'\]\), expected one label a document: --multi-label"):  # fmt: skip
        read_label(["a"], Columns(label="tags"))


def test_label_matrix_tells_none_from_nothing():
    values, offsets = np.array([0, 2, 1]), np.array([0, 2, 2, 2, 3])
    comp = label_matrix(values, offsets, np.array([False, False, True, False]), 3)
    assert comp.tolist() == [[1, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 0]] and comp.dtype == np.int8
    assert is_labelled(comp).tolist() == [True, True, False, True]
    assert is_labelled(np.array([0, -1, 4])).tolist() == [True, False, True]


@pytest.mark.parametrize("value", [-1, 3])
def test_label_matrix_refuses_a_class_there_is_not(value: int):
    with pytest.raises(ValueError, match="expected 0 to 2"):
        label_matrix(np.array([value]), np.array([0, 1]), np.array([False]), 3)


# ---- to the store and back ------------------------------------------------------------------------------------------

CELLS: list[list[str] | None] = [["b", "a"], [], None, ["c"]]
REF = [[1, 1, 0], [0, 0, 0], [-1, -1, -1], [0, 0, 1]]


def write(folder: Path, form: str) -> Path:
    path = folder / f"a.{form}"
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(CELLS)]
    if form == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif form == "csv":  # a cell is never nothing: the third document has none of the classes
        path.write_text("text,label\n" + "".join(f"{row['text']},{'|'.join(row['label'] or [])}\n" for row in rows))
    else:
        table = pa.table({"text": [row["text"] for row in rows], "label": pa.array(CELLS, pa.list_(pa.string()))})
        pq.write_table(table, path)
    return path


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_store_of_several_labels(tmp_path: Path, form: str):
    result = tokenize(write(tmp_path, form), tmp_path / "out", workers=1, min_freq=1, multi_label=True)
    store = TokenStore(result.out)
    assert store.multi_label and store.labels == ["a", "b", "c"]
    assert store.doc_labels.tolist() == [row if form != "csv" else [max(0, n) for n in row] for row in REF]


def test_datasets_opens_a_store_of_several_labels(tmp_path: Path):
    out = tokenize(write(tmp_path, "jsonl"), tmp_path / "out", workers=1, multi_label=True).out
    comp: Any = datasets.load_from_disk(out)
    assert comp.features["label"] == datasets.List(datasets.ClassLabel(names=["a", "b", "c"]))
    assert list(comp["label"]) == [[0, 1], [], None, [2]]


def test_names_of_class_labels_in_lists_are_read(tmp_path: Path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=["x", "y"]))})  # fmt: skip
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [[1, 0], [], None]}, features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    store = TokenStore(tokenize(tmp_path / "a.parquet", tmp_path / "out", workers=1, multi_label=True).out)
    assert store.labels == ["x", "y"] and store.doc_labels.tolist() == [[1, 1], [0, 0], [-1, -1]]


def test_folders_are_labels_of_their_own(reviews: Path, tmp_path: Path):
    store = TokenStore(tokenize(reviews, tmp_path / "out", workers=1, multi_label=True).out)
    assert store.labels == ["neg", "pos"] and store.doc_labels.sum(axis=0).tolist() == [5, 6]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_lists_are_refused_without_multi_label(tmp_path: Path, form: str):
    with pytest.raises(SourceError, match="holds a list .*--multi-label"):
        tokenize(write(tmp_path, form), tmp_path / "out", workers=1)


def test_other_separator_makes_other_labels_and_another_fingerprint(tmp_path: Path):
    (tmp_path / "a.csv").write_text("text,label\none,a;b\ntwo,a\n")
    given: list[dict[str, Any]] = [{}, {"multi_label": True}, {"multi_label": True, "label_separator": ";"}]
    stores = [TokenStore(tokenize(tmp_path / "a.csv", tmp_path / f"out{i}", workers=1, **options).out) for i, options in enumerate(given)]  # fmt: skip
    assert [store.labels for store in stores] == [["a", "a;b"], ["a", "a;b"], ["a", "b"]]
    assert len({store.fingerprint for store in stores}) == 3
    assert [store.manifest.get("multi_label") for store in stores] == [None, True, True]
    with pytest.raises(ConfigError, match="--label-separator is '', expected a character such as"):
        tokenize(tmp_path / "a.csv", tmp_path / "out", multi_label=True, label_separator="")


def test_store_that_says_another_kind_of_labels_is_refused(tmp_path: Path):
    out = Path(tokenize(write(tmp_path, "csv"), tmp_path / "out", workers=1, multi_label=True).out)
    manifest = json.loads((out / "manifest.json").read_text())
    for change in ({"multi_label": False}, {"labels": ["a", "b"]}):
        (out / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(StoreError, match="is damaged: (its columns are|a label is 0 or 2, expected 0 to 1)"):
            _ = TokenStore(out).segments
