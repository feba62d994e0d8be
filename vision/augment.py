"""Augmentation of whole batches: random resized crops, mirroring, lighting, and normalisation, on the device.

    uint8 pictures (B, S, S, 3) -> boxes, flips, gains, shifts (numpy, seeded) -> crop_resize -> (B, 3, size, size) float32

What is drawn depends on seed, epoch and batch only, so a resumed training sees the same pictures. One `crop_resize` does
all of it in one pass: on a processor the kernel of `kernels.py`, on a GPU two batched matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ulmpipe.train import Callback

from . import kernels

if TYPE_CHECKING:
    from ulmpipe.train import Learner

Floats = NDArray[np.float32]
VIEWS = 3  # a stream of random numbers of its own, beside those of data.py


class Views(NamedTuple):
    """What is done to each picture of a batch."""

    boxes: Floats  # (B, 4) top, left, height, width in pixels
    flips: NDArray[np.bool_]  # (B,)
    gains: Floats  # (B, 3)
    shifts: Floats  # (B, 3)


def whole(n: int, side: int) -> Floats:
    """Return the boxes of n whole pictures. (n, 4)"""
    return np.tile(np.array([0, 0, side, side], np.float32), (n, 1))


def random_boxes(
    rng: np.random.Generator, n: int, side: int, *, min_scale: float = 0.35, max_stretch: float = 4 / 3
) -> Floats:
    """Draw n boxes: `min_scale` to 1 of a picture's area, up to `max_stretch` wider or higher than square. (n, 4)

    A box that would be larger than the picture is as large as it (Szegedy et al. 2014, section 6).
    """
    area = rng.uniform(min_scale, 1.0, n) * side * side
    stretch = np.exp(rng.uniform(-1, 1, n) * math.log(max_stretch) / 2)
    sizes = np.stack([np.sqrt(area) / stretch, np.sqrt(area) * stretch], 1).clip(1, side)  # (n, 2) height, width
    corners = rng.random((n, 2)) * (side - sizes)
    return np.concatenate([corners, sizes], 1).astype(np.float32)


def normalisation(n: int, mean: Floats, std: Floats) -> tuple[Floats, Floats]:
    """Return gains and shifts, each (n, 3), with which values of 0 to 255 get mean 0 and deviation 1. mean, std: (3,)"""
    return np.tile(np.float32(1) / std, (n, 1)), np.tile(-mean / std, (n, 1))


def random_lighting(
    rng: np.random.Generator, gains: Floats, shifts: Floats, *, strength: float
) -> tuple[Floats, Floats]:
    """Vary contrast by up to `1 + strength` times either way, brightness by up to `strength` deviations. (B, 3) each"""
    contrast = np.exp(rng.uniform(-1, 1, (len(gains), 1)) * math.log1p(strength)).astype(np.float32)
    brightness = (rng.uniform(-1, 1, (len(gains), 1)) * strength).astype(np.float32)
    return gains * contrast, shifts * contrast + brightness


def crop_resize(pictures: Tensor, views: Views, size: int) -> Tensor:
    """Cut, resize, mirror and normalise: (B, S, S, 3) uint8 -> (B, 3, size, size) float32, channels last in memory."""
    if pictures.device.type == "cpu":
        return torch.from_numpy(kernels.crop_resize(pictures.numpy(), *views, size)).permute(0, 3, 1, 2)
    return crop_resize_by_matrices(pictures, views, size)


def crop_resize_by_matrices(pictures: Tensor, views: Views, size: int) -> Tensor:
    """Do the same as `kernels.crop_resize` with one matrix product for the rows and one for the columns, on any device."""
    boxes, flips, gains, shifts = (torch.from_numpy(a).to(pictures.device) for a in views)
    side = pictures.shape[1]
    rows = triangle_matrices(boxes[:, 0], boxes[:, 2], side, size)  # (B, size, S)
    columns = triangle_matrices(boxes[:, 1], boxes[:, 3], side, size)
    columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    planes = pictures.permute(0, 3, 1, 2).float()  # (B, 3, S, S)
    cut = rows[:, None] @ planes @ columns[:, None].transpose(2, 3)  # (B, 3, size, size)
    scaled = cut * gains[:, :, None, None] + shifts[:, :, None, None]
    return scaled.contiguous(memory_format=torch.channels_last)


def triangle_matrices(begins: Tensor, lengths: Tensor, side: int, size: int) -> Tensor:
    """Return the weights of every input pixel in every output pixel: (B,), (B,) float32 -> (B, size, side) float32."""
    scale = (lengths / size)[:, None, None]
    places = torch.arange(size, device=begins.device)[None, :, None]
    centers = begins[:, None, None] + (places + 0.5) * scale
    pixels = torch.arange(side, device=begins.device)[None, None, :] + 0.5
    weights = (1 - (pixels - centers).abs() / scale.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(dim=2, keepdim=True)


def sizes_of_epochs(size: int, first_size: int, n_epochs: int, *, multiple: int = 32) -> list[int]:
    """Return the size of training pictures in each epoch: from `first_size` to `size` in equal steps, each for as long.

    Small pictures first make the early epochs cheap, and the net sees as much of each (Howard 2018, DAWNBench). Where
    there are fewer epochs than steps, the smallest are left out: the last epoch always has `size`.

    >>> sizes_of_epochs(128, 64, 6)
    [64, 64, 96, 96, 128, 128]
    """
    if first_size >= size:
        return [size] * n_epochs
    steps = [*range(first_size, size, multiple), size][-n_epochs:]
    return [steps[epoch * len(steps) // n_epochs] for epoch in range(n_epochs)]


class Augment(Callback):
    """Turn the uint8 pictures of a batch into what the network reads: random views in training, whole pictures else.

    Pictures grow from `first_size` to `size` over the epochs of a fit, those of its validations with them; outside of a
    fit, and after it, they are `size` wide. `mean` and `std` are of the three channels, 0 to 255. Inputs that are no
    uint8 pass as they are.
    """

    order = -10  # before all that mixes or casts the inputs

    def __init__(
        self,
        size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        first_size: int | None = None,
        min_scale: float = 0.35,
        flip: bool = True,
        lighting: float = 0.2,
        seed: int = 0,
    ):
        self.size, self.first_size = size, first_size or size
        self.sizes = [size]  # of each epoch of the fit
        self.mirror = False  # whole pictures too, for test-time augmentation
        self.mean, self.std = np.array(mean, np.float32), np.array(std, np.float32)
        self.min_scale, self.flip, self.lighting, self.seed = min_scale, flip, lighting, seed

    def before_fit(self, learn: Learner) -> None:
        """Spread the sizes over the epochs."""
        self.sizes = sizes_of_epochs(self.size, self.first_size, learn.n_epochs)

    def cleanup_fit(self, learn: Learner) -> None:
        """Go back to the one size."""
        self.sizes = [self.size]

    def before_batch(self, learn: Learner) -> None:
        """Replace the pictures by their views."""
        pictures = learn.inputs[0]
        if pictures.dtype != torch.uint8:
            return
        n, side = pictures.shape[:2]
        if not learn.training:
            learn.inputs[0] = crop_resize(pictures, self.plain_views(n, side), self.size_of(learn.epoch))
            return
        learn.inputs[0] = self.training_views(pictures, epoch=learn.epoch, batch_index=learn.batch_index)

    def size_of(self, epoch: int) -> int:
        """Return the size of pictures in an epoch."""
        return self.sizes[min(epoch, len(self.sizes) - 1)]

    def training_views(self, pictures: Tensor, *, epoch: int, batch_index: int) -> Tensor:
        """Return what the network sees of a training batch: (B, S, S, 3) uint8 -> (B, 3, size, size) float32."""
        rng = np.random.default_rng((self.seed, epoch, batch_index, VIEWS))
        return crop_resize(pictures, self.random_views(rng, *pictures.shape[:2]), self.size_of(epoch))

    def plain_views(self, n: int, side: int) -> Views:
        """Return the whole pictures."""
        return Views(whole(n, side), np.full(n, self.mirror), *normalisation(n, self.mean, self.std))

    def random_views(self, rng: np.random.Generator, n: int, side: int) -> Views:
        """Draw the views of a training batch."""
        boxes = random_boxes(rng, n, side, min_scale=self.min_scale)
        flips = (rng.random(n) < 0.5) & self.flip
        gains, shifts = normalisation(n, self.mean, self.std)
        return Views(boxes, flips, *random_lighting(rng, gains, shifts, strength=self.lighting))
