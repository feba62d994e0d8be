"""`python -m vision` as users meet it: exit codes, one line for what is wrong, one JSON object for what was asked."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shapes import write_folder

from vision.__main__ import main

ROOT = Path(__file__).parents[2]
TRAIN = ("--size", "32", "--first-size", "32", "--batch-size", "16", "--epochs", "1", "--precision", "fp32", "--workers", "1", "--device", "cpu")  # fmt: skip


def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    """Run a command line in this process."""
    capsys.readouterr()
    handlers = [(signum, signal.getsignal(signum)) for signum in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(sys, "argv", ["vision", *map(str, args)])
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        for signum, handler in handlers:
            signal.signal(signum, handler)
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.mark.usefixtures("small")
def test_train_transfer_evaluate_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = write_folder(tmp_path / "shapes", 12)
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(monkeypatch, capsys, "train", folder, *TRAIN, "--json")
    result = json.loads(out)
    assert code == 0 and result["out"] == "models/shapes" and out.count("\n") == 1 and "epoch 1/1" in err
    assert {"valid_loss", "accuracy", "seconds", "images_per_s", "out", "classes", "size", "precision"} <= result.keys()
    options = [word for k, word in enumerate(TRAIN) if "--first-size" not in TRAIN[max(0, k - 1) : k + 1]]
    code, out, _ = cli(monkeypatch, capsys, "transfer", folder, "--from", "models/shapes", "-o", "two", "--head-epochs", "1", *options, "-q")  # fmt: skip
    assert code == 0 and "accuracy" in out and "two" in out
    code, out, err = cli(monkeypatch, capsys, "evaluate", "two", folder, "--workers", "1", "--json", "-q")
    assert code == 0 and err == "" and {"n", "accuracy", "f1_macro", "loss"} <= json.loads(out).keys()
    code, out, _ = cli(monkeypatch, capsys, "evaluate", "two", folder, "--workers", "1", "--tta")
    assert code == 0 and "confusion (rows: truth, columns: prediction)" in out
    bad = folder / "bad.png"
    bad.write_bytes(b"")
    code, out, err = cli(monkeypatch, capsys, "predict", "two", folder / "red" / "000.png", bad)
    label, probability, path = out.strip().split("\t")
    assert code == 3 and label in {"red", "green", "blue"} and 0 < float(probability) <= 1 and path.endswith("000.png")
    assert err == f"{bad}: the file is empty\n"
    code, out, _ = cli(monkeypatch, capsys, "predict", "two", folder / "red", "--json")
    assert code == 0 and len(out.splitlines()) == 12 and json.loads(out.splitlines()[0])["reason"] is None


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (
            ("train", "nowhere"),
            1,
            "nowhere does not exist and is no name: expected a folder, a table, or one of imagenette",
        ),
        (("train", "digits", "--epochs", "0"), 2, "--epochs is 0, expected more than 0"),
        (("train", "digits", "--precision", "fp16", "--device", "cpu"), 2, "fp16 needs a GPU"),
        (("evaluate", "nowhere", "digits"), 1, "nowhere does not exist, expected an image classifier"),
        (("predict", "nowhere", "a.png"), 1, "nowhere does not exist"),
        (("transfer", "digits", "--from", "nowhere"), 1, "nowhere does not exist"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    code: int,
    said: str,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ULMPIPE_DATA", raising=False)
    found, out, err = cli(monkeypatch, capsys, *args)
    assert found == code and out == "" and err.count("\n") == 1 and err.startswith("python -m vision: ") and said in err
    assert not any(tmp_path.iterdir())


def test_unknown_flags_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    code, _, err = cli(monkeypatch, capsys, "train", "digits", "--epoch", "3")
    assert code == 2 and "No such option" in err


def test_help_answers_without_torch():
    code = "import sys; sys.argv = ['vision', 'train', '--help']; from vision.__main__ import app\ntry: app()\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.endswith("False\n") and "--mixup" in done.stdout and "[default: xresnet18]" in " ".join(done.stdout.split())  # fmt: skip


def test_a_terminated_training_goes_on(tmp_path: Path):
    """A process of its own: SIGTERM in the middle, exit code 143, the command that resumes, and that command."""
    command = [sys.executable, "-m", "vision", "train", "digits", "-o", str(tmp_path / "net"), "--epochs", "3", "--precision", "fp32", "--workers", "1", "--checkpoint-steps", "3"]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env) as process:
        deadline = time.monotonic() + 120
        while not any((tmp_path / "net").glob("checkpoint-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == 143, err
    assert f"a checkpoint was written; go on with: python -m vision {' '.join(command[3:])} --resume" in err
    done = subprocess.run([*command, "--resume", "--json"], capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0 and json.loads(done.stdout)["n_steps"] == 3 * (1438 // 64)
    assert "resuming train from checkpoint-" in done.stderr
