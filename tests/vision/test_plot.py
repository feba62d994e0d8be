"""Grids of pictures: what is drawn is what the network sees, and nothing else changes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import TrainedNetwork, write_folder

from vision.data import read_images
from vision.learner import cnn_learner
from vision.plot import draw_grid, show_batch, show_top_losses, to_pixels
from vision.xresnet import XResNet

pytestmark = pytest.mark.usefixtures("one_thread")


def read_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def share_of(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((abs(pixels - np.array(colour)).max(-1) < 12).mean())


@pytest.mark.parametrize("n", [1, 4, 5, 16])
def test_a_grid_has_room_for_all(tmp_path: Path, n: int):
    draw_grid(np.full((n, 8, 8, 3), (250, 0, 0), np.uint8), [f"title {k}" for k in range(n)], tmp_path / "grid.png")
    pixels = read_pixels(tmp_path / "grid.png")
    assert pixels.shape[0] > 200 * -(-n // 4) and share_of(pixels, (250, 0, 0)) > 0.1 * n / (4 * -(-n // 4))


def test_normalisation_is_undone(tmp_path: Path):
    data = read_images(str(write_folder(tmp_path / "some", 4)), tmp_path, workers=1)
    learn = cnn_learner(XResNet((1,), widths=(8,), stem=(4, 4, 4), c_out=3), data, size=32, precision="fp32")
    augment = next(cb for cb in learn.callbacks if type(cb).__name__ == "Augment")
    pictures, _ = next(iter(learn.train_dl.batches(0)))
    views = augment.plain_views(len(pictures), 32)  # pyright: ignore[reportAttributeAccessIssue]
    from vision.augment import crop_resize

    assert np.array_equal(to_pixels(crop_resize(pictures, views, 32), augment), pictures.numpy())  # pyright: ignore


def test_a_batch_and_the_worst_are_drawn_and_the_learner_stays_as_it_was(tmp_path: Path):
    folder = write_folder(tmp_path / "some", 12)
    (folder / "blue" / "999.png").write_bytes((folder / "red" / "000.png").read_bytes())  # a wrong label
    (folder / "red" / "bad.png").write_bytes(b"broken")
    for cache in ("always", "never"):
        data = read_images(str(folder), tmp_path, valid_fraction=0.5, workers=1, cache=cache)
        learn = cnn_learner(XResNet((1,), widths=(8,), stem=(4, 4, 4), c_out=3), data, size=32, precision="fp32")
        rng, weights = torch.get_rng_state(), [p.clone() for p in learn.model.parameters()]
        show_batch(learn, data.classes, tmp_path / "batch.png")
        assert learn.valid_dl is not None
        show_top_losses(*learn.predict(learn.valid_dl), data, tmp_path / "worst.png")
        assert torch.equal(rng, torch.get_rng_state())
        assert all(torch.equal(a, b) for a, b in zip(weights, learn.model.parameters(), strict=True))
        assert read_pixels(tmp_path / "batch.png").std() > 10 and read_pixels(tmp_path / "worst.png").std() > 10


def test_the_training_wrote_both(network: TrainedNetwork):
    assert all(read_pixels(network.net / name).std() > 10 for name in ("batch.png", "top_losses.png"))
