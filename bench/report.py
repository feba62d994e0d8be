"""The goal of this script is to keep README's numbers those of bench/results/*.json.

python bench/report.py            writes the tables between `<!-- bench:NAME -->` and `<!-- end -->`
python bench/report.py --check    fails if README says something else
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def machine_line(result: dict[str, Any]) -> str:
    """Where a result was measured."""
    machine = result["machine"]
    versions = f"Python {machine['python']}, torch {machine['packages']['torch']}, spaCy {machine['packages']['spacy']}"
    return f"Measured on {machine['cores']} cores of an {machine['processor']}, no GPU; {versions}; commit {result['commit']}."


def demo_lines(result: dict[str, Any]) -> str:
    """What the demo ends with."""
    first = f"accuracy {result['accuracy']:.3f} on {result['n_test']:,} reviews it has not seen, after {result['wall_s']:.0f} s"
    rows = [f"  {p['label']} (1 is positive)  {p['probability']:.3f}  {p['text']}" for p in result["predictions"]]
    return "\n".join(["    " + line for line in (first, *rows)] + ["", machine_line(result)])


def tokenize_table(result: dict[str, Any]) -> str:
    """Seconds and rates of one worker and two."""
    rows = ["| workers | seconds, median | MB/s | largest process, MB |", "|---|---|---|---|"]
    for run, workers in zip(result["runs"], result["median_wall_s"], strict=True):
        wall_s, walls = result["median_wall_s"][workers], result["wall_s"][workers]
        spread = f"{walls[0]} to {walls[-1]} in {len(walls)} runs" if len(walls) > 1 else "one run"
        rate = run["n_bytes"] / 1e6 / wall_s
        rows.append(f"| {workers} | {wall_s} ({spread}) | {rate:.2f} | {run['peak_rss_mb']:,} |")
    run = result["runs"][0]
    ratio = result["two_workers_over_one"]["median"]
    lines = [
        f"`ulmpipe tokenize imdb`: {run['n_docs']:,} reviews, {run['n_bytes'] / 1e6:.1f} MB of text, {run['n_tokens']:,} tokens.",
        f"Two workers take {ratio} of one worker's time and write the same bytes.",
        "",
        *rows,
        "",
        machine_line(result),
    ]
    return "\n".join(lines)


def train_table(result: dict[str, Any]) -> str:
    """What each command took and reached."""
    rows = ["| command | minutes | reached |", "|---|---|---|"]
    for run in result["runs"]:
        reached = [f"perplexity {run['perplexity']:.1f}"] if run.get("perplexity") else []
        reached += [f"accuracy {run['accuracy']:.4f}"] if not reached else []
        reached += (
            [f"on {run['n']:,} reviews, macro F1 {run['f1_macro']:.4f}"]
            if "f1_macro" in run and run.get("n")
            else ["held-out text"]
        )
        rows.append(
            f"| `{run['command'].replace('{out}', 'models')}` | {run['wall_s'] / 60:.1f} | {', '.join(reached)} |"
        )
    total = f"{result['wall_s'] / 60:.1f} minutes in all; accuracy on the test reviews **{result['accuracy']:.4f}**."
    return "\n".join([total, "", *rows, "", machine_line(result)])


def render(readme: str) -> str:
    """README with every block made again from its JSON."""
    tables = {"demo": demo_lines, "tokenize": tokenize_table, "train": train_table}

    def block(match: re.Match[str]) -> str:
        result = json.loads((ROOT / "bench" / "results" / f"{match[2]}.json").read_text(encoding="utf-8"))
        return f"{match[1]}\n{tables[match[2]](result)}\n\n{match[3]}"

    return BLOCK.sub(block, readme)


def main() -> None:
    """Write README again, or only compare."""
    found = README.read_text(encoding="utf-8")
    expected = render(found)
    if "--check" in sys.argv[1:]:
        sys.exit(0 if found == expected else "README.md differs from bench/results: run python bench/report.py")
    README.write_text(expected, encoding="utf-8")


if __name__ == "__main__":
    main()
