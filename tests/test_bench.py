"""The benches of accuracy: the baselines learn from the same reviews, a point is kept, the tables are drawn from points."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from learnable import make_docs

from bench import record
from bench.baselines import read
from bench.command import run_words
from bench.label_efficiency import asked, curve, labelled_rows, plot
from bench.report_accuracy import ablation_table, accuracy_table, en_small_lines, labels_table, thousand_table
from bench.report_dask import alone_hours, dask_table, hours_of_a_terabyte
from bench.report_predict import serve_table
from ulmpipe.config import FinetuneConfig
from ulmpipe.models import LanguageModel
from ulmpipe.models.fastai_names import fastai_name, from_fastai
from ulmpipe.tasks.corpus import open_corpus
from ulmpipe.tasks.labels import choose_labelled
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe


@pytest.fixture
def imdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set called imdb of 90 labelled and 40 other documents."""
    folder = tmp_path / "data" / "imdb"
    folder.mkdir(parents=True)
    docs = make_docs(130)
    texts = [f"{text}<br />Number {i}." for i, (text, _) in enumerate(docs)]
    labels = [int(label == "pos") for _, label in docs]
    pq.write_table(pa.table({"text": texts[:90], "label": labels[:90]}), folder / "train.parquet")
    pq.write_table(pa.table({"text": texts[90:]}), folder / "unsup.parquet")
    monkeypatch.setenv("ULMPIPE_DATA", str(folder.parent))
    return folder


@pytest.mark.parametrize(("n_labels", "seed"), [(20, 0), (20, 1), (None, 0)])
@pytest.mark.parametrize("more", [False, True], ids=["imdb alone", "more texts"])
def test_baselines_learn_from_the_reviews_that_finetune_chooses(
    imdb: Path, n_labels: int | None, seed: int, more: bool
):
    config = FinetuneConfig(workers=1, n_labels=n_labels, seed=seed)
    unlabelled = str(shutil.copy(imdb / "unsup.parquet", imdb.parent / "more.parquet")) if more else None
    corpus = open_corpus("imdb", config, imdb.parent, labelled=True, unlabelled=unlabelled)
    ref = choose_labelled(corpus.store.doc_labels, corpus.train, n_labels, seed)
    texts, labels = read(imdb / "train.parquet")
    rows = labelled_rows(labels, n_labels, seed)
    assert rows.tolist() == ref.tolist() and len(rows) == (n_labels or 81)
    assert corpus.store.n_docs == 130 + 40 * more
    tokenizer = Tokenizer(TokenizerRecipe.from_json(corpus.store.manifest["recipe"]))
    raw = pq.read_table(imdb / "train.parquet")["text"].to_pylist()
    for row in rows[::7]:
        assert corpus.store.doc(row).tolist() == corpus.store.vocab.encode(tokenizer.tokenize(raw[row]))
        assert texts[row] == raw[row].replace("<br />", " ") and labels[row] == corpus.store.doc_labels[row]


def test_few_labels_have_several_seeds():
    assert list(asked(["100", "2000", "10000", "all"], 2)) == [
        (100, 0), (100, 1), (2000, 0), (2000, 1), (10000, 0), (None, 0),
    ]  # fmt: skip


def test_point_replaces_the_older_one_of_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert not record.has_point("some", seed=0)
    for seed, command in ((0, "old"), (1, "old"), (0, "new")):
        record.add_point("some", {"seed": seed}, {"command": command})
    assert [(p["seed"], p["command"]) for p in record.read_points("some")] == [(1, "old"), (0, "new")]
    assert record.has_point("some", seed=0, command="new") and not record.has_point("some", seed=0, command="old")


def test_a_point_is_measured_once_with_the_same_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    n_measured = 0

    def measure() -> dict[str, Any]:
        nonlocal n_measured
        n_measured += 1
        return {"accuracy": n_measured}

    found = record.measure_once("some", {"seed": 0}, {"command": "a"}, measure)
    assert found == {"accuracy": 1, "command": "a"}
    assert record.measure_once("some", {"seed": 0}, {"command": "a"}, measure) is None and n_measured == 1
    assert record.measure_once("some", {"seed": 0}, {"command": "b"}, measure) and n_measured == 2
    assert [(point["seed"], point["accuracy"]) for point in record.read_points("some")] == [(0, 2)]


def test_program_is_run_for_its_last_line():
    found = run_words([sys.executable, "-c", "print('what a library says'); print('{\"n\": 3}')"])
    assert found["n"] == 3 and found["wall_s"] > 0 and found["peak_rss_mb"] > 0
    with pytest.raises(SystemExit, match="ended with 3"):
        run_words([sys.executable, "-c", "raise SystemExit(3)"])


