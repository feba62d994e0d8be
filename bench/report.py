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
from bench.report_common import command_rows, machine_line, parts_line
from bench.report_dask import dask_table

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "bench" / "README.md")
BLOCK = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def demo_lines(result: dict[str, Any]) -> str:
    """What the demo ends with."""
    first = f"accuracy {result['accuracy']:.3f} on {result['n_test']:,} reviews it has not seen, after {result['wall_s']:.0f} s"
    rows = [f"  {p['label']} (1 is positive)  {p['probability']:.3f}  {p['text']}" for p in result["predictions"]]
    return "\n".join(["    " + line for line in (first, *rows)] + ["", machine_line(result)])


def spread(found: dict[str, Any]) -> str:
    """Median and range of some seconds."""
    walls = found["all"]
    return f"{found['median']:.1f}" + (f" ({walls[0]:.1f} to {walls[-1]:.1f})" if len(walls) > 1 else " (one run)")


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
        rows.append(f"| {name} | {spread(wall_s[key])} | {mb / median_s:.1f} | {fastai_s / median_s:.1f} |")
    peers = {"the scan of `--engine fast`": result["scan"], **result["peers in memory"]}
    rows += ["", "| one core, texts in memory | MB/s warm | MB/s the first time |", "|---|---|---|"]
    for name, found in peers.items():
        warm = found["warm_mb_per_s"]
        rows.append(
            f"| {name} | {warm[len(warm) // 2]:.1f} ({warm[0]:.1f} to {warm[-1]:.1f}) | {found['cold_mb_per_s']:.1f} |"
        )
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


def vision_table(result: dict[str, Any]) -> str:
    """What trainings on pictures reach, beside fastai; then a step and the loader, where they were measured."""
    parts = result["parts"]
    train, step, loader = parts["train"], parts["step"], parts["loader"]
    rows = ["| command | accuracy | with mirror images | minutes of training | pictures/s |", "|---|---|---|---|---|"]
    for name in ("defaults", "5 epochs at 128"):
        run = train[name]
        rows.append(
            f"| `{run['command']}` | **{run['accuracy']:.4f}** | {run['with_mirror_images']:.4f} | {sum(row['seconds'] for row in run['epochs']) / 60:.1f} | {run['images_per_s']:.0f} |"
        )
    peer = train["fastai"]
    rows.append(
        f"| fastai {peer['version']}, {peer['arch']}, {peer['epochs']} epochs at {peer['size']}, not measured here | {peer['accuracy']:.3f} | | {peer['minutes']} | |"
    )
    ours, fp32, plain = (step["step_s"][name]["median"] for name in ("ours", "ours, fp32", "plain"))
    share = {
        name: step["convolutions_s"][name]["median"] / step["step_s"][name]["median"] for name in ("ours", "ours, fp32")
    }
    rows += [
        "",
        "| a step: 64 pictures of 128 pixels | seconds | times plain | convolutions' share |",
        "|---|---|---|---|",
        f"| as trained: channels last, {step['precision']} | {told(step['step_s']['ours'])} | {plain / ours:.2f} | {share['ours']:.0%} |",
        f"| the same in fp32 | {told(step['step_s']['ours, fp32'])} | {plain / fp32:.2f} | {share['ours, fp32']:.0%} |",
        f"| plain PyTorch, contiguous fp32 | {told(step['step_s']['plain'])} | 1.00 | |",
        "",
        "| the loader, one core, 160 x 160 | pictures/s |",
        "|---|---|",
        *(
            f"| {name} | {found['median']:,.0f} ({found['all'][0]:,.0f} to {found['all'][-1]:,.0f}) |"
            for name, found in loader.items()
            if name not in ("commit", "machine")
        ),
        "",
        parts_line(parts),
    ]
    return "\n".join(rows)


def told(found: dict[str, Any]) -> str:
    """Median and range of a measurement, two digits."""
    return f"{found['median']:.2f} ({found['all'][0]:.2f} to {found['all'][-1]:.2f})"


def claims_table(result: dict[str, Any]) -> str:
    """Each claim's question, and what came of it."""
    lines = []
    for part in result["parts"].values():
        lines += [
            f"*{part['question']}* ({part['seconds'] / 60:.0f} minutes)",
            "",
            "| | accuracy | three seeds |",
            "|---|---|---|",
        ]
        for arm, found in part["arms"].items():
            seeds = ", ".join(f"{accuracy:.3f}" for accuracy in found["all"])
            lines.append(f"| {arm} | {found['mean']:.3f} ± {found['std']:.3f} | {seeds} |")
        lines.append("")
    return "\n".join([*lines, parts_line(result["parts"])])


