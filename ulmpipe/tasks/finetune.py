"""`ulmpipe finetune SOURCE`: ULMFiT (Howard and Ruder 2018): tune a language model on the target's texts, then a classifier.

tokens -> embeddings carried over to the target's words -> language model, words first, then all -> OUT/lm
       -> its encoder under a new head -> head, last layer, all of it -> OUT
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn import functional as F

from ..config import FinetuneConfig, make_config
from ..console import log
from ..durable import check_output, locked
from ..errors import SourceError, UlmpipeError
from ..models import CLASSIFIER_DROPOUTS, LM_DROPOUTS, SIZES, LanguageModel, TextClassifier, scaled_dropouts
from ..models.transfer import classifier_groups, load_encoder, transfer_language_model
from ..text.batches import ClassifierBatches, Docs, IntArray
from ..text.rules import Rules
from ..train import Learner, accuracy, discriminative
from .corpus import Corpus, open_corpus
from .model_folder import (
    CLASSIFIER,
    KIND,
    LANGUAGE_MODEL,
    MODELS_FOLDER,
    Pretrained,
    check_fits,
    left_behind,
    newest_language_model,
    pick_device,
)
from .phases import Phase, check_finished, common_callbacks, language_model_learner, run_phases, seed_everything
from .tokenize import source_name

LM_LR_WORDS, LM_LR = 2e-2, 5e-3  # highest rates of the two phases; the first moves embeddings and decoder only
WORDS_SHARE = 5  # of --max-steps, one part in so many goes to the first phase
LM_FOLDER = "lm"


@dataclass(frozen=True)
class FinetuneResult:
    """What was reached; the fields of `finetune --json`. After `--stage lm` the classifier's are None."""

    valid_loss: float
    accuracy: float
    lm_valid_loss: float | None
    n_labels: int
    labels: list[str]
    started_from: str | None
    share_mapped: float | None  # of the target's words, found in the language model started from
    seconds: float
    tokens_per_s: float
    n_quarantined: int
    out: str


def finetune(
    source: str | Path, out: str | Path | None = None, *, custom_rules: Rules | None = None, **options: Any
) -> FinetuneResult:
    """Train a classifier on a labelled SOURCE, its language model first, and write both: `out`, and `out/lm`.

    `out` is `models/<name>` by default. `options` are the fields of `FinetuneConfig`; `custom_rules` stand in for a
    preset of rules.
    """
    config = make_config(FinetuneConfig, options)
    out = Path(out) if out is not None else MODELS_FOLDER / source_name(str(source))
    check_output(out, expected=KIND, also=(LM_FOLDER, *left_behind(out)))
    begin_s = time.monotonic()
    start = _find_start(config)
    with locked(out):
        if not config.resume:
            check_finished(out)
        corpus = open_corpus(
            str(source), config, out.parent, labelled=True, unlabelled=config.unlabelled, custom_rules=custom_rules
        )
        chosen = np.empty(0, np.int64)
        if config.stage != "lm":  # refused now, and not after hours of language model
            chosen = choose_labelled(corpus.store.doc_labels, corpus.train, config.n_labels, config.seed)
        seed_everything(config.seed)
        about = {"source": str(source), "options": asdict(config)}
        if config.stage == "classifier":
            lm, lm_row, share = _tuned_already(config, out, start), {}, None
        else:
            lm, lm_row, share = _tune_language_model(corpus, config, start, out / LM_FOLDER, about)
        row = lm_row
        if config.stage != "lm":
            check_fits(corpus.store.manifest["vocab_sha256"], lm, str(source))
            row = _train_classifier(corpus, chosen, config, lm, out, about)
    return FinetuneResult(
        valid_loss=row["valid_loss"],
        accuracy=row["accuracy"],
        lm_valid_loss=lm_row.get("valid_loss"),
        n_labels=len(chosen),
        labels=corpus.store.labels,
        started_from=str(start) if start else None,
        share_mapped=share,
        seconds=round(time.monotonic() - begin_s, 1),
        tokens_per_s=round(lm_row.get("targets_per_s", 0.0), 1),
        n_quarantined=corpus.n_quarantined,
        out=str(out if config.stage != "lm" else out / LM_FOLDER),
    )


# ---- stage 1: the language model -------------------------------------------------------------------------------------


def _find_start(config: FinetuneConfig) -> Path | None:
    """The language model to start from: `--from` (or `none`), else the newest under `models/`; says which."""
    if config.from_model is not None:
        return None if config.from_model == "none" else Path(config.from_model)
    if config.stage == "classifier":
        return None  # its own, in `out`
    found = newest_language_model()
    log(f"starting from {found}" if found else f"no language model under {MODELS_FOLDER}/: starting from nothing")
    return found


