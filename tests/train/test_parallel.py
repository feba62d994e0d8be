"""Several processes train as one: same sums, same gradients, same checkpoint, and all of them stop together.

What one process alone can show is tested as usual. The rest is done by this file itself, which torchrun runs in two
processes, once (`together`): each writes what it found.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.train.toy import ToyLM, lm_loss, regressor, same, sgd, values_of
from ulmpipe import command, console
from ulmpipe.errors import ConfigError, UlmpipeError
from ulmpipe.models import TextClassifier
from ulmpipe.text.batches import ClassifierBatches, Docs
from ulmpipe.train import (
    CancelFit,
    Checkpoint,
    DebugCallback,
    FixedBatches,
    GradientClip,
    Learner,
    ResetState,
    RNNRegularizer,
    accuracy,
    latest_checkpoint,
    parallel,
)
from ulmpipe.train.parallel import DataParallel

ROOT = Path(__file__).parents[2]
UNEVEN = ((5, 3), (2, 6), (1, 7))  # rows that each of two processes has of a batch of 8
N_EPOCHS, N_BATCHES, N_FIRST = 3, 4, 6  # stopped in the middle of the second epoch
DROPOUTS = {"dropout": 0.3, "plain": 0.0}


class Dealt(FixedBatches):
    """This process's rows of every batch, as many as `UNEVEN` says."""

    def __init__(self, batches: list[tuple[Tensor, ...]], which: int | None):
        if which is None:
            super().__init__(batches)
        else:
            rows = [tuple(t.split(sizes)[which].clone() for t in b) for b, sizes in zip(batches, UNEVEN, strict=False)]
            super().__init__(rows)


def classifier(which: int | None = None) -> Learner:
    """In float64: what differs between one process and two is then what is dealt out wrongly."""
    generator = torch.Generator().manual_seed(3)
    batches: list[tuple[Tensor, ...]] = [
        (torch.randn(8, 4, generator=generator, dtype=torch.float64), torch.randint(3, (8,), generator=generator))
        for _ in UNEVEN
    ]
    torch.manual_seed(which or 0)  # the first process's weights become those of all
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    train_dl, valid_dl = Dealt(batches, which), Dealt(batches[:2], which)
    return Learner(model, train_dl, valid_dl, loss_fn=F.cross_entropy, opt_fn=sgd)


def documents_learner() -> Learner:
    """A classifier of documents of many lengths, dealt out with shuffling; no dropout, float64.

    What is fitted and measured before a training differs from process to process: the first one's counts.
    """
    rng = np.random.default_rng(5)
    docs = Docs.from_ids(
        [rng.integers(2, 20, n).tolist() for n in rng.integers(1, 40, 61)], (np.arange(61) % 3).tolist()
    )
    torch.manual_seed(0)
    drops = dict.fromkeys(("output_p", "hidden_p", "input_p", "embed_p", "weight_p", "head_p"), 0.0)
    model = TextClassifier(20, 3, emb_size=4, hidden_size=6, n_layers=2, bptt=10, n_buckets=8, **drops).double()  # pyright: ignore[reportArgumentType]
    of_rank = torch.Generator().manual_seed(parallel.part()[0])
    for buffer in model.buffers():
        buffer.copy_(torch.rand(buffer.shape, generator=of_rank) + 0.5)
    shape: dict[str, Any] = {"batch_size": 16, "pad_id": 1, "max_tokens": 30, "part": parallel.part()}
    batches = [ClassifierBatches(docs, shuffle=shuffle, **shape) for shuffle in (True, False)]
    return Learner(model, *batches, loss_fn=F.cross_entropy, opt_fn=sgd, metrics=[accuracy])


class Streams:
    """Windows of four streams, (4, 5) int64, other ones in every epoch: this process's rows of them."""

    def __len__(self) -> int:
        return N_BATCHES

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        ids = torch.randint(11, (N_BATCHES, 4, 6), generator=torch.Generator().manual_seed(epoch))
        for window in ids[start:]:
            rows = parallel.my_rows(window)
            yield rows[:, :-1], rows[:, 1:]


