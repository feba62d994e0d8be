"""Pictures that can be learned: noise with a red, green or blue square in it, the colour being the class."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision import model, xresnet

COLOURS = {"blue": (40, 40, 220), "green": (40, 200, 40), "red": (220, 40, 40)}
SIDE = 32
# Seconds, and the classes are told apart.
FAST = {"size": 32, "first_size": 32, "batch_size": 16, "epochs": 4, "lr": 2e-2, "precision": "fp32", "workers": 1, "device": "cpu"}  # fmt: skip


def make_picture(colour: str, rng: np.random.Generator) -> Image.Image:
    pixels = rng.integers(90, 160, (SIDE, SIDE, 3)).astype(np.uint8)
    top, left = rng.integers(0, SIDE // 2, 2)
    pixels[top : top + SIDE // 2, left : left + SIDE // 2] = COLOURS[colour]
    return Image.fromarray(pixels)


def write_folder(folder: Path, n: int, seed: int = 0) -> Path:
    """n pictures of each class, a folder each."""
    rng = np.random.default_rng(seed)
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True, exist_ok=True)
        for k in range(n):
            make_picture(colour, rng).save(folder / colour / f"{k:03}.png")
    return folder


def use_small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network of this process gets few channels: the same code, a hundredth of the numbers."""
    monkeypatch.setattr(model, "build", partial(xresnet.build, stem=(8, 8, 8), widths=(8, 16, 16, 32)))


class TrainedNetwork:
    """A folder with `shapes/train`, `shapes/val`, and the model folder `net` trained on them. To be read, never written."""

    def __init__(self, folder: Path):
        self.folder, self.shapes, self.net = folder, folder / "shapes", folder / "net"
        write_folder(self.shapes / "train", 40)
        write_folder(self.shapes / "val", 12, seed=1)
        from vision.train import train

        self.result = train(self.shapes, self.net, **FAST)
