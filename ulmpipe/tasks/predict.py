"""`ulmpipe predict MODEL [TEXT ...|-]`: labels with probabilities for texts. From Python: a model that stays loaded.

    texts -> tokens -> ids, padded -> models/inference.py -> logits -> probabilities -> Prediction

Imports neither numba nor the store before there are many texts: most of a short command is its imports.
"""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..console import log
from ..errors import ConfigError, UlmpipeError
from ..models import TextClassifier
from ..models.explain import log_odds, own_logits, word_scores
from ..models.inference import classify
from ..models.quantize import quantized
from ..text.padding import pad_documents, two_ends
from ..text.rules import Rules
from ..text.tokenizer import Tokenizer, TokenizerRecipe
from ..train.device import pick_device
from ..train.precision import DTYPES, check_precision
from .model_folder import Pretrained

CHUNK_TEXTS = 1024  # texts that are predicted together: bounds memory however many there are
FAST_FROM = 300_000  # characters from which the fast engine gains what it takes to get ready, a second

Words = list[tuple[str, float]]


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
    labels: list[str]
    words: Words | None = None  # with `explain`: the tokens that were read, in order, and what each did for the label

    def _repr_html_(self) -> str:
        """How a notebook shows it: the labels, and the text, or with `explain` its words, those that mattered marked."""
        from markupsafe import escape

        from ..reports import MARKS
        from ..reports.page import shown_words

        labels = ", ".join(self.labels) or f"none (nearest: {self.label})"
        shown = escape(self.text)
        if self.words is not None:
            shown = shown_words(shares(self.words))
        return f"<style>{MARKS.read_text(encoding='utf-8')}</style><p><b>{escape(labels)}</b> {self.probability:.3f}<br>{shown}</p>"


def strongest(words: Words, n: int = 5) -> Words:
    """The n words that did most, the strongest first, each with its share of all that was done: negative is against.

    >>> strongest([("a", 0.5), ("good", 3.0), ("bore", -1.5)], n=2)
    [('good', 0.6), ('bore', -0.3)]
    """
    return sorted(shares(words), key=lambda word: -abs(word[1]))[:n]


def shares(words: Words) -> Words:
    """The words in their order, each with its share of all that was done."""
    total = sum(abs(score) for _, score in words) or 1.0
    return [(word, score / total) for word, score in words]


class Predictor:
    """A classifier that stays loaded, with its tokenizer: texts in, predictions out.

    `tables` is a file that `tokenize` or `finetune` wrote: with it spaCy need not be loaded. `precision` is fp32 or, where
    the processor can, bf16; `quantize` takes int8 weights (models/quantize.py). Only with neither is the prediction of a
    text the same to 1e-5 whatever others it is predicted with. With `forget` nothing that texts hold is remembered for later
    ones: for a process that does not end and is asked by others, whose memory would grow with every new word.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        *,
        tables: str | None = None,
        custom_rules: Rules | None = None,
        quantize: bool = False,
        precision: str = "fp32",
        forget: bool = False,
    ):
        if not isinstance(pretrained.model, TextClassifier):
            raise UlmpipeError(
                f"predict needs a classifier, and this is a {pretrained.kind}: finetune makes a classifier of it"
            )
        if tables is not None and not Path(tables).exists():
            raise ConfigError(f"--tables {tables} does not exist: tokenize --tables {tables} writes it")
        self.device = next(pretrained.model.parameters()).device
        check_precision(precision, self.device)
        self.precision, self.dtype, self.forget = precision, DTYPES[precision], forget
        self.pretrained, self.labels, self.quantize = pretrained, pretrained.labels, quantize
        self.model = quantized(pretrained.model) if quantize else pretrained.model
        self.recipe = TokenizerRecipe.from_json(pretrained.recipe, rules=custom_rules)
        self.tables = tables
        self.n_characters = 0  # tokenized so far

    def predict(self, texts: Iterable[str], *, explain: bool = False) -> list[Prediction]:
        """Predictions of texts, in their order; with `explain`, which costs a backward pass a text, why."""
        if isinstance(texts, str):
            raise TypeError("texts is one string, expected a list of them: predict([text])")
        return list(self.stream(texts, explain=explain))

    def stream(self, texts: Iterable[str], *, explain: bool = False) -> Iterator[Prediction]:
        """The same one after the other; texts are read as they are needed."""
        if explain and self.quantize:
            raise ConfigError("--explain needs gradients, which int8 weights don't have: leave --quantize out")
        texts = iter(texts)
        while chunk := list(islice(texts, CHUNK_TEXTS)):
            if wrong := [text for text in chunk if not isinstance(text, str)]:
                raise TypeError(f"texts holds a {type(wrong[0]).__name__}, expected strings")
            yield from self._predict_chunk(chunk, explain)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write its model folder, the weights as they were loaded: `quantize` and `precision` are not of the model."""
        self.pretrained.save_pretrained(folder)

    def push_to_hub(
        self, repo_id: str, *, private: bool = True, license: str | None = None, token: str | None = None
    ) -> str:
        """Write it to the Hugging Face hub, as `Pretrained.push_to_hub` does; returns the address of its page."""
        return self.pretrained.push_to_hub(repo_id, private=private, license=license, token=token)

    def _predict_chunk(self, texts: list[str], explain: bool) -> Iterator[Prediction]:
        vocab, max_tokens = self.pretrained.vocab, self.pretrained.trained["max_tokens"]
        if n_empty := sum(not text.strip() for text in texts):
            log(
                f"note: {n_empty:,} of {len(texts):,} texts {'is' if n_empty == 1 else 'are'} empty, and {'has' if n_empty == 1 else 'have'} a label all the same"
            )
        docs = self._tokens(texts)
        padded = pad_documents([vocab.encode(doc) for doc in docs], pad_id=vocab.pad_id, max_tokens=max_tokens)
        ids, lengths = (torch.from_numpy(array).to(self.device) for array in padded)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = classify(self.model, ids, lengths)
        rows = self.pretrained.probabilities(logits).tolist()
        for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
            words = None
            if explain:
                scores = own_word_scores(self.pretrained, ids[i, : int(lengths[i])], int(np.argmax(row)))
                words = list(zip(two_ends(docs[i], max_tokens), scores, strict=True))
            yield to_prediction(self.pretrained, text, row, words)

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        """By the reference, until there is so much that the fast engine is worth getting ready: the tokens are the same."""
        self.n_characters += sum(map(len, texts))
        if not self.tables and (self.forget or self.n_characters < FAST_FROM):
            tokenizer = _reference(self.recipe)
            with tokenizer.forgetting() if self.forget else nullcontext():
                return [tokenizer.tokenize(text) for text in texts]
        from ..text.engine import MAX_BYTES, usable_engine

        engine, _ = usable_engine(self.recipe, "fast", self.tables)
        if self.forget and engine.n_bytes > MAX_BYTES:  # of what texts have taught it
            usable_engine.cache_clear()
            engine, _ = usable_engine(self.recipe, "fast", self.tables)
        encoded = engine.encode_texts(texts)
        itos, ids, ends = engine.itos, encoded.ids.tolist(), encoded.offsets.tolist()
        return [[itos[i] for i in ids[begin:end]] for begin, end in zip(ends, ends[1:], strict=False)]


