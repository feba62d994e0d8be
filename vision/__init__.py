"""vision: pictures in, a trained xresnet out, on the callback `Learner` of `ulmpipe.train`.

    source.py    what to read (named.py: names)        decode.py    encoded pictures to arrays
    store.py     decoded once, mapped into memory      data.py      which are trained on, batches
    kernels.py   crops and resizing, in numba          augment.py   views of whole batches, on the device
    xresnet.py   the networks                          mixup.py     MixUp
    transfer.py  a new head on a trained body          learner.py   all of it put together
    model.py     model folders                         plot.py      pictures of pictures
    train.py     `train` and `transfer`                evaluate.py  `evaluate` and `predict`
    config.py    their options                         report.py    what a training writes down for its page
    card.py      a model's page on the hub

`B, C, H, W` are batch, channels, height and width; `S` is the side of a stored picture. Importing this loads no torch. The
commands are functions too: `from vision.train import train, transfer`, `from vision.evaluate import evaluate, predict`.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "ImageClassifier": "model",
    "MixUp": "mixup",
    "build": "xresnet",
    "cnn_learner": "learner",
    "read_images": "data",
}

__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
