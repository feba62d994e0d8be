"""A store is there whole or not at all, whenever a run ends: the manifest comes last, and what an older one leaves goes."""

from pathlib import Path

import pytest
from learnable import contents

from ulmpipe.config import TokenizeConfig
from ulmpipe.durable import MANIFEST
from ulmpipe.tasks import publish, units
from ulmpipe.tasks.tokenize import tokenize, tokenize_plan
from ulmpipe.text.source import plan_folder
from ulmpipe.text.store import TokenStore

STORE_FILES = {"shard-00000.arrow", "vocab.json", "manifest.json", "dataset_info.json", "state.json"}


def test_result_folder_holds_a_store_and_nothing_else(reviews: Path, tmp_path: Path):
    tokenize(reviews, tmp_path / "out", workers=1)
    assert set(contents(tmp_path / "out")) == STORE_FILES


def test_smaller_store_leaves_no_shard_of_the_larger(reviews: Path, tmp_path: Path):
    tokenize_plan(plan_folder(reviews, unit_bytes=60), tmp_path / "out", TokenizeConfig(workers=1))
    assert len(list((tmp_path / "out").glob("shard-*"))) > 1
    tokenize(reviews, tmp_path / "out", workers=1)
    assert set(contents(tmp_path / "out")) == STORE_FILES


def test_interrupted_run_leaves_the_old_store(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tokenize(reviews, tmp_path / "out", workers=1)
    ref = contents(tmp_path / "out")
    monkeypatch.setattr(units, "number_unit", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tokenize(reviews, tmp_path / "out", workers=1, rules="course")
    assert contents(tmp_path / "out") == ref


def test_run_interrupted_while_it_published_works_again(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write_json(path: Path, value: object) -> None:
        if path.name == MANIFEST:
            raise KeyboardInterrupt
        real_write_json(path, value)

    real_write_json = publish.write_json
    tokenize(reviews, tmp_path / "out", workers=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(publish, "write_json", write_json)
        tokenize(reviews, tmp_path / "out", workers=1, rules="course")
    assert set(contents(tmp_path / "out")) == STORE_FILES - {MANIFEST}
    assert not tokenize(reviews, tmp_path / "out", workers=1).reused
    assert TokenStore(tmp_path / "out").n_docs == 11
