"""Stage 2 of `finetune`: a classifier on the encoder of a tuned language model. Corpus and labels -> classifier -> OUT.

First the head learns, then the last layer with it, then all of it, lower layers at lower rates (gradual unfreezing and
discriminative rates, Howard and Ruder 2018, section 3.3).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from ..config import FinetuneConfig
from ..console import log
from ..models import Dropouts, TextClassifier
from ..models.transfer import classifier_groups, load_encoder
from ..text.batches import ClassifierBatches, Docs, IntArray
from ..train import (
    Learner,
    Phase,
    TrainingLoss,
    accuracy,
    class_weights,
    discriminative,
    pick_device,
    smaller_for_few,
    weighted_cross_entropy,
)
from ..train.metrics import counted_f1_macro, finite_row
from ..train.parallel import is_first, part
from .corpus import Corpus
from .labels import class_counts, compare_with_chance, say_how_sure, shortened, warn_of_rare_classes
from .model_folder import CLASSIFIER, Pretrained
from .phases import MIN_STEPS, common_callbacks, precision_of, seed_everything, train_phases


def train_classifier(
    corpus: Corpus,
    chosen: IntArray,
    config: FinetuneConfig,
    lm: Pretrained,
    dropouts: Dropouts,
    out: Path,
    about: dict[str, Any],
    scores: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Train on the labelled documents `chosen`, validate where the corpus has documents for it, save.

    Returns the last row of numbers, `scores` in it: those of folds, where no document is left to validate on. `about` is
    saved with the model.
    """
    labels, n_classes = corpus.store.labels, len(corpus.store.labels)
    valid_labels = corpus.valid_store.doc_labels[corpus.valid]
    n_train = class_counts(corpus.store.doc_labels[chosen], n_classes)
    warn_of_rare_classes(labels, n_train, class_counts(valid_labels, n_classes) if len(valid_labels) else None)
    if config.class_weights == "balanced":
        told = zip(labels, class_weights(torch.from_numpy(n_train)).tolist(), strict=True)
        log(f"class weights: {shortened([f'{label} {weight:.2f}' for label, weight in told])}")
    model, settings, row = fit_classifier(corpus, chosen, config, lm, dropouts, out)
    row |= scores or {}
    if len(valid_labels):
        say_how_sure(row["accuracy"], int((valid_labels >= 0).sum()), int((corpus.store.doc_labels >= 0).sum()))
        compare_with_chance(row["accuracy"], valid_labels)
    trained = {"task": "finetune", **about, "n_labels": len(chosen), "max_tokens": config.max_tokens}
    trained["results"] = finite_row(row)
    if is_first():
        Pretrained(CLASSIFIER, model, lm.vocab, lm.recipe, settings, labels, trained).save_pretrained(out)
    return row


def fit_classifier(
    corpus: Corpus, chosen: IntArray, config: FinetuneConfig, lm: Pretrained, dropouts: Dropouts, out: Path
) -> tuple[TextClassifier, dict[str, Any], dict[str, float]]:
    """Train on the documents `chosen` and validate on the corpus's, if it has any, with checkpoints in `out`.

    Returns the model, the arguments it was built with and the last row of numbers.
    """
    settings = {
        **{name: lm.settings[name] for name in ("vocab_size", "emb_size", "hidden_size", "n_layers", "pad_id")},
        "n_classes": len(corpus.store.labels),
        "bptt": config.bptt,
    }
    seed_everything(config.seed)  # again: `--stage all` is `--stage lm` and then `--stage classifier`
    model = TextClassifier(**settings, **dropouts)
    load_encoder(model, lm.model.state_dict())
    learn = classifier_learner(model, corpus, chosen, config)
    phases = classifier_phases(config, len(learn.groups))
    return model, settings, train_phases(learn, phases, out, config, corpus, n_answers=len(corpus.store.labels))


def classifier_learner(model: TextClassifier, corpus: Corpus, chosen: IntArray, config: FinetuneConfig) -> Learner:
    """A Learner of a classifier: batches of like length."""
    train_docs = Docs.from_store(corpus.store)
    valid_docs = train_docs if corpus.valid_store is corpus.store else Docs.from_store(corpus.valid_store)
    shape: dict[str, Any] = {"pad_id": corpus.store.vocab.pad_id, "max_tokens": config.max_tokens, "seed": config.seed}
    shape["part"] = part()
    batch_size = smaller_for_few(config.batch_size, len(chosen), min_steps=MIN_STEPS)
    if batch_size < config.batch_size:
        log(f"{len(chosen)} labelled documents are few: batches of {batch_size} instead of {config.batch_size}")
    valid = corpus.valid[corpus.valid_store.doc_labels[corpus.valid] >= 0]
    return Learner(
        model,
        ClassifierBatches(train_docs, chosen, batch_size=batch_size, shuffle=True, **shape),
        ClassifierBatches(valid_docs, valid, batch_size=config.batch_size, shuffle=False, **shape)
        if len(valid)
        else None,
        loss_fn=F.cross_entropy,
        groups=classifier_groups(model),
        metrics=[accuracy, counted_f1_macro(len(corpus.store.labels))],
        callbacks=[
            *training_loss(config, corpus.store.doc_labels[chosen], len(corpus.store.labels)),
            *common_callbacks(precision_of(config, model)),
        ],
        device=pick_device(config.device),
    )


def training_loss(config: FinetuneConfig, doc_labels: IntArray, n_classes: int) -> list[TrainingLoss]:
    """What is back-propagated instead of the plain cross entropy, where an option asks for it.

    doc_labels: (n,) of the documents that are learned from.
    """
    if config.class_weights == "none" and config.label_smoothing == 0:
        return []
    weights = None
    if config.class_weights == "balanced":
        weights = class_weights(torch.from_numpy(class_counts(doc_labels, n_classes))).to(pick_device(config.device))
    return [TrainingLoss(partial(weighted_cross_entropy, weights=weights, label_smoothing=config.label_smoothing))]


def classifier_phases(config: FinetuneConfig, n_groups: int) -> list[Phase]:
    """Gradual unfreezing: the head, then the last LSTM with it, then everything, lower layers at lower rates.

    Without it everything from the start, for as many epochs in all.
    """

    def phase(name: str, n_epochs: int, lr: float, freeze_to: int) -> Phase:
        return Phase(
            f"classifier, {name}", n_epochs, tuple(discriminative(lr, n_groups, factor=config.layer_factor)), freeze_to
        )

    lr = config.classifier_lr
    phases = [phase("head", 1, lr, -1), phase("last layer", 1, lr / 2, -2)]
    if not config.gradual:
        return [phase("all layers", len(phases) + config.epochs, config.unfrozen_lr, 0)]
    return [*phases, phase("all layers", config.epochs, config.unfrozen_lr, 0)]