def test_weights_are_given_to_fastai_by_its_names():
    weights = LanguageModel(9, emb_size=4, hidden_size=6, n_layers=2).state_dict()
    found = from_fastai({fastai_name(name, has_decoder=True): weight for name, weight in weights.items()}).weights
    assert found.keys() == weights.keys() and all(found[name].equal(weights[name]) for name in weights)


def test_curves_are_drawn_with_every_seed(tmp_path: Path):
    points = [
        {"method": method, "n_labels": n, "seed": seed, "accuracy": accuracy}
        for method, n, seed, accuracy in (("ulmpipe", 500, 0, 0.9), ("ulmpipe", 100, 1, 0.8), ("ulmpipe", 100, 0, 0.7), ("tfidf", 100, 0, 0.6))
    ]  # fmt: skip
    assert curve(points, "ulmpipe") == {100: [0.7, 0.8], 500: [0.9]}
    plot(points, tmp_path / "curve")
    first = (tmp_path / "curve.svg").read_bytes()
    plot(points, tmp_path / "curve")
    assert (tmp_path / "curve.svg").read_bytes() == first and (tmp_path / "curve.png").exists()


MACHINE = {"python": "3", "packages": {"torch": "2", "spacy": "3"}, "gpu": None, "cores": 2, "processor": "P"}


def points(*rows: dict[str, Any]) -> dict[str, Any]:
    """A result of points of one machine."""
    return {"machines": [MACHINE], "points": [{"commit": "c0ffee", "machine": 0, **row} for row in rows]}


def test_table_of_labels_has_a_row_a_number_and_a_column_a_method():
    ours = {"method": "ulmpipe", "train_s": 120.0, "n_test": 12574, "language_model": {"valid_loss": 4.0}}
    peer = {"method": "tfidf", "train_s": 6.0, "n_test": 12574, "language_model": None}
    rows = [{**ours, "n_labels": 100, "seed": seed, "accuracy": 0.80 + 0.02 * seed} for seed in range(3)]
    table = labels_table(points(*rows, {**peer, "n_labels": 100, "seed": 0, "accuracy": 0.7}))
    assert "| labels | ulmpipe | TF-IDF, logistic regression | minutes of training |" in table
    assert "| 100 | 0.8200 ± 0.0200 | 0.7000 | 2.0, 0.1 |" in table and "perplexity 54.6" in table
    assert table.startswith("Judged by 12,574 test reviews")


def test_points_that_were_judged_by_different_documents_make_no_table():
    rows = [{"method": "tfidf", "n_labels": 9, "seed": 0, "accuracy": 0.7, "train_s": 6.0, "n_test": 100, "test": name} for name in "ab"]  # fmt: skip
    with pytest.raises(ValueError, match="judged by different documents"):
        labels_table(points(*rows))


def test_table_of_a_thousand_reviews_names_the_command():
    command = "ulmpipe finetune {work}/my.csv -o {work}/my --seed 0"
    ours = {"method": "ulmpipe", "command": command, "train_s": 240.0, "n_test": 5000}
    rows = [{**ours, "seed": seed, "accuracy": 0.80 + 0.02 * seed} for seed in range(2)]
    table = thousand_table(
        points(*rows, {"method": "tfidf", "seed": 0, "accuracy": 0.7, "train_s": 6.0, "n_test": 5000})
    )
    assert "| `ulmpipe finetune my.csv -o my` | 0.8100 ± 0.0141 | 0.800, 0.820 | 4.0 |" in table
    assert "| TF-IDF, logistic regression | 0.7000 | 0.700 | 0.1 |" in table


def test_table_of_the_ablation_says_what_is_lost():
    arms = (("all of it", 0, 0.90), ("all of it", 1, 0.92), ("without pretraining", 0, 0.86))
    rows = [
        {"arm": arm, "n_labels": 2000, "seed": seed, "accuracy": accuracy, "n_test": 9} for arm, seed, accuracy in arms
    ]
    table = ablation_table(points({"made": "tuned"}, *rows))
    assert "| all of it | 0.9100 ± 0.0141 |  | 0.900, 0.920 |" in table
    assert "| without pretraining | 0.8600 | 5.0 | 0.860 |" in table


def test_table_of_all_labels_has_the_stages_in_order():
    test = {"stage": "evaluate", "command": "ulmpipe evaluate {out}/imdb", "accuracy": 0.91, "n": 9, "f1_macro": 0.9, "wall_s": 60}  # fmt: skip
    lm = {"stage": "language model", "command": "ulmpipe finetune imdb", "accuracy": None, "valid_loss": 4.0, "wall_s": 600}  # fmt: skip
    clf = {"stage": "classifier", "command": "ulmpipe finetune x", "accuracy": 0.92, "f1_macro": 0.92, "wall_s": 60}
    lines = accuracy_table(points(test, lm, clf)).splitlines()
    assert lines[0] == "Accuracy **0.9100** on 9 test reviews, after 12 minutes."
    assert lines[4:7] == [
        "| `ulmpipe finetune imdb` | 10.0 | perplexity 54.6, held-out text |",
        "| `ulmpipe finetune x` | 1.0 | accuracy 0.9200, held-out text |",
        "| `ulmpipe evaluate models/imdb` | 1.0 | accuracy 0.9100, on 9 reviews, macro F1 0.9000 |",
    ]


