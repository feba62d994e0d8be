"""SIGTERM and Ctrl-C in any phase of a training, and between them: nothing is lost, and what is said of going on is true.

`finetune` is taken, which has most phases. The signals are sent from inside, at a chosen place, to this very process.
"""

import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Cli, Ended
from learnable import TINY_CLASSIFIER, Trained

from ulmpipe.durable import sha256_of
from ulmpipe.tasks.finetune import finetune
from ulmpipe.train import Learner, Progress

pytestmark = pytest.mark.usefixtures("undrawn")

OPTIONS = {**TINY_CLASSIFIER, "max_steps": 10, "epochs": 1, "n_labels": 64, "classifier_drop_mult": 0.5}
PHASES = ("language model, words", "language model", "classifier, head", "classifier, last layer", "classifier, all layers")  # fmt: skip
IN_PHASE = [
    *((phase, True, signal.SIGTERM) for phase in PHASES),
    *((phase, False, signal.SIGINT) for phase in ("language model", "classifier, head")),
]  # phase, in its training or its validation, signal
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}

# Places outside of a fit: a function that is called there, in which call of it, and whether something was trained by then.
BETWEEN: dict[str, tuple[str, int, bool]] = {
    "tokenizing": ("ulmpipe.tasks.corpus.tokenize_plan", 0, False),
    "carrying over the words": ("ulmpipe.tasks.tune.transfer_language_model", 0, False),
    "before the first phase": ("ulmpipe.train.learner.Learner.freeze_to", 0, False),
    "between the phases of the language model": ("ulmpipe.train.learner.Learner.freeze_to", 1, True),
    "saving the language model": ("ulmpipe.tasks.model_folder.save", 0, True),
    "publishing the language model": ("ulmpipe.durable.describe_file", -1, True),
    "making the classifier": ("ulmpipe.tasks.classify.load_encoder", 0, True),
    "before the classifier": ("ulmpipe.train.learner.Learner.freeze_to", 2, True),
    "between the phases of the classifier": ("ulmpipe.train.learner.Learner.freeze_to", 4, True),
    "saving the classifier": ("ulmpipe.tasks.model_folder.save", 1, True),
}


def command(trained: Trained, out: Path, **others: Any) -> list[str]:
    options = {**OPTIONS, "from": trained.lm, **others}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return ["finetune", str(trained.store), "-o", str(out), *words, "--quiet"]


@pytest.fixture(scope="module")
def ref(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("ref")
    finetune(trained.store, folder / "out", from_model=str(trained.lm), **OPTIONS)
    return weights(folder / "out")


def weights(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): sha256_of(path)
        for path in (out / "model.safetensors", out / "lm/model.safetensors")
    }


def going_on(ended: Ended, signum: signal.Signals, told: str) -> list[str]:
    """The command line that a stopped run gave."""
    assert ended.code == CODES[signum] and ended.out == "" and "Traceback" not in ended.err
    line = ended.err.splitlines()[-1]
    said, again = line.split(" with: ulmpipe ")
    assert said == f"ulmpipe: stopped by {signum.name}{told}"
    return shlex.split(again)


SAVED, NOTHING = ", a checkpoint was written; go on", " before a checkpoint was written; begin again"


class SendIn(Progress):
    """What shows a phase sends a signal at its second batch, of training or validation."""

    def __init__(self, name: str, phase: str, training: bool, signum: int):
        super().__init__(name)
        self.is_it, self.of_training, self.signum = name == phase, training, signum

    def after_pred(self, learn: Learner) -> None:
        if self.is_it and learn.training is self.of_training and learn.batch_index == int(self.of_training):
            os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize(("phase", "training", "signum"), IN_PHASE)
