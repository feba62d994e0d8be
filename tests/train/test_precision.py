import signal

import pytest
import torch

import ulmpipe.train.precision as precision
from ulmpipe.errors import ConfigError, UlmpipeError
from ulmpipe.train import (
    DebugCallback,
    GradientClip,
    Learner,
    MixedPrecision,
    ResetState,
    RNNRegularizer,
    check_precision,
    pick_precision,
)

from .toy import Raise, ToyLM, Windows, grad_norm, lm_loss, regressor, same, values_of

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def cpu_bf16():
    """Skip where bf16 on this CPU could end the tests with an illegal instruction."""
    try:
        check_precision("bf16", "cpu")
    except ConfigError as err:
        pytest.skip(str(err))


def test_check_precision_refuses():
    check_precision("fp32", "cpu")
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        check_precision("fp16", "cpu")
    with pytest.raises(ConfigError, match="int8"):
        check_precision("int8", "cpu")
    with pytest.raises(ConfigError, match="int8"):
        MixedPrecision("int8")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "probe, message",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", f"signal {int(signal.SIGILL)}"),
        ("raise OSError('no')", "no"),
    ],
)
def test_bf16_on_a_cpu_is_refused_when_the_probe_dies(monkeypatch, probe, message):
    precision._probe_cpu_bf16.cache_clear()
    monkeypatch.setattr(precision, "_PROBE", probe)
    try:
        with pytest.raises(ConfigError, match=message):
            check_precision("bf16", "cpu")
        monkeypatch.setattr(precision, "_PROBE", "")
        with pytest.raises(ConfigError):  # asked once a process
            check_precision("bf16", torch.device("cpu"))
    finally:
        precision._probe_cpu_bf16.cache_clear()


def test_bf16_on_a_cpu_works_where_the_probe_survives(cpu_bf16):
    kinds = []
    look = DebugCallback("after_loss", lambda learn: kinds.append((learn.pred.dtype, learn.loss.dtype)))
    ref, comp = regressor(), regressor(callbacks=(MixedPrecision("bf16"),))
    ref.fit(5, lr=1e-2)
    comp.fit(5, lr=1e-2, callbacks=[look])
    assert set(kinds) == {(torch.float32, torch.float32)}
    assert comp.history[-1]["valid_loss"] == pytest.approx(ref.history[-1]["valid_loss"], rel=0.1)


@pytest.mark.parametrize(
    ("has_bf16", "failure", "ref"), [(True, None, "bf16"), (True, "it died", "fp32"), (False, None, "fp32")]
)
def test_auto_is_bf16_where_the_processor_is_made_for_it_and_the_probe_survives(monkeypatch, has_bf16, failure, ref):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16})
    monkeypatch.setattr(precision, "_probe_cpu_bf16", lambda: failure)
    assert pick_precision("auto", torch.device("cpu")) == ref


@pytest.mark.parametrize(("has_bf16", "ref"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_a_gpu_is_half_precision_of_one_kind(monkeypatch, has_bf16, ref):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert pick_precision("auto", torch.device("cuda")) == ref


def test_a_precision_that_was_asked_for_is_checked():
    assert pick_precision("fp32", torch.device("cpu")) == "fp32"
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        pick_precision("fp16", torch.device("cpu"))


def test_fp32_changes_nothing():
    ref, comp = regressor(), regressor(callbacks=(MixedPrecision("fp32"),))
    ref.fit(2)
    comp.fit(2)
    assert same(values_of(ref.model), values_of(comp.model))


@pytest.mark.parametrize("event", ["before_batch", "after_pred", "after_loss", "before_step"])
def test_autocast_is_closed_after_an_exception(cpu_bf16, event):
    with pytest.raises(KeyError):
        regressor(callbacks=(MixedPrecision("bf16"),)).fit(1, callbacks=[Raise(event, KeyError())])
    assert not torch.is_autocast_enabled("cpu")


def test_autocast_is_open_for_the_model_only(cpu_bf16):
    told = []
    looks = [
        DebugCallback(event, lambda learn: told.append(torch.is_autocast_enabled("cpu")))
        for event in ("after_pred", "before_backward", "after_batch")
    ]
    regressor(n_batches=1, valid=False, callbacks=(MixedPrecision("bf16"),)).fit(1, callbacks=looks)
    assert told == [True, False, False]


def test_overflow_skips_the_step_and_is_counted(scaler_alone):
    mixed = MixedPrecision("fp16")
    learn = regressor(valid=False, callbacks=(mixed,))
    kept = []

    def overflow_once(learn):
        if learn.step == 1:
            kept.append(values_of(learn.model))
            learn.loss_grad = learn.loss_grad * 1e38
        if learn.step == 2:
            kept.append(values_of(learn.model))

    learn.fit(1, lr=1e-2, callbacks=[DebugCallback("after_loss", overflow_once)])
    assert mixed.n_skipped == 1 and mixed.scale == 2.0**15 and learn.step == 4
    assert same(kept[0], kept[1]) and not same(kept[1], values_of(learn.model))


def test_unscaled_gradients_are_the_plain_ones(scaler_alone):
    grads: dict[str, list[torch.Tensor]] = {"fp32": [], "fp16": []}
    for name, told in grads.items():
        look = DebugCallback("before_step", lambda learn, told=told: told.append(learn.model[0].weight.grad.clone()))
        regressor(callbacks=(MixedPrecision(name),)).fit(1, callbacks=[look])  # type: ignore[arg-type]
    torch.testing.assert_close(grads["fp16"], grads["fp32"])


def test_clip_comes_after_unscale(scaler_alone):
    norms = []
    look = DebugCallback("before_step", lambda learn: norms.append(grad_norm(learn.model)))
    regressor(callbacks=(GradientClip(0.01), MixedPrecision("fp16"))).fit(1, callbacks=[look])
    assert torch.stack(norms).allclose(torch.tensor(0.01))


def test_overflow_at_any_scale_stops(scaler_alone):
    learn = regressor(valid=False, n_batches=30, callbacks=(MixedPrecision("fp16", init_scale=4.0),))
    learn.loss_fn = lambda pred, target: pred.sum() * torch.nan
    with pytest.raises(UlmpipeError, match=r"step 2 at any loss scale"):
        learn.fit(1)


def test_regularizer_and_precision_do_not_disturb_each_other(scaler_alone):
    torch.manual_seed(0)
    callbacks = [MixedPrecision("fp16"), RNNRegularizer(), ResetState(), GradientClip(0.1)]
    learn = Learner(ToyLM(), Windows(4), Windows(2), loss_fn=lm_loss, callbacks=callbacks)
    learn.fit_one_cycle(3, 1e-2)
    assert learn.history[-1]["valid_loss"] < learn.history[0]["valid_loss"]
    assert learn.predict(Windows(1))[0].dtype == torch.float32


def test_a_second_fit_with_fp16_trains(scaler_alone):
    learn = regressor(callbacks=(MixedPrecision("fp16"),))
    learn.fit(1)
    before = values_of(learn.model)
    learn.fit(1)
    assert not same(before, values_of(learn.model))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_mixed_precision_on_a_gpu_learns(name):
    torch.manual_seed(0)
    check_precision(name, "cuda")
    callbacks = [MixedPrecision(name), RNNRegularizer(), ResetState(), GradientClip(0.1)]
    learn = Learner(ToyLM(), Windows(4), Windows(2), loss_fn=lm_loss, callbacks=callbacks, device="cuda")
    learn.fit_one_cycle(5, 1e-2)
    assert learn.history[-1]["valid_loss"] < learn.history[0]["valid_loss"]
    assert not torch.is_autocast_enabled("cuda")
