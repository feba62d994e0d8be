"""Stop a training whose loss is no number any more, before the step that would spoil the weights.

Only the loss is looked at: one number a step. A gradient that overflows with a finite loss shows in the next loss, and
the last checkpoint is from before it.

The `Learner` adds this callback itself. Overflow in fp16 is none of its business: `MixedPrecision` leaves such a step
out before this one is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..errors import UlmpipeError
from .callback import Callback
from .regularize import GradientClip

if TYPE_CHECKING:
    from .learner import Learner


class FiniteLoss(Callback):
    """Raise `UlmpipeError` before the step when what was back-propagated is NaN or infinite.

    In a single process the one wait for the device in a training step; the next batch is not needed before it.
    """

    order = GradientClip.order + 10

    def before_step(self, learn: Learner) -> None:
        """Check the loss; the weights are still good."""
        if not torch.isfinite(learn.loss_grad):
            lrs = ", ".join(f"{group['lr']:.2g}" for group in learn.opt.param_groups)
            raise UlmpipeError(
                f"the loss is {learn.loss_grad.item()} at step {learn.step} (epoch {learn.epoch}, batch {learn.batch_index}, lr {lrs}): "
                "lower --lr, or use --precision fp32; the last checkpoint is good"
            )
