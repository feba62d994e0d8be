"""Small pictures, networks and learners that the tests of `vision` share; all seeded."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ulmpipe.train import Callback, Learner
from vision.data import ImageData
from vision.learner import cnn_learner
from vision.store import Pixels
from vision.xresnet import XResNet

SIDE, N_TRAIN, N_VALID, BATCH = 40, 32, 16, 8


class Stored:
    """Pictures in memory, with the interface of a picture store."""

    def __init__(self, pixels: Pixels, labels: NDArray[np.int64], classes: list[str]):
        self.pixels, self.labels, self.classes = pixels, labels, classes
        self.side, self.names = pixels.shape[1], [str(n) for n in range(len(pixels))]
        self.quarantined: dict[int, str] = {}

    def read(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
        for records in batches:
            yield records, self.pixels[records]


def noise(n: int, side: int = SIDE, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8)


def two_colours() -> ImageData:
    """Noise with a red, or a blue, tinge; every second picture is of either class."""
    labels = np.arange(N_TRAIN + N_VALID) % 2
    pixels = noise(len(labels)) // 2
    pixels[labels == 0, :, :, 0] += 80
    pixels[labels == 1, :, :, 2] += 80
    pictures = Stored(pixels, labels, ["red", "blue"])
    return ImageData(pictures, np.arange(N_TRAIN), pictures, np.arange(N_TRAIN, len(labels)))


def tiny(c_out: int = 2, *, seed: int = 0, **options: Any) -> XResNet:
    torch.manual_seed(seed)
    return XResNet((1, 1), c_out=c_out, stem=(4, 8, 8), widths=(8, 16), **options)


def learner(*callbacks: Callback, **options: Any) -> Learner:
    """A tiny network that learns the two colours: 4 steps an epoch."""
    settings: dict[str, Any] = {"size": 32, "batch_size": BATCH, "precision": "fp32", "device": "cpu"}
    model = options.pop("model", None) or tiny()
    return cnn_learner(model, two_colours(), callbacks=callbacks, **settings | options)
