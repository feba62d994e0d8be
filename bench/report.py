"""The goal of this script is to keep the numbers of README and of bench/README those of bench/results/*.json.

python bench/report.py            writes the tables between `<!-- bench:NAME -->` and `<!-- end -->`
python bench/report.py --check    fails if a page says something else
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import json
import re
from typing import Any

from bench.report_accuracy import ablation_table, accuracy_table, en_small_lines, labels_table, thousand_table
from bench.report_common import command_rows, machine_line, ranged
from bench.report_dask import dask_table
from bench.report_predict import predict_table, serve_table
from bench.report_training import batch_shape_table, batches_table, cells_table, train_lm_table
from bench.report_vision import claims_table, vision_table

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "bench" / "README.md")
BLOCK = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def demo_lines(result: dict[str, Any]) -> str:
    """What the demo ends with."""
    first = f"accuracy {result['accuracy']:.3f} on {result['n_test']:,} reviews it has not seen, after {result['wall_s']:.0f} s"
    rows = [f"  {p['label']} (1 is positive)  {p['probability']:.3f}  {p['text']}" for p in result["predictions"]]
    return "\n".join(["    " + line for line in (first, *rows)] + ["", machine_line(result)])


def tokenize_table(result: dict[str, Any]) -> str:
    """Whole commands beside fastai, then the scan alone beside the others, then what else was asked."""
    wall_s, mb, runs = result["wall_s"], result["mb"], result["runs"]
    fastai_s = wall_s["fastai 75000"]["median"]
    names = {
        "cold 75000": "`ulmpipe tokenize`, cold",
        "warm 75000": "the same, warm (`--tables`)",
        "cold fastai2 rules 75000": "the same, cold, `--rules fastai2`: fastai's tokens",
        "spacy 75000": "the same, `--engine spacy`",
        "fastai 75000": "fastai 2.8.12, two workers",
    }
    rows = ["| 75,000 reviews, 2 cores | seconds | MB/s | times fastai |", "|---|---|---|---|"]
    for key, name in names.items():
        median_s = wall_s[key]["median"]
        rows.append(f"| {name} | {ranged(wall_s[key], digits=1)} | {mb / median_s:.1f} | {fastai_s / median_s:.1f} |")
    peers = {"the scan of `--engine fast`": result["scan"], **result["peers in memory"]}
    rows += ["", "| one core, texts in memory | MB/s warm | MB/s the first time |", "|---|---|---|"]
    for name, found in peers.items():
        warm = found["warm_mb_per_s"]
        shown = ranged({"median": warm[len(warm) // 2], "all": warm}, digits=1)
        rows.append(f"| {name} | {shown} | {found['cold_mb_per_s']:.1f} |")
    small, large, part = (wall_s[f"cold {n}"]["median"] for n in (1, 75000, 25000))
    quarter = wall_s["cold 18750"]["median"]
    run = runs["cold 75000"]
    lines = [
        f"{run['n_docs']:,} reviews, {mb:.1f} MB of text, {run['n_tokens']:,} tokens; whole processes, start, vocabulary and writing",
        "included; medians and ranges of the repeats in `bench/results/tokenize.json`.",
        "",
        *rows,
        "",
        f"One review of 1,300 characters: {result['scan']['one_review_us']['median']:.0f} microseconds. One document as a whole",
        f"command: {small:.1f} s. From 25,000 to 75,000 reviews each core does {(mb * 2 / 3) / (large - part) / 2:.1f} MB/s. Four times the text takes",
        f"{(large - small) / (quarter - small):.1f} times as long, the start left out. {100 * run['fallback_fraction']:.2f} % of the chunks were left to the reference.",
        "",
        machine_line(result),
    ]
    return "\n".join(lines)


def exact_table(result: dict[str, Any]) -> str:
    """Documents compared and documents that differ."""
    rows = result["rows"]
    different, n_docs = sum(row["different"] for row in rows), sum(row["documents"] for row in rows)
    names = list(dict.fromkeys(row["corpus"] for row in rows))
    table = ["| corpus | documents | presets | differ | left to the reference |", "|---|---|---|---|---|"]
    for name in names:
        own = [row for row in rows if row["corpus"] == name]
        left = [100 * row["fallback_fraction"] for row in own if "fallback_fraction" in row]
        shown = f"{min(left):.2f} to {max(left):.2f} %" if left else ""
        table.append(
            f"| {name} | {own[0]['documents']:,} | {len(own)} | {sum(row['different'] for row in own)} | {shown} |"
        )
    return "\n".join([f"{different} of {n_docs:,} documents differ.", "", *table, "", machine_line(result)])


def train_table(result: dict[str, Any]) -> str:
    """What each command took and reached."""
    total = f"{result['wall_s'] / 60:.1f} minutes in all; accuracy on the test reviews **{result['accuracy']:.4f}**."
    return "\n".join([total, "", *command_rows(result["runs"]), "", machine_line(result)])


def faults_table(result: dict[str, Any]) -> str:
    """What was tried against a run; written only where every test passed (tests/faults/conftest.py), so all was survived."""
    tried = result["tried"]
    lines = ["| fault | tried |", "|---|---|", *(f"| {kind} | {n:,} |" for kind, n in tried.items())]
    lines.append(f"| in all | {sum(tried.values()):,} |")
    return "\n".join([*lines, "", "Lost bytes: 0.", "", machine_line(result)])


TABLES = {  # by the names of their results and their blocks
    "demo": demo_lines,
    "tokenize": tokenize_table,
    "exact": exact_table,
    "train": train_table,
    "accuracy": accuracy_table,
    "en_small": en_small_lines,
    "label_efficiency": labels_table,
    "thousand": thousand_table,
    "ablation": ablation_table,
    "faults": faults_table,
    "vision": vision_table,
    "vision_claims": claims_table,
    "train_lm": train_lm_table,
    "cells": cells_table,
    "batch_shape": batch_shape_table,
    "batches": batches_table,
    "predict": predict_table,
    "serve": serve_table,
    "dask": dask_table,
}


def render(page: str) -> str:
    """A page with every block made again from its JSON."""

    def block(match: re.Match[str]) -> str:
        result = json.loads((ROOT / "bench" / "results" / f"{match[2]}.json").read_text(encoding="utf-8"))
        return f"{match[1]}\n{TABLES[match[2]](result)}\n\n{match[3]}"

    return BLOCK.sub(block, page)


def main() -> None:
    """Write the pages again, or only compare."""
    for path in PAGES:
        found = path.read_text(encoding="utf-8")
        expected = render(found)
        if "--check" not in sys.argv[1:]:
            path.write_text(expected, encoding="utf-8")
        elif found != expected:
            sys.exit(f"{path.relative_to(ROOT)} differs from bench/results: run python bench/report.py")


if __name__ == "__main__":
    main()