def own_word_scores(pretrained: Pretrained, ids: Tensor, label: int) -> list[float]:
    """What each token of a document, ids (L,), did for a label of a classifier, by its number (models/explain.py)."""
    assert isinstance(pretrained.model, TextClassifier)
    n, odds = len(ids), own_logits if pretrained.multi_label else log_odds
    ids = ids[None] if n else torch.full((1, 1), pretrained.vocab.pad_id, device=ids.device)  # (1, L)
    lengths, labels = torch.tensor([[n], [label]], device=ids.device)  # (1,) each
    return word_scores(pretrained.model, ids, lengths, labels, odds=odds)[0, :n].tolist()


def to_prediction(
    pretrained: Pretrained, text: str, probabilities: list[float], words: Words | None = None
) -> Prediction:
    """What is said of a text, from the probability of each of the model's labels."""
    falling = sorted(zip(pretrained.labels, probabilities, strict=True), key=lambda pair: -pair[1])
    labels = [falling[0][0]]
    if pretrained.thresholds is not None:
        threshold = dict(zip(pretrained.labels, pretrained.thresholds, strict=True))
        labels = [label for label, p in falling if p >= threshold[label]]
    named = {label: round(p, 6) for label, p in zip(pretrained.labels, probabilities, strict=True)}
    return Prediction(falling[0][0], named[falling[0][0]], named, text, labels, words)


@lru_cache(maxsize=2)
def _reference(recipe: TokenizerRecipe) -> Tokenizer:
    return Tokenizer(recipe)


def from_pretrained(
    folder: str | Path,
    *,
    device: str = "auto",
    tables: str | None = None,
    custom_rules: Rules | None = None,
    quantize: bool = False,
    precision: str = "fp32",
    forget: bool = False,
) -> Predictor:
    """Load a classifier to predict with, from a folder or, as `owner/name`, from the hub; the arguments are those of `Predictor`."""
    pretrained = Pretrained.from_pretrained(folder, device=str(pick_device(device)))
    return Predictor(pretrained, tables=tables, custom_rules=custom_rules, quantize=quantize, precision=precision, forget=forget)  # fmt: skip


def predict(
    model: str | Path | Pretrained,
    texts: Iterable[str],
    *,
    device: str = "auto",
    tables: str | None = None,
    custom_rules: Rules | None = None,
    quantize: bool = False,
    precision: str = "fp32",
    explain: bool = False,
) -> Iterator[Prediction]:
    """Predict texts with a classifier (a model folder, or one that is loaded), one after the other, in their order.

    To predict again and again, take `from_pretrained(folder).predict(texts)`, which stays loaded.
    """
    if not isinstance(model, Pretrained):
        model = Pretrained.from_pretrained(model, device=str(pick_device(device)))
    predictor = Predictor(model, tables=tables, custom_rules=custom_rules, quantize=quantize, precision=precision)
    yield from predictor.stream(texts, explain=explain)
