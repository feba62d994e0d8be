import doctest
import random

import pytest
import torch

import ulmpipe.train.lr_find as lr_find
from ulmpipe.train import Learner, ResetState, RNNRegularizer

from .toy import ToyLM, Windows, lm_loss, regressor, same, values_of


def test_doctests():
    assert doctest.testmod(lr_find).failed == 0


def test_lr_find_leaves_everything_as_it_was():
    torch.manual_seed(0)
    learn = Learner(ToyLM(), Windows(6), Windows(2), loss_fn=lm_loss, callbacks=[RNNRegularizer(), ResetState()])
    learn.fit(1)
    learn.model(torch.ones(2, 3, dtype=torch.long))  # now it carries a state
    learn.freeze_to(0)
    before, carried, opt, history = values_of(learn.model), learn.model.carried_state(), learn.opt, learn.history
    rng = torch.get_rng_state()
    curve = learn.lr_find(n_steps=20)
    assert same(before, values_of(learn.model)) and same(carried, learn.model.carried_state())
    assert torch.equal(rng, torch.get_rng_state())
    assert learn.opt is opt and learn.history is history and len(learn.history) == 1
    assert learn.valid_dl is not None and learn.step == 6 and not learn.model.training
    assert all(param.grad is None for param in learn.model.parameters())
    assert len(curve.lrs) == len(curve.losses) <= 20 and 1e-7 <= curve.suggestion <= 1


def test_lr_find_stops_when_the_loss_diverges():
    curve = regressor().lr_find(lr_max=1e6, n_steps=100)
    assert len(curve.lrs) < 100
    learn = regressor()
    learn.fit(30, lr=curve.suggestion)
    assert learn.history[-1]["valid_loss"] < learn.history[0]["valid_loss"]


def test_lr_find_restores_after_an_error():
    def fail(pred, target):
        raise ZeroDivisionError

    learn = regressor()
    before = values_of(learn.model)
    learn.loss_fn = fail
    with pytest.raises(ZeroDivisionError):
        learn.lr_find()
    assert same(before, values_of(learn.model)) and learn.valid_dl is not None


def test_suggest_takes_a_tenth_of_the_best():
    rng = random.Random(0)
    lrs = [10 ** (n / 10 - 6) for n in range(61)]
    losses = [abs(n - 40) / 10 + rng.random() * 1e-3 for n in range(61)]
    assert 1e-3 < lr_find.suggest(lrs, losses) < 1e-2  # the average lags behind the minimum at 1e-2
    with pytest.raises(ValueError, match="no learning rate"):
        lr_find.suggest([], [])
