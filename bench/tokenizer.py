"""The goal of this script is to measure how fast texts become tokens, beside fastai, gigatoken and others, in one run.

    ULMPIPE_DATA=../shared/data PEER_PYTHON=/path/to/python python bench/tokenizer.py      -> bench/results/tokenize.json

Whole commands as a user runs them, process start, vocabulary and writing included, on two cores; then the scan alone,
on one core, on the same texts in memory. First it asserts that the tokens are the reference's, and fastai's. Without
$PEER_PYTHON (an environment of its own, DESIGN 8) the peers are left out.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import record
from bench.command import run_words
from bench.corpora import data_folder
from ulmpipe.text.documents import _together
from ulmpipe.text.engine import FastTokenizer
from ulmpipe.text.pieces import Document
from ulmpipe.text.tokenizer import Tokenizer

REPEATS, FASTAI_REPEATS = 5, 1
SIZES = (18_750, 25_000, 75_000)
REVIEW = 1300  # characters of the one document


def tokenize(source: Path, out: Path, *options: Any) -> dict[str, Any]:
    """`ulmpipe tokenize SOURCE` into a fresh folder."""
    shutil.rmtree(out, ignore_errors=True)
    return run_words([sys.executable, "-m", "ulmpipe", "tokenize", source, "-o", out, "--json", *options])


def write_sources(folder: Path) -> dict[int, Path]:
    """The reviews of train and unsup in one file, and the first of them in smaller ones."""
    tables = [
        pq.read_table(data_folder() / "imdb" / f"{split}.parquet", columns=["text"]) for split in ("train", "unsup")
    ]
    whole = pa.concat_tables(tables)
    paths = {n: folder / f"reviews-{n}.parquet" for n in (1, *SIZES)}
    for n, path in paths.items():
        pq.write_table(whole.slice(0, n), path, row_group_size=5000)
    return paths


def assert_same_tokens(texts: list[str]) -> None:
    """The fast tokens of a sample are the reference's."""
    fast, reference = FastTokenizer(), Tokenizer()
    for text in texts[:: len(texts) // 300]:
        assert fast.tokenize(text) == reference.tokenize(text)


def measure_commands(paths: dict[int, Path], folder: Path, peer: str | None) -> dict[str, Any]:
    """Cold and warm commands on files of several sizes, in turn; fastai among them."""
    out, tables = folder / "out.tok", folder / "tables.arrow"
    tokenize(paths[25_000], out)  # compiles what is not compiled yet
    tokenize(paths[75_000], out, "--tables", tables)
    seconds: dict[str, list[float]] = {}
    runs: dict[str, Any] = {}

    def keep(name: str, found: dict[str, Any]) -> None:
        runs[name] = found
        seconds.setdefault(name, []).append(found["wall_s"])

    for repeat in range(REPEATS):
        for n, path in paths.items():
            keep(f"cold {n}", tokenize(path, out))
        keep("warm 75000", tokenize(paths[75_000], out, "--tables", tables))
        if repeat < FASTAI_REPEATS:
            keep("cold fastai2 rules 75000", tokenize(paths[75_000], out, "--rules", "fastai2"))
            if peer:
                keep("fastai 75000", run_words([peer, "bench/peers.py", "fastai", paths[75_000]]))
    keep("spacy 75000", tokenize(paths[75_000], out, "--engine", "spacy"))
    if peer:
        ours, theirs = runs["cold fastai2 rules 75000"], runs["fastai 75000"]
        assert theirs["n_tokens"] == ours["n_tokens"], (theirs, ours)
    return {"wall_s": {name: record.summary(walls) for name, walls in seconds.items()}, "runs": runs}


def measure_scan(texts: list[str]) -> dict[str, Any]:
    """The scan alone on one core, warm: text without HTML breaks, as the chunk rules see it."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    engine = FastTokenizer()
    texts = [engine._run_head(text) for text in texts]
    batches = [_together([Document(t, None, "") for t in texts[i : i + 1000]]) for i in range(0, len(texts), 1000)]
    edges = [np.full(len(batch), 5, np.uint8) for batch in batches]
    n_bytes, rates = sum(int(batch.offsets[-1]) for batch in batches), []
    for _ in range(1 + REPEATS):
        begin_s = time.perf_counter()
        for batch, edge in zip(batches, edges, strict=True):
            engine.chunks.scan(batch.data, batch.offsets, edge)
        rates.append(n_bytes / 1e6 / (time.perf_counter() - begin_s))
    review = next(text for text in texts if REVIEW <= len(text) < REVIEW + 20)
    once = []
    for _ in range(2000):
        begin_s = time.perf_counter()
        engine.encode_texts([review])
        once.append(1e6 * (time.perf_counter() - begin_s))
    os.sched_setaffinity(0, cores)
    return {
        "mb": n_bytes / 1e6,
        "chunks": len(engine.chunks.memo),
        "cold_mb_per_s": round(rates[0], 2),
        "warm_mb_per_s": sorted(round(rate, 2) for rate in rates[1:]),
        "one_review_us": {"median": round(statistics.median(once), 1), "p90": round(sorted(once)[1800], 1)},
    }


def main() -> None:
    """Measure, and write down with the machine it was measured on."""
    record.where()
    peer = os.environ.get("PEER_PYTHON")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_sources(folder)
        texts = pq.read_table(paths[75_000])["text"].to_pylist()
        assert_same_tokens(texts)
        result: dict[str, Any] = {"mb": sum(len(text.encode()) for text in texts) / 1e6, "scan": measure_scan(texts)}
        if peer:
            result["peers in memory"] = run_words([peer, "bench/peers.py", "in-memory", paths[75_000]])["rates"]
        result |= measure_commands(paths, folder, peer)
    record.write("tokenize", json.loads(json.dumps(result).replace(name, "out")))


if __name__ == "__main__":
    main()
