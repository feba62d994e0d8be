"""Regularisation of recurrent language models: AR, TAR, gradient clipping, and when a carried state is forgotten.

Each technique is a pure function and a thin callback. The dropouts of AWD-LSTM are in the model, not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .callback import Callback
from .precision import MixedPrecision

if TYPE_CHECKING:
    from .learner import Learner


def activation_reg(dropped_output: Tensor, alpha: float) -> Tensor:
    """Punish large activations: `alpha * mean(dropped_output ** 2)` (AR, Merity et al. 2017, section 4.6).

    dropped_output: (B, T, E), any float dtype, the last layer's output after its dropout. Returns () float32.
    """
    return alpha * dropped_output.float().pow(2).mean()


def temporal_activation_reg(raw_output: Tensor, beta: float) -> Tensor:
    """Punish large changes from one time step to the next: `beta * mean((h[t+1] - h[t]) ** 2)` (TAR).

    raw_output: (B, T, E), any float dtype, the last layer's output before its dropout; the difference is along T (the
    course's first version took it along the batch: fastai/course-v3#409). Returns () float32, 0 where T is 1.
    """
    if raw_output.size(1) < 2:
        return raw_output.new_zeros((), dtype=torch.float32)
    h = raw_output.float()
    return beta * (h[:, 1:] - h[:, :-1]).pow(2).mean()


class RNNRegularizer(Callback):
    """Add AR and TAR to what is back-propagated, in training only.

    The model returns `(scores, raw_output, dropped_output)`; the scores become `learn.pred`, in validation too.
    """

    order = MixedPrecision.order - 10  # `learn.pred` must be the scores when the precision is raised again

    def __init__(self, alpha: float = 2.0, beta: float = 1.0):
        self.alpha, self.beta = alpha, beta
        self.outputs: tuple[Tensor, Tensor] | None = None

    def after_pred(self, learn: Learner) -> None:
        """Take the model's outputs apart."""
        learn.pred, *outputs = learn.pred
        self.outputs = (outputs[0], outputs[1])

    def after_loss(self, learn: Learner) -> None:
        """Add both terms to `learn.loss_grad`; `learn.loss` stays as it is."""
        if learn.training and self.outputs:
            raw_output, dropped_output = self.outputs
            terms = activation_reg(dropped_output, self.alpha) + temporal_activation_reg(raw_output, self.beta)
            learn.loss_grad = learn.loss_grad + terms

    def cleanup_batch(self, learn: Learner) -> None:
        """Let go of the activations."""
        self.outputs = None


class ResetState(Callback):
    """Call `model.reset()` wherever one stream of text ends: before each epoch, before and after each validation.

    So no state goes from one epoch to the next, nor between training and validation. An epoch that is resumed in the
    middle keeps the state that its checkpoint brought.
    """

    def before_epoch(self, learn: Learner) -> None:
        """Begin the epoch from zeros."""
        if learn.next_batch == 0:
            learn.model.reset()

    def before_validate(self, learn: Learner) -> None:
        """Begin the validation from zeros."""
        learn.model.reset()

    def after_validate(self, learn: Learner) -> None:
        """Leave nothing of the validation."""
        learn.model.reset()


class GradientClip(Callback):
    """Scale the gradients down so that their norm, over all parameters, is at most `max_norm`."""

    order = MixedPrecision.order + 10  # what is clipped must be unscaled

    def __init__(self, max_norm: float):
        self.max_norm = max_norm

    def after_backward(self, learn: Learner) -> None:
        """Clip in place, without waiting for the device."""
        nn.utils.clip_grad_norm_(learn.model.parameters(), self.max_norm)
