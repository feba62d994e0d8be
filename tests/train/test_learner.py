from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ulmpipe.train.learner as learner_module
from ulmpipe.errors import UlmpipeError
from ulmpipe.train import DebugCallback, FixedBatches, Learner, ResetState, RNNRegularizer, accuracy

from .toy import ToyLM, Windows, lm_loss, mlp, regression, regressor, same, values_of


def test_learner_is_read_in_one_sitting():
    assert len(Path(learner_module.__file__).read_text().splitlines()) <= 200


def test_fit_is_the_plain_loop():
    learn = regressor(weight_decay=0.1)
    learn.fit(3, lr=1e-2)
    model = mlp()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.1, fused=True)
    for _ in range(3):
        for x, y in regression(4).fixed:
            loss = F.mse_loss(model(x), y)
            loss.backward()
            opt.step()
            opt.zero_grad()
    assert same(values_of(model), values_of(learn.model))
    with torch.no_grad():
        ref_loss = torch.stack([F.mse_loss(model(x), y) for x, y in regression(2, seed=9).fixed]).mean().item()
    assert learn.history[-1]["valid_loss"] == pytest.approx(ref_loss)
    assert learn.validate()["valid_loss"] == pytest.approx(ref_loss)
    assert len(learn.history) == 3 and learn.step == 12


def test_fit_learns():
    learn = regressor()
    learn.fit_one_cycle(60, 0.05)
    assert learn.history[-1]["valid_loss"] < 0.1 * learn.history[0]["valid_loss"]


def test_max_steps_ends_the_fit_and_validates_once_more():
    learn = regressor(n_batches=4)
    learn.fit(10, max_steps=6)
    assert learn.step == 6 and [row["step"] for row in learn.history] == [4, 6]
    learn.fit(10, max_steps=4)
    assert [row["step"] for row in learn.history] == [4]
    assert learn.n_steps == 4


def two_groups() -> Learner:
    model = mlp()
    return Learner(model, regression(), loss_fn=F.mse_loss, groups=[model[0], model[2]], weight_decay=0.1)


def test_frozen_parameters_do_not_move_even_after_training():
    learn = two_groups()
    learn.fit(1, lr=0.1)
    learn.freeze_to(-1)
    frozen, trained = learn.model[0].weight.clone(), learn.model[2].weight.clone()
    learn.fit(2, lr=0.1)
    assert torch.equal(frozen, learn.model[0].weight)
    assert not torch.equal(trained, learn.model[2].weight)


def test_second_fit_after_unfreezing_trains_all():
    learn = two_groups()
    learn.freeze_to(-1)
    learn.fit(1, lr=0.1)
    learn.unfreeze()
    before = values_of(learn.model)
    learn.fit(1, lr=[0.01, 0.1])
    assert all(not torch.equal(before[name], value) for name, value in values_of(learn.model).items())


def test_a_fit_does_not_remember_the_last_one():
    learn = two_groups()
    learn.fit(1, lr=0.1)
    first = learn.opt
    learn.fit(1, lr=0.1)
    assert learn.opt is not first and learn.opt.state[learn.model[0].weight]["step"] == 4


def test_stale_gradients_are_dropped():
    learn, ref = regressor(), regressor()
    for param in learn.model.parameters():
        param.grad = torch.full_like(param, 1e3)
    learn.fit(1)
    ref.fit(1)
    assert same(values_of(learn.model), values_of(ref.model))


def test_predict_joins_on_the_cpu_in_eval_mode():
    learn = Learner(nn.Sequential(nn.Dropout(0.9), mlp()), regression(), loss_fn=F.mse_loss)
    preds, targets = learn.predict(regression(3))
    batches = regression(3).fixed
    assert torch.equal(targets, torch.cat([y for _, y in batches]))
    assert torch.equal(preds, torch.cat([learn.model[1](x).detach() for x, _ in batches]))
    assert not preds.requires_grad
    assert len(learn.active) == 2


def test_callbacks_of_a_fit_leave_with_it():
    learn, told = regressor(), []
    learn.fit(1, callbacks=[DebugCallback("before_fit", lambda learn: told.append("fit"))])
    learn.fit(1)
    assert told == ["fit"]


def test_validation_does_not_train_and_gives_training_its_mode_back():
    learn, modes = regressor(), []
    look = DebugCallback(
        "before_batch", lambda learn: modes.append((learn.training, learn.model.training, torch.is_grad_enabled()))
    )
    learn.fit(2, callbacks=[look])
    assert modes == 2 * (4 * [(True, True, True)] + 2 * [(False, False, False)])


def test_empty_data_is_said():
    learn = Learner(mlp(), FixedBatches([]), loss_fn=F.mse_loss)
    with pytest.raises(UlmpipeError, match="not one training batch"):
        learn.fit(1)
    with pytest.raises(ValueError, match="no validation data"):
        learn.validate()


def test_several_inputs_and_metrics():
    class Add(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, a, b):
            return self.linear(a + b)

    torch.manual_seed(0)
    dl = FixedBatches([(torch.randn(4, 3), torch.randn(4, 3), torch.randint(2, (4,))) for _ in range(3)])
    learn = Learner(Add(), dl, dl, loss_fn=F.cross_entropy, metrics=[accuracy])
    learn.fit(1)
    preds, targets = learn.predict(dl)
    assert learn.history[0]["accuracy"] == pytest.approx(accuracy(preds, targets).item())


def test_a_language_model_overfits_its_windows():
    torch.manual_seed(0)
    dl = FixedBatches(list(Windows(2).batches(0)))
    learn = Learner(ToyLM(), dl, dl, loss_fn=lm_loss, callbacks=[RNNRegularizer(0.0, 0.0), ResetState()])
    learn.fit_one_cycle(80, 0.05)
    assert learn.history[-1]["valid_loss"] < 0.3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_fit_on_a_gpu_agrees_with_the_cpu():
    ref, comp = regressor(), regressor(device="cuda")
    ref.fit(3)
    comp.fit(3)
    assert comp.history[-1]["valid_loss"] == pytest.approx(ref.history[-1]["valid_loss"], rel=1e-4)
