import json
import os

import pytest
import torch

from ulmpipe.errors import StoreError
from ulmpipe.models import LanguageModel
from ulmpipe.tasks.training import language_model_loss
from ulmpipe.train import (
    Checkpoint,
    DebugCallback,
    Learner,
    MixedPrecision,
    ResetState,
    RNNRegularizer,
    latest_checkpoint,
    save_checkpoint,
)

from .toy import N_BATCHES, VOCAB, Windows, language_learner, mlp, regressor, same, values_of

N_EPOCHS = 3


class Killed(BaseException):
    pass


def kill_after(n_steps: int) -> DebugCallback:
    def hook(learn):
        if learn.step == n_steps:
            raise Killed

    return DebugCallback("before_batch", hook)


def comparable(history):
    return [{name: value for name, value in row.items() if name not in ("seconds", "targets_per_s")} for row in history]


def optimizer_values(learn):
    states = learn.opt.state_dict()["state"]
    return {f"{n}.{name}": value for n, values in states.items() for name, value in values.items()}


@pytest.mark.parametrize("n_before", [3, 6, 8, 9, 12, 16])
def test_resumed_fit_is_the_same_bit_for_bit(tmp_path, n_before):
    """Borders of epochs are at 6 and 12. Dropout is active and the model carries a state."""
    ref = language_learner()
    ref.fit_one_cycle(N_EPOCHS, 1e-2)
    killed = language_learner()
    with pytest.raises(Killed):
        saved = Checkpoint(tmp_path, every_steps=1)
        killed.fit_one_cycle(N_EPOCHS, 1e-2, callbacks=[saved, kill_after(n_before)])
    path = latest_checkpoint(tmp_path)
    assert path is not None and path.name == f"checkpoint-{n_before}"
    comp = language_learner(seed=99)  # nothing of a new start may shine through
    torch.rand(7)
    comp.fit_one_cycle(N_EPOCHS, 1e-2, resume=path)
    assert same(values_of(ref.model), values_of(comp.model))
    assert same(optimizer_values(ref), optimizer_values(comp))
    assert ref.opt.state_dict()["param_groups"] == comp.opt.state_dict()["param_groups"]
    assert comparable(ref.history) == comparable(comp.history)
    assert comp.step == ref.step == N_BATCHES * N_EPOCHS


@pytest.mark.parametrize("n_first", [6, 9])
def test_a_fit_that_max_steps_ended_can_be_taken_further(tmp_path, n_first):
    ref = language_learner()
    ref.fit(5, lr=1e-2, max_steps=2 * n_first)
    comp = language_learner()
    comp.fit(5, lr=1e-2, max_steps=n_first, callbacks=[Checkpoint(tmp_path)])
    comp = language_learner(seed=5)
    comp.fit(5, lr=1e-2, max_steps=2 * n_first, resume=latest_checkpoint(tmp_path))
    assert same(values_of(ref.model), values_of(comp.model))
    assert comparable(ref.history) == comparable(comp.history)


def test_resuming_what_is_done_trains_no_more(tmp_path):
    ref = language_learner()
    ref.fit(2, callbacks=[Checkpoint(tmp_path)])
    comp = language_learner(seed=5)
    comp.fit(2, resume=latest_checkpoint(tmp_path))
    assert same(values_of(ref.model), values_of(comp.model)) and comparable(comp.history) == comparable(ref.history)


def test_frozen_groups_resume(tmp_path):
    def learner():
        torch.manual_seed(0)
        model = mlp()
        learn = regressor()
        learn.model, learn.groups = model, [list(model[0].parameters()), list(model[2].parameters())]
        learn.freeze_to(-1)
        return learn

    ref, comp = learner(), learner()
    ref.fit(2, lr=[1e-3, 1e-2])
    comp.fit(2, lr=[1e-3, 1e-2], max_steps=4, callbacks=[Checkpoint(tmp_path)])
    comp = learner()
    comp.fit(2, lr=[1e-3, 1e-2], resume=latest_checkpoint(tmp_path))
    assert same(values_of(ref.model), values_of(comp.model))
    before, after = values_of(learner().model), values_of(comp.model)
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["2.weight", "2.bias"]


def test_sgd_without_any_state_resumes(tmp_path):
    def learner():
        return regressor(opt_fn=torch.optim.SGD)

    ref, comp = learner(), learner()
    ref.fit(2)
    comp.fit(2, max_steps=4, callbacks=[Checkpoint(tmp_path)])
    comp = learner()
    comp.fit(2, resume=latest_checkpoint(tmp_path))
    assert same(values_of(ref.model), values_of(comp.model))


