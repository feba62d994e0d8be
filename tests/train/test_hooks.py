"""Watching layers: the numbers are right, training stays the same bit for bit, and nothing is left behind."""

import gc
import json
import math
import weakref
from collections.abc import Callable
from pathlib import Path

import colours
import numpy as np
import pytest
import torch
from learnable import make_docs
from torch import Tensor, nn
from torch.nn import functional as F

import ulmpipe.train.hooks as hooks
from ulmpipe.errors import UlmpipeError
from ulmpipe.models import LM_DROPOUTS, SIZES, LanguageModel, LMOutput, scaled_dropouts
from ulmpipe.train import (
    EVENTS,
    Callback,
    CancelBatch,
    Checkpoint,
    DebugCallback,
    FixedBatches,
    GradientClip,
    Learner,
    MixedPrecision,
    ResetState,
    RNNRegularizer,
    latest_checkpoint,
)
from ulmpipe.train.hooks import SAMPLE, LayerStats, tensor_stats, watched_layers

from .toy import VOCAB, Raise, ToyLM, Windows, lm_loss, mlp, regression, regressor, same, sgd, values_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: a picture takes longer than these trainings."""
    monkeypatch.setattr(hooks, "draw_layers", lambda rows, path: None)


def rows_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "layers.jsonl").read_text(encoding="utf-8").splitlines()]


def text_batches() -> tuple[int, FixedBatches]:
    """V and windows (8, 20) of the learnable corpus, cut at blanks."""
    words = " xxbos ".join(text for text, _ in make_docs(150)).split()
    itos = ["xxunk", "xxpad", *sorted(set(words))]
    ids = torch.tensor([itos.index(word) for word in words])
    streams = ids[: len(ids) // 8 * 8].view(8, -1)
    starts = range(0, streams.shape[1] - 21, 20)
    return len(itos), FixedBatches([(streams[:, i : i + 20], streams[:, i + 1 : i + 21]) for i in starts])


def text_loss(out: LMOutput, target: Tensor) -> Tensor:
    return F.cross_entropy(out.logits.flatten(0, 1), target.flatten())


def text_learner(seed: int = 0) -> tuple[Learner, float]:
    """A tiny AWD-LSTM with its usual dropouts, and the loss of guessing."""
    vocab_size, dl = text_batches()
    torch.manual_seed(seed)
    model = LanguageModel(vocab_size, **SIZES["tiny"], **scaled_dropouts(LM_DROPOUTS, 1.0))
    learn = Learner(model, dl, loss_fn=text_loss, callbacks=[ResetState(), GradientClip(0.4)])
    return learn, math.log(vocab_size)


def toy_learner(seed: int = 0, n_batches: int = 20, valid: bool = False) -> Learner:
    torch.manual_seed(seed)
    callbacks = [RNNRegularizer(), ResetState(), GradientClip(0.5)]
    valid_dl = Windows(3) if valid else None
    return Learner(ToyLM(), Windows(n_batches), valid_dl, loss_fn=lm_loss, callbacks=callbacks)


def with_relu(seed: int = 0) -> Learner:
    """A regression with two hidden layers behind ReLU; modules 0, 2 and 4 have parameters."""
    torch.manual_seed(seed)
    layers = [nn.Linear(3, 16), nn.ReLU(inplace=True), nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Linear(16, 1)]
    return Learner(nn.Sequential(*layers), regression(10), loss_fn=F.mse_loss, opt_fn=sgd)


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_stats_equal_those_of_numpy(dtype: torch.dtype):
    t = torch.relu(torch.randn(4, 7, 33, generator=torch.Generator().manual_seed(1)) + 0.1).to(dtype)
    ref = t.double().numpy()
    comp = tensor_stats(t)
    assert comp.dtype == torch.float64 and comp.shape == (3,)
    assert comp.tolist() == pytest.approx([ref.mean(), ref.std(), (ref == 0).mean()], abs=2e-3)
    assert comp[:2].tolist() == pytest.approx([ref.mean(), ref.std()], rel=1e-9)
    views = [t.transpose(0, 2), t[None].to(memory_format=torch.channels_last)]
    for view in views:
        assert tensor_stats(view).tolist() == pytest.approx(comp.tolist(), rel=1e-9)


def test_stats_of_several_tensors_are_those_of_all_values():
    a, b = torch.arange(6.0).view(2, 3), torch.tensor(10.0)
    assert torch.equal(tensor_stats(a, b), tensor_stats(torch.cat([a.flatten(), b[None]])))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e30])
def test_the_share_does_not_depend_on_the_scale(scale: float):
    t = F.dropout(torch.randn(1000, generator=torch.Generator().manual_seed(1)), 0.5) * scale
    mean, std, share = tensor_stats(t).tolist()
    assert share == pytest.approx((t == 0).double().mean().item(), abs=3e-3)
    assert 0 < std < math.inf and abs(mean) < std


def test_stats_where_there_is_little_to_say():
    assert tensor_stats(torch.zeros(5)).tolist() == [0, 0, 1]
    assert tensor_stats(torch.full((5,), 3.0)).tolist() == [3, 0, 0]
    assert tensor_stats(torch.tensor(3.0)).tolist() == [3, 0, 0]
    assert tensor_stats().isnan().all() and tensor_stats(torch.zeros(0, 4)).isnan().all()
    for bad in (math.nan, math.inf, -math.inf):
        assert tensor_stats(torch.tensor([1.0, bad])).isnan().all()


@pytest.mark.parametrize("shape", [(8192, 64), (64, 8192), (1000, 300), (3, 7, 50_000)])
def test_a_sample_sees_all_rows_and_columns(shape: tuple[int, ...]):
    """Of (64, 8192) an eighth is read: every eighth value would be the same columns in each row."""
    for dim in (0, -1):
        where = torch.arange(shape[dim]).view([-1 if d == dim % len(shape) else 1 for d in range(len(shape))])
        t = (where % 2 == 1).float().expand(shape).contiguous()
        assert t.numel() > 2 * SAMPLE
        ref = t.double().mean().item()
        assert tensor_stats(t).tolist() == pytest.approx([ref, math.sqrt(ref * (1 - ref)), 1 - ref], abs=0.01)


def test_layers_are_the_modules_that_own_parameters():
    learn, _ = text_learner()
    layers = watched_layers(learn.model)
    assert list(layers) == ["encoder.embedding", "encoder.rnns.0", "encoder.rnns.1", "decoder"]
    assert layers["encoder.rnns.0"][0] is learn.model.encoder.rnns[0]  # not the LSTM in it, which is not called
    assert sum(len(params) for _, params in layers.values()) == len(list(learn.model.parameters()))
    tied = watched_layers(ToyLM())
    assert {name: len(params) for name, (_, params) in tied.items()} == {"emb": 1, "rnn": 4, "decoder": 1}
    assert list(watched_layers(nn.Linear(2, 2))) == ["Linear"]
    assert list(watched_layers(nn.Sequential(nn.LSTM(2, 2)))) == ["0"]


@pytest.mark.usefixtures("undrawn")
def test_a_line_holds_what_numpy_says(tmp_path: Path):
    """The gradient is the one before clipping, the activation that of this step."""
    seen: dict[str, Tensor] = {}

    def look(learn: Learner) -> None:
        seen.setdefault("act", learn.model[0](learn.inputs[0]).detach())

    learn = regressor(callbacks=(GradientClip(1e-6), DebugCallback("before_batch", look)))
    ref_learn = regressor()
    ref_learn.loss_fn(ref_learn.model(next(ref_learn.train_dl.batches(0))[0]), next(ref_learn.train_dl.batches(0))[1]).backward()  # fmt: skip
    learn.fit(1, callbacks=[LayerStats(tmp_path, every_steps=2, extra={"phase": "one"})])
    rows = rows_in(tmp_path)
    assert [(row["phase"], row["step"], row["epoch"]) for row in rows] == [("one", 0, 0), ("one", 2, 0)]
    assert list(rows[0]["layers"]) == ["0", "2"]
    comp, act = rows[0]["layers"]["0"], seen["act"].double().numpy()
    grads = np.concatenate([p.grad.double().numpy().ravel() for p in ref_learn.model[0].parameters()])
    assert comp["act_mean"] == pytest.approx(act.mean(), rel=1e-4)
    assert comp["act_std"] == pytest.approx(act.std(), rel=1e-4)
    assert comp["grad_mean"] == pytest.approx(grads.mean(), rel=1e-4)
    assert comp["grad_std"] == pytest.approx(grads.std(), rel=1e-4)
    assert set(comp) == {f"{part}_{number}" for part in ("act", "grad") for number in ("mean", "std", "near_zero")}


@pytest.mark.usefixtures("undrawn")
def test_gradients_are_unscaled(tmp_path: Path, scaler_alone: None):
    regressor().fit(1, callbacks=[LayerStats(tmp_path / "plain", every_steps=1)])
    regressor().fit(1, callbacks=[LayerStats(tmp_path / "fp16", every_steps=1), MixedPrecision("fp16")])
    for ref, comp in zip(rows_in(tmp_path / "plain"), rows_in(tmp_path / "fp16"), strict=True):
        for name in ("0", "2"):
            assert comp["layers"][name] == pytest.approx(ref["layers"][name], rel=1e-3)


@pytest.mark.usefixtures("undrawn")
def test_frozen_layers_have_activations_only_and_validation_is_not_watched(tmp_path: Path):
    learn = toy_learner(n_batches=4, valid=True)
    learn.model.rnn.requires_grad_(False)
    learn.fit(2, callbacks=[LayerStats(tmp_path, every_steps=1)])
    rows = rows_in(tmp_path)
    assert [row["step"] for row in rows] == list(range(8))
    assert all("grad_std" in row["layers"]["emb"] and "act_std" in row["layers"]["rnn"] for row in rows)
    assert not any("grad_std" in row["layers"]["rnn"] for row in rows)


@pytest.mark.usefixtures("undrawn")
def test_scores_that_are_not_computed_have_no_activations(tmp_path: Path):
    learn, _ = text_learner()
    learn.fit(1, max_steps=1, callbacks=[LayerStats(tmp_path)])
    (row,) = rows_in(tmp_path)
    assert {"act_std", "grad_std"} <= set(row["layers"]["encoder.rnns.1"]) and "grad_std" in row["layers"]["decoder"]


# ---- nothing changes, nothing is left -------------------------------------------------------------------------------


def conv_learner() -> Learner:
    return colours.learner(model=colours.tiny())


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("make", [toy_learner, conv_learner, lambda: text_learner()[0]], ids=["toy", "conv", "text"])
def test_training_is_the_same_bit_for_bit(tmp_path: Path, make: Callable[[], Learner]):
    states = []
    for callbacks in ([], [LayerStats(tmp_path, every_steps=1)], [LayerStats(tmp_path, every_steps=3)]):
        learn = make()
        torch.manual_seed(5)
        learn.fit_one_cycle(1, 1e-2, max_steps=8, callbacks=callbacks)
        states.append(values_of(learn.model) | {"random": torch.get_rng_state()})
    assert same(states[0], states[1]) and same(states[0], states[2])


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("event", [event for event in EVENTS if "batch" in event or "back" in event or "step" in event])
@pytest.mark.parametrize("order", [-1000, 1000])
def test_nothing_is_left_registered_after_an_error(tmp_path: Path, event: str, order: int):
    learn, stats = toy_learner(n_batches=3), LayerStats(tmp_path, every_steps=1)
    failing = Raise(event, KeyError(), at_step=event in ("after_batch", "cleanup_batch"))  # the step is counted by then
    failing.order = order
    with pytest.raises(KeyError):
        learn.fit(1, callbacks=[stats, failing])
    assert hooks_of(learn.model) == 0 and not stats._activations and not stats._layers and not stats._handles


@pytest.mark.usefixtures("undrawn")
def test_hooks_are_there_on_watched_steps_only_and_no_activation_outlives_its_batch(tmp_path: Path):
    counts, outputs = [], []
    learn = toy_learner(n_batches=5)
    note = DebugCallback("after_pred", lambda learn: counts.append(hooks_of(learn.model)))
    learn.model.rnn.register_forward_hook(lambda module, inputs, out: outputs.append(weakref.ref(out[0])))
    learn.fit(1, callbacks=[note, LayerStats(tmp_path, every_steps=2)])
    gc.collect()
    assert counts == [4, 1, 4, 1, 4]  # one is ours
    assert [ref() for ref in outputs] == [None] * 5
    assert all(param.grad is None for param in learn.model.parameters())


@pytest.mark.usefixtures("undrawn")
def test_a_cancelled_batch_is_written_once_a_step(tmp_path: Path):
    class Accumulate(Callback):
        order = 1000

        def after_backward(self, learn: Learner) -> None:
            if learn.batch_index % 2 == 0:
                raise CancelBatch

    regressor().fit(1, callbacks=[LayerStats(tmp_path, every_steps=1), Accumulate()])
    assert [row["step"] for row in rows_in(tmp_path)] == [0, 1]


def test_every_steps_must_be_positive(tmp_path: Path):
    with pytest.raises(ValueError, match="every_steps is 0, expected at least 1"):
        LayerStats(tmp_path, every_steps=0)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_fits_that_follow_append_and_the_picture_is_drawn_also_after_an_error(tmp_path: Path):
    learn = regressor()
    learn.fit(1, callbacks=[LayerStats(tmp_path, every_steps=2, extra={"phase": "a"})])
    first = (tmp_path / "layers.png").read_bytes()
    with pytest.raises(KeyError):
        failing = Raise("before_step", KeyError(), at_step=3)
        learn.fit(1, callbacks=[LayerStats(tmp_path, every_steps=1, extra={"phase": "b"}), failing])
    assert [(row["phase"], row["step"]) for row in rows_in(tmp_path)] == [
        ("a", 0), ("a", 2), ("b", 0), ("b", 1), ("b", 2), ("b", 3),
    ]  # fmt: skip
    assert (tmp_path / "layers.png").read_bytes() != first


def test_one_line_is_no_picture(tmp_path: Path):
    regressor().fit(1, callbacks=[LayerStats(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"layers.jsonl"}


def test_a_picture_that_fails_does_not_end_a_training(tmp_path: Path, capsys):
    (tmp_path / "layers.png").mkdir()
    learn = regressor()
    learn.fit(1, callbacks=[LayerStats(tmp_path, every_steps=1)])
    assert len(learn.history) == 1 and "layers.png could not be drawn" in capsys.readouterr().err


def test_a_resumed_fit_writes_the_same_lines(tmp_path: Path):
    toy_learner().fit_one_cycle(1, 1e-2, callbacks=[LayerStats(tmp_path / "whole", every_steps=4)])
    with pytest.raises(KeyError):
        callbacks = [LayerStats(tmp_path, every_steps=4), Checkpoint(tmp_path, every_steps=5), Raise("before_batch", KeyError(), at_step=12)]  # fmt: skip
        toy_learner().fit_one_cycle(1, 1e-2, callbacks=callbacks)
    callbacks = [LayerStats(tmp_path, every_steps=4), Checkpoint(tmp_path)]
    toy_learner(seed=1).fit_one_cycle(1, 1e-2, callbacks=callbacks, resume=latest_checkpoint(tmp_path))
    comp = rows_in(tmp_path)
    assert [row["step"] for row in comp] == [0, 4, 8, 12, 16] and comp == rows_in(tmp_path / "whole")


# ---- warnings -------------------------------------------------------------------------------------------------------


def warnings_of(learn: Learner, folder: Path, capsys, fit: Callable[[list[Callback]], None], **options) -> list[str]:
    capsys.readouterr()
    fit([LayerStats(folder, **{"every_steps": 1, **options})])
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("seed", "every_steps"), [(0, 1), (1, 1), (2, 5), (3, 5)])
def test_no_warning_where_a_language_model_learns(tmp_path: Path, capsys, seed: int, every_steps: int):
    learn, chance = text_learner(seed)
    options = {"every_steps": every_steps, "chance": chance, "chance_steps": 40}
    comp = warnings_of(learn, tmp_path, capsys, lambda cbs: learn.fit_one_cycle(5, 2e-2, callbacks=cbs), **options)
    assert comp == [] and learn.history[-1]["train_loss"] < 0.8 * chance


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("seed", range(3))
def test_no_warning_where_other_networks_learn(tmp_path: Path, capsys, seed: int):
    """Also where there is nothing left to learn, with ReLU in place, and with batch norms that begin at 0."""
    torch.manual_seed(seed)
    plain = Learner(mlp(seed), regression(seed=seed), loss_fn=F.mse_loss)
    for learn, lr, options in [
        (plain, 3e-2, {}),
        (with_relu(seed), 3e-2, {}),
        (colours.learner(model=colours.tiny(seed=seed)), 1e-2, {"chance": math.log(2), "chance_steps": 30}),
    ]:
        fit = lambda cbs, learn=learn, lr=lr: learn.fit_one_cycle(12, lr, callbacks=cbs)  # noqa: E731
        assert warnings_of(learn, tmp_path, capsys, fit, **options) == []


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("lr", [1.0, 10.0])
def test_a_learning_rate_far_too_high_is_told_once(tmp_path: Path, capsys, lr: float):
    learn = regressor(opt_fn=sgd)

    def fit(callbacks: list[Callback]) -> None:
        with pytest.raises(UlmpipeError, match="the loss is"):
            learn.fit(50, lr=lr, callbacks=callbacks)

    comp = warnings_of(learn, tmp_path, capsys, fit)
    assert sum("-fold since step" in line for line in comp) == 1


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("seed", range(3))
def test_a_language_model_that_diverges_is_told_of(tmp_path: Path, capsys, seed: int):
    learn, chance = text_learner(seed)
    options = {"every_steps": 2, "chance": chance, "chance_steps": 30}
    comp = warnings_of(learn, tmp_path, capsys, lambda cbs: learn.fit(3, lr=10.0, callbacks=cbs), **options)
    assert sum("is not below chance" in line for line in comp) == 1 and len(comp) == len(set(comp)) <= 6


@pytest.mark.usefixtures("undrawn")
def test_a_layer_that_a_relu_silences_is_told_once(tmp_path: Path, capsys):
    learn = with_relu()
    nn.init.constant_(learn.model[2].bias, -100)
    (comp,) = warnings_of(learn, tmp_path, capsys, lambda cbs: learn.fit(3, lr=1e-2, callbacks=cbs))
    assert comp.startswith("warning: layer 2 (and 1 before it): its gradient is exactly 0 since step 0: dead")


@pytest.mark.usefixtures("undrawn")
def test_a_layer_of_zeros_is_told_where_it_stays_so(tmp_path: Path, capsys):
    for trains in (True, False):
        learn = with_relu()
        for param in learn.model[2].parameters():
            nn.init.zeros_(param.requires_grad_(trains))
        learn.groups = [[param for param in learn.model.parameters() if param.requires_grad]]
        learn.model[2].bias.data += 0.01 * trains  # what ReLU gives at 0 has no gradient
        comp = warnings_of(learn, tmp_path, capsys, lambda cbs, learn=learn: learn.fit(3, lr=1e-2, callbacks=cbs))
        dead = [line for line in comp if "near zero" in line]
        assert [line.split(":")[1] for line in dead] == [" layer 2"] * (not trains)


@pytest.mark.usefixtures("undrawn")
def test_noise_is_not_learned_and_that_is_told_once(tmp_path: Path, capsys):
    learn = toy_learner(n_batches=150)
    options = {"chance": math.log(VOCAB), "chance_steps": 100, "every_steps": 10}
    (comp,) = warnings_of(learn, tmp_path, capsys, lambda cbs: learn.fit(2, lr=1e-3, callbacks=cbs), **options)
    assert "is not below chance (ln 11 = 2.4): --lr is far too high or too low" in comp