def ranged(found: dict[str, Any], *, unit: float = 1.0, digits: int = 0) -> str:
    """Median and range of a measurement, in units of `unit`."""
    low, *_, high = found["all"]
    median, low, high = (f"{value / unit:,.{digits}f}" for value in (found["median"], low, high))
    return f"{median} ({low} to {high})"


def cells_table(result: dict[str, Any]) -> str:
    """A table a device: the ways to run a cell, forward and with the backward pass."""
    lines: list[str] = []
    for device, part in result["parts"].items():
        for shape, kinds in part["shapes"].items():
            n_batch, n_steps, n_in, n_hidden = shape.split("x")
            title = f"{n_batch} x {n_steps} x {n_in} -> {n_hidden}, {device}"
            lines += [f"| {title} | forward, ms | forward and backward, ms | times the own loop |", "|---|---|---|---|"]
            for kind, found in kinds.items():
                forward, both = found["ms"]["forward"], found["ms"]["forward and backward"]
                for way in both:
                    faster = both["own loop"]["median"] / both[way]["median"]
                    lines.append(
                        f"| {way_name(kind, way, found)} | {ranged(forward[way])} | {ranged(both[way])} | {faster:.2f} |"
                    )
            lines.append("")
        cells = [found for kinds in part["shapes"].values() for found in kinds.values()]
        compile_s = [sum(found["compile_s"].values()) for found in cells]
        traced = any(found["scripted by"] == "torch.jit.trace" for found in cells)
        lines += [
            f"torch.compile took {min(compile_s):.0f} to {max(compile_s):.0f} s, once for each. "
            + ("torch.jit.script can't take the loop as it stands, torch.jit.trace can. " if traced else "")
            + ("PyTorch calls torch.jit deprecated. " if any(found["warnings"] for found in cells) else "")
            + f"All give the same outputs and gradients, to {max(found['largest_difference'] for found in cells):.0e} of the largest.",
            *(f"`nn.{kind}` runs {kernel_name(found)}." for kind, found in next(iter(part["shapes"].values())).items()),
            "",
            machine_line(part),
            "",
        ]
    return "\n".join(lines[:-1])


def way_name(kind: str, way: str, found: dict[str, Any]) -> str:
    """`LSTM, compiled (one step)`."""
    if way.startswith("nn."):
        return f"`{way}`"
    by = {"scripted": found["scripted by"], "compiled": f"torch.compile, {found['compiled']}"}
    return f"{kind}, own loop" if way == "own loop" else f"{kind}, {by[way]}"


def kernel_name(found: dict[str, Any]) -> str:
    """What a library's cell was seen to run."""
    runs = next(value for name, value in found.items() if name.endswith(" runs"))
    names = [name.removeprefix("aten::") for name in runs["forward and backward"]]
    if "mkldnn_rnn_layer" in names:
        return "oneDNN (`mkldnn_rnn_layer`)"
    return "cuDNN" if any(name.startswith("_cudnn") for name in names) else "a loop of matrix products in C++"


def batch_shape_table(result: dict[str, Any]) -> str:
    """What each shape of batch makes of the same time."""
    lines: list[str] = []
    for part in result["parts"].values():
        lines += [
            f"| {part['train_seconds']:.0f} s of training, learning rate {part['lr']} | tokens/s | steps | perplexity |",
            "|---|---|---|---|",
        ]
        for name, found in part["shapes"].items():
            lines.append(
                f"| {name} | {ranged(found['tokens_per_s'])} | {found['n_steps']:,} | {found['perplexity']:.1f} |"
            )
        lines.append("")
    part = next(iter(result["parts"].values()))
    return "\n".join(
        [
            f"`--size {part['size']}` on {part['source']}, vocabulary {part['vocab_size']:,}, streams x tokens of a window.",
            "",
            *lines,
            parts_line(result["parts"]),
        ]
    )


