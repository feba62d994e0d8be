"""`ulmpipe evaluate MODEL SOURCE`: how good a model is on documents it has not seen."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import ReadConfig, TokenizeConfig
from ..console import progress
from ..errors import ConfigError, SourceError
from ..models import LanguageModel, TextClassifier
from ..models.inference import classify
from ..models.quantize import quantized
from ..options import make_config
from ..text.batches import ClassifierBatches, Docs, IntArray, LMBatches
from ..text.labels import is_labelled
from ..text.rules import Rules
from ..text.source import without_labels
from ..text.store import TokenStore, is_store
from ..train import (
    Learner,
    ResetState,
    RNNRegularizer,
    accuracy,
    confusion_matrix,
    f1_macro,
    f1_scores,
    perplexity,
)
from ..train.device import pick_device
from ..train.multi_label import answer_counts, answer_f1, answer_f1_macro, answer_f1_micro, binary_cross_entropy
from .corpus import check_labelled, check_same_vocab, check_several, numbered_store, recipe_options
from .dataset_source import Source, takes_datasets
from .model_folder import CLASSIFIER, Pretrained
from .source import plan_source, source_name
from .training import language_model_loss

BATCH_SIZE, BPTT = 64, 70


@dataclass(frozen=True)
class Evaluation:
    """The numbers; the fields of `evaluate --json`. None where they are of the other kind of model."""

    n: int  # documents, or tokens of a language model
    loss: float
    accuracy: float
    f1_macro: float | None = None
    f1: dict[str, float] | None = None  # of each label
    confusion: list[list[int]] | None = None  # rows are the truth, columns the prediction, in the order of `labels`
    labels: list[str] | None = None
    perplexity: float | None = None
    n_quarantined: int = 0
    f1_micro: float | None = None
    exact_match: float | None = (
        None  # of several labels: the share of documents whose labels are all right, as accuracy
    )


@takes_datasets
def evaluate(
    model: str | Path,
    source: Source,
    *,
    device: str = "auto",
    quantize: bool = False,
    custom_rules: Rules | None = None,
    **options: Any,
) -> Evaluation:
    """Evaluate the model folder `model` on a SOURCE: of a named data set its test split.

    `options` are the fields of `ReadConfig`; language, rules and vocabulary are the model's. With `quantize` the numbers
    are those of its int8 weights (models/quantize.py).
    """
    config = TokenizeConfig(**asdict(make_config(ReadConfig, options)))
    pretrained = Pretrained.from_pretrained(model, device=str(pick_device(device)))
    if quantize:
        if not isinstance(pretrained.model, TextClassifier):
            raise ConfigError(f"--quantize is for a classifier, and {model} is a {pretrained.kind}: leave it out")
        pretrained.model = quantized(pretrained.model)
    with TemporaryDirectory() as tokens:  # an evaluation leaves nothing behind
        store = _open_source(str(source), pretrained, config, Path(tokens), custom_rules)
        if isinstance(pretrained.model, LanguageModel):
            return _evaluate_language_model(pretrained, store)
        return _evaluate_classifier(pretrained, store, str(source))


def _open_source(
    source: str, pretrained: Pretrained, config: TokenizeConfig, beside: Path, custom_rules: Rules | None
) -> TokenStore:
    if is_store(Path(source)):
        store = TokenStore(source)
        check_same_vocab(store, pretrained.vocab, source)
        return store
    is_classifier = pretrained.kind == CLASSIFIER
    if pretrained.multi_label:
        separator = pretrained.trained["options"]["label_separator"]
        config = replace(config, multi_label=True, label_separator=separator)
    plan = plan_source(source, config, splits=("test",))
    return numbered_store(
        plan if is_classifier else without_labels(plan),
        f"{source_name(source)}-test",
        replace(
            recipe_options(pretrained.recipe, config, custom_rules), force=True
        ),  # where TMPDIR is small: a warning
        beside,
        vocab=pretrained.vocab,
        labels=pretrained.labels if is_classifier else None,
        custom_rules=custom_rules,
        go_on=False,
    )


def _evaluate_language_model(pretrained: Pretrained, store: TokenStore) -> Evaluation:
    batches = LMBatches(Docs.from_store(store), batch_size=BATCH_SIZE, bptt=BPTT, shuffle=False)
    learn = Learner(
        pretrained.model,
        batches,
        batches,
        loss_fn=language_model_loss,
        metrics=[accuracy],
        callbacks=[RNNRegularizer(), ResetState()],
        device=next(pretrained.model.parameters()).device,
    )
    found = learn.validate()
    loss = found["valid_loss"]
    return Evaluation(
        n=batches.n_tokens,
        loss=loss,
        accuracy=found["accuracy"],
        perplexity=perplexity(loss),
        n_quarantined=len(store.manifest["quarantined"]),
    )


def _evaluate_classifier(pretrained: Pretrained, store: TokenStore, source: str) -> Evaluation:
    check_several(store, source, multi_label=pretrained.multi_label)
    if store.labels and store.labels != pretrained.labels:
        raise SourceError(
            f"{source} has labels {', '.join(store.labels)}, the model knows {', '.join(pretrained.labels)}: give the texts they were made from"
        )
    check_labelled(store, source)
    _, pred, target = classify_documents(pretrained, store, is_labelled(store.doc_labels).nonzero()[0])
    if pretrained.multi_label:
        return _evaluate_answers(pretrained, pred, target, len(store.manifest["quarantined"]))
    confusion = confusion_matrix(pred.argmax(-1), target, len(pretrained.labels))
    f1 = f1_scores(confusion)
    return Evaluation(
        n=len(target),
        loss=float(F.cross_entropy(pred, target)),
        accuracy=float(accuracy(pred, target)),
        f1_macro=f1_macro(confusion),
        f1=dict(zip(pretrained.labels, f1, strict=True)),
        confusion=confusion.tolist(),
        labels=pretrained.labels,
        n_quarantined=len(store.manifest["quarantined"]),
    )


def _evaluate_answers(pretrained: Pretrained, pred: Tensor, target: Tensor, n_quarantined: int) -> Evaluation:
    """Of several labels a document, at the model's thresholds. pred: (N, C) logits, target: (N, C) 0 or 1."""
    said = pretrained.given(pred)
    counts = answer_counts(said, target)
    exact = float((said == (target > 0)).all(dim=1).double().mean())
    return Evaluation(
        n=len(target),
        loss=float(binary_cross_entropy(pred, target)),
        accuracy=exact,
        f1_macro=answer_f1_macro(counts),
        f1=dict(zip(pretrained.labels, answer_f1(counts), strict=True)),
        labels=pretrained.labels,
        n_quarantined=n_quarantined,
        f1_micro=answer_f1_micro(counts),
        exact_match=exact,
    )


def classify_documents(
    pretrained: Pretrained,
    store: TokenStore,
    which: IntArray,
    *,
    score: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[IntArray, Tensor, Tensor]:
    """Documents (N,) of those `which`, longest first, their logits (N, C) and their labels, on the CPU.

    `score`, by default the whole classifier, gives the logits (B, C) of ids (B, L) and lengths (B,).
    """
    assert isinstance(pretrained.model, TextClassifier)
    batches = ClassifierBatches(
        Docs.from_store(store),
        which,
        batch_size=BATCH_SIZE,
        pad_id=pretrained.vocab.pad_id,
        max_tokens=pretrained.trained["max_tokens"],
        shuffle=False,
    )
    device = next(pretrained.model.parameters()).device
    give = score or partial(classify, pretrained.model)
    found = []
    n_done = 0
    with progress("evaluate", len(which)) as bar:
        for ids, lengths, y in batches.batches(0):
            found.append((give(ids.to(device), lengths.to(device)).cpu(), y))
            n_done += len(y)
            bar.update(n_done)
    pred, target = zip(*found, strict=True)
    return which[np.concatenate(batches.epoch_order(0))], torch.cat(pred), torch.cat(target)
