"""`ulmpipe finetune SOURCE`: ULMFiT (Howard and Ruder 2018): tune a language model on the target's texts, then a classifier.

tokens -> embeddings carried over to the target's words -> language model, words first, then all -> OUT/lm    tune.py
       -> its encoder under a new head -> head, last layer, all of it -> OUT                                  classify.py
       (with --folds first several times, to judge it -> OUT/folds, folds.py)
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import FinetuneConfig
from ..console import log
from ..durable import check_output, locked, read_json
from ..errors import UlmpipeError
from ..journal import recorded, written_down
from ..models import CLASSIFIER_DROPOUTS, LM_DROPOUTS, Dropouts, scaled_dropouts
from ..options import make_config
from ..text.batches import IntArray
from ..text.rules import Rules
from ..text.store import TokenStore, is_store
from ..train import check_finished, check_resume, saved_options, start_over, stops_told
from ..train.parallel import first_then_others, is_first, only_first
from .classify import default_epochs, train_classifier
from .corpus import Corpus, check_same_recipe, check_same_vocab, open_corpus
from .dataset_source import Source, takes_datasets
from .folds import FOLDS_FOLDER, check_folds_finished, cross_validate, folds_begun, means, start_folds_over
from .labels import choose_labelled, fold_parts, strata
from .model_folder import (
    BOX,
    CLASSIFIER,
    CONFIG_FILE,
    LANGUAGE_MODEL,
    MODELS_FOLDER,
    Pretrained,
    boxed_language_model,
    left_behind,
    newest_language_model,
)
from .predict import Predictor, from_pretrained
from .report import report_training
from .source import source_name
from .training import check_machine
from .tune import LM_TASK, tune_language_model

LM_FOLDER = "lm"


@dataclass(frozen=True)
class FinetuneResult:
    """What was reached; the fields of `finetune --json`. What belongs to a stage that did not run is None."""

    valid_loss: float  # of the classifier; after `--stage lm` of the language model
    accuracy: float | None  # with `--multi-label` the share of documents whose labels are all right
    f1_macro: float | None
    lm_valid_loss: float | None
    n_labels: int
    labels: list[str]
    started_from: str | None
    share_mapped: float | None  # of the target's words, found in the language model started from
    seconds: float
    tokens_per_s: float | None  # of the language model's training
    n_quarantined: int
    out: str
    folds: dict[str, Any] | None = None  # of `--folds`: each score's values, mean and standard deviation
    exact_match: float | None = None  # with `--multi-label`: the same as accuracy, under its own name
    f1_micro: float | None = None

    def predictor(self, **options: Any) -> Predictor:
        """The classifier, loaded; `options` are those of `ulmpipe.from_pretrained`. Raises `UlmpipeError` after `stage="lm"`."""
        return from_pretrained(Path(self.out), **options)


@takes_datasets
def finetune(
    source: Source, out: str | Path | None = None, *, custom_rules: Rules | None = None, **options: Any
) -> FinetuneResult:
    """Train a classifier on a labelled SOURCE, its language model first, and write both: `out`, and `out/lm`.

    `out` is `models/<name>` by default. `options` are the fields of `FinetuneConfig`; `custom_rules` stand in for a
    preset of rules. What can't work is refused before the texts are tokenized.
    """
    config = make_config(FinetuneConfig, options)
    out = Path(out) if out is not None else MODELS_FOLDER / source_name(str(source))
    _check(config, out)
    dropouts = scaled_dropouts(LM_DROPOUTS, config.drop_mult)
    classifier_dropouts = scaled_dropouts(CLASSIFIER_DROPOUTS, config.classifier_drop_mult)
    begin_s = time.monotonic()
    config = _with_start(config, str(source), out)
    start = _load_start(config, out)
    folders = _folders(config, out)
    with (
        stops_told(*folders, *_fold_folders(config, out), resume=config.resume),
        only_first(locked(out)),
        recorded(out, "finetune", str(source), asdict(config), writes=is_first()) as run,
    ):
        if not config.resume:
            for folder in folders:
                check_finished(folder)
            if config.stage != "lm":
                check_folds_finished(out)
        read_s = time.monotonic()
        with first_then_others():
            corpus = _open_texts(str(source), config, start, out, custom_rules)
        chosen = np.empty(0, np.int64)
        if config.stage != "lm":  # refused now, and not after hours of language model
            chosen = _choose(corpus, config)
        read_s = time.monotonic() - read_s
        run.begin(corpus.fingerprint, curves=folders)
        if not config.resume:  # all stages: this one's classifier must not go on from the checkpoint of an older one
            with first_then_others():
                for folder in folders:
                    start_over(folder)
                if config.stage != "lm":
                    start_folds_over(out)
        about = written_down({"source": str(source), "options": asdict(config), "started_from": start and start.folder})
        reached = _train_stages(
            corpus, chosen, config, start, out, about, dropouts=dropouts, classifier_dropouts=classifier_dropouts
        )
        result = FinetuneResult(
            **reached,
            n_labels=len(chosen),
            labels=corpus.store.labels,
            started_from=start.folder if start else None,
            seconds=round(time.monotonic() - begin_s, 1),
            n_quarantined=corpus.n_quarantined,
            out=str(out if config.stage != "lm" else out / LM_FOLDER),
        )
        run.finish(asdict(result))
        if is_first() and config.report:
            of_it: dict[str, Any] = {"task": "finetune", "source": str(source), "out": str(out), "read_s": read_s, "start": start and start.vocab}  # fmt: skip
            if config.stage != "classifier":
                of_lm = replace(config, stage="lm", n_labels=None, folds=None, tune_thresholds=False)
                report_training(out / LM_FOLDER, corpus, of_lm, run, **of_it, is_whole=config.stage == "lm")
            if config.stage != "lm":
                learned_from = corpus if config.folds is None else _with_all(corpus)
                report_training(out, learned_from, config, run, **of_it, chosen=chosen, curves=folders)
    return result


def _train_stages(
    corpus: Corpus,
    chosen: IntArray,
    config: FinetuneConfig,
    start: Pretrained | None,
    out: Path,
    about: dict[str, Any],
    *,
    dropouts: Dropouts,
    classifier_dropouts: Dropouts,
) -> dict[str, Any]:
    """Tune the language model, then train the classifier on the documents `chosen`, as far as `--stage` says.

    Returns the fields of `FinetuneResult` that say what was reached.
    """
    lm = start
    found: dict[str, Any] = dict.fromkeys(("accuracy", "f1_macro", "lm_valid_loss", "share_mapped", "tokens_per_s"))
    if config.stage != "classifier":
        lm, row, share = tune_language_model(corpus, config, start, dropouts, out / LM_FOLDER, about)
        found |= {"valid_loss": row["valid_loss"], "lm_valid_loss": row["valid_loss"], "share_mapped": share}
        found["tokens_per_s"] = round(row["targets_per_s"], 1)
    if config.stage == "lm":
        return found
    assert lm is not None
    if config.epochs is None:  # once, so that folds are judged as the classifier that is saved is trained
        config = replace(config, epochs=default_epochs(len(chosen)))
    check_same_vocab(corpus.store, lm.vocab, about["source"])
    check_same_recipe(corpus.store, lm.recipe, about["source"])
    folds, judged = None, {}
    if config.folds is not None:
        folds = cross_validate(corpus, chosen, config, lm, classifier_dropouts, out)
        corpus = _without_valid(corpus)  # all are learned from
        about = {**about, "folds": folds}
        judged = {"judged": means(folds), "thresholds": folds.get("thresholds")}
    row = train_classifier(corpus, chosen, config, lm, classifier_dropouts, out, about, **judged)
    found |= {"accuracy": row.get("accuracy", row.get("exact_match")), "folds": folds}
    found |= {"valid_loss": row["valid_loss"], "f1_macro": row["f1_macro"]}
    return found | {name: row.get(name) for name in ("exact_match", "f1_micro")}


def _without_valid(corpus: Corpus) -> Corpus:
    return replace(corpus, valid_store=corpus.store, valid=np.empty(0, np.int64))


def _with_all(corpus: Corpus) -> Corpus:
    """What a classifier that folds have judged has learned from: those that the language model was validated on too."""
    train = np.arange(corpus.store.n_docs) if corpus.valid_store is corpus.store else corpus.train
    return replace(_without_valid(corpus), train=train)


def _open_texts(
    source: str, config: FinetuneConfig, start: Pretrained | None, out: Path, custom_rules: Rules | None
) -> Corpus:
    """The texts as tokens, numbered with the words of the model to start from, or with those and their own.

    A token store has its own, and keeps them (`open_store`).
    """
    words: dict[str, Any] = {}
    if start is not None and config.vocab is None:
        words = {"vocab": start.vocab} if config.stage == "classifier" else {"known": start.vocab.itos}
    return open_corpus(
        source,
        config,
        out.parent,
        labelled=True,
        needs_labels=config.stage != "lm",
        unlabelled=config.unlabelled,
        custom_rules=custom_rules,
        **words,
    )


def _check(config: FinetuneConfig, out: Path) -> None:
    """Raise an `UlmpipeError` for an output, a machine or options with which this can't work."""
    check_output(out, expected=CLASSIFIER, also=(LM_FOLDER, FOLDS_FOLDER, *left_behind(out)))
    _check_own_language_model(out / LM_FOLDER)
    check_machine(config)
    check_resume(config.resume and not folds_begun(out), out, out / LM_FOLDER)


