"""The goal of this script is to measure the whole text pipeline on IMDB: the commands of README, their time, memory, accuracy.

    ULMPIPE_DATA=../shared/data python bench/pipeline.py [demo] [train]     -> bench/results/{demo,train}.json
    ULMPIPE_DATA=../shared/data python bench/pipeline.py accuracy [--from MODEL_FOLDER] [--work FOLDER]
                                                                              -> bench/results/accuracy.json

Every command runs as its own process, as a user would run it; seconds are those of the clock, start-up included.
`accuracy`, with all labels, takes hours. Each of its stages is written down at once, and when it is called again it goes on
where it was killed: a stage that is there with the same command is left as it is. With `--from` the first one is left out.
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

TRAIN = (
    "pretrain wikitext2 -o {out}/wt2-lm --size small --max-vocab 10000 --batch-size 32 --max-steps 300",
    "finetune imdb --from {out}/wt2-lm -o {out}/imdb --max-vocab 10000 --max-steps 200 --max-tokens 200 --epochs 1",
    "evaluate {out}/imdb $ULMPIPE_DATA/imdb/test.parquet",
)
WIKI = "$ULMPIPE_DATA/enwiki"
ACCURACY = {  # by stage: command, folder that it trains into
    "pretrain": (
        f"pretrain {WIKI}/train.parquet --valid {WIKI}/valid.parquet -o {{out}}/enwiki-lm --max-vocab 10000",
        "enwiki-lm",
    ),
    "language model": ("finetune imdb --stage lm --from {lm} -o {out}/imdb --max-vocab 10000", "imdb/lm"),
    "classifier": ("finetune imdb --stage classifier -o {out}/imdb --max-vocab 10000", "imdb"),
    "evaluate": ("evaluate {out}/imdb $ULMPIPE_DATA/imdb/test.parquet", None),
}


def measure_demo(out: Path) -> dict[str, Any]:
    """The demo, once."""
    return run("demo -o {out}", out=out / "demo")


def measure_train(out: Path) -> dict[str, Any]:
    """Pretrain, finetune, evaluate, once each."""
    runs = [run(command, out=out) for command in TRAIN]
    return {"runs": runs, "wall_s": round(sum(r["wall_s"] for r in runs), 1), "accuracy": runs[-1]["accuracy"]}


def measure_accuracy(work: Path, lm: Path | None) -> None:
    """The stages that are not there yet; one that is measured again has the later ones measured again too."""
    start = {"language_model": about_model(lm)} if lm else {}
    fresh = True
    for stage, (command, folder) in ACCURACY.items():
        if lm and stage == "pretrain":
            continue
        key = {"stage": stage}
        fresh = fresh and record.has_point("accuracy", **key, command=f"ulmpipe {command}", **start)
        if fresh:
            continue
        places = {"out": work, "lm": lm or work / "enwiki-lm"}
        found = run_training(command, work / folder, **places) if folder else run(command, **places)
        told = json.dumps({**found, **start}).replace(str(places["lm"]), "{lm}").replace(str(work), "{out}")
        record.add_point("accuracy", key, json.loads(told))


def main() -> None:
    """Measure what was asked for, and write it down with the machine it was measured on."""
    measures = {"demo": measure_demo, "train": measure_train}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=(*measures, "accuracy"), default=[*measures])
    parser.add_argument("--from", dest="lm", type=Path, help="a language model, for `accuracy` to start from")
    parser.add_argument("--work", type=Path, default=Path("models/bench"), help="where `accuracy` leaves its models")
    args = parser.parse_args()
    record.where()
    for name in args.parts:
        if name == "accuracy":
            measure_accuracy(args.work.resolve(), args.lm and args.lm.resolve())
            continue
        with tempfile.TemporaryDirectory() as out:
            result = measures[name](Path(out))
        record.write(name, json.loads(json.dumps(result).replace(out, "out")))


if __name__ == "__main__":
    main()