def _tune_language_model(
    corpus: Corpus, config: FinetuneConfig, start: Path | None, out: Path, about: dict[str, Any]
) -> tuple[Pretrained, dict[str, float], float | None]:
    """Stage 1. Returns the model, its last row of numbers, and the share of words carried over."""
    vocab = corpus.store.vocab
    dropouts = scaled_dropouts(LM_DROPOUTS, config.drop_mult)
    share = None
    if start is None:
        settings = {"vocab_size": len(vocab), **SIZES[config.size], "pad_id": vocab.pad_id}
        model = LanguageModel(**settings, **dropouts)
    else:
        old = Pretrained.from_pretrained(start)
        _check_start(old, corpus, start)
        settings = {**old.settings, "vocab_size": len(vocab), "pad_id": vocab.pad_id}
        model = LanguageModel(**settings, **dropouts)
        share = transfer_language_model(model, old.model.state_dict(), old.vocab.itos, vocab.itos)
        log(f"{share:.1%} of {len(vocab):,} words carried over from {start}; the others begin as their mean")
    learn = language_model_learner(model, corpus, config)
    row = run_phases(learn, _language_model_phases(config, len(learn.groups), tuned=start is not None), out, config)
    trained = {"task": "finetune, stage lm", **about, "started_from": str(start), "share_mapped": share, "results": row}
    lm = Pretrained(LANGUAGE_MODEL, model, vocab, corpus.store.manifest["recipe"], settings, [], trained)
    lm.save_pretrained(out)
    return lm, row, share


def _check_start(old: Pretrained, corpus: Corpus, start: Path) -> None:
    if old.kind != LANGUAGE_MODEL:
        raise UlmpipeError(f"--from {start} is a {old.kind}, expected a language model: pretrain makes one")
    recipe = corpus.store.manifest["recipe"]
    for part in ("lang", "rules"):
        if old.recipe[part] != recipe[part]:
            log(
                f"note: {start} learned from --{part} {old.recipe[part]}, these texts are cut with --{part} {recipe[part]}"
            )


def _language_model_phases(config: FinetuneConfig, n_groups: int, *, tuned: bool) -> list[Phase]:
    """The words first, in one epoch, where there is something to keep; then everything, lower layers at lower rates."""
    n_words_steps = config.max_steps and max(1, config.max_steps // WORDS_SHARE)
    n_all_steps = config.max_steps and max(1, config.max_steps - (n_words_steps or 0) * tuned)
    lr = config.lr or LM_LR
    lrs = (lr / 2,) * (n_groups - 1) + (lr,)
    phases = [Phase("language model", config.lm_epochs, lrs, max_steps=n_all_steps)]
    if tuned:
        words = Phase("language model, words", 1, (LM_LR_WORDS,) * n_groups, freeze_to=-1, max_steps=n_words_steps)
        phases.insert(0, words)
    return phases


def _tuned_already(config: FinetuneConfig, out: Path, start: Path | None) -> Pretrained:
    """The tuned language model that `--stage classifier` goes on from."""
    folder = start or out / LM_FOLDER
    lm = Pretrained.from_pretrained(folder)
    if lm.kind != LANGUAGE_MODEL:
        raise UlmpipeError(f"{folder} is a {lm.kind}, expected the language model of --stage lm")
    return lm


# ---- stage 2: the classifier ----------------------------------------------------------------------------------------


def _train_classifier(
    corpus: Corpus, chosen: IntArray, config: FinetuneConfig, lm: Pretrained, out: Path, about: dict[str, Any]
) -> dict[str, float]:
    """Stage 2, on the labelled documents `chosen`. Returns the last row of numbers."""
    labels = corpus.store.labels
    settings = {
        **{name: lm.settings[name] for name in ("vocab_size", "emb_size", "hidden_size", "n_layers", "pad_id")},
        "n_classes": len(labels),
        "bptt": config.bptt,
    }
    seed_everything(config.seed)  # again: `--stage all` is `--stage lm` and then `--stage classifier`
    model = TextClassifier(**settings, **scaled_dropouts(CLASSIFIER_DROPOUTS, config.classifier_drop_mult))
    load_encoder(model, lm.model.state_dict())
    learn = classifier_learner(model, corpus, chosen, config)
    row = run_phases(learn, classifier_phases(config, len(learn.groups)), out, config)
    trained = {"task": "finetune", **about, "n_labels": len(chosen), "results": row, "max_tokens": config.max_tokens}
    Pretrained(CLASSIFIER, model, lm.vocab, lm.recipe, settings, labels, trained).save_pretrained(out)
    return row


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
    """A Learner of a classifier: sortish batches to train on, sorted ones to validate."""
    train_docs = Docs.from_store(corpus.store)
    valid_docs = train_docs if corpus.valid_store is corpus.store else Docs.from_store(corpus.valid_store)
    shape: dict[str, Any] = {"pad_id": corpus.store.vocab.pad_id, "max_tokens": config.max_tokens, "seed": config.seed}
    valid = corpus.valid[corpus.valid_store.doc_labels[corpus.valid] >= 0]
    return Learner(
        model,
        ClassifierBatches(train_docs, chosen, batch_size=config.batch_size, shuffle=True, **shape),
        ClassifierBatches(valid_docs, valid, batch_size=config.batch_size, shuffle=False, **shape),
        loss_fn=F.cross_entropy,
        groups=classifier_groups(model),
        metrics=[accuracy],
        callbacks=common_callbacks(config),
        device=pick_device(config.device),
    )


def classifier_phases(config: FinetuneConfig, n_groups: int) -> list[Phase]:
    """Gradual unfreezing: the head, then the last LSTM with it, then everything, lower layers at lower rates."""

    def phase(name: str, n_epochs: int, lr: float, freeze_to: int) -> Phase:
        return Phase(
            f"classifier, {name}", n_epochs, tuple(discriminative(lr, n_groups, factor=config.layer_factor)), freeze_to
        )

    lr = config.classifier_lr
    phases = [phase("head", 1, lr, -1), phase("last layer", 1, lr / 2, -2)]
    return [*phases, phase("all layers", config.epochs, config.unfrozen_lr, 0)]
