"""The goal of this script is to try what the lesson claims of pictures: each claim a few small trainings, three seeds each.

    ULMPIPE_DATA=../shared/data python bench/vision_claims.py [stem] [mixup] [smoothing] [transfer]
                                                                              -> bench/results/vision_claims.json

xresnet18 on Imagenette at 64 pixels, few pictures and few epochs: less than an hour on two cores. What is compared differs
in one thing only, and has the same seeds, pictures and steps. Accuracy is of every fourth validation picture, after the
last epoch.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from bench import record
from ulmpipe.console import log
from ulmpipe.train import Learner
from vision.data import ImageData, Records, read_images, usable
from vision.learner import MOMS, cnn_learner
from vision.store import Pictures
from vision.transfer import adapt, bn_splitter
from vision.xresnet import build

SIZE, SEEDS, LR = 64, (0, 1, 2), 5e-3
VALID_EVERY = 4
STEM_PICTURES, STEM_EPOCHS = 1500, 5
MIXUP_PICTURES, MIXUP_EPOCHS = 500, (10, 30)
NOISY_PICTURES, NOISY_EPOCHS, NOISE = 1500, 8, 0.2
OLD_CLASSES, OLD_EPOCHS = 5, 4
NEW_PER_CLASS, NEW_EPOCHS, HEAD_EPOCHS = 50, 10, 4
BATCH_SIZE = 32

Arms = dict[str, list[float]]  # accuracy of each seed


class Relabelled:
    """The same pictures under other labels."""

    def __init__(self, pictures: Pictures, labels: Records, classes: list[str]):
        self.pictures, self.labels, self.classes = pictures, labels, classes
        self.side, self.names, self.quarantined = pictures.side, pictures.names, pictures.quarantined

    def read(self, batches: Any) -> Iterator[Any]:
        """As they are."""
        return self.pictures.read(batches)


def few(data: ImageData, n: int, seed: int) -> ImageData:
    """As many training pictures of each class, n in all, and a quarter of the validation pictures."""
    rng = np.random.default_rng(seed)
    labels = data.pictures.labels[data.train]
    per_class = n // len(data.classes)
    chosen = [rng.permutation(data.train[labels == label])[:per_class] for label in range(len(data.classes))]
    return replace(data, train=np.sort(np.concatenate(chosen)), valid=data.valid[::VALID_EVERY])


def accuracy_of(arch: Any, data: ImageData, epochs: int, seed: int, **options: Any) -> float:
    """Train a network; validate it once, at the end."""
    learn = cnn_learner(arch, data, size=SIZE, batch_size=BATCH_SIZE, seed=seed, **options)
    return fit(learn, epochs, LR)


def fit(learn: Learner, epochs: int, lr: float | list[float]) -> float:
    """One cycle, then the accuracy."""
    valid_dl, learn.valid_dl = learn.valid_dl, None
    learn.fit_one_cycle(epochs, lr, moms=MOMS)
    learn.valid_dl = valid_dl
    return learn.validate()["accuracy"]


def seeded(seed: int, **options: Any) -> nn.Sequential:
    """An xresnet18 with weights of a seed."""
    torch.manual_seed(seed)
    return build("xresnet18", **options)


# ---- the claims -----------------------------------------------------------------------------------------------------


def stem(data: ImageData) -> Arms:
    """Is each trick of the xresnet better than the plain ResNet's way?"""
    plain = {"stem": (64,), "avg_pool": False, "zero_bn": False}
    arms: dict[str, dict[str, Any]] = {
        "xresnet18": {},
        "without the zeroed batch norm": {"zero_bn": False},
        "without the average pooling in shortcuts (D)": {"avg_pool": False},
        "one 7x7 convolution as stem (not C)": {"stem": (64,)},
        "plain ResNet-18: none of the three": plain,
    }
    found: Arms = {}
    for seed in SEEDS:
        some = few(data, STEM_PICTURES, seed)
        for name, options in arms.items():
            model = seeded(seed, c_out=len(data.classes), **options)
            keep(found, name, accuracy_of(model, some, STEM_EPOCHS, seed))
    return found


def mixup(data: ImageData) -> Arms:
    """Does MixUp help with few pictures, and does it take long trainings to do so?"""
    found: Arms = {}
    for seed in SEEDS:
        some = few(data, MIXUP_PICTURES, seed)
        for epochs in MIXUP_EPOCHS:
            for alpha in (0.0, 0.4):
                name = f"{epochs} epochs, {f'MixUp {alpha}' if alpha else 'without'}"
                keep(found, name, accuracy_of("xresnet18", some, epochs, seed, mixup=alpha))
    return found


def smoothing(data: ImageData) -> Arms:
    """Does label smoothing help where a fifth of the training labels is wrong?"""
    found: Arms = {}
    for seed in SEEDS:
        some = few(data, NOISY_PICTURES, seed)
        rng = np.random.default_rng(seed)
        labels = data.pictures.labels.copy()
        wrong = rng.permutation(some.train)[: int(NOISE * len(some.train))]
        labels[wrong] = (labels[wrong] + rng.integers(1, len(data.classes), len(wrong))) % len(data.classes)
        noisy = replace(some, pictures=Relabelled(data.pictures, labels, data.classes))
        for eps in (0.0, 0.1):
            name = f"smoothing {eps}" if eps else "without"
            keep(found, name, accuracy_of("xresnet18", noisy, NOISY_EPOCHS, seed, smooth=eps))
    return found


