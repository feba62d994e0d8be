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

from ..config import FinetuneConfig
from ..console import log
from ..durable import check_output, locked, read_json
from ..errors import ConfigError, SourceError, UlmpipeError
from ..journal import recorded
from ..models import CLASSIFIER_DROPOUTS, LM_DROPOUTS, SIZES, Dropouts, LanguageModel, TextClassifier, scaled_dropouts
from ..models.transfer import classifier_groups, load_encoder, transfer_language_model
from ..options import make_config
from ..text.batches import ClassifierBatches, Docs, IntArray
from ..text.rules import Rules
from ..train import (
    Learner,
    Phase,
    accuracy,
    check_finished,
    check_resume,
    discriminative,
    pick_device,
    smaller_for_few,
    start_over,
    stops_told,
)
from ..train.metrics import finite_row
from ..train.parallel import first_then_others, is_first, only_first, part
from .corpus import Corpus, check_same_vocab, open_corpus
from .model_folder import (
    CLASSIFIER,
    CONFIG_FILE,
    LANGUAGE_MODEL,
    MODELS_FOLDER,
    Pretrained,
    left_behind,
    newest_language_model,
)
from .phases import (
    MIN_STEPS,
    check_machine,
    common_callbacks,
    language_model_learner,
    seed_everything,
    train_phases,
)
from .tokenize import source_name

LM_LR_WORDS, LM_LR = 2e-2, 5e-3  # highest rates of the two phases; the first moves embeddings and decoder only
WORDS_SHARE = 5  # of --max-steps, one part in so many goes to the first phase
LM_FOLDER, LM_TASK = "lm", "finetune, stage lm"


@dataclass(frozen=True)
class FinetuneResult:
    """What was reached; the fields of `finetune --json`. What belongs to a stage that did not run is None."""

    valid_loss: float  # of the classifier; after `--stage lm` of the language model
    accuracy: float | None
    lm_valid_loss: float | None
    n_labels: int
    labels: list[str]
    started_from: str | None
    share_mapped: float | None  # of the target's words, found in the language model started from
    seconds: float
    tokens_per_s: float | None  # of the language model's training
    n_quarantined: int
    out: str


def finetune(
    source: str | Path, out: str | Path | None = None, *, custom_rules: Rules | None = None, **options: Any
) -> FinetuneResult:
    """Train a classifier on a labelled SOURCE, its language model first, and write both: `out`, and `out/lm`.

    `out` is `models/<name>` by default. `options` are the fields of `FinetuneConfig`; `custom_rules` stand in for a
    preset of rules. What can't work is refused before the texts are tokenized.
    """
    config = make_config(FinetuneConfig, options)
    out = Path(out) if out is not None else MODELS_FOLDER / source_name(str(source))
    check_output(out, expected=CLASSIFIER, also=(LM_FOLDER, *left_behind(out)))
    _check_own_language_model(out / LM_FOLDER)
    check_machine(config)
    check_resume(config.resume, out, out / LM_FOLDER)
    dropouts = scaled_dropouts(LM_DROPOUTS, config.drop_mult)
    classifier_dropouts = scaled_dropouts(CLASSIFIER_DROPOUTS, config.classifier_drop_mult)
    if config.stage != "lm" and config.batch_size < 2:
        raise ConfigError("--batch-size is 1, expected 2 or more: batch norm can't train on one document")
    begin_s = time.monotonic()
    start = _load_start(config, out)
    folders = _folders(config, out)
    with (
        stops_told(*folders, resume=config.resume),
        only_first(locked(out)),
        recorded(out, "finetune", str(source), asdict(config), writes=is_first()) as run,
    ):
        if not config.resume:
            for folder in folders:
                check_finished(folder)
        with first_then_others():
            corpus = open_corpus(
                str(source),
                config,
                out.parent,
                labelled=True,
                needs_labels=config.stage != "lm",
                unlabelled=config.unlabelled,
                custom_rules=custom_rules,
            )
        chosen = np.empty(0, np.int64)
        if config.stage != "lm":  # refused now, and not after hours of language model
            chosen = choose_labelled(corpus.store.doc_labels, corpus.train, config.n_labels, config.seed)
        run.begin(corpus.fingerprint, curves=folders)
        if not config.resume:  # all stages: this one's classifier must not go on from the checkpoint of an older one
            with first_then_others():
                for folder in folders:
                    start_over(folder)
        about = {"source": str(source), "options": asdict(config), "started_from": start and start.folder}
        lm, lm_row, share = start, None, None
        if config.stage != "classifier":
            lm, lm_row, share = _tune_language_model(corpus, config, start, dropouts, out / LM_FOLDER, about)
        row = lm_row
        if config.stage != "lm":
            assert lm is not None
            check_same_vocab(corpus.store, lm.vocab, str(source))
            row = _train_classifier(corpus, chosen, config, lm, classifier_dropouts, out, about)
        assert row is not None
        result = FinetuneResult(
            valid_loss=row["valid_loss"],
            accuracy=row["accuracy"] if config.stage != "lm" else None,
            lm_valid_loss=lm_row["valid_loss"] if lm_row else None,
            n_labels=len(chosen),
            labels=corpus.store.labels,
            started_from=start.folder if start else None,
            share_mapped=share,
            seconds=round(time.monotonic() - begin_s, 1),
            tokens_per_s=round(lm_row["targets_per_s"], 1) if lm_row else None,
            n_quarantined=corpus.n_quarantined,
            out=str(out if config.stage != "lm" else out / LM_FOLDER),
        )
        run.finish(asdict(result))
    return result


