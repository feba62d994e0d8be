"""Several processes, one training: `torchrun --nproc-per-node 2 -m ulmpipe pretrain ...`.

Every process holds the whole model and takes its rows of every batch; PyTorch's DistributedDataParallel averages the
gradients, so all take the same step. Streams of text are dealt out by rows (`LMBatches(part=...)`): each process carries
the hidden state of its own rows, and of no others. The first process alone writes files and speaks.

All functions here are right in a single process too, where they do nothing. gloo moves what is on CPUs, NCCL what is on
GPUs. Nothing is started here: that is torchrun's, which tells each process its place by environment variables.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from .. import console
from ..errors import ConfigError, UlmpipeError
from .callback import Callback

if TYPE_CHECKING:
    from .learner import Learner

TIMEOUT = timedelta(hours=24)  # the first process may tokenize for hours while the others wait
# What gloo says of a process that has ended.
GONE = ("Connection closed by peer", "Connection reset by peer", "Read error", "Write error")


@contextmanager
def processes() -> Iterator[None]:
    """Join the other processes that torchrun has started, if it has, while the block runs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    console.set_quiet(console.is_quiet() or not is_first())
    try:
        yield
        dist.barrier()  # the first process may still write
    except RuntimeError as err:  # what gloo and DistributedDataParallel raise
        if not any(words in str(err) for words in GONE):
            raise
        raise UlmpipeError("another of the processes has ended: the reason is in its own message") from err
    finally:
        dist.destroy_process_group()


def part() -> tuple[int, int]:
    """Return (which, of how many): the place of this process among those that train together."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return part()[0] == 0


def only_first(context: AbstractContextManager[Any]) -> AbstractContextManager[Any]:
    """Return a context that the first process enters, and that is nothing to the others."""
    return context if is_first() else nullcontext()


@contextmanager
def first_then_others() -> Iterator[None]:
    """Run the block in the first process, then in the others, which find what it left; all leave it together."""
    if not is_first():
        dist.barrier()
    yield
    if is_first():
        barrier()
    barrier()


def barrier() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def summed(*values: float) -> list[float]:
    """Return each value summed over all processes, in float64."""
    return _reduced(values, dist.ReduceOp.SUM) if dist.is_initialized() else list(values)


def largest(value: float) -> float:
    """Return the largest value that any process gives: how they agree to stop."""
    return _reduced([value], dist.ReduceOp.MAX)[0] if dist.is_initialized() else value


def _reduced(values: Any, op: Any) -> list[float]:
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor, op)
    return tensor.tolist()


def gathered(tensor: Tensor) -> list[Tensor]:
    """Return the tensors that all processes give, by their rank, on the CPU; all of one shape and dtype."""
    tensor = tensor.detach().cpu().contiguous()
    if not dist.is_initialized():
        return [tensor]
    tensors = [torch.empty_like(tensor) for _ in range(part()[1])]
    dist.all_gather(tensors, tensor)
    return tensors


def my_rows(tensor: Tensor, dim: int = 0) -> Tensor:
    """Return this process's part of a tensor along `dim`; the parts are equal, and in the order of the ranks."""
    which, of = part()
    return tensor.tensor_split(of, dim)[which]


def check_batch_size(batch_size: int) -> None:
    """Raise `ConfigError` where a batch can't be dealt out in equal parts."""
    _, of = part()
    if batch_size % of:
        raise ConfigError(
            f"--batch-size {batch_size} is shared by {of} processes: expected a multiple of {of}, such as {of * max(1, batch_size // of)}"
        )


class DataParallel(Callback):
    """Average gradients over all processes, weighted by the targets that each had; does nothing in a single one.

    Buffers become those of the first process, and must not change in training: batch norms are not for this. Dropout draws
    other masks in every process. A loss that is no number in one is none in all, so that all stop at the same step.
    """

    order = -50  # before all that change `loss_grad`, after `Metrics`, which keeps each process's own loss

    def before_fit(self, learn: Learner) -> None:
        """Wrap the model, whose weights become those of the first process; give the others generators of their own."""
        if dist.is_initialized():
            # Fitted and measured by each process for itself, buffers may be rounded otherwise.
            for buffer in learn.model.buffers():
                dist.broadcast(buffer, 0)
            devices = [torch.cuda.current_device()] if learn.device.type == "cuda" else None
            with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # of a new name in torch 2.13
                learn.train_model = DistributedDataParallel(learn.model, device_ids=devices, broadcast_buffers=False)
            if not is_first():
                torch.manual_seed((31 * torch.initial_seed() + part()[0]) % 2**63)

    def after_loss(self, learn: Learner) -> None:
        """Weigh the loss, so that the average over processes is the mean over all targets."""
        if dist.is_initialized() and learn.training:
            n = learn.target.numel()
            total, n_all = summed(learn.loss.item() * n, n)
            learn.loss = learn.loss.new_tensor(total / n_all)
            # 0 * total: nothing, unless the loss of another process is no number.
            learn.loss_grad = learn.loss_grad * (n * part()[1] / n_all) + 0 * total

    def cleanup_fit(self, learn: Learner) -> None:
        """Take the wrapper off."""
        learn.train_model = None
