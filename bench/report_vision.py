"""The tables of pictures: what trainings reach and take, and what came of a lesson's claims. Used by report.py."""

from typing import Any

from bench.report_common import parts_line, ranged


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
        f"| as trained: channels last, {step['precision']} | {ranged(step['step_s']['ours'], digits=2)} | {plain / ours:.2f} | {share['ours']:.0%} |",
        f"| the same in fp32 | {ranged(step['step_s']['ours, fp32'], digits=2)} | {plain / fp32:.2f} | {share['ours, fp32']:.0%} |",
        f"| plain PyTorch, contiguous fp32 | {ranged(step['step_s']['plain'], digits=2)} | 1.00 | |",
        "",
        "| the loader, one core, 160 x 160 | pictures/s |",
        "|---|---|",
        *(f"| {name} | {ranged(found)} |" for name, found in loader.items() if name not in ("commit", "machine")),
        "",
        parts_line(parts),
    ]
    return "\n".join(rows)


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
