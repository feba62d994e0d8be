"""Pictures of pictures, as PNG: a batch as the network sees it, and those it is most wrong about.

Draws with matplotlib, which is imported only when something is drawn. Trains nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ulmpipe.train import Learner

from .augment import Augment
from .data import ImageData, gather, usable

SHOWN = 16
COLUMNS = 4


def show_batch(learn: Learner, classes: Sequence[str], path: Path, *, n: int = SHOWN) -> None:
    """Draw views of the first training pictures, as large as the network sees them at last; the learner is as it was."""
    pictures, target = next(iter(learn.train_dl.batches(0)))
    augment = next(cb for cb in learn.callbacks if isinstance(cb, Augment))
    views = augment.training_views(pictures[:n], epoch=0, batch_index=0)
    draw_grid(to_pixels(views, augment), [str(classes[label]) for label in target[:n].tolist()], path)


def show_top_losses(pred: Tensor, target: Tensor, data: ImageData, path: Path, *, n: int = SHOWN) -> None:
    """Draw the validation pictures of the highest loss: what they were taken for, what they are, and how likely that seemed.

    pred: (N, C) scores of all validation pictures that can be decoded, in their order; target: (N,) int64.
    """
    if not len(target):
        return
    losses = torch.nn.functional.cross_entropy(pred, target, reduction="none")  # (N,)
    worst = losses.argsort(descending=True)[:n]
    chosen = pred[worst].argmax(1).tolist()
    probabilities = pred[worst].softmax(1).gather(1, target[worst][:, None])[:, 0].tolist()
    titles = [
        f"said {data.classes[p]}, is {data.classes[t]}\nloss {loss:.2f}, gave it {probability:.0%}"
        for p, t, loss, probability in zip(
            chosen, target[worst].tolist(), losses[worst].tolist(), probabilities, strict=True
        )
    ]
    read = usable(data.valid_pictures, data.valid)  # what could not be decoded is known by now
    draw_grid(gather(data.valid_pictures, read[worst.numpy()].tolist()).numpy(), titles, path)


def to_pixels(views: Tensor, augment: Augment) -> NDArray[np.uint8]:
    """Undo the normalisation: (B, 3, H, W) float -> (B, H, W, 3) uint8."""
    values = views.permute(0, 2, 3, 1).cpu().numpy() * augment.std + augment.mean
    return values.clip(0, 255).round().astype(np.uint8)


def draw_grid(pixels: NDArray[np.uint8], titles: Sequence[str], path: Path) -> None:
    """Write a grid of pictures (n, H, W, 3) with a title each."""
    from matplotlib.figure import Figure  # no pyplot: nothing global, no window, safe in a thread

    n_rows = -(-len(pixels) // COLUMNS)
    figure = Figure(figsize=(2.2 * COLUMNS, 2.5 * n_rows), layout="constrained")
    axes: Any = figure.subplots(n_rows, COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, title in zip(axes.flat, pixels, titles, strict=False):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(title, fontsize=8, parse_math=False)  # a class may be called a$b$
    figure.savefig(path, dpi=100)
