"""From a SOURCE to batches of pictures: which are trained on, which held out, and in what order.

    find_source -> open_pictures -> ImageData (train and valid) -> ImageBatches -> Learner; Augment makes views of them

Batches are uint8, as stored: what is done to them happens on the device (augment.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ulmpipe.console import log
from ulmpipe.errors import SourceError, some
from ulmpipe.train import Batch

from .source import Plan, find_source, source_name
from .store import Pictures, Pixels, open_pictures

Records = NDArray[np.int64]  # numbers of pictures in their plan

ORDER, HELD_OUT = 1, 2  # streams of random numbers, beside `augment.VIEWS`
SHOWN = 5  # quarantined pictures that are named
STATS_PICTURES = 2048  # that mean and deviation are taken of


class ImageBatches:
    """Batches `(pictures (B, S, S, 3) uint8, labels (B,) int64)` of some records; shuffled by seed and epoch in training.

    Training leaves out the last records that fill no batch, others each epoch: a batch of one has no batch norm.
    """

    def __init__(self, pictures: Pictures, records: Records, *, batch_size: int, shuffle: bool, seed: int = 0):
        self.pictures, self.records = pictures, records
        self.batch_size, self.shuffle, self.seed = max(1, min(batch_size, len(records))), shuffle, seed

    def __len__(self) -> int:
        n = len(self.records)
        return n // self.batch_size if self.shuffle else -(-n // self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from number `start` on."""
        order = self.order(epoch)
        cuts = [order[n * self.batch_size : (n + 1) * self.batch_size] for n in range(start, len(self))]
        for wanted, (records, pixels) in zip(cuts, self.pictures.read(cuts), strict=True):
            if self.shuffle and len(records) < len(wanted):  # the others turned out to be broken
                records, pixels = self._filled(records, pixels, len(wanted))
            if len(records):
                yield torch.from_numpy(pixels), torch.from_numpy(self.pictures.labels[records])

    def _filled(self, records: Records, pixels: Pixels, n: int) -> tuple[Records, Pixels]:
        """Repeat pictures until there are n: the batches of a training keep their size and number."""
        if not len(records):
            raise SourceError(f"not one of {n} pictures of a batch can be decoded: {next(iter(self.pictures.quarantined.values()))}")  # fmt: skip
        which = np.resize(np.arange(len(records)), n)
        return records[which], pixels[which]

    def order(self, epoch: int) -> Records:
        """Return the records in the order of an epoch."""
        if not self.shuffle:
            return self.records
        return np.random.default_rng((self.seed, epoch, ORDER)).permutation(self.records)