def test_scaler_state_is_kept(tmp_path, scaler_alone):
    overflow = DebugCallback(
        "after_loss", lambda learn: setattr(learn, "loss_grad", learn.loss_grad * (1e38 if learn.step == 1 else 1))
    )
    regressor(callbacks=(MixedPrecision("fp16"),)).fit(2, max_steps=4, callbacks=[overflow, Checkpoint(tmp_path)])
    mixed = MixedPrecision("fp16")
    regressor(callbacks=(mixed,)).fit(2, resume=latest_checkpoint(tmp_path))
    assert (mixed.n_skipped, mixed.scale) == (1, 2.0**15)
    with pytest.raises(StoreError, match="MixedPrecision"):
        regressor().fit(2, resume=latest_checkpoint(tmp_path))


def test_folder_holds_one_complete_checkpoint_and_no_pickle(tmp_path):
    language_learner().fit(2, callbacks=[Checkpoint(tmp_path, every_steps=4, extra={"seed": 7})])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-12"]
    names = {path.name for path in (tmp_path / "checkpoint-12").iterdir()}
    tensors = {f"{name}.safetensors" for name in ("model", "optimizer", "rng", "carried")}
    assert names == tensors | {"state.json", "manifest.json"}
    state = json.loads((tmp_path / "checkpoint-12" / "state.json").read_text())
    assert state["extra"] == {"seed": 7} and (state["epoch"], state["next_batch"], state["step"]) == (2, 0, 12)


