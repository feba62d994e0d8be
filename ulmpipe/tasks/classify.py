"""Stage 2 of `finetune`: a classifier on the encoder of a tuned language model. Corpus and labels -> classifier -> OUT.

First the head learns, then the last layer with it, then all of it, lower layers at lower rates (gradual unfreezing and
discriminative rates, Howard and Ruder 2018, section 3.3).
"""

from pathlib import Path
from typing import Any

import numpy as np
from torch.nn import functional as F

from ..config import FinetuneConfig
from ..console import log
from ..errors import SourceError
from ..models import Dropouts, TextClassifier
from ..models.transfer import classifier_groups, load_encoder
from ..text.batches import ClassifierBatches, Docs, IntArray
from ..train import Learner, Phase, accuracy, discriminative, pick_device, smaller_for_few
from ..train.metrics import finite_row
from ..train.parallel import is_first, part
from .corpus import Corpus
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
) -> dict[str, float]:
    """Train on the labelled documents `chosen`. Returns the last row of numbers."""
    labels = corpus.store.labels
    settings = {
        **{name: lm.settings[name] for name in ("vocab_size", "emb_size", "hidden_size", "n_layers", "pad_id")},
        "n_classes": len(labels),
        "bptt": config.bptt,
    }
    seed_everything(config.seed)  # again: `--stage all` is `--stage lm` and then `--stage classifier`
    model = TextClassifier(**settings, **dropouts)
    load_encoder(model, lm.model.state_dict())
    learn = classifier_learner(model, corpus, chosen, config)
    phases = classifier_phases(config, len(learn.groups))
    row = train_phases(learn, phases, out, config, corpus, n_answers=len(labels))
    compare_with_chance(row["accuracy"], corpus)
    trained = {"task": "finetune", **about, "n_labels": len(chosen), "max_tokens": config.max_tokens}
    trained["results"] = finite_row(row)
    if is_first():
        Pretrained(CLASSIFIER, model, lm.vocab, lm.recipe, settings, labels, trained).save_pretrained(out)
    return row


def compare_with_chance(accuracy: float, corpus: Corpus) -> None:
    """Warn when the classifier is no better than one that always gives the most frequent label."""
    labels = corpus.valid_store.doc_labels[corpus.valid]
    share = np.bincount(labels[labels >= 0]).max() / (labels >= 0).sum()
    if accuracy <= share:
        log(
            f"warning: accuracy {accuracy:.3f} is no better than always giving the most frequent label ({share:.3f}): "
            "more --epochs, a smaller --batch-size, more labels, or a language model to start from may help"
        )


def choose_labelled(doc_labels: IntArray, which: IntArray, n_labels: int | None, seed: int) -> IntArray:
    """Documents of `which` that have a label; with `n_labels` so many of them, the classes in equal shares, by the seed.

    Raises `SourceError` where there are fewer, or fewer than two classes.
    """
    labelled = which[doc_labels[which] >= 0]
    classes = np.unique(doc_labels[labelled])
    if len(classes) < 2:
        raise SourceError(
            f"{len(labelled)} labelled documents with {len(classes)} label: a classifier needs two labels at least"
        )
    if n_labels is None:
        return labelled
    if not len(classes) <= n_labels <= len(labelled):
        raise SourceError(
            f"--n-labels {n_labels}: expected from {len(classes)} (one a class) to {len(labelled)} (all there are)"
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(labelled)
    # The k-th document of its class, for every document: sorting by it deals the classes out in turn.
    rank = np.empty(len(shuffled), np.int64)
    for label in classes:
        of_class = doc_labels[shuffled] == label
        rank[of_class] = np.arange(of_class.sum())
    return np.sort(shuffled[np.argsort(rank, kind="stable")[:n_labels]])


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
        ClassifierBatches(valid_docs, valid, batch_size=config.batch_size, shuffle=False, **shape),
        loss_fn=F.cross_entropy,
        groups=classifier_groups(model),
        metrics=[accuracy],
        callbacks=common_callbacks(precision_of(config, model)),
        device=pick_device(config.device),
    )


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
