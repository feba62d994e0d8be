"""What a `Learner` asks of its data: batches of one epoch, from any position on.

`text` and `vision` bring their own; nothing here reads, shuffles or collates.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor

Batch = tuple[Tensor, ...]  # (*inputs, target)


class Batches(Protocol):
    """A source of batches `(*inputs, target)`, the same for the same epoch each time it is asked."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from number `start` on. Pure: what is yielded depends on the arguments only."""
        ...


class FixedBatches:
    """A plain list of batches, the same in every epoch."""

    def __init__(self, fixed: Sequence[Batch]):
        self.fixed = list(fixed)

    def __len__(self) -> int:
        return len(self.fixed)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the list from `start` on; `epoch` changes nothing."""
        return iter(self.fixed[start:])


def smaller_for_few(batch_size: int, n_items: int, *, min_steps: int) -> int:
    """A batch size that leaves `min_steps` steps in an epoch of so many items, where there are few; 8 at least.

    >>> [smaller_for_few(*few, min_steps=32) for few in ((64, 270), (64, 100_000), (4, 10))]
    [8, 64, 4]
    """
    return min(batch_size, max(8, n_items // min_steps))
