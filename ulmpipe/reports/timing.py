"""Where the seconds of a training went: by the rows of its metrics.jsonl, and the clock of its journal entry."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..durable import CURVE_FILE
from ..journal import Run, read_curve


def timing(
    folders: Sequence[Path], before: Mapping[str, float], run: Run, *, is_whole: bool = True
) -> dict[str, float]:
    """Seconds of what came before, of each phase, and of the rest of the run up to now where the phases are all that it had."""
    stages = {stage: seconds for stage, seconds in before.items() if seconds}
    for row in read_curve([folder / CURVE_FILE for folder in folders]):
        stages[row["phase"]] = stages.get(row["phase"], 0.0) + row["seconds"]
    rest = time.monotonic() - run.begin_s - sum(stages.values())
    return {**stages, **({"everything else": rest} if rest > 0 and is_whole else {})}