def _folders(config: FinetuneConfig, out: Path) -> list[Path]:
    """Where the stages that run write what they reach."""
    return [*([out / LM_FOLDER] if config.stage != "classifier" else []), *([out] if config.stage != "lm" else [])]


def _check_own_language_model(folder: Path) -> None:
    """Refuse to write over a language model in `out/lm` that no finetune made: `-o models` beside a model called lm."""
    if (folder / CONFIG_FILE).exists() and read_json(folder / CONFIG_FILE)["trained"].get("task") != LM_TASK:
        raise UlmpipeError(f"{folder} is a language model of its own, which this would replace: choose another -o")


def _load_start(config: FinetuneConfig, out: Path) -> Pretrained | None:
    """The language model to start from: `--from` (or `none`), else the newest under `models/`; says which.

    `--stage classifier` goes on from the tuned one in `out`. Raises `UlmpipeError` for a model of another kind.
    """
    if config.from_model is not None:
        folder = None if config.from_model == "none" else Path(config.from_model)
    elif config.stage == "classifier":
        folder = out / LM_FOLDER
    else:
        folder = newest_language_model()
        log(f"starting from {folder}" if folder else f"no language model under {MODELS_FOLDER}/: starting from nothing")
    if folder is None:
        if config.stage == "classifier":
            raise ConfigError("--stage classifier needs a tuned language model: --stage lm makes one, --from names one")
        return None
    start = Pretrained.from_pretrained(folder)
    if start.kind != LANGUAGE_MODEL:
        raise UlmpipeError(f"{folder} is a {start.kind}, expected a language model: pretrain makes one")
    return start


# ---- stage 1: the language model -------------------------------------------------------------------------------------


def _tune_language_model(
    corpus: Corpus,
    config: FinetuneConfig,
    start: Pretrained | None,
    dropouts: Dropouts,
    out: Path,
    about: dict[str, Any],
) -> tuple[Pretrained, dict[str, float], float | None]:
    """Stage 1. Returns the model, its last row of numbers, and the share of words carried over."""
    seed_everything(config.seed)
    vocab = corpus.store.vocab
    sizes = start.settings if start else SIZES[config.size]
    settings: dict[str, Any] = {**sizes, "vocab_size": len(vocab), "pad_id": vocab.pad_id}
    model = LanguageModel(**settings, **dropouts)
    share = None
    if start is not None:
        _compare_recipes(start, corpus)
        share = transfer_language_model(model, start.model.state_dict(), start.vocab.itos, vocab.itos)
        log(f"{share:.1%} of {len(vocab):,} words carried over from {start.folder}; the others begin as their mean")
    learn = language_model_learner(model, corpus, config)
    phases = _language_model_phases(config, len(learn.groups), tuned=start is not None)
    row = train_phases(learn, phases, out, config, corpus, n_answers=len(vocab))
    trained = {"task": LM_TASK, **about, "share_mapped": share, "results": finite_row(row)}
    lm = Pretrained(LANGUAGE_MODEL, model, vocab, corpus.store.manifest["recipe"], settings, [], trained)
    if is_first():
        lm.save_pretrained(out)
    return lm, row, share


def _compare_recipes(start: Pretrained, corpus: Corpus) -> None:
    """Say where the texts are cut in another way than those the model learned from: words are lost then."""
    recipe = corpus.store.manifest["recipe"]
    for what in ("lang", "rules"):
        if start.recipe[what] != recipe[what]:
            log(f"note: {start.folder} learned from --{what} {start.recipe[what]}, these texts have {recipe[what]}")


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


# ---- stage 2: the classifier ----------------------------------------------------------------------------------------


def _train_classifier(
    corpus: Corpus,
    chosen: IntArray,
    config: FinetuneConfig,
    lm: Pretrained,
    dropouts: Dropouts,
    out: Path,
    about: dict[str, Any],
) -> dict[str, float]:
    """Stage 2, on the labelled documents `chosen`. Returns the last row of numbers."""
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
    _compare_with_chance(row["accuracy"], corpus)
    trained = {"task": "finetune", **about, "n_labels": len(chosen), "max_tokens": config.max_tokens}
    trained["results"] = finite_row(row)
    if is_first():
        Pretrained(CLASSIFIER, model, lm.vocab, lm.recipe, settings, labels, trained).save_pretrained(out)
    return row


def _compare_with_chance(accuracy: float, corpus: Corpus) -> None:
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