class Stats(NamedTuple):
    """Mean and standard deviation of red, green and blue, of 0 to 255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class ImageData:
    """What a network is trained on: labelled pictures, those held out among them or in a store of their own."""

    pictures: Pictures
    train: Records
    valid_pictures: Pictures
    valid: Records
    digest: str = ""  # changes when the files do

    @property
    def classes(self) -> list[str]:
        """Names of the classes, by number."""
        return self.pictures.classes

    @property
    def n_quarantined(self) -> int:
        """How many pictures could not be decoded, as far as is known."""
        return len(self.quarantined)

    @property
    def quarantined(self) -> dict[str, str]:
        """Names of the pictures that could not be decoded, as far as is known, and why."""
        each = {id(pictures): pictures for pictures in (self.pictures, self.valid_pictures)}.values()
        return {pictures.names[record]: reason for pictures in each for record, reason in pictures.quarantined.items()}

    def batches(self, *, batch_size: int, seed: int = 0) -> tuple[ImageBatches, ImageBatches]:
        """Return the batches of training and of validation."""
        return (
            ImageBatches(self.pictures, self.train, batch_size=batch_size, shuffle=True, seed=seed),
            ImageBatches(self.valid_pictures, self.valid, batch_size=2 * batch_size, shuffle=False),
        )


def read_images(
    source: str,
    beside: Path,
    *,
    side: int = 160,
    valid: str | None = None,
    valid_fraction: float = 0.2,
    image_column: str = "",
    label_column: str = "",
    workers: int = 0,
    cache: str = "auto",
    seed: int = 0,
) -> ImageData:
    """Read a SOURCE and what it is validated on: `valid`, else the source's own validation split, else some held out.

    Decoded pictures, `side` pixels wide at most, are kept below `beside`. Raises `SourceError` where there are fewer
    than two classes, or the validation data has others.
    """
    columns = {"image_column": image_column, "label_column": label_column}
    plan = find_source(source, "train", **columns)
    if plan is None:
        raise SourceError(f"{source} has no training pictures: expected a folder train beside its val")
    if len(plan.classes) < 2:
        raise SourceError(f"{source} has {len(plan.names):,} pictures of {len(plan.classes)} classes, expected two at least: a folder for each class, or in a table a column of labels (--label-column)")  # fmt: skip
    valid_plan = find_source(valid or source, "valid", **columns)
    if valid and not valid_plan:
        valid_plan = find_source(valid, "train", **columns)
    if valid_plan:
        valid_plan = renumbered(valid_plan, plan.classes, valid or source)
    options = {"workers": workers, "cache": cache}
    name = source_name(source)
    pictures = open_pictures(plan, name, side, beside, **options)
    valid_pictures = (
        open_pictures(valid_plan, f"{name}-valid", pictures.side, beside, **options) if valid_plan else None
    )
    for which in (pictures, valid_pictures):
        if which and not len(usable(which)):
            raise SourceError(f"not one of {len(which.names):,} {'training' if which is pictures else 'validation'} pictures has a label and can be decoded")  # fmt: skip
    if valid_pictures:
        train, held_out = usable(pictures), usable(valid_pictures)
    else:
        train, held_out = (usable(pictures, part) for part in hold_out(pictures.labels, valid_fraction, seed))
    if len(train) < 2 or not len(held_out):
        raise SourceError(f"{source} has {len(train)} pictures to train on and {len(held_out)} to validate, expected 2 and 1 at least")  # fmt: skip
    digest = plan.digest + (f" and {valid_plan.digest}" if valid_plan else "")
    return ImageData(pictures, train, valid_pictures or pictures, held_out, digest)


def log_quarantined(quarantined: Mapping[str, str]) -> None:
    """Name the first of the pictures that could not be decoded."""
    for name in list(quarantined)[:SHOWN]:
        log(f"quarantined {name}: {quarantined[name]}")
    if len(quarantined) > SHOWN:
        log(f"and {len(quarantined) - SHOWN:,} more: the model's config.json, or --json, has them all")


def renumbered(plan: Plan, classes: list[str], source: str) -> Plan:
    """Return the plan with labels that count in `classes`, as training does; it need not have all of them.

    Raises `SourceError` for a class that is not among them.
    """
    if unknown := sorted(set(plan.classes) - set(classes)):
        raise SourceError(f"{source} has pictures of {some(unknown)}, which training did not know: expected {some(classes)}; rename or leave out the others")  # fmt: skip
    number = np.array([classes.index(name) for name in plan.classes] + [-1], np.int64)
    return replace(plan, labels=number[plan.labels], classes=classes)


def usable(pictures: Pictures, records: Records | None = None) -> Records:
    """Return those of the records, by default of all, that have a label and are not known to be broken."""
    records = np.arange(len(pictures.labels)) if records is None else records
    return records[(pictures.labels[records] >= 0) & ~np.isin(records, list(pictures.quarantined))]


def hold_out(labels: Records, fraction: float, seed: int) -> tuple[Records, Records]:
    """Split labelled records: `fraction` of each class is held out, one at least and never all. Returns (train, held out).

    Broken pictures count: which those are may not be known yet, and the split must be the same when it is.
    """
    records = np.flatnonzero(labels >= 0)
    rng = np.random.default_rng((seed, 0, HELD_OUT))
    held_out = []
    for label in np.unique(labels[records]):
        own = rng.permutation(records[labels[records] == label])
        if len(own) > 1:
            held_out.append(own[: min(max(1, round(fraction * len(own))), len(own) - 1)])
    if not held_out:
        raise SourceError("there is one picture of each class: give more, or --valid SOURCE")
    chosen = np.sort(np.concatenate(held_out))
    return np.setdiff1d(records, chosen), chosen


def channel_stats(pictures: Pictures, records: Records) -> Stats:
    """Return mean and deviation of the channels over evenly spread pictures."""
    sample = records[:: max(1, -(-len(records) // STATS_PICTURES))]
    sums, squares, n = np.zeros(3), np.zeros(3), 0
    for _, pixels in pictures.read([sample[k : k + 256] for k in range(0, len(sample), 256)]):
        values = pixels.reshape(-1, 3).astype(np.float64)
        sums, squares, n = sums + values.sum(0), squares + (values**2).sum(0), n + len(values)
    if not n:
        raise SourceError(f"not one of {len(records):,} pictures can be decoded")
    mean = sums / n
    std = np.sqrt(np.maximum(squares / n - mean**2, 1.0))  # at least one step of 255: all may be of one colour
    return Stats(tuple(mean.round(3).tolist()), tuple(std.round(3).tolist()))


def gather(pictures: Pictures, records: Sequence[int]) -> Tensor:
    """Return a few pictures by record, (n, S, S, 3) uint8."""
    ((_, pixels),) = pictures.read([np.array(records, np.int64)])
    return torch.from_numpy(pixels)