def _choose(corpus: Corpus, config: FinetuneConfig) -> IntArray:
    """The labelled documents to learn from; with `--folds` those held out for the language model's loss are among them."""
    store, which = corpus.store, corpus.train
    if config.folds is not None and corpus.valid_store is store:
        which = np.arange(store.n_docs)
    chosen = choose_labelled(store.doc_labels, which, config.n_labels, config.seed)
    if config.folds is not None:
        fold_parts(
            chosen, strata(store.doc_labels[chosen]), config.folds, config.seed
        )  # raises where there are too few
    return chosen


def _folders(config: FinetuneConfig, out: Path) -> list[Path]:
    """Where the stages that run write what they reach."""
    return [*([out / LM_FOLDER] if config.stage != "classifier" else []), *([out] if config.stage != "lm" else [])]


def _fold_folders(config: FinetuneConfig, out: Path) -> list[Path]:
    """Where the trainings of folds have their checkpoints."""
    return [out / FOLDS_FOLDER / str(number) for number in range(1, (config.folds or 0) + 1)]


def _check_own_language_model(folder: Path) -> None:
    """Refuse to write over a language model in `out/lm` that no finetune made: `-o models` beside a model called lm."""
    if not (folder / CONFIG_FILE).exists():
        return
    found = read_json(folder / CONFIG_FILE)
    trained = found.get("trained") if isinstance(found, dict) else None
    if not isinstance(trained, dict) or trained.get("task") != LM_TASK:
        raise UlmpipeError(f"{folder} is a model of its own, which this would replace: choose another -o")


