"""How a bench runs a command: as a process of its own, as a user would, its JSON, its seconds and its memory written down."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bench.record import ROOT
from ulmpipe.config import FinetuneConfig, PretrainConfig

TEST_SEED = 0
N_SEEN = 2500  # test reviews by which the recipe for few labels was chosen: what is published of it is judged by others


def run(command: str, **places: Any) -> dict[str, Any]:
    """Run `ulmpipe COMMAND --json`: its output, its seconds, and the peak memory of its largest process in MB.

    `places` are put in for `{names}` in the command, which is written down without them.
    """
    words = os.path.expandvars(command.format(**places)).split()
    return {"command": f"ulmpipe {command}", **run_words([sys.executable, "-m", "ulmpipe", *words, "--json"])}


def run_words(words: Sequence[Any]) -> dict[str, Any]:
    """Run a program whose last line is a JSON object; ends this one where it fails."""
    begin_s = time.monotonic()
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with {process.returncode}")
    wall_s = round(time.monotonic() - begin_s, 3)
    found = json.loads(printed.rstrip().rpartition("\n")[2])
    return {"wall_s": wall_s, "peak_rss_mb": usage.ru_maxrss // 1024, **found}


def run_training(command: str, folder: Path, **places: Any) -> dict[str, Any]:
    """`run` for a training into `folder`, gone on with where it was killed; then its seconds are those since."""
    was_killed = any(folder.glob("checkpoint-*")) and not (folder / "manifest.json").exists()
    found = run(command + " --resume" * was_killed, **places)
    return {**found, "command": f"ulmpipe {command}", "resumed": was_killed}


def some_reviews(work: Path, n_test: int) -> Path:
    """A file of `n_test` reviews of IMDB's test split, by chance, always the same ones: what few labels are judged by."""
    table = pq.read_table(os.path.expandvars("$ULMPIPE_DATA/imdb/test.parquet"))
    rows = np.sort(np.random.default_rng(TEST_SEED).permutation(len(table))[N_SEEN : N_SEEN + n_test])
    path = work / f"unseen-{n_test}.parquet"
    if not path.exists():
        pq.write_table(table.take(rows), path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    return path


def baseline_command(method: str, test: Path) -> str:
    """How a peer is called; `{rows}` are the labelled reviews, `{work}` is where `test` lies, and embeddings once they are made."""
    cache = " --cache {work}" if method == "embeddings" else ""
    return f"bench/baselines.py {method} $ULMPIPE_DATA/imdb/train.parquet {{rows}} {{work}}/{test.name}{cache}"


def baseline(command: str, rows: np.ndarray, work: Path) -> dict[str, Any]:
    """Run a peer on some of the reviews."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:  # one a call: several benches may share `work`
        np.save(file, rows)
        file.flush()
        words = os.path.expandvars(command.format(rows=file.name, work=work)).split()
        return {"command": command, **run_words([os.environ.get("PEER_PYTHON", sys.executable), *words])}


def classify(lm: Path, options: str, out: Path, test: Path) -> dict[str, Any]:
    """Train a classifier of IMDB on a tuned language model, and test it on a file of reviews; its folder is removed.

    The vocabulary is the model's own, so that its texts need not be told again. `command` is that of the training.
    """
    trained = run_training(classify_command(options), out, lm=lm, out=out)
    tested = run("evaluate {out} {test}", out=out, test=test)
    shutil.rmtree(out)
    return {
        "command": trained["command"],
        "n_labels": trained["n_labels"],
        "accuracy": tested["accuracy"],
        "f1_macro": tested["f1_macro"],
        "n_test": tested["n"],
        "valid_accuracy": trained["accuracy"],
        "train_s": trained["wall_s"],
        "test_s": tested["wall_s"],
        "peak_rss_mb": trained["peak_rss_mb"],
        "resumed": trained["resumed"],
    }


def classify_command(options: str) -> str:
    """The training of `classify`."""
    return f"finetune imdb --stage classifier --from {{lm}} --vocab {{lm}}/vocab.json -o {{out}} {options}".strip()


def about_model(folder: Path) -> dict[str, Any]:
    """What a language model is: its weights, by digest, what it reached, and the options that are not the defaults."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    trained = json.loads((folder / "config.json").read_text(encoding="utf-8"))["trained"]
    usual = {**asdict(PretrainConfig()), **asdict(FinetuneConfig()), "resume": trained["options"].get("resume")}
    options = {name: value for name, value in trained["options"].items() if value != usual.get(name)}
    return {
        "sha256": manifest["files"]["model.safetensors"]["sha256"],
        "source": Path(trained["source"]).name,
        "valid_loss": trained["results"]["valid_loss"],
        "options": {name: Path(value).name if isinstance(value, str) else value for name, value in options.items()},
    }