def language_learner(p: float, seed: int = 0) -> Learner:
    torch.manual_seed(seed)
    model = ToyLM()
    model.drop.p = p
    callbacks = [RNNRegularizer(), ResetState(), GradientClip(0.5)]
    return Learner(model, Streams(), Streams(), loss_fn=lm_loss, callbacks=callbacks)


def losses(learn: Learner) -> list[float]:
    return [row[name] for row in learn.history for name in ("train_loss", "valid_loss")]


# ---- what each of two processes does --------------------------------------------------------------------------------


def together(out: Path) -> None:
    with parallel.processes():
        rank = parallel.part()[0]
        found = {**functions(rank, out), **gradients(rank), "not a number": not_a_number(rank)}
        learn = documents_learner()
        learn.fit(2, lr=0.05, callbacks=[DataParallel()])
        found["documents"] = [learn.step, *losses(learn), learn.history[-1]["accuracy"]]
        for name, p in DROPOUTS.items():
            found[name] = stopped_and_resumed(out / name, p)
        (out / f"{rank}.json").write_text(json.dumps(found))


def functions(rank: int, out: Path) -> dict[str, Any]:
    def say(word: str) -> None:
        with open(out / "said.txt", "a") as file:
            file.write(f"{word} {rank}\n")

    found: dict[str, Any] = {
        "part": [*parallel.part(), parallel.is_first()],
        "quiet": console.is_quiet(),
        "summed": parallel.summed(rank + 1, 0.25),
        "largest": parallel.largest(15 if rank == 1 else 0),
        "gathered": [t.tolist() for t in parallel.gathered(torch.full((2,), rank))],
        "rows": parallel.my_rows(torch.arange(6)).tolist(),
        "columns": parallel.my_rows(torch.arange(6).view(1, 6), dim=1).tolist(),
    }
    with parallel.first_then_others():
        say("begins")
        time.sleep(0.2 * (rank == 0))
        say("ends")
    say("goes on")
    with pytest.raises(ConfigError) as refused:
        parallel.check_batch_size(7)
    parallel.check_batch_size(8)
    return {**found, "batch size": str(refused.value)}


def gradients(rank: int) -> dict[str, Any]:
    learn = classifier(rank)
    seen: list[float] = []
    keep = DebugCallback("before_step", lambda learn: seen.append(learn.loss.item()))
    learn.fit(2, lr=0.5, callbacks=[DataParallel(), keep])
    restored = learn.train_model is None
    weights = {name: t.tolist() for name, t in values_of(learn.model).items()}
    return {"weights": weights, "seen": seen, "losses": losses(learn), "restored": restored}


def not_a_number(rank: int) -> str:
    learn = classifier(rank)
    assert isinstance(learn.train_dl, Dealt)
    if rank == 1:
        learn.train_dl.fixed[1][0][0, 0] = torch.nan
    with pytest.raises(UlmpipeError) as stopped:
        learn.fit(1, callbacks=[DataParallel()])
    assert all(t.isfinite().all() for t in values_of(learn.model).values())
    return str(stopped.value)


def stopped_and_resumed(folder: Path, p: float) -> dict[str, Any]:
    ref, first, comp = language_learner(p), language_learner(p), language_learner(p, seed=99)
    torch.manual_seed(0)
    ref.fit_one_cycle(N_EPOCHS, 1e-2, callbacks=[DataParallel()])
    after_ref = torch.rand(1).item()
    torch.manual_seed(0)
    saved = Checkpoint(folder, keep=9)
    first.fit_one_cycle(N_EPOCHS, 1e-2, callbacks=[DataParallel(), saved, stop(saved)])
    torch.manual_seed(99)
    comp.fit_one_cycle(N_EPOCHS, 1e-2, callbacks=[DataParallel()], resume=latest_checkpoint(folder))
    return {
        "same": same(values_of(ref.model), values_of(comp.model)) and losses(ref) == losses(comp),
        "random": [after_ref, torch.rand(1).item()],
        "losses": losses(ref),
    }