def _with_start(config: FinetuneConfig, source: str, out: Path) -> FinetuneConfig:
    """Fill in which language model to start from, where `--from` does not say: the newest, else the one in the box, else none.

    Says which. A training that is resumed starts from what it was begun with, whatever is the newest by now. `--stage
    classifier` goes on from the tuned one in `out`.
    """
    if config.from_model is not None or config.stage == "classifier":
        return config
    if config.resume and (begun_with := saved_options(out / LM_FOLDER).get("from_model")):
        return replace(config, from_model=begun_with)
    lang = TokenStore(source).manifest["recipe"]["lang"] if is_store(Path(source)) else config.lang
    folder = newest_language_model() or boxed_language_model(lang)
    if (
        folder and folder.parent == BOX and not Path(folder.name).exists()
    ):  # a name that means the same on other machines
        folder = folder.name
    nothing = f"no language model under {MODELS_FOLDER}/, and none of {lang!r} in the box: starting from nothing"
    log(f"starting from {folder}" if folder else nothing)
    return replace(config, from_model=str(folder or "none"))


def _load_start(config: FinetuneConfig, out: Path) -> Pretrained | None:
    """The language model to start from, None for none. Raises `UlmpipeError` for a model of another kind."""
    if config.from_model == "none":
        return None
    folder = out / LM_FOLDER if config.from_model is None else config.from_model
    start = Pretrained.from_pretrained(folder)
    if start.kind != LANGUAGE_MODEL:
        has_own = (Path(folder) / LM_FOLDER / CONFIG_FILE).exists()
        mend = f"its own is {Path(folder) / LM_FOLDER}" if has_own else "pretrain makes one"
        raise UlmpipeError(f"{folder} is a {start.kind}, expected a language model: {mend}")
    if start.trained.get("backward"):
        raise UlmpipeError(
            f"{folder} was trained on texts read backward, and these are read forward: choose another --from"
        )
    return start
