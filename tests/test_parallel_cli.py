"""The command line in two processes, as torchrun starts it: the numbers of one process, one output, one end for all."""

import json
import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
from commands import LM, Ended, end, start, wait_for
from learnable import TINY_CLASSIFIER, Trained, files_below

from ulmpipe.durable import sha256_of
from ulmpipe.journal import newest
from ulmpipe.tasks.finetune import finetune
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.pretrain import pretrain
from ulmpipe.tasks.verify import verify

pytestmark = pytest.mark.usefixtures("one_thread")

N_EPOCHS = 10  # a third of a second each: a signal has time to arrive
PRETRAIN = (*LM, "--epochs", str(N_EPOCHS), "--drop-mult", "0", "--json")
CLASSIFIER = {**TINY_CLASSIFIER, "drop_mult": 0.0, "from_model": "lm"}


def curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def check_same_curve(comp: Path, ref: Path, *, rel: float) -> None:
    rows = list(zip(curve(comp), curve(ref), strict=True))
    for a, b in rows:
        assert [a[name] for name in ("phase", "epoch", "step")] == [b[name] for name in ("phase", "epoch", "step")]
        for name in ("train_loss", "valid_loss"):
            assert a[name] == pytest.approx(b[name], rel=rel), (a, b)


def flags(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def lines_of_ours(ended: Ended) -> list[str]:
    return [line for line in ended.err.splitlines() if line.startswith(("ulmpipe: ", "ulmpipe (process "))]


@pytest.fixture(scope="module")
def two(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A language model of two processes, and what they said."""
    folder = tmp_path_factory.mktemp("two")
    return folder / "out", end(start("pretrain", trained.store, "-o", folder / "out", *PRETRAIN, n_processes=2))


def test_pretrain_has_the_losses_of_one_process(two: tuple[Path, Ended], trained: Trained, tmp_path: Path):
    out, ended = two
    assert ended.code == 0, ended.err
    options = {"workers": 1, "size": "tiny", "batch_size": 8, "bptt": 20, "epochs": N_EPOCHS, "drop_mult": 0.0}
    ref = pretrain(trained.store, tmp_path / "ref", **options)
    check_same_curve(out, tmp_path / "ref", rel=1e-5)
    comp = json.loads(ended.out)
    assert comp["valid_loss"] == pytest.approx(ref.valid_loss, rel=1e-5)
    assert (comp["n_steps"], comp["vocab_size"]) == (ref.n_steps, ref.vocab_size)
    made = {name.replace("ref/", "out/") for name in files_below(tmp_path)}
    assert files_below(out.parent) == made  # nothing more, and nothing twice
    assert len(newest(out.parent / "journal.db", 9)) == 1


def test_one_process_speaks(two: tuple[Path, Ended]):
    out, ended = two
    assert ended.out.count("\n") == 1 and json.loads(ended.out)["out"] == str(out)
    lines = [line for line in ended.err.splitlines() if "documents to train on" in line or "epoch" in line]
    assert len(lines) == len(set(lines)) >= 1 and "process 1" not in ended.err
    assert verify(out).n_files == 3


def test_finetune_goes_through_all_phases_to_a_usable_model(own: Path):
    """The losses of the classifier are compared in train/test_parallel.py, where its head has no dropout."""
    options: dict[str, Any] = CLASSIFIER | {"from_model": str(own / "lm")}
    ref = finetune(own / "train.csv", own / "ref", **options)
    words = flags({**{k: v for k, v in options.items() if k != "from_model"}, "from": own / "lm"})
    ended = end(start("finetune", own / "train.csv", "-o", own / "out", *words, "--json", n_processes=2))
    assert ended.code == 0, ended.err
    comp = json.loads(ended.out)
    check_same_curve(own / "out/lm", own / "ref/lm", rel=1e-4)
    assert [(row["phase"], row["step"]) for row in curve(own / "out")] == [(row["phase"], row["step"]) for row in curve(own / "ref")]  # fmt: skip
    assert {row["phase"] for row in curve(own / "out")} == {"classifier, head", "classifier, last layer", "classifier, all layers"}  # fmt: skip
    assert comp["accuracy"] > 0.8 and comp["valid_loss"] < 0.5 and comp["n_labels"] == ref.n_labels
    assert files_below(own / "out") == files_below(own / "ref")
    assert Pretrained.from_pretrained(own / "out").labels == ["neg", "pos"]


def test_stopped_processes_resume_to_the_same_bytes(two: tuple[Path, Ended], trained: Trained, tmp_path: Path):
    out = tmp_path / "out"
    with start("pretrain", trained.store, "-o", out, *PRETRAIN, n_processes=2) as process:
        wait_for(lambda: list(out.glob("checkpoint-*")), process)
        process.send_signal(signal.SIGTERM)
        ended = end(process)
    assert ended.code != 0 and ended.out == ""
    assert not (out / "manifest.json").exists() and not list(out.glob(".staging-*"))
    (checkpoint,) = out.glob("checkpoint-*")
    assert (checkpoint / "manifest.json").exists() and 28 <= int(checkpoint.name.split("-")[1]) < 28 * N_EPOCHS
    (told,) = {line.split(": ", 1)[1] for line in lines_of_ours(ended)}
    said, command = told.split("; go on with: torchrun --nproc-per-node 2 -m ulmpipe ")
    assert said == "stopped by SIGTERM, a checkpoint was written"
    assert not left_of(out)
    resumed = end(start(*shlex.split(command), n_processes=2))
    assert resumed.code == 0 and command.endswith("--resume") and not left_of(out), resumed.err
    assert sha256_of(out / "model.safetensors") == sha256_of(two[0] / "model.safetensors")
    assert [row["step"] for row in curve(out)] == [row["step"] for row in curve(two[0])]


def left_of(out: Path) -> list[int]:
    """Processes whose command line names `out`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(out) in words:
            found.append(int(path.parent.name))
    return found
