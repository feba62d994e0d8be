"""Stage 2 of `finetune`: a classifier on the encoder of a tuned language model. Corpus and labels -> classifier -> OUT.

First the head learns, then the last layer with it, then all of it, lower layers at lower rates (gradual unfreezing and
discriminative rates, Howard and Ruder 2018, section 3.3). What words and pairs say by themselves is fitted before
(fit_ngrams.py), and joins the network where it predicts.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..config import FinetuneConfig
from ..console import log
from ..models import Dropouts, TextClassifier
from ..models.heads import concat_pool
from ..models.transfer import classifier_groups, load_encoder
from ..text.batches import ClassifierBatches, Docs, IntArray
from ..text.labels import is_labelled
from ..train import (
    GiveBackMemory,
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
from ..train.multi_label import (
    COUNTED,
    answer_counts,
    answer_f1_macro,
    answer_weights,
    best_thresholds,
    binary_cross_entropy,
    exact_match,
)
from ..train.parallel import is_first, part
from ..train.precision import DTYPES
from .corpus import Corpus
from .fit_ngrams import FittedNGrams, fit_ngrams
from .labels import class_counts, compare_with_chance, say_how_sure, shortened, warn_of_rare_classes
from .model_folder import CLASSIFIER, Pretrained
from .training import MIN_STEPS, common_callbacks, precision_of, seed_everything, train_phases

MEASURED = 2000  # documents that mean and spread of the features are measured on, at most
# What the whole classifier reads by default, of few documents again and again: so many of them, and each so often at most. Of
# 2,000 labelled reviews, on a language model of IMDB, it was right on 0.877 of the test reviews after 6 epochs, on 0.872 after 4, on
# 0.863 after 2 (one seed). A thousand are read 3 times, and 1,001 4 times: 3 were as good as 4 (0.847, two seeds), and a thousand
# is what anyone tries first, when minutes count.
FEW, READ_OF_FEW, READ_OF_MORE = 1000, (3000, 8), (8000, 4)
# Labels are not smoothed by default, few ones neither: of 100 and 500 reviews the loss was lower with 0.2, and two points fewer right.
MAX_WORD_TABLE = (
    1 << 23
)  # numbers: what the words of the vocabulary say for each class; fitting them takes 20 times as much, 700 MB


class Fitted(NamedTuple):
    """A trained classifier that is not saved yet."""

    model: TextClassifier
    settings: dict[str, Any]  # the arguments it was built with
    row: dict[str, float]  # the last row of numbers
    thresholds: list[float] | None  # of several labels: the probability from which each is given


def train_classifier(
    corpus: Corpus,
    chosen: IntArray,
    config: FinetuneConfig,
    lm: Pretrained,
    dropouts: Dropouts,
    out: Path,
    about: dict[str, Any],
    *,
    judged: Mapping[str, float] | None = None,
    thresholds: list[float] | None = None,
) -> dict[str, float]:
    """Train on the labelled documents `chosen`, (n,) int64, numbers in `corpus.store`; validate where there are others; save.

    Returns the last row of numbers. Where no document is left to validate on, `judged` are the scores of folds, which
    go into that row, and `thresholds` theirs too. `about` is saved with the model.
    """
    labels, n_classes = corpus.store.labels, len(corpus.store.labels)
    valid_labels = corpus.valid_store.doc_labels[corpus.valid]
    n_train = class_counts(corpus.store.doc_labels[chosen], n_classes)
    warn_of_rare_classes(labels, n_train, class_counts(valid_labels, n_classes) if len(valid_labels) else None)
    weights = balanced_weights(config, corpus.store.doc_labels[chosen], n_classes)
    if weights is not None:
        of_yes = weights[1] if config.multi_label else weights
        told = [f"{label} {weight:.2f}" for label, weight in zip(labels, of_yes.tolist(), strict=True)]
        log(f"class weights{' of a yes' if config.multi_label else ''}: {shortened(told)}")
    fitted = fit_classifier(corpus, chosen, config, lm, dropouts, out)
    row, thresholds = {**fitted.row, **(judged or {})}, thresholds or fitted.thresholds
    if len(valid_labels):
        share = row["exact_match" if config.multi_label else "accuracy"]
        say_how_sure(share, int(is_labelled(valid_labels).sum()), int(is_labelled(corpus.store.doc_labels).sum()), of_source=corpus.valid_store is corpus.store)  # fmt: skip
        compare_with_chance(share, valid_labels)
    trained = {"task": "finetune", **about, "n_labels": len(chosen), "max_tokens": config.max_tokens}
    # Folds judge by those that are learned from.
    trained["n_valid"] = int(is_labelled(valid_labels).sum()) or len(chosen)
    trained["results"] = finite_row(row)
    if is_first():
        made = Pretrained(CLASSIFIER, fitted.model, lm.vocab, lm.recipe, fitted.settings, labels, trained)
        made.thresholds = (thresholds or [0.5] * n_classes) if config.multi_label else None
        made.save_pretrained(out)
    return row


def balanced_weights(config: FinetuneConfig, doc_labels: NDArray[Any], n_classes: int) -> torch.Tensor | None:
    """What each class weighs with `--class-weights balanced`, (C,), or of several labels its no and its yes, (2, C); else None.

    doc_labels: (n,), or (n, C) of several, of the documents that are learned from.
    """
    if config.class_weights != "balanced":
        return None
    counts = torch.from_numpy(class_counts(doc_labels, n_classes))
    return answer_weights(counts, len(doc_labels)) if config.multi_label else class_weights(counts)


def fit_classifier(
    corpus: Corpus, chosen: IntArray, config: FinetuneConfig, lm: Pretrained, dropouts: Dropouts, out: Path
) -> Fitted:
    """Train on the documents `chosen`, (n,) int64, and validate on the corpus's, if it has any, with checkpoints in `out`."""
    n_classes = len(corpus.store.labels)
    ngrams = fitted_ngrams(corpus, chosen, config)
    settings = {
        **{name: lm.settings[name] for name in ("vocab_size", "emb_size", "hidden_size", "n_layers", "pad_id")},
        "n_classes": n_classes,
        "bptt": config.bptt,
        "n_buckets": ngrams.n_buckets if ngrams else 0,
        "n_specials": corpus.store.n_specials,
    }
    seed_everything(config.seed)  # again: `--stage all` gives what `--stage lm` and then `--stage classifier` give
    model = TextClassifier(**settings, **dropouts)
    load_encoder(model, lm.model.state_dict())
    if ngrams:
        model.ngrams.load_state_dict({"table": ngrams.table, "bias": ngrams.bias})  # pyright: ignore[reportOptionalMemberAccess]
    learn = classifier_learner(model, corpus, chosen, config)
    measure_features(model, corpus, config)
    phases = classifier_phases(config, len(learn.groups))
    n_answers = 2 if config.multi_label else n_classes
    row = train_phases(learn, phases, out, config, corpus, n_answers=n_answers)
    thresholds = (
        tuned_thresholds(learn, config.batch_size) if config.tune_thresholds and learn.valid_dl is not None else None
    )
    return Fitted(model, settings, row, thresholds)


