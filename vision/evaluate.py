"""`python -m vision evaluate` and `predict`: what a trained network makes of pictures it has not seen."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ulmpipe.console import Bar, log, progress
from ulmpipe.errors import SourceError
from ulmpipe.options import make_config
from ulmpipe.train import (
    Callback,
    FixedBatches,
    Learner,
    MixedPrecision,
    accuracy,
    confusion_matrix,
    f1_macro,
    f1_scores,
    pick_device,
    pick_precision,
)

from .augment import crop_resize
from .config import ReadConfig
from .data import ImageBatches, Records, hold_out, renumbered, usable
from .model import ImageClassifier
from .source import SUFFIXES, find_source, printable
from .store import StreamedPictures, decode_all

BATCH_SIZE = 64


@dataclass(frozen=True)
class Evaluation:
    """The numbers; the fields of `evaluate --json`."""

    n: int
    accuracy: float
    f1_macro: float
    loss: float
    f1: dict[str, float]
    confusion: list[list[int]]  # rows are the truth, columns the prediction, in the order of `labels`
    labels: list[str]
    n_quarantined: int
    quarantined: dict[str, str]  # names of pictures that can't be decoded, and why


@dataclass(frozen=True)
class Prediction:
    """The class of a picture and the probability of each; a line of `predict --json`."""

    label: str | None  # None where the picture can't be read
    probability: float | None
    probabilities: dict[str, float]
    path: str
    reason: str | None = None  # why it can't be read


def evaluate(
    model: str | Path, source: str | Path, *, device: str = "auto", tta: bool = False, **options: Any
) -> Evaluation:
    """Evaluate the model folder `model` on a SOURCE: its validation split where it has one, else all of it.

    `tta` averages over each picture and its mirror image (test-time augmentation), where the network was trained on
    both. `options` are the fields of `vision.config.ReadConfig`. Pictures are decoded as it goes; nothing is kept.
    """
    config = make_config(ReadConfig, options)
    classifier = ImageClassifier.from_pretrained(model, device=pick_device(device))
    pictures, records = _open(str(source), classifier, config)
    batches = ImageBatches(pictures, records, batch_size=BATCH_SIZE, shuffle=False)
    pred, target = _predict(reader(classifier), batches, "evaluate")
    if not len(target):
        raise SourceError(
            f"not one of {len(records):,} pictures can be decoded: {next(iter(pictures.quarantined.values()))}"
        )
    if tta and not classifier.flip:
        log("the network was not trained on mirror images: they are left out")
    elif tta:
        mirrored, _ = _predict(reader(classifier, mirror=True), batches, "evaluate, mirrored")
        pred = torch.logaddexp(pred.log_softmax(1), mirrored.log_softmax(1))  # of twice the mean probability
    confusion = confusion_matrix(pred.argmax(1), target, len(classifier.classes))
    return Evaluation(
        n=len(target),
        accuracy=float(accuracy(pred, target)),
        f1_macro=f1_macro(confusion),
        loss=float(F.cross_entropy(pred, target)),
        f1=dict(zip(classifier.classes, f1_scores(confusion), strict=True)),
        confusion=confusion.tolist(),
        labels=classifier.classes,
        n_quarantined=len(pictures.quarantined),
        quarantined={pictures.names[record]: reason for record, reason in pictures.quarantined.items()},
    )


class _Moves(Callback):
    """Move a bar with the batches that are read."""

    def __init__(self, bar: Bar):
        self.bar = bar

    def after_batch(self, learn: Learner) -> None:
        self.bar.update(learn.batch_index + 1)


def _predict(learn: Learner, batches: ImageBatches, description: str) -> tuple[Tensor, Tensor]:
    with progress(description, len(batches)) as bar:
        learn.callbacks.append(_Moves(bar))
        return learn.predict(batches)


def _open(source: str, classifier: ImageClassifier, config: ReadConfig) -> tuple[StreamedPictures, Records]:
    """Open the pictures to measure on: the validation split, or what the training held out, or all there are."""
    columns = {"image_column": config.image_column, "label_column": config.label_column}
    split = find_source(source, "valid", **columns)
    plan = split or find_source(source, "train", **columns)
    if plan is None:
        raise SourceError(f"{source} has no pictures to measure on")
    pictures = StreamedPictures(renumbered(plan, classifier.classes, source), classifier.side, config.workers)
    if not (pictures.labels >= 0).any():
        raise SourceError(f"{source} has no labels: expected a folder for each class, or a column (--label-column)")
    options = classifier.trained.get("options", {})
    trained_on = classifier.trained.get("pictures") or options.get("pictures", "")  # where older folders have it
    if split or trained_on.split(" ")[0] != plan.digest:
        if not split and source == classifier.trained.get("source"):
            log(f"{source} has changed since it was trained on: measuring on all of it, what was trained on too")
        return pictures, usable(pictures)
    if options["valid"]:
        raise SourceError(
            f"{source} was trained on, all of it: measure on other pictures, {options['valid']} for instance"
        )
    log(f"{source} was trained on: measuring on what was held out")
    return pictures, usable(pictures, hold_out(pictures.labels, options["valid_fraction"], options["seed"])[1])


def reader(classifier: ImageClassifier, *, mirror: bool = False) -> Learner:
    """Return a Learner that only predicts, in the precision that is fastest here."""
    device = next(classifier.model.parameters()).device
    precision = (
        pick_precision("auto", device) if classifier.trained.get("options", {}).get("precision") != "fp32" else "fp32"
    )
    augment = classifier.augment()
    augment.mirror = mirror
    mixed = [MixedPrecision(precision)] if precision != "fp32" else []
    return Learner(
        classifier.model, FixedBatches([]), loss_fn=F.cross_entropy, callbacks=[augment, *mixed], device=device
    )


def predict(model: str | Path | ImageClassifier, paths: Iterable[str | Path], *, device: str = "auto") -> Iterator[Prediction]:  # fmt: skip
    """Predict picture files, or all in a folder, one after the other, in their order; what can't be read says why."""
    classifier = model if isinstance(model, ImageClassifier) else ImageClassifier.from_pretrained(model, device=pick_device(device))  # fmt: skip
    files = [file for path in paths for file in _files(Path(path))]
    for first in range(0, len(files), BATCH_SIZE):
        chunk = files[first : first + BATCH_SIZE]
        pixels, reasons = decode_all(chunk, classifier.side)
        for k, row in enumerate(probabilities(classifier, pixels).tolist()):
            if k in reasons:
                yield Prediction(None, None, {}, printable(str(chunk[k])), reasons[k])
                continue
            named = {name: round(p, 6) for name, p in zip(classifier.classes, row, strict=True)}
            label = max(named, key=lambda name: named[name])
            yield Prediction(label, named[label], named, printable(str(chunk[k])))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        if found := sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES):
            return found
        raise SourceError(f"{path} holds no pictures: expected files that end in {', '.join(SUFFIXES)}")
    if not path.exists():
        raise SourceError(f"{path} does not exist: expected a picture, or a folder of pictures")
    return [path]


@torch.inference_mode()
def probabilities(classifier: ImageClassifier, pixels: NDArray[np.uint8]) -> Tensor:
    """Return the probability of each class: (B, S, S, 3) uint8 -> (B, C) float32, on the CPU."""
    device = next(classifier.model.parameters()).device
    augment = classifier.augment()
    pictures = torch.from_numpy(pixels).to(device)
    views = crop_resize(pictures, augment.plain_views(*pixels.shape[:2]), classifier.size)
    return classifier.model(views).softmax(1).cpu()
