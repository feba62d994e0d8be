"""Names of sets of pictures: looked up under $ULMPIPE_DATA, at scikit-learn, on the hub, and nowhere else."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ulmpipe.errors import SourceError
from vision.decode import decode
from vision.named import NAMES, digits
from vision.source import Plan, find_source

from .pictures import encoded, png, write_classes


def found(source: str, split: str = "train") -> Plan:
    plan = find_source(source, split)
    assert plan is not None
    return plan


@pytest.mark.parametrize("folder", ["pets", "pets160"])
def test_a_name_is_looked_up_under_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str):
    monkeypatch.setenv("ULMPIPE_DATA", str(tmp_path))
    write_classes(tmp_path / folder / "train", {"a": 2, "b": 2})
    write_classes(tmp_path / folder / "val", {"a": 1, "b": 1})
    assert len(found("pets").names) == 4 and len(found("pets", "valid").names) == 2


@pytest.mark.parametrize("root", [None, "", "/nonexistent"])
def test_an_unknown_name_lists_the_known(monkeypatch: pytest.MonkeyPatch, root: str | None):
    monkeypatch.delenv("ULMPIPE_DATA", raising=False)
    if root is not None:
        monkeypatch.setenv("ULMPIPE_DATA", root)
    with pytest.raises(SourceError, match=f"petz does not exist and is no name: .*{', '.join(NAMES)}"):
        find_source("petz")


@pytest.mark.parametrize("name", ["../outside", "sub/../../outside", ".hidden", "sub/pets", "..outside"])
def test_a_name_leads_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    for folder in ("outside", "data/.hidden", "data/sub/pets", "data/..outside"):
        write_classes(tmp_path / folder, {"a": 1, "b": 1})
    monkeypatch.setenv("ULMPIPE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "data" / "sub" / "pets")
    with pytest.raises(SourceError, match="is no name"):
        find_source(name)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    ref: Any = load_digits()
    plan = found("digits")
    assert len(plan.names) == 1797 and plan.classes == list("0123456789")
    assert np.array_equal(plan.labels, ref.target) and find_source("digits", "valid") is None
    for data, values in list(zip(digits()[0], ref.images, strict=True))[::300]:
        assert np.array_equal(decode(data, 8)[..., 0], (values * (255 / 16)).round())


@pytest.mark.parametrize("reason", ["no network\nfor several reasons", ""])
def test_a_hub_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, reason: str):
    def fail(*args: Any, **options: Any) -> None:
        raise ConnectionError(reason)

    monkeypatch.delenv("ULMPIPE_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(SourceError, match=rf"\({reason[:10] or 'ConnectionError'}\): put train.parquet") as caught:
        find_source("cifar10")
    assert "\n" not in str(caught.value)


def test_what_the_hub_gives_is_read_like_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def load(kind: str, **options: Any) -> datasets.Dataset:
        asked.append(options)
        return real(
            kind, data_files={"train": str(tmp_path / "a.parquet")}, split="train", cache_dir=str(tmp_path / "c")
        )

    real: Any = datasets.load_dataset
    pictures = [png(seed) for seed in range(3)]
    columns = {"image": [{"bytes": data, "path": "a.png"} for data in pictures], "label": ["cat", "dog", "cat"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    monkeypatch.delenv("ULMPIPE_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    plan = found("pets", "valid")
    assert encoded(plan) == pictures and plan.classes == ["cat", "dog"] and plan.labels.tolist() == [0, 1, 0]
    assert asked[0]["data_files"] == {"valid": "hf://datasets/timm/oxford-iiit-pet@~parquet/default/test/*.parquet"}
