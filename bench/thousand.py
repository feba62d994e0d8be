"""The goal of this script is to measure the first thing that anyone does: a table of 1,000 labelled texts, no network, no GPU.

    ULMPIPE_DATA=../shared/data PEER_PYTHON=... python bench/thousand.py        -> bench/results/thousand.json

`ulmpipe finetune my.csv` starts from the language model in the box, tunes it on these texts, and holds out a tenth of them; the
two of baselines.py learn from all of the same reviews. All are tested on the same `--n-test` others. Each seed draws its own
thousand from imdb/train.parquet. What is measured is written at once, and not measured again with the same command.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import argparse
import csv
import os
import shutil
from functools import partial
from typing import Any

import numpy as np

from bench import record
from bench.baselines import read
from bench.command import about_model, baseline, baseline_command, run, some_reviews
from ulmpipe.console import log
from ulmpipe.tasks.model_folder import BOX
from ulmpipe.text.batches import IntArray

NAME = "thousand"
N_ROWS = 1000


def write_table(path: Path, rows: IntArray) -> None:
    """Reviews of IMDB's training split as a user would have them."""
    texts, labels = read(os.path.expandvars("$ULMPIPE_DATA/imdb/train.parquet"))
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((texts[i], labels[i]) for i in rows)])


def measure_ulmpipe(command: str, rows: IntArray, work: Path, test: Path) -> dict[str, Any]:
    """From the table to a tested model."""
    folder = work / "thousand"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_table(folder / "my.csv", rows)
    trained = run(command.removeprefix("ulmpipe "), work=folder)
    tested = run("evaluate {work}/my {test}", work=folder, test=test)
    shutil.rmtree(folder)
    scores = {"accuracy": tested["accuracy"], "n_test": tested["n"], "valid_accuracy": trained["accuracy"]}
    return {**scores, "train_s": trained["wall_s"], "test_s": tested["wall_s"], "peak_rss_mb": trained["peak_rss_mb"]}


def main() -> None:
    """Measure what is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--options", default="", help="further options of finetune, in one string")
    parser.add_argument("--n-test", type=int, default=5000, help="reviews that all are tested on")
    parser.add_argument("--work", type=Path, default=Path("models/bench"), help="for models, tokens, embeddings")
    args = parser.parse_args()
    record.where()
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    args.test = some_reviews(args.work, args.n_test)
    start = about_model(BOX / "en-small")
    methods = ("ulmpipe", "tfidf", *(("embeddings",) if "PEER_PYTHON" in os.environ else ()))
    for seed in range(args.seeds):
        rows = np.random.default_rng(seed).permutation(25_000)[:N_ROWS]
        for method in methods:
            if method == "ulmpipe":
                command = f"ulmpipe finetune {{work}}/my.csv -o {{work}}/my --seed {seed} {args.options}".strip()
                measure = partial(measure_ulmpipe, command, rows, args.work, args.test)
            else:
                command = baseline_command(method, args.test)
                measure = partial(baseline, command, rows, args.work)
            given = {"command": command, "language_model": start, "test": args.test.name}
            if found := record.measure_once(NAME, {"method": method, "seed": seed}, given, measure):
                log(f"{method}, seed {seed}: {found['accuracy']:.4f} after {found['train_s']:.0f} s")


if __name__ == "__main__":
    main()