def train_lm_table(result: dict[str, Any]) -> str:
    """A step of the language model each way, its memory, an epoch of a classifier."""
    parts = result["parts"]
    names = {
        "fastai": "fastai 2.8.12",
        "plain": "this model with PyTorch's plain loss, malloc as it is",
        "ours, malloc as it is": "ulmpipe, fp32, malloc as it is",
        "ours": "ulmpipe, fp32",
        "ours, bf16": "ulmpipe, `--precision bf16`",
    }
    lines: list[str] = []
    for size in ("base", "small"):
        part = parts[size]
        lines += [
            f"| `--size {size}`: 64 x 72 tokens, 60,000 words | seconds a step | tokens/s | times fastai | MB of the process |",
            "|---|---|---|---|---|",
        ]
        for name, shown in names.items():
            if name not in part["step_s"]:
                continue
            lines.append(
                f"| {shown} | {told(part['step_s'][name])} | {part['tokens_per_s'][name]:,.0f} | {part['times_fastai'][name]:.2f} | {part['peak_rss_mb'][name]:,} |"
            )
        lines += [
            "",
            f"The matrix products of such a step, {part['flops'] / 1e12:.2f} T operations, take {part['products_s']:.1f} s at the rate of one large "
            f"fp32 product in the same run ({ranged(part['flops_per_s'], unit=1e9, digits=0)} GFLOP/s): {part['share_of_products']:.0%} of the fp32 step.",
            "",
        ]
    memory, classifier = parts["memory"], parts["classifier"]
    lines += [
        f"The loss and its gradients alone take {memory['mb']['ours']['median']:,.0f} MB, plainly {memory['mb']['plain']['median']:,.0f}: {memory['times_less']:.1f} times as much.",
        "",
        f"| an epoch of the classifier: {classifier['n_docs']:,} reviews, {classifier['n_tokens']:,} tokens, `small`, fp32 | seconds | padding | MB of the process |",
        "|---|---|---|---|",
        *(
            f"| {shown} | {spread(classifier['epoch_s'][name])} | {classifier['padding'][name]:.1%} | {classifier['peak_rss_mb'][name]:,} |"
            for name, shown in (("fastai", "fastai 2.8.12"), ("ours", "ulmpipe"))
        ),
        "",
        parts_line(parts),
    ]
    return "\n".join(lines)


def batches_table(result: dict[str, Any]) -> str:
    """How fast batches are made, beside fastai; a store of a billion tokens; what of a batch is padding."""
    parts = result["parts"]
    lm, billion, classifier = parts["lm"], parts["billion"], parts["classifier"]
    lines = [
        f"| one core, {lm['n_targets'] / 1e6:.1f} M tokens of reviews, windows of {lm['batch_size']} x {lm['bptt']} | million tokens/s |",
        "|---|---|",
        *(f"| {name} | {ranged(found, unit=1e6, digits=2)} |" for name, found in lm["tokens_per_s"].items()),
        "",
        "| a billion tokens | first batch of an epoch, s | memory of its own, MB | after 2,000 scattered batches | with pages of the mapped file |",
        "|---|---|---|---|---|",
    ]
    for name, found in billion["documents"].items():
        memory = [found["rss_mb"][when]["own"] for when in ("before", "after the first batches", "most while drawing")]
        peak = found["rss_mb"]["most while drawing"]["peak"] - found["rss_mb"]["before"]["peak"]
        lines.append(
            f"| {found['n_docs']:,} {name} of {found['doc_tokens']:,} tokens | {told(found['first_batch_s'])} | +{memory[1] - memory[0]:.0f} | +{memory[2] - memory[0]:.0f} | +{peak:.0f} |"
        )
    lines += [
        "",
        f"| {classifier['n_docs']:,} reviews, {classifier['max_tokens']:,} tokens at most | batches | padding | of what the encoder computes | largest batch, positions | million tokens/s |",
        "|---|---|---|---|---|---|",
    ]
    for order, kinds in classifier["epochs"].items():
        for name, found in kinds.items():
            lines.append(
                f"| {name}, {order} | {found['n_batches']} | {found['padding']:.1%} | {found['encoder_padding']:.1%} | {found['largest_batch_positions']:,} | {ranged(found['tokens_per_s'], unit=1e6, digits=1)} |"
            )
    same = "The windows are the same as fastai's, unshuffled, to the last. " if lm["same_windows"] else ""
    return "\n".join(
        [
            *lines,
            "",
            f"{same}The system takes back pages of a mapped file where memory is short.",
            "",
            parts_line(parts),
        ]
    )


