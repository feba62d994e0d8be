"""The goal of this script is to measure the whole text pipeline on IMDB: the commands of README, their time, memory, accuracy.

    ULMPIPE_DATA=../shared/data python bench/pipeline.py [demo] [train]     -> bench/results/{demo,train}.json
    ULMPIPE_DATA=../shared/data python bench/pipeline.py accuracy [--work FOLDER]   -> bench/results/accuracy.json

Every command runs as its own process, as a user would run it; seconds are those of the clock, start-up included.
`accuracy`, with all labels and the language model in the box, takes more than an hour. Each of its stages is written down at
once, and when it is called again it goes on where it was killed: a stage that is there with the same command is left as it is.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

from bench import record
from bench.command import about_model, run, run_training
from ulmpipe.tasks.model_folder import BOX

TRAIN = (
    "pretrain wikitext2 -o {out}/wt2-lm --size small --max-vocab 10000 --batch-size 32 --max-steps 300",
    "finetune imdb --from {out}/wt2-lm -o {out}/imdb --max-vocab 10000 --max-steps 200 --max-tokens 200 --epochs 1",
    "evaluate {out}/imdb $ULMPIPE_DATA/imdb/test.parquet",
)
IMDB = "--max-vocab 30000"
ACCURACY = {  # by stage: command, folder that it trains into
    "language model": (
        f"finetune imdb --stage lm --from en-small -o {{out}}/imdb {IMDB} --drop-mult 0.1 --max-steps 2800",
        "imdb/lm",
    ),
    "classifier": (
        f"finetune imdb --stage classifier -o {{out}}/imdb {IMDB} --max-tokens 600 --epochs 1 --classifier-drop-mult 0.2",
        "imdb",
    ),
    "evaluate": ("evaluate {out}/imdb $ULMPIPE_DATA/imdb/test.parquet", None),
}


def measure_demo(out: Path) -> dict[str, Any]:
    """The demo, once."""
    return run("demo -o {out}", out=out / "demo")


def measure_train(out: Path) -> dict[str, Any]:
    """Pretrain, finetune, evaluate, once each."""
    runs = [run(command, out=out) for command in TRAIN]
    return {"runs": runs, "wall_s": round(sum(r["wall_s"] for r in runs), 1), "accuracy": runs[-1]["accuracy"]}


def measure_accuracy(work: Path) -> None:
    """The stages that are not there yet; one that is measured again has the later ones measured again too."""
    start = {"language_model": about_model(BOX / "en-small")}
    fresh = True
    for stage, (command, folder) in ACCURACY.items():
        key = {"stage": stage}
        fresh = fresh and record.has_point("accuracy", **key, command=f"ulmpipe {command}", **start)
        if fresh:
            continue
        found = run_training(command, work / folder, out=work) if folder else run(command, out=work)
        told = json.dumps({**found, **start}).replace(str(work), "{out}")
        record.add_point("accuracy", key, json.loads(told))


def main() -> None:
    """Measure what was asked for, and write it down with the machine it was measured on."""
    measures = {"demo": measure_demo, "train": measure_train}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=(*measures, "accuracy"), default=[*measures])
    parser.add_argument("--work", type=Path, default=Path("models/bench"), help="where `accuracy` leaves its models")
    args = parser.parse_args()
    record.where()
    for name in args.parts:
        if name == "accuracy":
            measure_accuracy(args.work.resolve())
            continue
        with tempfile.TemporaryDirectory() as out:
            result = measures[name](Path(out))
        record.write(name, json.loads(json.dumps(result).replace(out, "out")))


if __name__ == "__main__":
    main()