def test_lines_of_the_model_in_the_box_name_both_machines():
    bare = {**MACHINE, "packages": {"torch": "2", "spacy": None}, "gpu": "G"}
    train = {"command": "ulmpipe pretrain x", "wall_s": 90, "tokens_per_s": 1234.5, "machine": bare, "commit": "c0ffee"}
    pack = {"packed": {"some.tokens": {"perplexity": 39.04}}, "mb": 16.6, "machine": MACHINE, "commit": "beef"}
    lines = en_small_lines({"parts": {"train": train, "pack": pack}})
    assert "1.5 minutes, 1,234 tokens/s" in lines and "39.0 on some.tokens" in lines
    assert "P, G; Python 3, torch 2; commit c0ffee" in lines and "torch 2, spaCy 3; commit beef" in lines


def test_table_of_the_server_has_a_row_a_kind_of_request():
    def found(cpu_ms: float) -> dict[str, Any]:
        values = {"requests_per_s": 99.94, "median_ms": 9.6, "p99_ms": 30.2, "cpu_ms": cpu_ms}
        return {name: record.summary([value, 2 * value, 3 * value]) for name, value in values.items()}

    row = {"what": "a short text", "clients": 8, "joined": found(4.0), "alone": found(8.0)}
    result = {"size": "small", "threads": 1, "rows": [row], "rss_mb": {"before": 400.4, "after": 440.6}, "n_requests": 1200}  # fmt: skip
    table = serve_table({**result, "machine": MACHINE, "commit": "c0ffee"})
    assert "| a short text | 8 | 199.9 (99.9 to 299.8) | 19 | 60 | 8.0 (4.0 to 12.0) | 16.0 (8.0 to 24.0) |" in table
    assert "had 400 MB at first and 441 after 1,200 requests" in table and "commit c0ffee" in table


def dask_result() -> dict[str, Any]:
    """100 MB, 10 seconds of processors, 2 seconds in one process, 4 alone."""
    seconds = {f"{way}, {n}": 10 / n for way in ("seen", "sent") for n in (1, 2)}
    seconds |= {f"{way}, {n}, processors": 10.0 for way in ("seen", "sent") for n in (1, 2)}
    seconds |= {"client": 2.0, "client, processor": 1.0, "vocabulary": 1.0, "second pass": 3.0}
    spread = {name: record.summary([value]) for name, value in seconds.items()}
    told = {"text_mb": 100.0, "sent_mb": 150.0, "n_units": 25, "load_average": [1.5, 3.0]}
    return {**told, "seconds": spread, "machine": MACHINE, "commit": "c0ffee"}


def test_a_terabyte_takes_what_workers_or_the_one_process_take():
    result = dask_result()
    assert hours_of_a_terabyte(result, 1, sent=True) == pytest.approx(1e5 / 3600)
    assert hours_of_a_terabyte(result, 4, sent=True) == pytest.approx(2.5e4 / 3600)
    assert hours_of_a_terabyte(result, 50, sent=True) == pytest.approx(2e4 / 3600)  # no more than it can take
    assert hours_of_a_terabyte(result, 50, sent=False) == pytest.approx(2e3 / 3600)
    assert alone_hours(result) == pytest.approx(4e4 / 3600)


def test_table_of_a_cluster_has_what_was_measured_and_the_model():
    table = dask_table(dask_result())
    assert "1.50 MB of files for each MB" in table
    assert "| two of them | 5.0 (one run) | 20.0 | 10.0 |" in table
    assert "| 8 workers | 3.5 | 5.6 |" in table and "To each of them 11.1 hours" in table
    assert "The load average of the machine was 1.5 to 3.0" in table


def test_every_bench_is_run_by_one_word_or_left_out_by_name():
    from bench.all import BENCHES, LANGUAGE_MODELS, LEFT_OUT

    scripts = {path.stem for path in (record.ROOT / "bench").glob("*.py") if "The goal of this script is to" in path.read_text()[:60]}  # fmt: skip
    told = {Path(word).stem for bench in BENCHES for word in bench.full.split() if word.startswith("bench/")}
    others = {"all", "readme", "report", "baselines"} | {name for name in scripts if name.startswith("peers")}
    assert scripts - others == told | LEFT_OUT.keys() and LANGUAGE_MODELS