def predict_table(result: dict[str, Any]) -> str:
    """Predicting beside fastai, one review, a cold start, and what int8 and bf16 cost, where they were measured."""
    parts = result["parts"]
    lines: list[str] = []
    for size in ("small", "base"):
        if not (part := parts.get(size)):
            continue
        lines += [
            f"| `--size {size}`: {part['n_docs']:,} reviews, {part['n_tokens']:,} tokens, on {part['threads']} thread | processor seconds | reviews/s | times fastai | largest difference |",
            "|---|---|---|---|---|",
        ]
        for name, found in part["cpu_s"].items():
            shown = "fastai 2.8.12, `get_preds`" if name == "fastai" else name
            lines.append(
                f"| {shown} | {told(found)} | {part['docs_per_cpu_s'][name]:,.1f} | {part['times_fastai'][name]:.2f} | {part['largest_difference'][name]:.1g} |"
            )
        lines += [
            "",
            f"In its own batches fastai gives {part['n_differ']['fastai']} of these reviews another probability than it gives them alone (by more than 0.001).",
            "",
        ]
        if texts := part.get("from_texts_cpu_s"):
            ours = ", ".join(f"{name} {told(found)}" for name, found in texts.items() if name != "fastai")
            lines += [f"From the texts on, seconds of a processor: fastai {texts['fastai']:.1f}, {ours}.", ""]
    if start := parts.get("start"):
        lines += [
            f"| one thread | one review of {start['n_characters']:,} characters, loaded, ms of a processor | with `--quantize` | whole command, s |",
            "|---|---|---|---|",
        ]
        for size, ms in start["one_review_cpu_ms"].items():
            one = " | ".join(ranged(ms[name]) for name in ("fp32", "--quantize"))
            lines.append(f"| {size} | {one} | {told(start['command_s'][size])} |")
        lines.append("")
    if accuracy := parts.get("accuracy"):
        lines += [
            f"| a trained classifier on {accuracy['n_docs']:,} reviews | accuracy | other labels |",
            "|---|---|---|",
        ]
        for name, found in accuracy["accuracy"].items():
            lines.append(f"| {name} | {found:.4f} | {accuracy['other_labels'][name]} |")
        lines.append("")
    return "\n".join([*lines, parts_line(parts)])


def serve_table(result: dict[str, Any]) -> str:
    """Requests a second, how long one takes, and what joining those that wait saves."""
    lines = [
        f"| a request, `--size {result['size']}`, {result['threads']} thread | clients at a time | requests/s | ms, median | ms, 99th of 100 | ms of a processor | the same, each alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        own, alone = row["joined"], row["alone"]
        lines.append(
            f"| {row['what']} | {row['clients']} | {ranged(own['requests_per_s'], digits=1)} | {own['median_ms']['median']:.0f} | {own['p99_ms']['median']:.0f} | {ranged(own['cpu_ms'], digits=1)} | {ranged(alone['cpu_ms'], digits=1)} |"
        )
    memory = result["rss_mb"]
    return "\n".join(
        [
            *lines,
            "",
            f"*Each alone*: texts that wait are not predicted together. The process had {memory['before']:,.0f} MB at first and {memory['after']:,.0f} after {result['n_requests']:,} requests.",
            "",
            machine_line(result),
        ]
    )


def faults_table(result: dict[str, Any]) -> str:
    """What was tried against a run, and how often nothing was lost."""
    tried, survived = result["tried"], result["survived"]
    lines = ["| fault | tried | survived |", "|---|---|---|"]
    lines += [f"| {kind} | {n:,} | {survived.get(kind, 0):,} |" for kind, n in tried.items()]
    lines.append(f"| in all | {sum(tried.values()):,} | {sum(survived.values()):,} |")
    lost = "" if tried != survived else "Lost bytes: 0.\n\n"  # which every test of them asserts
    return "\n".join([*lines, "", lost + machine_line(result)])


def render(page: str) -> str:
    """A page with every block made again from its JSON."""
    tables = {
        "demo": demo_lines,
        "tokenize": tokenize_table,
        "exact": exact_table,
        "train": train_table,
        "accuracy": accuracy_table,
        "en_small": en_small_lines,
        "labels": labels_table,
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

    files = {"labels": "label_efficiency"}  # where a block has another name than its results

    def block(match: re.Match[str]) -> str:
        result = json.loads(
            (ROOT / "bench" / "results" / f"{files.get(match[2], match[2])}.json").read_text(encoding="utf-8")
        )
        return f"{match[1]}\n{tables[match[2]](result)}\n\n{match[3]}"

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