def test_keep_says_how_many_stay(tmp_path):
    regressor().fit(3, callbacks=[Checkpoint(tmp_path, every_steps=1, keep=2)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-11", "checkpoint-12"]


def test_a_longer_fit_that_was_here_before_is_not_resumed_from(tmp_path):
    for n_epochs in (3, 2):
        regressor().fit(n_epochs, callbacks=[Checkpoint(tmp_path, keep=2)])
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-8"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-8"]


def test_latest_of_nothing_is_none(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None


@pytest.mark.parametrize("damage", ["truncate", "flip", "missing", "no manifest", "bad manifest"])
def test_damaged_checkpoint_is_skipped_loudly(tmp_path, capsys, damage):
    regressor().fit(2, callbacks=[Checkpoint(tmp_path, keep=2)])
    newest = tmp_path / "checkpoint-8"
    file = newest / "model.safetensors"
    data = bytearray(file.read_bytes())
    match damage:
        case "truncate":
            file.write_bytes(data[:-1])
        case "flip":
            data[-1] ^= 1
            file.write_bytes(data)
        case "missing":
            file.unlink()
        case "no manifest":
            (newest / "manifest.json").unlink()
        case "bad manifest":
            (newest / "manifest.json").write_text("[]")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert "checkpoint-8" in capsys.readouterr().err
    with pytest.raises(StoreError):
        regressor().fit(2, resume=newest)


def test_saving_the_same_step_again_replaces_it(tmp_path):
    learn = regressor()
    learn.fit(1)
    save_checkpoint(learn, tmp_path, extra={"n": 1})
    path = save_checkpoint(learn, tmp_path, extra={"n": 2})
    assert json.loads((path / "state.json").read_text())["extra"] == {"n": 2}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    learn = regressor()
    learn.fit(1)
    path = save_checkpoint(learn, tmp_path)
    path.rename(tmp_path / f"{path.name}.old")
    assert latest_checkpoint(tmp_path) == tmp_path / f"{path.name}.old"
    save_checkpoint(learn, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_previous_stays_until_the_new_one_is_in_place(tmp_path, monkeypatch):
    learn = regressor()
    learn.fit(1)
    old = save_checkpoint(learn, tmp_path)
    learn.step += 1

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("ulmpipe.train.checkpoint.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(learn, tmp_path)
    assert latest_checkpoint(tmp_path) == old
    assert [p.name for p in tmp_path.iterdir()] == [old.name]


@pytest.mark.parametrize("same_step", [False, True])
@pytest.mark.parametrize("name", ["replace", "fsync", "unlink", "rmdir", "mkdir", "open"])
def test_a_kill_at_any_call_of_a_save_leaves_a_complete_checkpoint(tmp_path, monkeypatch, name, same_step):
    """Killed at the n-th call, nothing after it works either, clean-up included; then the old one or the new one loads."""
    learn = regressor()
    learn.fit(2, max_steps=5)
    for n_before in range(99):
        folder = tmp_path / str(n_before)
        learn.step = 5
        save_checkpoint(learn, folder)
        learn.step += not same_step
        with monkeypatch.context() as patch:
            was_killed = kill_at_call(patch, name, n_before, lambda: save_checkpoint(learn, folder))  # noqa: B023
        path = latest_checkpoint(folder)
        assert path is not None and path.name in ("checkpoint-5", "checkpoint-5.old", "checkpoint-6")
        regressor().fit(2, resume=path)
        if not was_killed:
            assert n_before > 0 and [p.name for p in folder.iterdir()] == [f"checkpoint-{learn.step}"]
            return
    pytest.fail("it never came to an end")


def test_the_old_checkpoint_goes_after_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    learn = regressor()
    learn.fit(1)
    save_checkpoint(learn, tmp_path)
    learn.step += 1
    calls = []
    for name in ("replace", "fsync", "unlink"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, _n=name, _c=call, **opts: (calls.append(_n), _c(*args, **opts))[1])
    save_checkpoint(learn, tmp_path)
    in_place = len(calls) - calls[::-1].index("replace")
    assert calls[in_place] == "fsync" and "unlink" in calls[in_place:]
    assert calls[:in_place].count("fsync") >= 5  # each file, before it gets its name


DISK = ("replace", "fsync", "unlink", "rmdir", "mkdir", "open")


def kill_at_call(patch, name, n_before, save):
    """Run `save`; from call number `n_before` of a function of `os` on nothing changes the disk. Returns whether it came to that."""
    is_dead, n_calls = False, 0

    def wrap(one):
        real = getattr(os, one)

        def call(*args, **options):
            nonlocal is_dead, n_calls
            n_calls += one == name
            is_dead = is_dead or n_calls > n_before
            if is_dead:
                raise Killed
            return real(*args, **options)

        patch.setattr(os, one, call)

    for one in DISK:
        wrap(one)
    try:
        save()
    except Killed:
        return True
    return is_dead


def test_staging_of_a_killed_run_is_removed(tmp_path):
    (tmp_path / ".staging-123").mkdir()
    regressor().fit(1, callbacks=[Checkpoint(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-4"]


def test_another_model_or_grouping_is_said(tmp_path):
    regressor().fit(1, callbacks=[Checkpoint(tmp_path)])
    path = latest_checkpoint(tmp_path)
    with pytest.raises(StoreError, match="does not fit this training"):
        language_learner().fit(1, resume=path)
    learn = regressor()
    learn.groups = [learn.groups[0][:1], learn.groups[0][1:]]
    with pytest.raises(StoreError, match="grouped in another way"):
        learn.fit(1, resume=path)


def test_newer_format_is_refused(tmp_path):
    regressor().fit(1, callbacks=[Checkpoint(tmp_path)])
    manifest = tmp_path / "checkpoint-4" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format_version": 99}))
    with pytest.raises(StoreError, match="format 99, this one reads 1"):
        regressor().fit(1, resume=manifest.parent)


def test_another_number_of_steps_is_told(tmp_path, capsys):
    regressor().fit(1, callbacks=[Checkpoint(tmp_path)])
    regressor().fit(2, resume=latest_checkpoint(tmp_path))
    assert "schedules change" in capsys.readouterr().err


def share_one_block(model: torch.nn.Module) -> None:
    """What cuDNN does to the weights of an LSTM: they become parts of one block of memory."""
    params = list(model.parameters())
    block = torch.cat([param.detach().flatten() for param in params])
    begin = 0
    for param in params:
        param.data = block[begin : begin + param.numel()].view_as(param)
        begin += param.numel()


def test_weights_in_one_block_of_memory_are_kept(tmp_path):
    saved = language_learner()
    share_one_block(saved.model)
    saved.fit(1, callbacks=[Checkpoint(tmp_path)])
    other = language_learner(seed=1)
    share_one_block(other.model)
    other.fit(1, resume=latest_checkpoint(tmp_path))
    assert same(other.model.state_dict(), saved.model.state_dict())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_language_model_on_a_gpu_is_resumed(tmp_path):
    def learner() -> Learner:
        torch.manual_seed(0)
        model = LanguageModel(VOCAB, emb_size=4, hidden_size=6, n_layers=2)  # cuDNN's LSTM, once it is there
        callbacks = [RNNRegularizer(), ResetState()]
        return Learner(model, Windows(2), Windows(2), loss_fn=language_model_loss, callbacks=callbacks, device="cuda")

    ref, saved, comp = learner(), learner(), learner()
    ref.fit(2)
    saved.fit(2, max_steps=3, callbacks=[Checkpoint(tmp_path)])
    comp.fit(2, resume=latest_checkpoint(tmp_path))
    torch.testing.assert_close(values_of(comp.model), values_of(ref.model))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_resume_on_a_gpu(tmp_path):
    ref, comp = regressor(device="cuda"), regressor(device="cuda")
    ref.fit(2)
    comp.fit(2, max_steps=4, callbacks=[Checkpoint(tmp_path)])
    comp = regressor(device="cuda")
    comp.fit(2, resume=latest_checkpoint(tmp_path))
    torch.testing.assert_close(values_of(comp.model), values_of(ref.model))
