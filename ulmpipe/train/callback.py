"""The events of a fit, and `Callback`, through which everything but the bare loop is added to a `Learner`.

Imports nothing of the Learner: `learner.py` raises the events, the other modules of this package answer them.

The whole loop, each event marked with `*`:

    fit:
      * before_fit                                        the optimiser exists; then a checkpoint is loaded, if asked for
        for epoch in range(n_epochs):
          * before_epoch
            for inputs, target in train_dl:
              * before_batch
                pred = model(*inputs)                     * after_pred
                loss = loss_grad = loss_fn(pred, target)  * after_loss
              * before_backward
                loss_grad.backward()                      * after_backward
              * before_step
                opt.step()                                * after_step
                step += 1, gradients = None
              * after_batch
              * cleanup_batch
          * before_validate
            for inputs, target in valid_dl:               (no gradients, model in eval mode)
              * before_batch
                pred, loss as above                       * after_pred * after_loss
              * after_batch
              * cleanup_batch
          * after_validate
          * after_epoch
          * cleanup_epoch
      * after_fit
      * cleanup_fit

A hook may raise `CancelFit`, `CancelEpoch` or `CancelBatch`: what is left of that level is left out, its `after_` event
too. `CancelStep` leaves out only the optimiser's step and `after_step`; the gradients are dropped and `step` goes on.
`cleanup_` events come always, last, whatever was raised, and in every callback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .learner import Learner

EVENTS = (
    *("before_fit", "after_fit", "cleanup_fit"),
    *("before_epoch", "after_epoch", "cleanup_epoch"),
    *("before_validate", "after_validate"),
    *("before_batch", "after_batch", "cleanup_batch"),
    *("after_pred", "after_loss", "before_backward", "after_backward", "before_step", "after_step"),
)
_HOOK_PREFIXES = ("before_", "after_", "cleanup_")


class CancelFit(Exception):
    """Raised by a hook: end the fit here, in good order."""


class CancelEpoch(Exception):
    """Raised by a hook: leave out the rest of this epoch, its validation too."""


class CancelBatch(Exception):
    """Raised by a hook: leave out the rest of this batch; gradients there are stay, to accumulate (not in fp16, which scales them)."""


class CancelStep(Exception):
    """Raised in `before_step`: drop the gradients of this batch, do not step (overflow in fp16)."""


class Callback:
    """Base class: override any hook; each receives the `Learner`. Lower `order` runs first, equals in the order given.

    A class that defines a `before_*`, `after_*` or `cleanup_*` method which is no event fails when it is made.
    """

    order: int = 0

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        unknown = {name for name in vars(cls) if name.startswith(_HOOK_PREFIXES)} - set(EVENTS)
        if unknown:
            raise TypeError(f"{cls.__name__} defines unknown events {sorted(unknown)}; known: {sorted(EVENTS)}")

    def before_fit(self, learn: Learner) -> None:
        """Once, before the first epoch; the optimiser exists, a checkpoint is not loaded yet."""

    def after_fit(self, learn: Learner) -> None:
        """Once, after the last epoch, unless the fit was cancelled."""

    def cleanup_fit(self, learn: Learner) -> None:
        """Once, last of all, whatever happened: close here what `before_fit` opened."""

    def before_epoch(self, learn: Learner) -> None:
        """Before an epoch's first batch. With `learn.next_batch > 0` a resumed epoch goes on: keep what was loaded."""

    def after_epoch(self, learn: Learner) -> None:
        """After an epoch's training and validation."""

    def cleanup_epoch(self, learn: Learner) -> None:
        """At the end of an epoch, whatever happened."""

    def before_validate(self, learn: Learner) -> None:
        """Before the first batch of a validation or prediction, inside a fit or outside of one."""

    def after_validate(self, learn: Learner) -> None:
        """After the last batch of a validation or prediction."""

    def before_batch(self, learn: Learner) -> None:
        """Before the model is called; `learn.inputs` and `learn.target` may be changed. `learn.training` says which part."""

    def after_pred(self, learn: Learner) -> None:
        """After the model was called; `learn.pred` may be changed."""

    def after_loss(self, learn: Learner) -> None:
        """After the loss; terms may be added to `learn.loss_grad`, while `learn.loss` stays the true loss."""

    def before_backward(self, learn: Learner) -> None:
        """In training, right before `learn.loss_grad.backward()`: scale the loss here."""

    def after_backward(self, learn: Learner) -> None:
        """In training, when gradients are there: unscale, then clip."""

    def before_step(self, learn: Learner) -> None:
        """In training, right before the optimiser's step; `CancelStep` leaves it out."""

    def after_step(self, learn: Learner) -> None:
        """In training, right after the optimiser's step; gradients are still there."""

    def after_batch(self, learn: Learner) -> None:
        """At the end of a batch, unless it was cancelled; `learn.step` and `learn.next_batch` count it already."""

    def cleanup_batch(self, learn: Learner) -> None:
        """At the end of a batch, whatever happened: close here what `before_batch` opened."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep of this callback, as values that JSON knows."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""


class DebugCallback(Callback):
    """Run `fn(learn)` at a named event, or stop in the debugger there when no `fn` is given."""

    def __init__(self, event: str, fn: Callable[[Learner], object] | None = None):
        if event not in EVENTS:
            raise ValueError(f"unknown event {event!r}, expected one of {', '.join(EVENTS)}")
        setattr(self, event, fn or (lambda learn: breakpoint()))


def in_order(callbacks: Sequence[Callback]) -> list[Callback]:
    """Return the callbacks by ascending `order`, equals in the order given."""
    return sorted(callbacks, key=lambda cb: cb.order)


def run_level(learn: Learner, level: str, cancel: type[Exception], body: Callable[[], None]) -> None:
    """Run `body` between the events of a level (fit, epoch, batch): before, after unless cancelled, cleanup always."""
    try:
        learn(f"before_{level}")
        body()
        learn(f"after_{level}")
    except cancel:
        pass
    finally:
        with ExitStack() as stack:  # one that fails does not keep the others from closing what they opened
            for cb in reversed(learn.active):
                stack.callback(getattr(cb, f"cleanup_{level}"), learn)
