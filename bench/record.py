"""How a bench writes its numbers down: with the machine, the versions and the commit, as bench/results/NAME.json."""

import json
import statistics
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ulmpipe.machine import info

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def write(name: str, result: dict[str, Any]) -> None:
    """Write a result as a file of its own."""
    _save(name, {**where(), **result})


def read(name: str) -> dict[str, Any]:
    """A result as it was written."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def update(name: str, part: str, result: dict[str, Any]) -> None:
    """Write one part of a result that is measured in parts, each with its commit and machine; the others stay."""
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    _save(name, {"parts": {**before["parts"], part: {**where(), **result}}})


def _save(name: str, result: dict[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


@cache
def where() -> dict[str, Any]:
    """Commit and machine, as they were when a bench first asked."""
    words = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(words, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    return {"commit": commit, "machine": info()}


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Median and all, lowest first."""
    return {"median": round(statistics.median(seconds), 4), "all": sorted(round(s, 4) for s in seconds)}