def fitted_ngrams(corpus: Corpus, chosen: IntArray, config: FinetuneConfig) -> FittedNGrams | None:
    """The n-grams of the documents `chosen`; with self-training those of the other documents too. None where not wanted."""
    store = corpus.store
    if not config.ngrams:
        return None
    if (n_numbers := len(store.vocab) * (len(store.labels) + 1)) > MAX_WORD_TABLE:
        log(
            f"words and pairs of words are left out: {n_numbers:,} numbers would be too many, for so many classes and words"
        )
        return None
    return fit_ngrams(
        Docs.from_store(store),
        chosen,
        len(store.labels),
        vocab_size=len(store.vocab),
        n_specials=store.n_specials,
        pad_id=store.vocab.pad_id,
        max_tokens=config.max_tokens,
        seed=config.seed,
        unlabelled=np.setdiff1d(corpus.train, chosen) if config.self_training else np.empty(0, np.int64),
        class_weights=balanced_weights(config, store.doc_labels[chosen], len(store.labels)),
        label_smoothing=config.label_smoothing,
    )


def measure_features(model: TextClassifier, corpus: Corpus, config: FinetuneConfig) -> None:
    """Let the head know mean and spread of what it will read of a document, by some of the texts, with or without a label.

    Under dropout, as in training: it doubles the spread, and may move the mean. On short reviews and a weak language model the
    network alone was right on 0.81 so, and on 0.76 measured without.
    """
    some = np.random.default_rng(config.seed).permutation(corpus.train)[:MEASURED]
    shape: dict[str, Any] = {"pad_id": corpus.store.vocab.pad_id, "max_tokens": config.max_tokens}
    batches = ClassifierBatches(
        Docs.from_store(corpus.store), some, batch_size=config.batch_size, shuffle=False, **shape
    )
    device = next(model.parameters()).device
    model.train()
    dtype = DTYPES[precision_of(config, model)]
    features: list[torch.Tensor] = []
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        for ids, lengths, _ in batches.batches(0):
            features.append(concat_pool(model.encoder(ids.to(device), lengths.to(device)), lengths).float())
    model.head.layers[0].measure(torch.cat(features))  # pyright: ignore[reportCallIssue]