def transfer(data: ImageData) -> Arms:
    """From a network of five classes to the other five, of which there are 50 pictures each: what is the way?

    All have the same network, pictures and epochs in all. A head by itself is trained at twice the rate, as is usual;
    frozen batch norms keep their scales, their means still follow each batch.
    """
    found: Arms = {}
    for seed in SEEDS:
        old = of_classes(data, range(OLD_CLASSES))
        network = seeded(seed, c_out=OLD_CLASSES)
        old_accuracy = accuracy_of(network, old, OLD_EPOCHS, seed)
        log(f"network to start from, seed {seed}: accuracy {old_accuracy:.3f}")
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        new = of_classes(data, range(OLD_CLASSES, len(data.classes)))
        new = few(new, NEW_PER_CLASS * len(new.classes), seed)
        for name, way in WAYS.items():
            keep(found, name, way(new, weights, seed))
    return found


def of_classes(data: ImageData, classes: range) -> ImageData:
    """Only the pictures of some classes, numbered anew."""
    names = [data.classes[label] for label in classes]

    def part(pictures: Pictures) -> tuple[Relabelled, Records]:
        inside = np.isin(pictures.labels, classes)
        chosen = Relabelled(pictures, np.where(inside, pictures.labels - classes[0], -1), names)
        return chosen, usable(chosen)

    return ImageData(*part(data.pictures), *part(data.valid_pictures))


def carried(data: ImageData, weights: dict[str, torch.Tensor], seed: int) -> nn.Sequential:
    """The trained body under a new head."""
    torch.manual_seed(seed)
    network = build("xresnet18", c_out=OLD_CLASSES)
    network.load_state_dict(weights)
    return adapt(network, len(data.classes))


def scratch(data: ImageData, weights: Any, seed: int) -> float:
    """The same network with fresh weights, for as many epochs as the others have in all."""
    fresh = adapt(seeded(seed), len(data.classes))
    return accuracy_of(fresh, data, HEAD_EPOCHS + NEW_EPOCHS, seed)


def naive(data: ImageData, weights: Any, seed: int) -> float:
    """All of it at one rate."""
    return accuracy_of(carried(data, weights, seed), data, HEAD_EPOCHS + NEW_EPOCHS, seed)


def staged(free_norms: bool, unfreeze: bool, factor: float = 1.0) -> Callable[[ImageData, Any, int], float]:
    """First the head, with or without the body's batch norms; then all of it, the body's rate divided by `factor`."""

    def way(data: ImageData, weights: Any, seed: int) -> float:
        network = carried(data, weights, seed)
        body, head = network.get_submodule("body"), network.get_submodule("head")
        groups = bn_splitter(body, head) if free_norms else [body, head]
        learn = cnn_learner(network, data, size=SIZE, batch_size=BATCH_SIZE, groups=groups, seed=seed)
        learn.freeze_to(-1)
        reached = fit(learn, HEAD_EPOCHS if unfreeze else HEAD_EPOCHS + NEW_EPOCHS, 2 * LR)
        if unfreeze:
            learn.unfreeze()
            reached = fit(learn, NEW_EPOCHS, [LR / factor, LR])
        return reached

    return way


WAYS: dict[str, Callable[[ImageData, Any, int], float]] = {
    "from scratch": scratch,
    "naive: all of it at one rate": naive,
    "body frozen, the scales of its batch norms too": staged(free_norms=False, unfreeze=False),
    "body frozen, its batch norms free": staged(free_norms=True, unfreeze=False),
    "body frozen with those scales, then all": staged(free_norms=False, unfreeze=True),
    "frozen but batch norms, then all": staged(free_norms=True, unfreeze=True),
    "frozen but batch norms, then all, body at a tenth": staged(free_norms=True, unfreeze=True, factor=10),
}


# ---- running them ---------------------------------------------------------------------------------------------------


def keep(found: Arms, name: str, accuracy: float) -> None:
    """Add a seed's accuracy."""
    found.setdefault(name, []).append(round(accuracy, 4))
    log(f"{name}: {accuracy:.4f}")


def main() -> None:
    """Try the claims that were asked for; the rest of the results stays as it was."""
    claims = {"stem": stem, "mixup": mixup, "smoothing": smoothing, "transfer": transfer}
    record.where()
    data = read_images("imagenette", Path("models/decoded-pictures"))
    for name in sys.argv[1:] or claims:
        begin_s = time.monotonic()
        arms = claims[name](data)
        rows = {arm: {"mean": round(statistics.mean(a), 4), "std": round(statistics.stdev(a), 4), "all": a} for arm, a in arms.items()}  # fmt: skip
        told = {
            "question": (claims[name].__doc__ or "").split("\n\n")[0],
            "seconds": round(time.monotonic() - begin_s),
            "arms": rows,
        }
        record.update("vision_claims", name, told)


if __name__ == "__main__":
    main()
