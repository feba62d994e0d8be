import doctest

import pytest
import torch
from torch import nn

import ulmpipe.train.params as params
from ulmpipe.train import discriminative, freeze_to, param_groups

from .toy import ToyLM, mlp


def test_doctests():
    assert doctest.testmod(params).failed == 0


def test_discriminative_is_lowest_first():
    comp_lrs = discriminative(1e-2, 4)
    ref_lrs = [1e-2 / 2.6**3, 1e-2 / 2.6**2, 1e-2 / 2.6, 1e-2]
    assert comp_lrs == pytest.approx(ref_lrs)
    assert discriminative(0.1, 1) == [0.1]


def test_collect_groups_takes_modules_lists_and_tied_parameters():
    lm = ToyLM()
    groups = params.collect_groups(lm, [lm.rnn, [lm.emb, lm.decoder]])
    assert [len(group) for group in groups] == [4, 2]  # the tied weight once
    assert len(params.collect_groups(lm)[0]) == 6
    assert params.collect_groups(lm, [lm.emb, lm.rnn, lm.decoder])[2] == [lm.decoder.bias]


def test_collect_groups_refuses_to_leave_parameters_out():
    model = mlp()
    with pytest.raises(ValueError, match=r"leave out 2 parameters.*2\.weight"):
        params.collect_groups(model, [model[0]])


def test_param_groups_have_their_rates():
    model = mlp()
    groups = params.collect_groups(model, [model[0], model[2]])
    comp = param_groups(groups, [1e-4, 1e-3], weight_decay=0.1)
    assert [(len(g["params"]), g["lr"], g["weight_decay"]) for g in comp] == [(2, 1e-4, 0.1), (2, 1e-3, 0.1)]
    assert [g["lr"] for g in param_groups(groups, 0.5)] == [0.5, 0.5]
    with pytest.raises(ValueError, match="3 learning rates for 2"):
        param_groups(groups, [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "n, ref_trained", [(0, [1, 1, 1]), (1, [0, 1, 1]), (-1, [0, 0, 1]), (-2, [0, 1, 1]), (3, [0, 0, 0])]
)
def test_freeze_to(n, ref_trained):
    groups = [[nn.Parameter(torch.ones(2))] for _ in range(3)]
    for (param,) in groups:
        param.grad = torch.ones(2)
    freeze_to(groups, n)
    assert [int(param.requires_grad) for (param,) in groups] == ref_trained
    assert [int(param.grad is not None) for (param,) in groups] == ref_trained
