"""The tables of predictions: many reviews, one of them, and requests to a server. Used by report.py."""

from typing import Any

from bench.report_common import machine_line, parts_line, ranged


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
                f"| {shown} | {ranged(found, digits=2)} | {part['docs_per_cpu_s'][name]:,.1f} | {part['times_fastai'][name]:.2f} | {part['largest_difference'][name]:.1g} |"
            )
        lines += [
            "",
            f"In its own batches fastai gives {part['n_differ']['fastai']} of these reviews another probability than it gives them alone (by more than 0.001).",
            "",
        ]
        if texts := part.get("from_texts_cpu_s"):
            ours = ", ".join(f"{name} {ranged(found, digits=2)}" for name, found in texts.items() if name != "fastai")
            lines += [f"From the texts on, seconds of a processor: fastai {texts['fastai']:.1f}, {ours}.", ""]
    if start := parts.get("start"):
        lines += [
            f"| one thread | one review of {start['n_characters']:,} characters, loaded, ms of a processor | with `--quantize` | whole command, s |",
            "|---|---|---|---|",
        ]
        for size, ms in start["one_review_cpu_ms"].items():
            one = " | ".join(ranged(ms[name]) for name in ("fp32", "--quantize"))
            lines.append(f"| {size} | {one} | {ranged(start['command_s'][size], digits=2)} |")
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
