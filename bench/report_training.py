"""The tables of training on texts: a step, batches and their shape, recurrent cells. Used by report.py."""

from typing import Any

from bench.report_common import machine_line, parts_line, ranged


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
                f"| {shown} | {ranged(part['step_s'][name], digits=2)} | {part['tokens_per_s'][name]:,.0f} | {part['times_fastai'][name]:.2f} | {part['peak_rss_mb'][name]:,} |"
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
            f"| {shown} | {ranged(classifier['epoch_s'][name], digits=1)} | {classifier['padding'][name]:.1%} | {classifier['peak_rss_mb'][name]:,} |"
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
            f"| {found['n_docs']:,} {name} of {found['doc_tokens']:,} tokens | {ranged(found['first_batch_s'], digits=2)} | +{memory[1] - memory[0]:.0f} | +{memory[2] - memory[0]:.0f} | +{peak:.0f} |"
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
