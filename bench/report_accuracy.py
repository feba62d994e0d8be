"""The tables of README that compare accuracies, from results that are points: one a training. Used by report.py."""

import math
import statistics
from typing import Any

from bench.report_common import command_rows, machine_line

METHODS = {"ulmpipe": "ulmpipe", "tfidf": "TF-IDF, logistic regression", "embeddings": "MiniLM embeddings, the same"}


def accuracy_table(result: dict[str, Any]) -> str:
    """The stages of a training with all labels, as `train_table` shows them."""
    order = ["pretrain", "language model", "classifier", "evaluate"]
    runs = sorted(result["points"], key=lambda run: order.index(run["stage"]))
    wall_s = sum(run["wall_s"] for run in runs)
    resumed = " (some were stopped and went on: those minutes are the last part's)" if any(run.get("resumed") for run in runs) else ""  # fmt: skip
    total = f"{runs[-1]['accuracy']:.4f}** on {runs[-1]['n']:,} test reviews, after {wall_s / 60:.0f} minutes{resumed}."
    return "\n".join([f"Accuracy **{total}", "", *command_rows(runs), "", points_line(result)])


def en_small_lines(result: dict[str, Any]) -> str:
    """What the language model in the box has reached, and in how long."""
    train, pack = result["parts"]["train"], result["parts"]["pack"]
    perplexities = " and ".join(f"{found['perplexity']:.1f} on {unseen}" for unseen, found in pack["packed"].items())
    return "\n".join(
        [
            f"`{train['command']}`: {train['wall_s'] / 60:.1f} minutes, {train['tokens_per_s']:,.0f} tokens/s. {machine_line(train)}",
            "",
            f"Perplexity {perplexities} (some of these are near copies of training articles); {pack['mb']:.1f} MB in 8 bits. {machine_line(pack)}",
        ]
    )


def labels_table(result: dict[str, Any]) -> str:
    """Accuracy by number of labels, beside the baselines."""
    points = result["points"]
    methods = [name for name in METHODS if any(point["method"] == name for point in points)]
    rows = [
        f"| labels | {' | '.join(METHODS[name] for name in methods)} | minutes of training |",
        f"|---|{'---|' * len(methods)}---|",
    ]
    for n_labels in sorted({point["n_labels"] for point in points}):
        shown, minutes = [], []
        for name in methods:
            own = [point for point in points if (point["method"], point["n_labels"]) == (name, n_labels)]
            shown.append(over_seeds([point["accuracy"] for point in own]) if own else "")
            minutes.append(f"{statistics.mean(point['train_s'] for point in own) / 60:.1f}" if own else "-")
        rows.append(f"| {n_labels:,} | {' | '.join(shown)} | {', '.join(minutes)} |")
    lines = [
        f"Judged by {tested_on(points):,} test reviews; mean ± standard deviation where there are several seeds, each of which has its own labelled reviews, the same for all."
    ]
    if models := [point["language_model"] for point in points if point["method"] == "ulmpipe"]:
        perplexities = dict.fromkeys(f"{math.exp(model['valid_loss']):.1f}" for model in models)
        lines[0] += f" ulmpipe starts from a language model of IMDB (perplexity {', '.join(perplexities)}), whose training is not in the minutes."  # fmt: skip
    return "\n".join([*lines, "", *rows, "", points_line(result)])


def thousand_table(result: dict[str, Any]) -> str:
    """What a thousand labelled texts come to without a network, beside the baselines."""
    points = result["points"]
    lines = [f"Judged by {tested_on(points):,} others.", ""]
    lines += ["| 1,000 labelled reviews, no network | accuracy | seeds | minutes of training |", "|---|---|---|---|"]
    for method, name in METHODS.items():
        own = sorted((point for point in points if point["method"] == method), key=lambda point: point["seed"])
        if own:
            found = [point["accuracy"] for point in own]
            minutes = statistics.mean(point["train_s"] for point in own) / 60
            name = (
                f"`{own[0]['command'].replace('{work}/', '').replace(' --seed 0', '')}`"
                if method == "ulmpipe"
                else name
            )
            lines.append(f"| {name} | {over_seeds(found)} | {', '.join(f'{a:.3f}' for a in found)} | {minutes:.1f} |")
    return "\n".join([*lines, "", points_line(result)])


def ablation_table(result: dict[str, Any]) -> str:
    """Accuracy without each idea, and what is lost."""
    points = [point for point in result["points"] if "arm" in point]
    lines = [f"Judged by {tested_on(points):,} test reviews.", ""]
    for n_labels in sorted({point["n_labels"] for point in points}):
        lines += [f"| {n_labels:,} labels | accuracy | points lost | seeds |", "|---|---|---|---|"]
        arms: dict[str, list[float]] = {}
        for point in sorted(points, key=lambda point: point["seed"]):
            if point["n_labels"] == n_labels:
                arms.setdefault(point["arm"], []).append(point["accuracy"])
        whole = arms.get("all of it")
        for arm, found in arms.items():
            lost = "" if not whole or arm == "all of it" else f"{100 * (statistics.mean(whole) - statistics.mean(found)):.1f}"  # fmt: skip
            lines.append(
                f"| {arm} | {over_seeds(found)} | {lost} | {', '.join(f'{accuracy:.3f}' for accuracy in found)} |"
            )
        lines.append("")
    return "\n".join([*lines, points_line(result)])


def tested_on(points: list[dict[str, Any]]) -> int:
    """How many documents all points were judged by; raises `ValueError` where these are not the same ones."""
    found = {(point.get("test"), point["n_test"]) for point in points}
    if len(found) > 1:
        raise ValueError(f"points that were judged by different documents can't stand in one table: {found}")
    return found.pop()[1]


def over_seeds(found: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(found):.4f}" + (f" ± {statistics.stdev(found):.4f}" if len(found) > 1 else "")


def points_line(result: dict[str, Any]) -> str:
    """Where a result was measured that has points: every machine, every commit."""
    commits: dict[int, dict[str, None]] = {}
    for point in result["points"]:
        commits.setdefault(point["machine"], {})[point["commit"]] = None
    return "\n".join(machine_line({"machine": result["machines"][number], "commit": ", ".join(found)}) for number, found in sorted(commits.items()))  # fmt: skip
