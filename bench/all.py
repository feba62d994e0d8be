"""The goal of this script is to run every bench: `make bench` in minutes on little work, to see that all still measure; or in full.

    ULMPIPE_DATA=../shared/data [PEER_PYTHON=...] python bench/all.py [--full] [NAME ...]

Quick is for the scripts, not for numbers: what they find goes into a folder that is thrown away. In full, which takes a day on
2 cores, each writes its file into bench/results, and README is made of these (bench/report.py). Benches whose peers are missing
are left out by name; `make peers` installs what bench/peers.txt lists.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TUNED, PRETRAINED = "{work}/imdb/lm", "{work}/wiki-lm"  # made by `language models`, for those that start from them


class Bench(NamedTuple):
    """A script, with the arguments of both ways to run it; `{work}` is a folder that all share."""

    name: str
    quick: str
    full: str
    needs_peer: bool = False


LANGUAGE_MODELS = (
    "-m ulmpipe pretrain wikitext2 -o {work}/wiki-lm --size small --max-vocab 10000 ",
    "-m ulmpipe finetune imdb -o {work}/imdb --stage lm --from {work}/wiki-lm --max-vocab 10000 ",
)
BENCHES = (
    Bench("exact", "bench/exact.py ud/fi", "bench/exact.py"),
    Bench("batches", "bench/batches.py lm classifier --reviews 500", "bench/batches.py"),
    Bench("cells", "bench/cells.py --repeats 1 --shapes 8x10x20x20", "bench/cells.py"),
    Bench("batch_shape", "bench/batch_shape.py --seconds 2", "bench/batch_shape.py"),
    Bench("vision", "bench/vision.py loader", "bench/vision.py"),
    Bench("demo", "bench/pipeline.py demo", "bench/pipeline.py demo train"),
    Bench("wiki language model", LANGUAGE_MODELS[0] + "--max-steps 5", LANGUAGE_MODELS[0]),
    Bench("tuned language model", LANGUAGE_MODELS[1] + "--max-steps 5", LANGUAGE_MODELS[1]),
    Bench("labels", f"bench/label_efficiency.py --lm {TUNED} --labels 20 --seeds 1 --n-test 50 --part ulmpipe tfidf --work {{work}}", f"bench/label_efficiency.py --lm {TUNED} --work {{work}}"),
    Bench("ablation", f"bench/ablation.py --pretrained {PRETRAINED} --tuned {TUNED} --labels 20 --seeds 1 --n-test 50 --lm-options '--max-steps 5 --max-vocab 10000' --options '--epochs 1 --max-tokens 100' --work {{work}}", f"bench/ablation.py --pretrained {PRETRAINED} --tuned {TUNED} --work {{work}}"),
    Bench("thousand", "bench/thousand.py --seeds 1 --n-test 50 --options '--max-steps 5 --epochs 1 --max-tokens 50' --work {work}", "bench/thousand.py --work {work}"),
    Bench("serve", "bench/serve.py", "bench/serve.py"),
    Bench("dask", "bench/dask_tokenize.py", "bench/dask_tokenize.py"),
    Bench("vision_claims", "bench/vision_claims.py", "bench/vision_claims.py"),
    Bench("tokenize", "bench/tokenizer.py", "bench/tokenizer.py", needs_peer=True),
    Bench("train_lm", "bench/train_lm.py memory", "bench/train_lm.py", needs_peer=True),
    Bench("predict", "bench/predict.py start", "bench/predict.py", needs_peer=True),
    Bench("import_fastai", "bench/import_fastai.py", "bench/import_fastai.py", needs_peer=True),
)  # fmt: skip
ONLY_IN_FULL = ("tokenize", "serve", "dask", "vision_claims")  # they have no way to do less
LEFT_OUT = {"train_en_small": "a GPU's work"}


def run(bench: Bench, *, full: bool, work: Path, results: Path | None) -> str:
    """Run one; how it ended."""
    words = shlex.split((bench.full if full else bench.quick).format(work=work))
    env = {**os.environ, **({} if results is None else {"ULMPIPE_RESULTS": str(results)})}
    begin_s = time.monotonic()
    with open(work / f"{bench.name}.log", "w+") as log:
        code = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT).returncode  # fmt: skip
        seconds = time.monotonic() - begin_s
        log.seek(0)
        return f"{seconds:.0f} s" if code == 0 else f"failed with {code}\n{log.read()[-2000:]}"


def main() -> None:
    """Run those that are asked for, one after the other; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *(bench.name for bench in BENCHES)], metavar="NAME")
    parser.add_argument("--full", action="store_true", help="the whole work, written into bench/results")
    args = parser.parse_args()
    if "ULMPIPE_DATA" not in os.environ:
        sys.exit("bench/all.py: $ULMPIPE_DATA names no folder of corpora: see README")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path("models/bench") if args.full else Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        for bench in BENCHES:
            if args.names and bench.name not in args.names:
                continue
            left_out = bench.needs_peer and "PEER_PYTHON" not in os.environ and "needs $PEER_PYTHON"
            left_out = left_out or (not args.full and bench.name in ONLY_IN_FULL and "only with --full")
            told = f"left out: {left_out}" if left_out else run(bench, full=args.full, work=work, results=None if args.full else work)  # fmt: skip
            failed += [bench.name] if told.startswith("failed") else []
            print(f"{bench.name:<22} {told}", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
