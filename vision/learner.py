"""`cnn_learner`: a network, data and callbacks put together, as in the lesson, for a notebook or for the commands.

learn = cnn_learner("xresnet18", data, mixup=0.4, smooth=0.1)
learn.fit_one_cycle(5, 5e-3, moms=MOMS)

With `smooth` the losses that are told, of validation too, are those of smoothed labels; `evaluate` gives the plain one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ulmpipe.train import Callback, Learner, MixedPrecision, accuracy, pick_device, pick_precision
from ulmpipe.train.metrics import Metric
from ulmpipe.train.params import Group, adam

from .augment import Augment
from .data import ImageData, Stats, channel_stats
from .mixup import MixUp
from .xresnet import build

MOMS = (0.95, 0.85, 0.95)  # of the lesson's one cycle for pictures
WEIGHT_DECAY = 0.05


def cnn_learner(
    arch: str | nn.Module,
    data: ImageData,
    loss_fn: Callable[..., Tensor] | None = None,
    *,
    size: int = 128,
    first_size: int | None = None,
    batch_size: int = 64,
    mixup: float = 0.0,
    smooth: float = 0.1,
    flip: bool = True,
    min_scale: float = 0.35,
    stats: Stats | None = None,
    metrics: Sequence[Metric] = (accuracy,),
    groups: Sequence[Group] | None = None,
    opt_fn: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = adam,
    weight_decay: float = WEIGHT_DECAY,
    callbacks: Sequence[Callback] = (),
    precision: str = "auto",
    device: str = "auto",
    seed: int = 0,
) -> Learner:
    """Make a `Learner` for pictures; `arch` is a name of `xresnet.ARCHS` or a network of your own.

    `loss_fn(pred, target, reduction=)` is cross entropy, smoothed by `smooth`, unless given. Training pictures grow from
    `first_size` to `size`. `mixup` is its alpha, 0 for none. Pictures are normalised by `stats`, by default those of the
    training data. `precision` "auto" is bfloat16 where the device is made for it. Weights are seeded by `seed`.
    """
    torch_device = pick_device(device)
    torch.manual_seed(seed)
    model = build(arch, c_out=len(data.classes)) if isinstance(arch, str) else arch
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    stats = stats or channel_stats(data.pictures, data.train)
    augment = Augment(
        size, first_size=first_size, mean=stats.mean, std=stats.std, min_scale=min_scale, flip=flip, seed=seed
    )
    train_dl, valid_dl = data.batches(batch_size=batch_size, seed=seed)
    numbers = pick_precision(precision, torch_device)
    return Learner(
        model,
        train_dl,
        valid_dl,
        loss_fn=loss_fn or (partial(F.cross_entropy, label_smoothing=smooth) if smooth else F.cross_entropy),
        groups=groups,
        opt_fn=opt_fn,
        weight_decay=weight_decay,
        metrics=metrics,
        callbacks=[
            augment,
            *([MixUp(mixup)] if mixup else []),
            *([MixedPrecision(numbers)] if numbers != "fp32" else []),
            *callbacks,
        ],
        device=torch_device,
    )
