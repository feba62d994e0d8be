"""`Learner`: the training loop, and nothing else. Read `callback.py` first, its docstring draws the loop.

Whatever is more than "predict, loss, backward, step" is a callback. The Learner knows neither text nor images: data is
anything with `batches(epoch, start)`, a batch is `(*inputs, target)`, and a prediction is `model(*inputs)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import UlmpipeError
from .batches import Batches, on_device
from .callback import Callback, CancelBatch, CancelEpoch, CancelFit, CancelStep, in_order, run_level
from .checkpoint import load_checkpoint
from .guard import FiniteLoss
from .lr_find import LRCurve, find_lr
from .metrics import Counted, Metric, Metrics, Predictions
from .params import Group, adam, collect_groups, freeze_to, param_groups, spread
from .schedule import one_cycle_schedulers


class Learner:
    """A model, its data and its loss, with the methods that train it.

    `groups` are the parameter groups, lowest layers first: modules, or lists of modules or parameters; by default one.
    Every fit gets a new optimiser, `opt_fn(param_groups)`. `callbacks` take part in all, those given to a fit only in it.
    """

    # What hooks read, and may change where it says so.
    model: Any  # nn.Module, and what methods it has of its own: reset(), carried_state(), load_carried_state(state)
    inputs: list[Tensor]  # of this batch, on the device; may be changed in before_batch, `target` too
    target: Tensor
    pred: Any  # what the model returned; may be changed in after_pred
    loss: Tensor  # () the true loss
    loss_grad: Tensor  # () what is back-propagated; may be changed in after_loss and before_backward
    opt: Optimizer

    def __init__(
        self,
        model: nn.Module,
        train_dl: Batches,
        valid_dl: Batches | None = None,
        *,
        loss_fn: Callable[[Any, Tensor], Tensor],
        groups: Sequence[Group] | None = None,
        opt_fn: Callable[[list[dict[str, Any]]], Optimizer] = adam,
        weight_decay: float = 0.0,
        metrics: Sequence[Metric | Counted] = (),
        callbacks: Sequence[Callback] = (),
        device: torch.device | str = "cpu",
    ):
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.train_model: Callable[..., Any] | None = None  # a wrapper of the model, for training
        self.train_dl, self.valid_dl = train_dl, valid_dl
        self.loss_fn, self.opt_fn, self.weight_decay = loss_fn, opt_fn, weight_decay
        self.groups = collect_groups(self.model, groups)
        self.metrics = Metrics(metrics)
        self.callbacks = [self.metrics, FiniteLoss(), *callbacks]
        self.active = in_order(self.callbacks)  # those that hear of events now
        self.history: list[dict[str, float]] = []  # a row an epoch of the last fit, see `Metrics`
        self.n_epochs = self.n_steps = 0  # of this fit
        self.max_steps: float = math.inf
        self.epoch = self.step = 0  # this epoch; steps done in this fit, those that were skipped for overflow too
        self.next_batch = 0  # training batches of this epoch that are done, or begun
        self.training, self.batch_index, self.n_batches = False, 0, 0  # of the part, training or validation, that runs

    def fit(
        self,
        n_epochs: int,
        *,
        lr: float | Sequence[float] = 1e-3,
        callbacks: Sequence[Callback] = (),
        max_steps: int | None = None,
        resume: Path | None = None,
    ) -> None:
        """Train for `n_epochs`, or `max_steps` in all if that is less; `lr` is one number, or one a group.

        `resume` is a checkpoint of a fit with the same arguments; this one goes on where it was written.
        """
        if len(self.train_dl) == 0:
            raise UlmpipeError("there is not one training batch: give more data, or a smaller --batch-size")
        self.n_epochs, self.max_steps = n_epochs, math.inf if max_steps is None else max_steps
        self.n_steps = int(min(n_epochs * len(self.train_dl), self.max_steps))
        self.epoch, self.step, self.next_batch, self.history = 0, 0, 0, []
        self.opt = self.opt_fn(param_groups(self.groups, lr, weight_decay=self.weight_decay))
        self.opt.zero_grad()
        self.active = in_order([*self.callbacks, *callbacks])
        try:
            run_level(self, "fit", CancelFit, lambda: self._all_epochs(resume))
        finally:
            self.active = in_order(self.callbacks)

    def fit_one_cycle(
        self,
        n_epochs: int,
        lr_max: float | Sequence[float],
        *,
        pct_start: float = 0.25,
        div: float = 25.0,
        div_final: float = 1e5,
        moms: tuple[float, float, float] = (0.8, 0.7, 0.8),
        max_steps: int | None = None,
        callbacks: Sequence[Callback] = (),
        resume: Path | None = None,
    ) -> None:
        """Train with one cycle over all steps (Smith 2018): learning rate up and down, momentum down and up."""
        lrs = spread(lr_max, len(self.groups))
        cycle = one_cycle_schedulers(lrs, pct_start=pct_start, div=div, div_final=div_final, moms=moms)
        self.fit(n_epochs, lr=lrs, callbacks=[*cycle, *callbacks], max_steps=max_steps, resume=resume)

    def freeze_to(self, n: int) -> None:
        """Freeze `groups[:n]`, train the others: -1 trains the last group only."""
        freeze_to(self.groups, n)

    def unfreeze(self) -> None:
        """Train all groups."""
        freeze_to(self.groups, 0)

    def validate(self, dl: Batches | None = None) -> dict[str, float]:
        """Return `valid_loss` and the metrics on `dl`, by default on the validation data."""
        if (dl := self.valid_dl if dl is None else dl) is None:
            raise ValueError("there is no validation data: give a dl")
        self("before_validate")
        self._all_batches(dl, training=False)
        self("after_validate")
        return self.metrics.results()

    def predict(self, dl: Batches) -> tuple[Tensor, Tensor]:
        """Return all predictions, for `probabilities(pred, loss_fn)`, and all targets of `dl`, joined, on the CPU."""
        predictions = Predictions()
        self.active = in_order([*self.callbacks, predictions])
        try:
            self.validate(dl)
        finally:
            self.active = in_order(self.callbacks)
        return predictions.joined()

    def lr_find(self, *, lr_min: float = 1e-7, lr_max: float = 10, n_steps: int = 100, diverge: float = 4) -> LRCurve:
        """Suggest a learning rate after a mock training; model and generators are as before."""
        return find_lr(self, lr_min=lr_min, lr_max=lr_max, n_steps=n_steps, diverge=diverge)

    def _all_epochs(self, resume: Path | None) -> None:
        if resume is not None:
            load_checkpoint(self, resume)
        for epoch in range(self.epoch, self.n_epochs):
            if self.step >= self.max_steps and self.next_batch == 0:
                return
            self.epoch = epoch
            run_level(self, "epoch", CancelEpoch, self._one_epoch)
            self.next_batch = 0

    def _one_epoch(self) -> None:
        self._all_batches(self.train_dl, training=True, start=self.next_batch)
        if self.valid_dl is not None:
            self.validate()

    def _all_batches(self, dl: Batches, *, training: bool, start: int = 0) -> None:
        self.training, self.n_batches = training, len(dl)
        self.model.train(training)
        arriving = closing(on_device(dl.batches(self.epoch, start), self.device))
        with torch.set_grad_enabled(training), arriving as batches:
            for index, (*self.inputs, self.target) in enumerate(batches, start):
                if training and self.step >= self.max_steps:
                    return
                self.batch_index, self.next_batch = index, index + 1 if training else self.next_batch
                run_level(self, "batch", CancelBatch, self._one_batch)
                self.pred = self.loss_grad = None  # type: ignore[assignment]  # logits need not outlive their batch

    def _one_batch(self) -> None:
        self.pred = (self.train_model if self.training and self.train_model else self.model)(*self.inputs)
        self("after_pred")
        self.loss = self.loss_grad = self.loss_fn(self.pred, self.target)
        self("after_loss")
        if not self.training:
            return
        self("before_backward")
        self.loss_grad.backward()
        self("after_backward")
        try:
            self("before_step")
            self.opt.step()
            self("after_step")
        except CancelStep:
            pass
        self.step += 1
        self.opt.zero_grad()

    def __call__(self, event: str) -> None:
        """Tell all callbacks of an event, lowest order first."""
        for cb in self.active:
            getattr(cb, event)(self)
