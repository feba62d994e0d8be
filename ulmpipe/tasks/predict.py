"""`ulmpipe predict MODEL [TEXT ...|-]`: labels with probabilities for texts."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import UlmpipeError
from ..text.batches import Docs
from ..text.engine import usable_engine
from ..text.rules import Rules
from ..text.tokenizer import TokenizerRecipe
from ..train.device import pick_device
from .evaluate import classifier_batches, classifier_reader
from .model_folder import CLASSIFIER, Pretrained

CHUNK_TEXTS = 1024  # texts that are predicted together: bounds memory however many there are


@dataclass(frozen=True)
class Prediction:
    """The label of a text and the probability of each; a line of `predict --json`.

    `labels` is that label; of a model that gives several all those at or above their thresholds, by falling probability,
    or none. `label` is the most probable one, whatever its threshold.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    text: str
    labels: list[str] = field(default_factory=list)


def predict(
    model: str | Path | Pretrained,
    texts: Iterable[str],
    *,
    device: str = "auto",
    tables: str | None = None,
    custom_rules: Rules | None = None,
) -> Iterator[Prediction]:
    """Predict texts with a classifier (a model folder, or one that is loaded), one after the other, in their order.

    `tables` is a file that `tokenize` or `finetune` wrote: with it spaCy need not be loaded.
    """
    if not isinstance(model, Pretrained):
        model = Pretrained.from_pretrained(model, device=str(pick_device(device)))
    if model.kind != CLASSIFIER:
        raise UlmpipeError(f"predict needs a classifier, and this is a {model.kind}: finetune makes a classifier of it")
    # A few texts are done before the fast engine has got ready; the tokens are the same.
    recipe = TokenizerRecipe.from_json(model.recipe, rules=custom_rules)
    tokenizer, _ = usable_engine(recipe, "fast" if tables else "spacy", tables)
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == CHUNK_TEXTS:
            yield from _predict_chunk(model, tokenizer.tokenize, chunk)
            chunk = []
            tokenizer, _ = usable_engine(recipe, "fast", tables)
    if chunk:
        yield from _predict_chunk(model, tokenizer.tokenize, chunk)


def _predict_chunk(model: Pretrained, tokenize: Callable[[str], list[str]], texts: list[str]) -> Iterator[Prediction]:
    docs = Docs.from_ids([model.vocab.encode(tokenize(text)) for text in texts], labels=[0] * len(texts))
    batches = classifier_batches(model, docs)
    logits, _ = classifier_reader(model).predict(batches)
    order = np.concatenate(batches.epoch_order(0))  # batches go by length; back to the order of the texts
    probabilities = model.probabilities(logits).numpy()[np.argsort(order)]
    for text, row in zip(texts, probabilities.tolist(), strict=True):
        yield to_prediction(model, text, row)


def to_prediction(model: Pretrained, text: str, probabilities: list[float]) -> Prediction:
    """What is said of a text, from the probability of each of the model's labels."""
    falling = sorted(zip(model.labels, probabilities, strict=True), key=lambda pair: -pair[1])
    labels = [falling[0][0]]
    if model.thresholds is not None:
        threshold = dict(zip(model.labels, model.thresholds, strict=True))
        labels = [label for label, p in falling if p >= threshold[label]]
    named = {label: round(p, 6) for label, p in zip(model.labels, probabilities, strict=True)}
    return Prediction(falling[0][0], named[falling[0][0]], named, text, labels)
