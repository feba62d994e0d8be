"""`finetune --folds K`: how good a classifier of few documents is, and how far that number can be trusted.

    labelled documents -> K parts, all classes in each -> K trainings, each judged by the part left out -> mean and spread

Between the tuned language model and the classifier that is saved, which learns from all labelled documents, so that none
is left to judge it by: its accuracy is the estimate of the folds. The language model is tuned once, before, on the texts
of all folds; it has seen no label, so none leaks.

What is known of a fold that is done is a small file, OUT/folds/<number>.json, and a stopped run goes on with the next;
the fold it was stopped in goes on from its checkpoint in OUT/folds/<number>/, which is removed when the fold is done.
"""

import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import FinetuneConfig
from ..console import log
from ..durable import MANIFEST, read_json, write_json
from ..errors import ConfigError, UlmpipeError
from ..models import Dropouts
from ..text.batches import IntArray
from ..train.metrics import finite_row
from ..train.parallel import is_first
from .classify import fit_classifier
from .corpus import Corpus
from .labels import fold_parts, strata
from .model_folder import Pretrained
from .training import MAY_CHANGE, precision_of

FOLDS_FOLDER = "folds"
UNSTEADY = 0.05  # standard deviation of the accuracy over folds, above which it is warned of
NO_SCORES = {"epoch", "step", "train_loss", "seconds", "targets_per_s", "n_steps"}  # of a row of numbers


def cross_validate(
    corpus: Corpus, chosen: IntArray, config: FinetuneConfig, lm: Pretrained, dropouts: Dropouts, out: Path
) -> dict[str, Any]:
    """Train a classifier on all parts but one of the documents `chosen`, (n,) int64, for each part in turn; see `summary`.

    With `--resume` folds that are done are not done again. Raises `ConfigError` where they were of other options.
    """
    assert config.folds is not None
    parts = fold_parts(chosen, strata(corpus.store.doc_labels[chosen]), config.folds, config.seed)
    options = {name: value for name, value in asdict(config).items() if name not in MAY_CHANGE}
    options |= {"tokens": corpus.store.fingerprint, "precision": precision_of(config, lm.model)}
    folder = out / FOLDS_FOLDER
    numbers = range(1, config.folds + 1)
    done = {n: _read_fold(path, options) for n in numbers if (path := folder / f"{n}.json").exists()}
    for number, part in zip(numbers, parts, strict=True):
        if number in done:
            log(f"fold {number} of {config.folds} is done")
            continue
        learned_from = np.setdiff1d(chosen, part)
        log(f"fold {number} of {config.folds}: learns from {len(learned_from):,} documents, is judged by {len(part):,}")
        # What judges is not learned from as a text without a label either.
        fold = replace(corpus, train=np.setdiff1d(corpus.train, part), valid_store=corpus.store, valid=part)
        fitted = fit_classifier(fold, learned_from, config, lm, dropouts, folder / str(number))
        scores = {name: value for name, value in fitted.row.items() if name not in NO_SCORES}
        done[number] = {"scores": finite_row(scores), "thresholds": fitted.thresholds}
        if is_first():
            said = {"fold": number, "n_train": len(learned_from), "n_valid": len(part), "options": options}
            write_json(folder / f"{number}.json", said | done[number])
            shutil.rmtree(folder / str(number))  # its weights are of no use any more
    found = summary([done[number]["scores"] for number in numbers])
    say_spread(found)
    if config.tune_thresholds:
        found["thresholds"] = np.mean([done[number]["thresholds"] for number in numbers], axis=0).tolist()
    return found


def _read_fold(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    saved = read_json(path)
    others = [name for name in options if options[name] != saved["options"].get(name)]
    if others:
        told = ", ".join(f"{name} {saved['options'].get(name)}, not {options[name]}" for name in others)
        raise ConfigError(f"{path} was begun with {told}: resume with the options it was begun with")
    return saved


def summary(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Return of every score its values, `<name>_mean` and `<name>_std`, the standard deviation over folds (of a sample).

    A score that was not finite in a fold is None there, and has no mean.

    >>> summary([{"accuracy": 0.5}, {"accuracy": 1.0}])
    {'accuracy': [0.5, 1.0], 'accuracy_mean': 0.75, 'accuracy_std': 0.3535533905932738}
    """
    found: dict[str, Any] = {}
    for name in rows[0]:
        found[name] = values = [row[name] for row in rows]
        finite = [value for value in values if value is not None]
        whole = len(finite) == len(values)
        found[f"{name}_mean"] = statistics.fmean(finite) if whole else None
        found[f"{name}_std"] = statistics.stdev(finite) if whole else None
    return found


def means(folds: Mapping[str, Any]) -> dict[str, float | None]:
    """The mean of every score, by its name: what stands for the scores of a classifier that nothing is left to judge by."""
    return {name.removesuffix("_mean"): value for name, value in folds.items() if name.endswith("_mean")}


def say_spread(folds: Mapping[str, Any]) -> None:
    """Log mean and spread of accuracy and macro F1, and warn where the accuracy is not to be trusted."""
    share = "exact_match" if "exact_match" in folds else "accuracy"  # the first of several labels a document
    n = len(folds[share])
    for name, told in ((share, share.replace("_", " ")), ("f1_macro", "macro F1")):
        each = " ".join(f"{value:.3f}" for value in folds[name])
        log(f"{n} folds: {told} {folds[f'{name}_mean']:.3f}, standard deviation {folds[f'{name}_std']:.3f} ({each})")
    if (std := folds[f"{share}_std"]) > UNSTEADY:
        log(
            f"warning: the {share.replace('_', ' ')} differs much from fold to fold (standard deviation {std:.3f}, above {UNSTEADY}): its "
            f"mean may be off by {2 * std / math.sqrt(n):.2f}; more labelled documents would make it steadier"
        )


def check_folds_finished(out: Path) -> None:
    """Raise `UlmpipeError` where `out` holds folds of a training that can still be resumed."""
    if folds_begun(out) and not (out / MANIFEST).exists():
        raise UlmpipeError(
            f"{out} holds a training that did not finish: go on with --resume, or remove {out / FOLDS_FOLDER}"
        )


def start_folds_over(out: Path) -> None:
    """Clear the folds of a finished training; those of one that did not finish are refused."""
    check_folds_finished(out)
    shutil.rmtree(out / FOLDS_FOLDER, ignore_errors=True)


def folds_begun(out: Path) -> bool:
    """Whether there is something of folds to go on from."""
    return any((out / FOLDS_FOLDER).glob("*.json")) or any((out / FOLDS_FOLDER).glob(f"*/checkpoint-*/{MANIFEST}"))
