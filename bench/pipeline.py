"""The goal of this script is to measure the whole text pipeline on IMDB: the commands of README, their time, memory, accuracy.

    ULMPIPE_DATA=../shared/data python bench/pipeline.py [demo] [train]     -> bench/results/{demo,train}.json

Every command runs as its own process, as a user would run it; seconds are those of the clock, start-up included.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

from bench import record

ROOT = Path(__file__).parent.parent
TRAIN = (
    "pretrain wikitext2 -o {out}/wt2-lm --size small --max-vocab 10000 --batch-size 32 --max-steps 300",
    "finetune imdb --from {out}/wt2-lm -o {out}/imdb --max-vocab 10000 --max-steps 200 --max-tokens 200 --epochs 1",
    "evaluate {out}/imdb $ULMPIPE_DATA/imdb/test.parquet",
)


def run(command: str, **places: Any) -> dict[str, Any]:
    """Run `ulmpipe COMMAND --json`; its output, its seconds, and the peak memory of its largest process in MB."""
    words = [sys.executable, "-m", "ulmpipe", *os.path.expandvars(command.format(**places)).split(), "--json"]
    begin_s = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    wall_s = round(time.monotonic() - begin_s, 1)
    return {
        "command": f"ulmpipe {command}",
        "wall_s": wall_s,
        "peak_rss_mb": usage.ru_maxrss // 1024,
        **json.loads(printed),
    }


def measure_demo(out: Path) -> dict[str, Any]:
    """The demo, once."""
    return run("demo -o {out}", out=out / "demo")


def measure_train(out: Path) -> dict[str, Any]:
    """Pretrain, finetune, evaluate, once each."""
    runs = [run(command, out=out) for command in TRAIN]
    return {"runs": runs, "wall_s": round(sum(r["wall_s"] for r in runs), 1), "accuracy": runs[-1]["accuracy"]}


def main() -> None:
    """Measure what was asked for, and write it down with the machine it was measured on."""
    record.where()
    measures = {"demo": measure_demo, "train": measure_train}
    for name in sys.argv[1:] or measures:
        with tempfile.TemporaryDirectory() as out:
            result = measures[name](Path(out))
        record.write(name, json.loads(json.dumps(result).replace(out, "out")))


if __name__ == "__main__":
    main()
