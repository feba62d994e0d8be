import pytest
import torch

from ulmpipe.train import (
    DebugCallback,
    GradientClip,
    ResetState,
    RNNRegularizer,
    activation_reg,
    temporal_activation_reg,
)

from .toy import Windows, grad_norm, language_learner, regressor


def test_activation_reg_is_the_mean_square():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4)
    assert activation_reg(x, 2.0).item() == pytest.approx(2 * (x**2).mean().item())
    assert activation_reg(x.half() * 300, 1.0).isfinite()  # squares of these have no room in float16


def test_temporal_activation_reg_goes_along_time():
    x = torch.zeros(2, 3, 1)
    x[1] = 5.0  # another level in another row of the batch is no change
    assert temporal_activation_reg(x, 1.0) == 0
    x[:, 2] += 2.0  # steps of 0 and 2 in both rows
    assert temporal_activation_reg(x, 3.0).item() == pytest.approx(3 * 2.0)


def test_temporal_activation_reg_of_one_step_is_zero():
    comp = temporal_activation_reg(torch.ones(4, 1, 2, dtype=torch.bfloat16), 1.0)
    assert comp.item() == 0 and comp.dtype == torch.float32 and comp.shape == ()


def test_regularizer_adds_to_what_is_back_propagated_only():
    told = []
    look = DebugCallback(
        "after_loss", lambda learn: told.append((learn.training, learn.loss.item(), learn.loss_grad.item()))
    )
    look.order = 1000
    learn = language_learner(RNNRegularizer(2.0, 1.0), ResetState(), n_batches=3)
    learn.fit(1, callbacks=[look])
    assert all(grad > loss for training, loss, grad in told if training)
    assert all(grad == loss for training, loss, grad in told if not training)
    ref_train = sum(loss for training, loss, _ in told if training) / 3
    assert learn.history[0]["train_loss"] == pytest.approx(ref_train)


def test_regularizer_makes_the_logits_the_prediction():
    preds, targets = language_learner(RNNRegularizer(), ResetState()).predict(Windows(2))
    assert preds.shape == (4, 5, 11) and targets.shape == (4, 5)


def test_state_is_reset_between_epochs_and_around_validation():
    learn = language_learner(RNNRegularizer(), ResetState(), n_batches=3)
    hidden = []
    learn.fit(2, callbacks=[DebugCallback("before_batch", lambda learn: hidden.append(learn.model.hidden is not None))])
    assert hidden == 2 * [False, True, True, False, True]
    assert learn.model.hidden is None and learn.model.n_resets == 6


def test_clip_bounds_the_norm_of_all_gradients():
    norms = []
    look = DebugCallback("before_step", lambda learn: norms.append(grad_norm(learn.model)))
    regressor().fit(1, callbacks=[GradientClip(0.01), look])
    assert torch.stack(norms).allclose(torch.tensor(0.01))