def classifier_learner(model: TextClassifier, corpus: Corpus, chosen: IntArray, config: FinetuneConfig) -> Learner:
    """A Learner of a classifier: batches of like length, of the documents `chosen`, (n,) int64."""
    train_docs = Docs.from_store(corpus.store)
    valid_docs = train_docs if corpus.valid_store is corpus.store else Docs.from_store(corpus.valid_store)
    shape: dict[str, Any] = {"pad_id": corpus.store.vocab.pad_id, "max_tokens": config.max_tokens, "seed": config.seed}
    shape["part"] = part()
    batch_size = smaller_for_few(config.batch_size, len(chosen), min_steps=MIN_STEPS)
    if batch_size < config.batch_size:
        log(f"{len(chosen)} documents are few: batches of {batch_size} instead of {config.batch_size}")
    valid = corpus.valid[is_labelled(corpus.valid_store.doc_labels[corpus.valid])]
    n_classes, several = len(corpus.store.labels), config.multi_label
    return Learner(
        model,
        ClassifierBatches(train_docs, chosen, batch_size=batch_size, shuffle=True, **shape),
        ClassifierBatches(valid_docs, valid, batch_size=config.batch_size, shuffle=False, **shape)
        if len(valid)
        else None,
        loss_fn=binary_cross_entropy if several else F.cross_entropy,
        groups=classifier_groups(model),
        metrics=[exact_match, *COUNTED] if several else [accuracy, counted_f1_macro(n_classes)],
        callbacks=[
            *training_loss(config, corpus.store.doc_labels[chosen], n_classes),
            *common_callbacks(precision_of(config, model)),
            GiveBackMemory(),
        ],
        device=pick_device(config.device),
    )


def training_loss(config: FinetuneConfig, doc_labels: NDArray[Any], n_classes: int) -> list[TrainingLoss]:
    """What is back-propagated instead of the plain cross entropy, where an option asks for it.

    doc_labels: (n,), or (n, C) of several, of the documents that are learned from.
    """
    weights = balanced_weights(config, doc_labels, n_classes)
    if weights is None and config.label_smoothing == 0:
        return []
    if weights is not None:
        weights = weights.to(pick_device(config.device))
    if config.multi_label:
        return [TrainingLoss(partial(binary_cross_entropy, weights=weights))]
    return [TrainingLoss(partial(weighted_cross_entropy, weights=weights, label_smoothing=config.label_smoothing))]


def tuned_thresholds(learn: Learner, batch_size: int) -> list[float]:
    """The thresholds with the best F1 of each class on the validation documents, all of which every process reads."""
    dl: Any = learn.valid_dl
    whole = ClassifierBatches(
        dl.docs, dl.which, batch_size=batch_size, pad_id=dl.pad_id, max_tokens=dl.max_tokens, shuffle=False
    )
    pred, target = learn.predict(whole)
    p = pred.float().sigmoid()
    thresholds = best_thresholds(p, target)
    before, after = (
        answer_f1_macro(answer_counts(p.double() >= torch.tensor(t, dtype=torch.float64), target))
        for t in (0.5, thresholds)
    )
    log(f"thresholds tuned: macro F1 {before:.3f} at 0.5, {after:.3f} at the best on these {len(p):,} documents (on others less)")  # fmt: skip
    return thresholds


def classifier_phases(config: FinetuneConfig, n_groups: int) -> list[Phase]:
    """Gradual unfreezing: the head, then the last LSTM with it, then everything, lower layers at lower rates.

    Without it everything from the start, for as many epochs in all. `config.epochs` is a number by now.
    """
    assert config.epochs is not None
    n_epochs = config.epochs

    def phase(name: str, n_epochs: int, lr: float, freeze_to: int) -> Phase:
        return Phase(
            f"classifier, {name}", n_epochs, tuple(discriminative(lr, n_groups, factor=config.layer_factor)), freeze_to
        )

    phases = [phase("head", 1, config.classifier_lr, -1), phase("last layer", 1, config.unfrozen_lr, -2)]
    if not config.gradual:
        return [phase("all layers", len(phases) + n_epochs, config.unfrozen_lr, 0)]
    return [*phases, phase("all layers", n_epochs, config.unfrozen_lr, 0)]


def default_epochs(n_docs: int) -> int:
    """How often the whole classifier reads its documents, once at least; up to a thousand are few, and read in minutes.

    >>> [default_epochs(n) for n in (100, 500, 1000, 2000, 5000, 25_000)]
    [8, 6, 3, 4, 2, 1]
    """
    n_read, most = READ_OF_FEW if n_docs <= FEW else READ_OF_MORE
    return max(1, min(most, round(n_read / n_docs)))
