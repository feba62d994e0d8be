"""Parameter groups: which parameters are trained, each at which learning rate.

A group is a list of parameters, lowest layers first (ULMFiT: Howard & Ruder 2018, sections 3.2 and 3.3). Nothing here
takes a step; `learner.py` makes an optimiser of the groups for every fit.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

Group = nn.Module | Iterable[nn.Module | nn.Parameter]


def adam(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Make the default optimiser: Adam, decoupled weight decay, fastai's betas (0.9, 0.99) and eps 1e-5."""
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-5, fused=True)


def collect_groups(model: nn.Module, groups: Sequence[Group] | None = None) -> list[list[nn.Parameter]]:
    """Turn modules into lists of parameters; without `groups` the whole model is one.

    A parameter that is tied (embedding and decoder) belongs to the first group that holds it. Raises ValueError when
    a parameter of the model is in no group: it would never be trained, and nothing would say so.
    """
    seen: set[nn.Parameter] = set()
    collected = []
    for group in [model] if groups is None else groups:
        fresh = [param for param in dict.fromkeys(_params_of(group)) if param not in seen]
        seen.update(fresh)
        collected.append(fresh)
    if missing := [name for name, param in model.named_parameters() if param not in seen]:
        raise ValueError(
            f"groups leave out {len(missing)} parameters of the model ({', '.join(missing[:3])}, ...): add them to one"
        )
    return collected


def _params_of(group: Group) -> Iterable[nn.Parameter]:
    if isinstance(group, nn.Module):
        yield from group.parameters()
        return
    for part in group:
        if isinstance(part, nn.Parameter):
            yield part
        else:
            yield from part.parameters()


def spread(lr: float | Sequence[float], n_groups: int) -> list[float]:
    """Return one learning rate a group: the same for all, or those given, lowest layers first."""
    lrs = [float(lr)] * n_groups if isinstance(lr, int | float) else [float(one) for one in lr]
    if len(lrs) != n_groups:
        raise ValueError(f"{len(lrs)} learning rates for {n_groups} parameter groups: give one number, or one a group")
    return lrs


def discriminative(lr: float, n_groups: int, *, factor: float = 2.6) -> list[float]:
    """Return learning rates for `n_groups`, lowest first, each the next one divided by `factor` (ULMFiT 3.2).

    >>> discriminative(1.0, 3, factor=2.0)
    [0.25, 0.5, 1.0]
    """
    return [lr / factor ** (n_groups - 1 - n) for n in range(n_groups)]


def param_groups(
    groups: Sequence[Sequence[nn.Parameter]], lrs: float | Sequence[float], *, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Return what a torch optimiser takes: one dict a group with its parameters, learning rate and weight decay.

    Frozen parameters are in it too, so that numbers in a saved optimiser mean the same in every stage; without a
    gradient no optimiser moves them.
    """
    lrs = spread(lrs, len(groups))
    return [
        {"params": list(group), "lr": lr, "weight_decay": weight_decay} for group, lr in zip(groups, lrs, strict=True)
    ]


def freeze_to(groups: Sequence[Sequence[nn.Parameter]], n: int) -> None:
    """Freeze `groups[:n]` and train the others; -1 trains the last group only, 0 trains all.

    A frozen parameter has no gradient at all: with one of zeros, Adam would go on moving it by its momentum.
    """
    frozen = {param for group in groups[:n] for param in group}
    for group in groups:
        for param in group:
            param.requires_grad_(param not in frozen)
            if param in frozen:
                param.grad = None
