"""What a `Learner` asks of its data: batches of one epoch, from any position on; and how they get to the device.

`text` and `vision` bring their own; nothing here reads, shuffles or collates.
"""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Protocol, TypeVar

import torch
from torch import Tensor

N_AHEAD = 2  # batches that wait while a GPU computes: one is enough, two forgive a slow one

Item = TypeVar("Item")

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


def on_device(batches: Iterable[Batch], device: torch.device) -> Generator[Batch, None, None]:
    """Yield batches on `device`. For a GPU a thread makes them ahead, in pinned memory, which is copied while it computes."""
    if device.type != "cuda":
        for batch in batches:
            yield tuple(t.to(device) for t in batch)
        return
    with closing(ahead((tuple(t.pin_memory() for t in batch) for batch in batches), N_AHEAD)) as pinned:
        for batch in pinned:
            yield tuple(t.to(device, non_blocking=True) for t in batch)


def ahead(items: Iterable[Item], n_ahead: int) -> Generator[Item, None, None]:
    """Yield the same items; a thread makes up to `n_ahead` of them ahead. It ends when this is closed, and raises here."""
    ready: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(n_ahead)
    closed = threading.Event()

    def put(going_on: bool, item: Item | BaseException | None) -> bool:
        while not closed.is_set():
            try:
                ready.put((going_on, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            if all(put(True, item) for item in items):
                put(False, None)
        except BaseException as err:  # raised again where the items are used
            put(False, err)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            going_on, item = ready.get()
            if not going_on:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # pyright: ignore[reportReturnType]
    finally:
        closed.set()
        thread.join()


def smaller_for_few(batch_size: int, n_items: int, *, min_steps: int) -> int:
    """A batch size that leaves `min_steps` steps in an epoch of so many items, where there are few; 8 at least.

    >>> [smaller_for_few(*few, min_steps=32) for few in ((64, 270), (64, 100_000), (4, 10))]
    [8, 64, 4]
    """
    return min(batch_size, max(8, n_items // min_steps))
