"""Units become shards: the same bytes from any number of workers, and nothing lost on the way."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fuzz import texts
from learnable import contents

from ulmpipe.config import TokenizeConfig
from ulmpipe.errors import ConfigError, EngineMismatchError, SourceError
from ulmpipe.tasks.tokenize import tokenize, tokenize_plan
from ulmpipe.text import shards
from ulmpipe.text.documents import Texts
from ulmpipe.text.engine import FastTokenizer
from ulmpipe.text.pieces import Columns
from ulmpipe.text.rules import Rules
from ulmpipe.text.shards import Job, merge_counts, number_unit, order_labels, tokenize_unit, verify_texts
from ulmpipe.text.source import plan_files, plan_folder
from ulmpipe.text.store import TokenStore
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe
from ulmpipe.text.vocab import Vocab, build_itos
from ulmpipe.text.warm import read


def read_all(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_stream(file).read_all()


@pytest.mark.parametrize(
    ("labels", "ref"),
    [
        (["10", "9", "0", "9"], ["0", "9", "10"]),
        (["pos", "neg"], ["neg", "pos"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["1", "01"], ["01", "1"]),
        ([], []),
    ],
)
def test_order_labels_table(labels: list[str], ref: list[str]):
    assert order_labels(labels) == order_labels(labels[::-1]) == ref


def test_one_and_two_workers_write_the_same_bytes(tmp_path: Path, rng: np.random.Generator):
    words = [f"word{i}" for i in range(60)] + ["The", "FILM", "don't", "<br />"]
    lines = [" ".join(rng.choice(words, 12)) for _ in range(120)]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{line},{i % 3}\n" for i, line in enumerate(lines)))
    plan = plan_files([tmp_path / "a.csv"], unit_bytes=2000)
    for workers in (1, 2):
        tokenize_plan(plan, tmp_path / f"out{workers}", TokenizeConfig(workers=workers))
    ref, comp = contents(tmp_path / "out1"), contents(tmp_path / "out2")
    assert len([name for name in ref if name.startswith("shard-")]) == len(plan.units) >= 4
    assert comp == ref


def test_order_in_which_units_get_done_changes_nothing(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = plan_folder(reviews, unit_bytes=50)
    tokenize_plan(plan, tmp_path / "ref", TokenizeConfig(workers=1))
    monkeypatch.setattr(
        "ulmpipe.tasks.units.run_calls", lambda task, calls, **options: [task(*c) for c in reversed(calls)]
    )
    tokenize_plan(plan, tmp_path / "comp", TokenizeConfig(workers=1))
    assert len(plan.units) >= 4
    assert contents(tmp_path / "comp") == contents(tmp_path / "ref")


def test_size_of_units_changes_no_id(reviews: Path, tmp_path: Path):
    for unit_bytes in (30, 10**6):
        tokenize_plan(
            plan_folder(reviews, unit_bytes=unit_bytes), tmp_path / f"{unit_bytes}", TokenizeConfig(workers=1)
        )
    ref, comp = TokenStore(tmp_path / "1000000"), TokenStore(tmp_path / "30")
    assert comp.vocab.itos == ref.vocab.itos
    assert [comp.doc(i).tolist() for i in range(11)] == [ref.doc(i).tolist() for i in range(11)]


def test_tokenize_unit_counts_what_it_writes(reviews: Path, tmp_path: Path):
    (reviews / "pos/2.txt").write_bytes(b"\xff")
    (unit,) = plan_folder(reviews).units
    record = tokenize_unit(7, unit, Job(str(tmp_path), TokenizerRecipe(), Columns()))
    texts = [
        path.read_text()
        for path in sorted(reviews.glob("*/*.txt"))
        if path.name != "2.txt" or path.parent.name != "pos"
    ]
    ref = Counter(token for text in texts for token in Tokenizer().tokenize(text))
    counts = read_all(tmp_path / "unit-00007.counts.arrow")
    assert dict(zip(counts["token"].to_pylist(), counts["count"].to_pylist(), strict=True)) == ref
    assert (record.index, record.n_docs, record.n_tokens) == (7, 10, ref.total())
    assert record.n_bytes == sum(len(text.encode()) for text in texts)
    assert record.labels == {"neg", "pos"} and [q.source for q in record.quarantined] == ["pos/2.txt"]


def test_small_record_batches_hold_the_same(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tokenize(reviews, tmp_path / "ref", workers=1)
    monkeypatch.setattr(shards, "BATCH_TOKENS", 20)
    tokenize(reviews, tmp_path / "comp", workers=1)
    ref, comp = TokenStore(tmp_path / "ref"), TokenStore(tmp_path / "comp")
    assert len(comp.segments) > len(ref.segments) == 1
    assert comp.vocab.itos == ref.vocab.itos
    assert [comp.doc(i).tolist() for i in range(11)] == [ref.doc(i).tolist() for i in range(11)]
    assert comp.doc_labels.tolist() == ref.doc_labels.tolist()


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_merge_counts_adds_units_up(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int):
    monkeypatch.setattr(shards, "MERGED_AT_ONCE", at_once)
    plan = plan_folder(reviews, unit_bytes=60)
    for index, unit in enumerate(plan.units):
        tokenize_unit(index, unit, Job(str(tmp_path), TokenizerRecipe(), Columns()))
    ref = Counter(token for path in reviews.glob("*/*.txt") for token in Tokenizer().tokenize(path.read_text()))
    assert merge_counts(tmp_path, len(plan.units)) == ref


def test_number_unit_counts_the_unknown(reviews: Path, tmp_path: Path):
    (unit,) = plan_folder(reviews).units
    tokenize_unit(0, unit, Job(str(tmp_path), TokenizerRecipe(), Columns()))
    counts = merge_counts(tmp_path, 1)
    Vocab(build_itos(counts, max_vocab=12, min_freq=1, specials=Tokenizer().rules.specials)).save(
        tmp_path / "vocab.json"
    )
    vocab = Vocab.load(tmp_path / "vocab.json")
    said = number_unit(0, str(tmp_path), str(tmp_path), ["neg", "pos"], Columns())
    ref_unknown = sum(n for token, n in counts.items() if token not in vocab.stoi)
    assert said["n_unknown"] == ref_unknown > 0
    assert (said["rows"], said["tokens"]) == (11, sum(counts.values()))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_empty_corpus_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"\n\n")
    with pytest.raises(SourceError, match="no documents found: every file is empty"):
        tokenize(tmp_path / name, tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_corpus_of_nothing_readable_says_why(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xe9\n")
    with pytest.raises(SourceError, match="no documents found: a.txt@0 is not valid UTF-8"):
        tokenize(tmp_path / "a.txt", tmp_path / "out", workers=1)


def test_empty_documents_and_missing_labels_are_kept(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "", "label": 1}\n{"text": "x"}\n{"text": "y", "label": 0}\n{"text": ""}\n'
    )
    tokenize(tmp_path / "a.jsonl", tmp_path / "out", workers=1, min_freq=1)
    comp = TokenStore(tmp_path / "out")
    assert comp.labels == ["0", "1"]
    assert comp.doc_labels.tolist() == [1, -1, 0, -1]
    assert [comp.vocab.decode(comp.doc(i)) for i in range(4)] == [
        ["xxbos", "xxeos"], ["xxbos", "x", "xxeos"], ["xxbos", "y", "xxeos"], ["xxbos", "xxeos"],
    ]  # fmt: skip


# ---- the two engines ------------------------------------------------------------------------------------------------


def test_both_engines_write_the_same_shards(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts(300, ["can't", ":)"], "shards"))
    )
    for engine in ("fast", "spacy"):
        tokenize(tmp_path / "a.jsonl", tmp_path / engine, engine=engine, workers=1, verify=1.0)
    ref, comp = contents(tmp_path / "spacy"), contents(tmp_path / "fast")
    names = [name for name in ref if name.startswith(("shard-", "vocab"))]
    assert len(names) == 2 and {name: comp[name] for name in names} == {name: ref[name] for name in names}


def test_difference_between_the_engines_stops_the_run(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ulmpipe.text.tokenizer.Tokenizer.tokenize", lambda self, text: ["xxbos", "another", "xxeos"])
    with pytest.raises(EngineMismatchError, match=r"neg/0.txt.*differ at token 1.*another"):
        tokenize(reviews, tmp_path / "out", workers=1, verify=1.0)
    assert not (tmp_path / "out").exists()
    tokenize(reviews, tmp_path / "out", workers=1, verify=0.0)


def test_share_of_verified_documents_is_that_asked_for(monkeypatch: pytest.MonkeyPatch):
    n = 4000
    batch = Texts(np.zeros(16, np.uint8), np.zeros(n + 1, np.int64), [None] * n, [f"a#{i}" for i in range(n)])
    engine, seen = FastTokenizer(), []
    encoded = engine.encode_bytes(batch.data, batch.offsets)
    monkeypatch.setattr("ulmpipe.text.tokenizer.Tokenizer.tokenize", lambda self, text: (seen.append(text), ["xxbos", "xxeos"])[1])  # fmt: skip
    verify_texts(engine, batch, encoded, 0.05)
    assert 150 < len(seen) < 250


def test_tables_are_read_and_added_to(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tables = tmp_path / "t.arrow"
    tokenize(reviews, tmp_path / "a", workers=2, tables=str(tables))
    known = read(tables, TokenizerRecipe())[0]["key"].to_pylist()
    assert b"FILM," in known
    (reviews / "pos/new.txt").write_text("something unheard")
    tokenize(reviews, tmp_path / "b", workers=1, tables=str(tables))
    assert set(read(tables, TokenizerRecipe())[0]["key"].to_pylist()) == {*known, b"something", b"unheard"}
    assert "remembers" in capsys.readouterr().err
    tokenize(reviews, tmp_path / "c", workers=1)
    assert contents(tmp_path / "b") == contents(tmp_path / "c")


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"tables": "no/where/t.arrow"}, "folder does not exist"), ({"tables": "t", "custom_rules": Rules((), ())}, "rules of your own")],
)  # fmt: skip
def test_tables_that_can_not_be(reviews: Path, tmp_path: Path, options: dict[str, Any], reason: str):
    with pytest.raises(ConfigError, match=reason):
        tokenize(reviews, tmp_path / "out", **options)


def test_language_without_rules_is_tokenized_by_the_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.txt").write_text("字符 字\n")
    result = tokenize(tmp_path / "a.txt", tmp_path / "out", lang="zh", workers=1)
    assert result.fallback_fraction == 1.0 and "ChineseTokenizer" in capsys.readouterr().err


def test_long_runs_without_a_space_are_cut_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.txt").write_text("short\n" + "xy" * 25_000 + "\n")
    tokenize(tmp_path / "a.txt", tmp_path / "out", workers=1)
    assert TokenStore(tmp_path / "out").manifest["cut"] == ["a.txt@6"] and "in 1 documents: a.txt@6" in capsys.readouterr().err  # fmt: skip