def test_a_signal_in_a_phase(
    cli: Cli,
    trained: Trained,
    ref: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    training: bool,
    signum: signal.Signals,
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("ulmpipe.train.phases.Progress", lambda name: SendIn(name, phase, training, signum))
        ended = cli(*command(trained, out))
    again = going_on(ended, signum, SAVED)
    assert again == [*command(trained, out), "--resume"]
    folder = out / "lm" if phase.startswith("language model") else out
    (checkpoint,) = folder.glob("checkpoint-*")
    assert (checkpoint / "manifest.json").exists() and f'"phase": "{phase}"' in (checkpoint / "state.json").read_text()
    assert not (folder / "manifest.json").exists()
    assert cli(*again).code == 0
    assert weights(out) == ref


@pytest.mark.parametrize("place", BETWEEN)
def test_a_signal_outside_of_a_fit(
    cli: Cli, trained: Trained, ref: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    out = tmp_path / "out"
    name, n_before, is_trained = BETWEEN[place]
    source = str(trained.train if place == "tokenizing" else trained.store)
    words = [source if word == str(trained.store) else word for word in command(trained, out)]
    with monkeypatch.context() as patch:
        send_at_call(patch, name, signal.SIGTERM, lambda args, n: args[0].parent.parent == out / "lm" if n_before < 0 else n == n_before)  # fmt: skip
        ended = cli(*words)
    again = going_on(ended, signal.SIGTERM, SAVED if is_trained else NOTHING)
    assert again == [*words, *(["--resume"] if is_trained else [])]
    assert cli(*again).code == 0
    assert weights(out) == ref


def send_at_call(
    patch: pytest.MonkeyPatch, name: str, signum: int, is_it: Callable[[tuple[Any, ...], int], bool]
) -> None:
    """Have a function send a signal before it does what it does."""
    where, attribute = name.rsplit(".", 1)
    owner: Any = Learner if where.endswith("Learner") else __import__(where, fromlist=[attribute])
    real, n_calls = getattr(owner, attribute), 0

    def call(*args: Any, **options: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if is_it(args, n_calls - 1):
            os.kill(os.getpid(), signum)
        return real(*args, **options)

    patch.setattr(owner, attribute, call)


def test_ctrl_c_between_two_phases(
    cli: Cli, trained: Trained, ref: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        send_at_call(patch, "ulmpipe.train.learner.Learner.freeze_to", signal.SIGINT, lambda args, n: n == 1)
        ended = cli(*command(trained, tmp_path / "out"))
    assert cli(*going_on(ended, signal.SIGINT, SAVED)).code == 0
    assert weights(tmp_path / "out") == ref


# ---- in place of a finished model -----------------------------------------------------------------------------------


@pytest.fixture
def finished(trained: Trained, tmp_path: Path) -> Path:
    finetune(trained.store, tmp_path / "out", from_model=str(trained.lm), **OPTIONS, seed=3)
    return tmp_path / "out"


def test_a_training_over_a_finished_one_does_not_go_on_from_the_old_classifier(
    cli: Cli, trained: Trained, ref: dict[str, str], finished: Path, monkeypatch: pytest.MonkeyPatch
):
    old = weights(finished)
    with monkeypatch.context() as patch:
        patch.setattr(
            "ulmpipe.train.phases.Progress", lambda name: SendIn(name, "language model", True, signal.SIGTERM)
        )
        ended = cli(*command(trained, finished))
    assert weights(finished) == old  # the finished one is replaced when the new one is
    assert cli(*going_on(ended, signal.SIGTERM, SAVED)).code == 0
    assert weights(finished) == ref


def test_a_stop_before_a_training_over_a_finished_one_does_not_name_the_old_checkpoint(
    cli: Cli, trained: Trained, ref: dict[str, str], finished: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        send_at_call(patch, "ulmpipe.tasks.tune.transfer_language_model", signal.SIGTERM, lambda args, n: True)
        ended = cli(*command(trained, finished))
    assert cli(*going_on(ended, signal.SIGTERM, NOTHING)).code == 0
    assert weights(finished) == ref
