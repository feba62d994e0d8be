"""Schedules: how a hyperparameter moves over a fit, as functions of the position in it, 0.0 (begin) to 1.0 (end).

First the functions, which know nothing of training, then `ParamScheduler`, the thin callback that applies one.
Position is `step / (n_steps - 1)`: the first step uses the first value, the last step the last one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .callback import Callback

if TYPE_CHECKING:
    from .learner import Learner

Schedule = Callable[[float], float]


def anneal_no(begin: float, end: float = math.nan) -> Schedule:
    """Stay at `begin`; `end` is taken so that all four can be exchanged, and ignored."""
    return lambda pos: begin


def anneal_linear(begin: float, end: float) -> Schedule:
    """Go from `begin` to `end` in a straight line.

    >>> anneal_linear(1.0, 3.0)(0.5)
    2.0
    """
    return lambda pos: begin + pos * (end - begin)


def anneal_cos(begin: float, end: float) -> Schedule:
    """Go from `begin` to `end` along half a cosine, flat at both ends.

    >>> anneal_cos(1.0, 3.0)(0.5)
    2.0
    """
    return lambda pos: end + (begin - end) * (1 + math.cos(math.pi * pos)) / 2


def anneal_exp(begin: float, end: float) -> Schedule:
    """Go from `begin` to `end` by equal factors; both are positive.

    >>> round(anneal_exp(1.0, 100.0)(0.5), 9)
    10.0
    """
    return lambda pos: begin * (end / begin) ** pos


def combine_scheds(pcts: Sequence[float], scheds: Sequence[Schedule]) -> Schedule:
    """Run schedules one after another, each for its share of the fit; the shares add up to 1."""
    if len(pcts) != len(scheds) or min(pcts) < 0 or abs(sum(pcts) - 1) > 1e-6:
        raise ValueError(
            f"shares {list(pcts)} for {len(scheds)} schedules, expected one each, none negative, adding up to 1"
        )

    def combined(pos: float) -> float:
        begin = 0.0
        for pct, sched in zip(pcts[:-1], scheds[:-1], strict=True):
            if pos < begin + pct:
                return sched((pos - begin) / pct)
            begin += pct
        return scheds[-1](min(1.0, (pos - begin) / pcts[-1]) if pcts[-1] else 1.0)

    return combined


def one_cycle(lr_max: float, *, pct_start: float = 0.25, div: float = 25.0, div_final: float = 1e5) -> Schedule:
    """Warm up from `lr_max / div` to `lr_max`, then anneal to `lr_max / div_final`, both along cosines (fastai v2)."""
    up, down = anneal_cos(lr_max / div, lr_max), anneal_cos(lr_max, lr_max / div_final)
    return combine_scheds([pct_start, 1 - pct_start], [up, down])


def cycle_momentum(moms: tuple[float, float, float], *, pct_start: float = 0.25) -> Schedule:
    """Go `moms[0] -> moms[1] -> moms[2]` in step with `one_cycle`: low momentum while the learning rate is high."""
    down, up = anneal_cos(moms[0], moms[1]), anneal_cos(moms[1], moms[2])
    return combine_scheds([pct_start, 1 - pct_start], [down, up])


def slanted_triangular(lr_max: float, *, cut_frac: float = 0.1, ratio: float = 32.0) -> Schedule:
    """Rise in a line for `cut_frac` of the fit, fall in a line after it (Howard & Ruder 2018, equation 3).

    `lr_max * (1 + p * (ratio - 1)) / ratio`, where p goes 0 -> 1 -> 0; so it begins and ends at `lr_max / ratio`.
    """
    up, down = anneal_linear(lr_max / ratio, lr_max), anneal_linear(lr_max, lr_max / ratio)
    return combine_scheds([cut_frac, 1 - cut_frac], [up, down])


class ParamScheduler(Callback):
    """Set the learning rate or the momentum before each training batch.

    `sched` is one schedule for all parameter groups, or a list with one a group. Momentum is `betas[0]` of the Adam
    family and `momentum` of SGD.
    """

    def __init__(self, name: Literal["lr", "momentum"], sched: Schedule | Sequence[Schedule]):
        if name not in ("lr", "momentum"):
            raise ValueError(f"cannot schedule {name!r}, expected 'lr' or 'momentum'")
        self.name, self.sched = name, sched

    def before_fit(self, learn: Learner) -> None:
        """Check that there is one schedule a group."""
        if not callable(self.sched) and len(self.sched) != len(learn.opt.param_groups):
            raise ValueError(f"{len(self.sched)} schedules for {len(learn.opt.param_groups)} parameter groups")

    def before_batch(self, learn: Learner) -> None:
        """Set the value of this step in every group."""
        if not learn.training:
            return
        pos = min(1.0, learn.step / max(1, learn.n_steps - 1))
        for n, group in enumerate(learn.opt.param_groups):
            sched = self.sched if callable(self.sched) else self.sched[n]
            set_hyperparameter(group, self.name, sched(pos))


def one_cycle_schedulers(
    lrs: Sequence[float], *, pct_start: float, div: float, div_final: float, moms: tuple[float, float, float]
) -> list[Callback]:
    """Return the two callbacks of a one-cycle fit: a learning rate for each group, one momentum for all."""
    cycles = [one_cycle(lr, pct_start=pct_start, div=div, div_final=div_final) for lr in lrs]
    return [ParamScheduler("lr", cycles), ParamScheduler("momentum", cycle_momentum(moms, pct_start=pct_start))]


def set_hyperparameter(group: dict[str, Any], name: str, value: float) -> None:
    """Set `lr` or `momentum` in one parameter group of a torch optimiser."""
    if name == "momentum" and "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group[name] = value
