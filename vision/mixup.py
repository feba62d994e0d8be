"""MixUp (Zhang et al. 2017), also at a hidden layer (Verma et al. 2018).

Each picture is mixed with another of its batch, and so is its loss. Pure functions, and a thin callback for `Learner`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Beta

from ulmpipe.train import Callback

if TYPE_CHECKING:
    from ulmpipe.train import Learner

Reduction = Literal["mean", "sum", "none"]


def draw_lam(n: int, alpha: float, device: torch.device | str = "cpu") -> Tensor:
    """Draw n shares from Beta(alpha, alpha), each folded to 0.5 at least, so that a picture stays the main part. (n,)

    Without the fold two pictures could swap their roles: the batch would hold near copies.
    """
    concentration = torch.tensor(float(alpha))
    lam = Beta(concentration, concentration).sample((n,)).to(device)
    return torch.max(lam, 1 - lam)


def mixup_batch(x: Tensor, lam: Tensor, perm: Tensor) -> Tensor:
    """Return `lam * x + (1 - lam) * x[perm]`, sample by sample.

    x: (B, ...) float. lam: (B,) float. perm: (B,) int64, a permutation. Returns the shape and dtype of x.
    """
    shares = lam.to(x.dtype).view(-1, *[1] * (x.dim() - 1))  # (B, 1, ...)
    return torch.lerp(x[perm], x, shares)


def mixup_loss(loss_fn: Callable[..., Tensor], pred: Tensor, target: Tensor, lam: Tensor, perm: Tensor) -> Tensor:
    """Return the mean of `lam * loss(target) + (1 - lam) * loss(target[perm])`, each sample with its own lam.

    `loss_fn(pred, target, reduction="none")` gives (B,). The lesson's version multiplied (B,) losses with lams of shape
    (B, 1, 1, 1), and so weighted every loss with the mean of all lams.
    """
    own = loss_fn(pred, target, reduction="none")
    other = loss_fn(pred, target[perm], reduction="none")
    return torch.lerp(other, own, lam.to(own.dtype)).mean()


class MixUp(Callback):
    """Mix each training batch, its pictures or the output of a hidden layer, and its loss; validation is left alone.

    `alpha` is that of the Beta distribution; 0.4 in the lesson. `layer` is the name of a module, as `stages.1` (manifold
    mixup). The learner's loss function must take `reduction`; it is replaced for the length of a batch.
    """

    order = 10  # after the pictures are made (augment.py), before autocast

    def __init__(self, alpha: float = 0.4, *, layer: str | None = None):
        if alpha <= 0:
            raise ValueError(f"alpha is {alpha}, expected more than 0: leave MixUp out to train without it")
        self.alpha, self.layer = alpha, layer
        self._plain_loss: Callable[..., Tensor] | None = None
        self._hook: Any = None

    def before_fit(self, learn: Learner) -> None:
        """Check that there is such a layer, and that the loss can be had of each sample."""
        names = [name for name, _ in learn.model.named_modules()]
        if self.layer is not None and self.layer not in names:
            raise ValueError(f"the model has no layer {self.layer!r}, expected one of {', '.join(names[1:])}")
        call = learn.loss_fn.forward if isinstance(learn.loss_fn, nn.Module) else learn.loss_fn
        try:
            inspect.signature(call).bind(None, None, reduction="none")
        except TypeError as err:
            raise ValueError(f"MixUp needs a loss of each sample: give loss_fn(pred, target, reduction=), not {learn.loss_fn}") from err  # fmt: skip

    def before_batch(self, learn: Learner) -> None:
        """Draw shares and partners; mix the pictures, or see to it that the layer's output is mixed."""
        if not learn.training:
            return
        n = len(learn.target)
        lam, perm = draw_lam(n, self.alpha, learn.device), torch.randperm(n).to(learn.device)
        if self.layer is None:
            learn.inputs[0] = mixup_batch(learn.inputs[0], lam, perm)
        else:
            self._hook = learn.model.get_submodule(self.layer).register_forward_hook(partial(_mix_output, lam, perm))
        self._plain_loss = learn.loss_fn
        learn.loss_fn = partial(_mixed, learn.loss_fn, lam, perm)

    def cleanup_batch(self, learn: Learner) -> None:
        """Put the loss function back and take the hook away, whatever happened."""
        if self._plain_loss is not None:
            learn.loss_fn, self._plain_loss = self._plain_loss, None
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


def _mixed(loss_fn: Callable[..., Tensor], lam: Tensor, perm: Tensor, pred: Tensor, target: Tensor) -> Tensor:
    return mixup_loss(loss_fn, pred, target, lam, perm)


def _mix_output(lam: Tensor, perm: Tensor, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return mixup_batch(output, lam, perm)
