"""What several tables share: where a result was measured, its range, what a command came to. Used by report*.py."""

import math
from typing import Any


def machine_line(result: dict[str, Any]) -> str:
    """Where a result was measured."""
    machine = result["machine"]
    packages = [f"{name} {machine['packages'][key]}" for key, name in (("torch", "torch"), ("spacy", "spaCy")) if machine["packages"][key]]  # fmt: skip
    versions = ", ".join([f"Python {machine['python']}", *packages])
    gpu = machine["gpu"] or "no GPU"
    cores = f"{machine['cores']} core{'s' * (machine['cores'] != 1)}"
    return f"Measured on {cores} of an {machine['processor']}, {gpu}; {versions}; commit {result['commit']}."


def parts_line(parts: dict[str, Any]) -> str:
    """Where a result was measured whose parts are of one machine."""
    machine = next(iter(parts.values()))["machine"]
    commits = ", ".join(dict.fromkeys(part["commit"] for part in parts.values()))
    return machine_line({"machine": machine, "commit": commits})


def ranged(found: dict[str, Any], *, unit: float = 1.0, digits: int = 0) -> str:
    """Median and range of a measurement, in units of `unit`: `4.67 (4.58 to 4.68)`."""
    median, low, high = (f"{n / unit:,.{digits}f}" for n in (found["median"], found["all"][0], found["all"][-1]))
    return f"{median} ({low} to {high})" if len(found["all"]) > 1 else f"{median} (one run)"


def command_rows(runs: list[dict[str, Any]]) -> list[str]:
    """A table of commands."""
    rows = ["| command | minutes | reached |", "|---|---|---|"]
    for run in runs:
        command = run["command"].replace("{lm}", "{out}/enwiki-lm").replace("{out}", "models")
        rows.append(f"| `{command}` | {run['wall_s'] / 60:.1f} | {reached(run)} |")
    return rows


def reached(run: dict[str, Any]) -> str:
    """What a command came to: a language model's perplexity, a classifier's accuracy."""
    if run["accuracy"] is None or run.get("perplexity"):
        return f"perplexity {run.get('perplexity') or math.exp(run['valid_loss']):.1f}, held-out text"
    on = f"on {run['n']:,} reviews, macro F1 {run['f1_macro']:.4f}" if "n" in run else "held-out text"
    return f"accuracy {run['accuracy']:.4f}, {on}"
