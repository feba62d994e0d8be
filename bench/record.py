"""How a bench writes its numbers down: with the machine, the versions and the commit, as bench/results/NAME.json."""

import json
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ulmpipe.tasks.verify import info

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def write(name: str, result: dict[str, Any]) -> None:
    """Write a result as a file of its own."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({**where(), **result}, indent=1) + "\n")


def update(name: str, part: str, result: dict[str, Any]) -> None:
    """Write one part of a result that is measured in parts; the others stay, each with the commit it was measured at."""
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    write(name, {"parts": {**before.get("parts", {}), part: {"commit": where()["commit"], **result}}})


def where() -> dict[str, Any]:
    """Commit and machine."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    return {"commit": found.stdout.strip(), "machine": info()}


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Median and all, lowest first."""
    return {"median": round(statistics.median(seconds), 4), "all": sorted(round(s, 4) for s in seconds)}
