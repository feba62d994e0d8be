"""How a bench writes its numbers down: with the machine, the versions and the commit, as bench/results/NAME.json."""

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from ulmpipe.machine import info

ROOT = Path(__file__).parent.parent
RESULTS = Path(os.environ.get("ULMPIPE_RESULTS", ROOT / "bench" / "results"))


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


def read_points(name: str) -> list[dict[str, Any]]:
    """The points of a result that is measured point by point; none where there is no such result."""
    return _load_points(name)["points"]


def _load_points(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {"machines": [], "points": []}


def has_point(name: str, **given: Any) -> bool:
    """Whether a point is there that was measured with all that is given."""
    return any(all(point.get(key) == value for key, value in given.items()) for point in read_points(name))


def add_point(name: str, key: dict[str, Any], result: dict[str, Any]) -> None:
    """Write a point down at once, in the place of an older one of this key: a long bench that is killed loses one point."""
    commit, machine = where()["commit"], where()["machine"]
    with FileLock(f"{tempfile.gettempdir()}/ulmpipe-bench-{name}.lock"):  # several may measure at a time
        before = _load_points(name)
        machines, points = before["machines"], before["points"]
        if machine not in machines:
            machines.append(machine)
        others = [point for point in points if any(point.get(k) != value for k, value in key.items())]
        point = {**key, **result, "commit": commit, "machine": machines.index(machine)}
        _save(name, {"machines": machines, "points": [*others, point]})


def measure_once(
    name: str, key: dict[str, Any], given: dict[str, Any], measure: Callable[[], dict[str, Any]]
) -> dict[str, Any] | None:
    """Measure a point and write it down, unless it is there, measured with all that is `given`; None then."""
    if has_point(name, **key, **given):
        return None
    found = {**measure(), **given}
    add_point(name, key, found)
    return found


def _save(name: str, result: dict[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    part = RESULTS / f"{name}.json.part"
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(RESULTS / f"{name}.json")


@cache
def where() -> dict[str, Any]:
    """Commit and machine, as they were when a bench first asked."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT).stdout.strip()

    places = (".", ":!bench/results", ":!README.md", ":!bench/README.md")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *places)
    return {"commit": git("rev-parse", "--short", "HEAD") + "-dirty" * bool(changed), "machine": info()}


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Median and all, lowest first."""
    return {"median": round(statistics.median(seconds), 4), "all": sorted(round(s, 4) for s in seconds)}