def stop(saved: Checkpoint) -> DebugCallback:
    """End the fit after `N_FIRST` steps, with a checkpoint."""

    def hook(learn: Learner) -> None:
        if learn.training and learn.step == N_FIRST:
            saved.save(learn)
            raise CancelFit

    return DebugCallback("after_batch", hook)


def one_fails() -> None:
    with parallel.processes():
        if parallel.is_first():
            raise OSError("the disk is full")
        parallel.barrier()


# ---- what they found ------------------------------------------------------------------------------------------------


def torchrun(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run this file in two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    module = ["-m", "tests.train.test_parallel", *map(str, args)]
    return subprocess.run([*launch, *module], capture_output=True, text=True, cwd=ROOT, env=env, timeout=120)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    done = torchrun("together", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(out: Path) -> list[dict[str, Any]]:
    return [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_numbers_and_tensors_of_all(found: list[dict[str, Any]]):
    assert [one["part"] for one in found] == [[0, 2, True], [1, 2, False]]
    assert [one["summed"] for one in found] == [[3.0, 0.5]] * 2
    assert [one["largest"] for one in found] == [15.0] * 2
    assert [one["gathered"] for one in found] == [[[0, 0], [1, 1]]] * 2
    assert [one["rows"] for one in found] == [[0, 1, 2], [3, 4, 5]]
    assert [one["columns"] for one in found] == [[[0, 1, 2]], [[3, 4, 5]]]
    assert [one["quiet"] for one in found] == [False, True]


def test_first_then_others(out: Path):
    said = (out / "said.txt").read_text().splitlines()
    assert said[:4] == ["begins 0", "ends 0", "begins 1", "ends 1"]
    assert sorted(said[4:]) == ["goes on 0", "goes on 1"]


def test_batch_that_is_no_multiple_is_refused(found: list[dict[str, Any]]):
    told = "--batch-size 7 is shared by 2 processes: expected a multiple of 2, such as 6"
    assert [one["batch size"] for one in found] == [told] * 2


def test_gradients_are_those_of_the_whole_batch(found: list[dict[str, Any]]):
    """Weights and losses, with uneven rows: as of one process, in float64."""
    ref, seen = classifier(), []
    ref.fit(2, lr=0.5, callbacks=[DebugCallback("before_step", lambda learn: seen.append(learn.loss.item()))])
    weights = values_of(ref.model)
    for comp in found:
        assert comp["weights"].keys() == weights.keys() and comp["restored"]
        for name, t in weights.items():
            torch.testing.assert_close(torch.tensor(comp["weights"][name], dtype=t.dtype), t, rtol=1e-12, atol=1e-14)
        assert comp["seen"] == pytest.approx(seen, rel=1e-12)
        assert comp["losses"] == pytest.approx(losses(ref), rel=1e-12)
    assert found[0]["weights"] == found[1]["weights"]


def test_a_classifier_of_documents_has_the_losses_of_one_process(found: list[dict[str, Any]]):
    ref = documents_learner()
    ref.fit(2, lr=0.05)
    assert found[0]["documents"] == found[1]["documents"]
    assert found[0]["documents"] == pytest.approx([ref.step, *losses(ref), ref.history[-1]["accuracy"]], rel=1e-7)


def test_a_loss_that_is_no_number_stops_all(found: list[dict[str, Any]]):
    comp = [one["not a number"] for one in found]
    assert comp[0] == comp[1] and comp[0].startswith("the loss is nan at step 1 ")


@pytest.mark.parametrize("name", DROPOUTS)
def test_two_processes_resume_bit_for_bit(found: list[dict[str, Any]], name: str):
    assert [one[name]["same"] for one in found] == [True, True]
    for one in found:
        assert one[name]["random"][0] == one[name]["random"][1]
    assert found[0][name]["random"] != found[1][name]["random"]  # each has a generator of its own
    assert found[0][name]["losses"] == found[1][name]["losses"]


def test_streams_of_two_processes_are_those_of_one(found: list[dict[str, Any]]):
    """Without dropout; a hidden state that were not each row's own would show in the losses."""
    ref = language_learner(0.0)
    ref.fit_one_cycle(N_EPOCHS, 1e-2)
    assert found[0]["plain"]["losses"] == pytest.approx(losses(ref), rel=1e-6)
    assert found[0]["dropout"]["losses"] != pytest.approx(losses(ref), rel=1e-3)


def test_checkpoint_holds_the_state_of_all_rows_and_both_generators(out: Path):
    from safetensors.torch import load_file

    ref = language_learner(0.0)
    ref.fit_one_cycle(N_EPOCHS, 1e-2, callbacks=[stop(Checkpoint(out / "ref"))])
    path = out / "plain" / f"checkpoint-{N_FIRST}"
    carried = load_file(path / "carried.safetensors")
    for name, t in ref.model.carried_state().items():
        torch.testing.assert_close(carried[name], t, rtol=1e-5, atol=1e-6)
        assert t.shape[1] == 4
    rng = load_file(path / "rng.safetensors")
    assert rng.keys() == {"cpu", "cpu.1"} and not torch.equal(rng["cpu"], rng["cpu.1"])
    state = json.loads((path / "state.json").read_text())
    assert (state["epoch"], state["next_batch"], state["step"]) == (1, 2, N_FIRST)
    assert state["callbacks"]["Metrics"]["weight"] == 2 * 4 * 5  # of two batches, over all rows


def test_one_process_goes_on_where_two_were_stopped(found: list[dict[str, Any]], out: Path, tmp_path: Path):
    shutil.copytree(out / "plain" / f"checkpoint-{N_FIRST}", tmp_path / f"checkpoint-{N_FIRST}")
    comp = language_learner(0.0, seed=5)
    comp.fit_one_cycle(N_EPOCHS, 1e-2, resume=latest_checkpoint(tmp_path))
    assert losses(comp) == pytest.approx(found[0]["plain"]["losses"], rel=1e-6)


def test_the_end_of_one_process_is_one_line_of_each():
    done = torchrun("one_fails")
    lines = [line for line in done.stderr.splitlines() if line.startswith("prog")]
    assert done.returncode == 1 and "prog: the disk is full" in lines
    assert set(lines) <= {
        "prog: the disk is full",
        "prog (process 1): another of the processes has ended: the reason is in its own message",
    }
    assert "Connection closed" not in done.stderr


# ---- one process alone ----------------------------------------------------------------------------------------------


def test_one_process_is_all_there_is():
    with parallel.processes():
        assert parallel.part() == (0, 1) and parallel.is_first()
        assert parallel.summed(1.5, 2) == [1.5, 2] and parallel.largest(3) == 3
        t = torch.arange(6).view(2, 3)
        assert same({"t": parallel.gathered(t)[0]}, {"t": t}) and len(parallel.gathered(t)) == 1
        assert torch.equal(parallel.my_rows(t), t) and torch.equal(parallel.my_rows(t, dim=1), t)
        parallel.barrier()
        parallel.check_batch_size(7)
        with parallel.first_then_others(), parallel.only_first(pytest.raises(ZeroDivisionError)):
            _ = 1 / 0


def test_data_parallel_of_one_process_changes_nothing():
    ref, comp = regressor(), regressor()
    ref.fit(2)
    comp.fit(2, callbacks=[DataParallel()])
    assert same(values_of(ref.model), values_of(comp.model)) and losses(ref) == losses(comp)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "together":
        together(Path(sys.argv[2]))
    else:
        command.run(one_fails, "prog")
