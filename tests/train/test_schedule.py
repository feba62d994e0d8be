import doctest

import numpy as np
import pytest
import torch
from torch import nn

import ulmpipe.train.schedule as schedule
from ulmpipe.train import (
    DebugCallback,
    ParamScheduler,
    anneal_cos,
    anneal_exp,
    anneal_linear,
    anneal_no,
    combine_scheds,
    one_cycle,
    slanted_triangular,
)

from .toy import regressor


def test_doctests():
    assert doctest.testmod(schedule).failed == 0


@pytest.mark.parametrize("anneal", [anneal_linear, anneal_cos, anneal_exp])
def test_anneal_begins_and_ends_where_it_should(anneal):
    sched = anneal(0.1, 2.0)
    assert sched(0.0) == pytest.approx(0.1)
    assert sched(1.0) == pytest.approx(2.0)
    assert np.all(np.diff([sched(pos) for pos in np.linspace(0, 1, 20)]) > 0)
    assert anneal_no(0.3, 9.0)(0.7) == 0.3


def test_combine_scheds_meets_at_the_borders():
    sched = combine_scheds([0.3, 0.7], [anneal_linear(0, 1), anneal_linear(1, 0)])
    assert [sched(pos) for pos in (0.0, 0.15, 0.3, 0.65, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert combine_scheds([0.1] * 10, [anneal_no(n) for n in range(10)])(1.0) == 9  # 0.1 * 10 is not 1.0 exactly
    assert combine_scheds([1.0, 0.0], [anneal_linear(0, 1), anneal_no(5)])(0.5) == 0.5


@pytest.mark.parametrize("pcts", [[0.3, 0.6], [1.2, -0.2], [1.0]])
def test_combine_scheds_refuses_wrong_shares(pcts):
    with pytest.raises(ValueError, match="shares"):
        combine_scheds(pcts, [anneal_no(1), anneal_no(2)])


def test_one_cycle_has_the_shape_of_torch():
    n_steps, pct = 100, 0.25
    opt = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    ref_sched = torch.optim.lr_scheduler.OneCycleLR(
        opt,
        max_lr=0.1,
        total_steps=n_steps,
        pct_start=pct,
        div_factor=25,
        final_div_factor=1e5 / 25,
        cycle_momentum=False,
    )
    ref_lrs = []
    for _ in range(n_steps):
        ref_lrs.append(opt.param_groups[0]["lr"])
        opt.step()
        ref_sched.step() if len(ref_lrs) < n_steps else None
    # torch has its peak one step earlier: its phases are counted in steps, ours in shares of the fit
    up_end, end = pct * n_steps - 1, n_steps - 1
    positions = [
        pct * s / up_end if s <= up_end else pct + (1 - pct) * (s - up_end) / (end - up_end) for s in range(n_steps)
    ]
    comp = one_cycle(0.1, pct_start=pct)
    assert [comp(pos) for pos in positions] == pytest.approx(ref_lrs)


def test_slanted_triangular_is_equation_3():
    n_steps, cut_frac, ratio, lr_max = 200, 0.1, 32, 0.01
    cut = int(n_steps * cut_frac)
    comp = slanted_triangular(lr_max, cut_frac=cut_frac, ratio=ratio)
    for t in range(n_steps + 1):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        assert comp(t / n_steps) == pytest.approx(lr_max * (1 + p * (ratio - 1)) / ratio)


def test_param_scheduler_uses_first_and_last_value_and_one_schedule_a_group():
    learn = regressor(n_batches=3)
    learn.groups = [learn.groups[0][:2], learn.groups[0][2:]]
    lrs, moms = [], []
    look = DebugCallback("before_step", lambda learn: lrs.append([g["lr"] for g in learn.opt.param_groups]))
    look_mom = DebugCallback("before_step", lambda learn: moms.append(learn.opt.param_groups[0]["betas"]))
    cbs = [
        ParamScheduler("lr", [anneal_linear(0, 1), anneal_linear(0, 10)]),
        ParamScheduler("momentum", anneal_linear(0.8, 0.7)),
    ]
    learn.fit(2, callbacks=[*cbs, look, look_mom])
    assert len(lrs) == 6 and lrs[0] == [0, 0] and lrs[-1] == [1, 10]
    assert lrs[2] == pytest.approx([0.4, 4])
    assert moms[0] == (0.8, 0.99) and moms[-1] == pytest.approx((0.7, 0.99))


def test_momentum_of_sgd():
    learn = regressor(opt_fn=lambda groups: torch.optim.SGD(groups, momentum=0.9))
    learn.fit(1, lr=1e-3, callbacks=[ParamScheduler("momentum", anneal_no(0.5))])
    assert learn.opt.param_groups[0]["momentum"] == 0.5


def test_schedules_span_max_steps():
    learn = regressor(n_batches=4)
    lrs = []
    learn.fit_one_cycle(
        5,
        0.1,
        max_steps=7,
        callbacks=[DebugCallback("before_step", lambda learn: lrs.append(learn.opt.param_groups[0]["lr"]))],
    )
    assert len(lrs) == 7
    assert lrs[0] == pytest.approx(0.1 / 25) and lrs[-1] == pytest.approx(0.1 / 1e5)


def test_param_scheduler_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="beta2"):
        ParamScheduler("beta2", anneal_no(1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 schedules for 1"):
        regressor().fit(1, callbacks=[ParamScheduler("lr", [anneal_no(1), anneal_no(1)])])
