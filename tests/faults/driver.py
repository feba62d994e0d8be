"""A `tokenize` with small work units, as a process of its own: `python driver.py SOURCE OUT WORKERS`. What faults are sent to."""

import sys
from pathlib import Path

from ulmpipe import command

UNIT_BYTES = 20_000


def main() -> None:
    """Say that signals are heard from now on, then tokenize a folder; 3 where something was quarantined, 130 after Ctrl-C."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        from ulmpipe.config import TokenizeConfig
        from ulmpipe.tasks.tokenize import tokenize_plan
        from ulmpipe.text.source import plan_folder

        source, out, workers = sys.argv[1:]
        plan = plan_folder(Path(source), unit_bytes=UNIT_BYTES)
        result = tokenize_plan(plan, Path(out), TokenizeConfig(workers=int(workers)))
    except KeyboardInterrupt:  # which typer turns into this code
        sys.exit(130)
    sys.exit(3 if result.n_quarantined else 0)


if __name__ == "__main__":
    command.run(main, "driver")
