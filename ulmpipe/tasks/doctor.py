"""`ulmpipe doctor MODEL SOURCE`: do they go together? Looks before hours are spent, trains nothing, leaves nothing behind.

model folder -> what is wrong with it (model_check.py)
SOURCE       -> tokens and split as finetune makes them (corpus.py) -> its words beside the model's, unknown words, lengths, labels

What looks off becomes a line of `problems`, with what to do. A language model is looked at as a start for `finetune`: the
options are those of `finetune`. A classifier reads the texts by its own rules and vocabulary, as `evaluate` does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..config import DoctorConfig, FinetuneConfig, TokenizeConfig
from ..errors import SourceError
from ..options import make_config, pick
from ..text.labels import is_labelled
from ..text.rules import Rules
from ..text.store import is_store
from ..text.vocab import VOCAB_FILE
from .corpus import Corpus, count_words, open_corpus, open_store, recipe_options
from .dataset_source import Source, takes_datasets
from .describe import count_labels, quantiles, unknown_share, without
from .labels import FEW_DOCUMENTS, check_classes, shortened
from .model_check import CheckedModel, check_model
from .model_folder import CLASSIFIER, LANGUAGE_MODEL, named_model

N_UNMAPPED = 20  # words that are named
# Shares past which a number looks off.
FEW_MAPPED, SOME_NOT_MAPPED, MANY_UNKNOWN, ONE_LABEL = 0.5, 0.9, 0.05, 0.9


@dataclass(frozen=True)
class DoctorResult:
    """What was found; the fields of `doctor --json`. What needs a part of the model that can't be read is None."""

    model: str
    kind: str | None
    model_vocab_size: int | None
    source: str
    n_train: int  # documents
    n_valid: int
    n_tokens: int  # to train on
    vocab_size: int  # as finetune would number the source: its words, and those of a language model to start from
    words_mapped: (
        float | None
    )  # share of the source's words that the model knows; special tokens left out, here and below
    tokens_mapped: float | None  # the same by how often they come
    unmapped: dict[str, int]  # the most frequent words the model does not know, and how often they come
    unknown_train: (
        float  # share of all tokens without an id: in the source's vocabulary, of a classifier in the model's
    )
    unknown_valid: float | None
    lengths: dict[str, int]  # tokens of a document: median, of nine in ten at most, longest
    labels: dict[str, dict[str, int]]  # how many documents of each, to train on and held out
    n_unlabelled: int
    recipe: dict[str, str]  # lang and rules of the source's tokens
    model_recipe: dict[str, str] | None
    n_quarantined: int
    problems: list[str]


@takes_datasets
def doctor(model: str | Path, source: Source, *, custom_rules: Rules | None = None, **options: Any) -> DoctorResult:
    """Look at the model folder `model` and a SOURCE; `options` are the fields of `DoctorConfig`.

    Raises `UlmpipeError` only where there is nothing to look at: no such folder, no documents.
    """
    config = make_config(DoctorConfig, options)
    model = named_model(str(model))
    checked = check_model(model)
    problems = checked.problems
    kind, recipe = (checked.config["kind"], checked.config["recipe"]) if checked.config else (None, None)
    if kind == CLASSIFIER and recipe is not None and not is_store(Path(str(source))):
        config = replace(config, **_lang_and_rules(recipe, config, custom_rules))
        if checked.config and checked.config.get("multi_label"):
            separator = checked.config["trained"]["options"].get("label_separator", config.label_separator)
            config = replace(config, multi_label=True, label_separator=separator)
    with TemporaryDirectory() as tokens:
        keeps = kind == LANGUAGE_MODEL and config.vocab is None  # as finetune keeps the words of its start
        known = checked.vocab.itos if keeps and checked.vocab is not None else []
        corpus = _open(str(source), config, Path(tokens), problems, custom_rules, known)
        numbered = corpus
        if kind == CLASSIFIER and checked.vocab is not None and not is_store(Path(str(source))):
            by_model = replace(config, vocab=str(Path(model) / VOCAB_FILE))
            numbered = _open(str(source), by_model, Path(tokens), problems, custom_rules)
        found = _look(corpus, numbered, checked)
        problems += _no_classes(corpus)
    problems += _about_words(found, checked)
    problems += _about_recipes(found, checked)
    problems += _about_documents(found, checked)
    return replace(found, model=str(model), source=str(source), problems=list(dict.fromkeys(problems)))


def _lang_and_rules(recipe: dict[str, Any], config: DoctorConfig, custom_rules: Rules | None) -> dict[str, str]:
    own = recipe_options(recipe, pick(TokenizeConfig, config), custom_rules)
    return {"lang": own.lang, "rules": own.rules}


def _open(
    source: str,
    config: DoctorConfig,
    beside: Path,
    problems: list[str],
    custom_rules: Rules | None,
    known: Sequence[str] = (),
) -> Corpus:
    """The corpus as finetune has it; all of it to train on, and a problem, where no documents can be held out."""
    as_finetune = FinetuneConfig(**asdict(config))
    try:
        return open_corpus(
            source, as_finetune, beside, labelled=True, needs_labels=False, known=known, custom_rules=custom_rules
        )
    except SourceError as err:
        tokens = pick(TokenizeConfig, config)
        store = open_store(source, tokens, beside, labelled=True, known=known, custom_rules=custom_rules)
        problems.append(str(err))
        return Corpus(store, np.arange(store.n_docs), store, np.empty(0, np.int64))


# ---- numbers --------------------------------------------------------------------------------------------------------


def _look(corpus: Corpus, numbered: Corpus, checked: CheckedModel) -> DoctorResult:
    """Count. `corpus` has the source's own vocabulary, `numbered` the one that the model will read by."""
    store, known = corpus.store, set(checked.vocab.itos) if checked.vocab else None
    words = count_words(corpus)
    unmapped = without(words, known) if known is not None else {}
    lengths = store.doc_lengths[corpus.train]
    recipe = checked.config["recipe"] if checked.config else None
    return DoctorResult(
        model="",
        kind=checked.config["kind"] if checked.config else None,
        model_vocab_size=len(checked.vocab) if checked.vocab else None,
        source="",
        n_train=len(corpus.train),
        n_valid=len(corpus.valid),
        n_tokens=int(lengths.sum()),
        vocab_size=len(store.vocab),
        words_mapped=1 - len(unmapped) / max(1, len(words)) if known is not None else None,
        tokens_mapped=1 - sum(unmapped.values()) / max(1, words.total()) if known is not None else None,
        unmapped=dict(list(unmapped.items())[:N_UNMAPPED]),
        unknown_train=unknown_share(numbered.store, numbered.train) or 0.0,
        unknown_valid=unknown_share(numbered.valid_store, numbered.valid),
        lengths=quantiles(lengths),
        labels=count_labels(corpus),
        n_unlabelled=int((~is_labelled(store.doc_labels[corpus.train])).sum()),
        recipe=_short(store.manifest["recipe"]),
        model_recipe=_short(recipe) if recipe else None,
        n_quarantined=corpus.n_quarantined,
        problems=[],
    )


def _short(recipe: dict[str, Any]) -> dict[str, str]:
    return {"lang": recipe["lang"], "rules": recipe["rules"]}


# ---- advice ---------------------------------------------------------------------------------------------------------


def _about_words(found: DoctorResult, checked: CheckedModel) -> Iterator[str]:
    """Of the vocabularies."""
    mapped = found.tokens_mapped
    if mapped is not None and mapped < FEW_MAPPED:
        yield f"only {mapped:.1%} of the tokens are words that the model knows: is it of another language, or of other --rules?"
    elif mapped is not None and mapped < SOME_NOT_MAPPED:
        yield f"{1 - mapped:.1%} of the tokens are words new to the model: give its language model texts enough to learn them (--unlabelled)"
    of_classifier = found.kind == CLASSIFIER
    for part, share in (("train", found.unknown_train), ("valid", found.unknown_valid)):
        if share is not None and share > MANY_UNKNOWN:
            mend = (
                "finetune on such texts"
                if of_classifier
                else "more texts, a lower --min-freq or a higher --max-vocab help"
            )
            yield f"{share:.1%} of the tokens of the {part} documents have no id: {mend}"
    if checked.config and checked.config["trained"].get("backward"):
        yield "the model was trained on texts read backward, and these are read forward: it knows nothing of what comes next"


def _about_recipes(found: DoctorResult, checked: CheckedModel) -> Iterator[str]:
    """Of language and rules."""
    for what, value in (found.model_recipe or {}).items():
        if value != found.recipe[what]:
            mend = f"give --{what} {value}" if value != "custom" else "pass the same custom_rules from Python"
            yield f"the model learned from texts cut with --{what} {value}, these are cut with --{what} {found.recipe[what]}: {mend}"


def _about_documents(found: DoctorResult, checked: CheckedModel) -> Iterator[str]:
    """Of labels, lengths, and what was left out."""
    trained = checked.config["trained"] if checked.config else {}
    max_tokens = trained.get("max_tokens") or FinetuneConfig.max_tokens
    if found.lengths["p90"] > max_tokens:
        yield f"more than one document in ten is longer than {max_tokens:,} tokens: of those a classifier reads the first and the last half of so many (--max-tokens)"
    if found.n_quarantined:
        yield f"{found.n_quarantined:,} inputs can't be read, and are left out: ulmpipe tokenize names them"
    if not found.labels:
        yield "there are no labels: no classifier can be trained or judged (--label-column names the column)"
        return
    if checked.config and found.kind == CLASSIFIER:
        yield from _other_labels(list(found.labels), checked.config["labels"])
    n_train = {label: n["train"] for label, n in found.labels.items()}
    if len(n_train) == 1:
        yield f"every label is {next(iter(n_train))}: a classifier needs two or more"
    elif max(n_train.values()) > ONE_LABEL * sum(n_train.values()):
        most = max(n_train, key=lambda label: n_train[label])
        yield f"{n_train[most] / sum(n_train.values()):.1%} of the labels are {most}: who always says so has that accuracy, look at F1"
    if few := [f"{label} ({n})" for label, n in n_train.items() if n < FEW_DOCUMENTS]:
        yield f"labels with fewer than {FEW_DOCUMENTS} documents to learn from: {shortened(few)}"
    if found.n_valid and (none := [label for label, n in found.labels.items() if not n["valid"]]):
        yield f"no held-out document has the label {shortened(none)}: what is said of it can't be checked"


def _no_classes(corpus: Corpus) -> Iterator[str]:
    """Why the labels are no classes, as finetune would say it."""
    n_labelled = sum(
        int(is_labelled(store.doc_labels[docs]).sum())
        for store, docs in ((corpus.store, corpus.train), (corpus.valid_store, corpus.valid))
    )
    try:
        check_classes(corpus.store.labels, n_labelled, multi_label=corpus.store.multi_label)
    except SourceError as err:
        yield str(err)


def _other_labels(labels: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    if unknown := [label for label in labels if label not in known]:
        yield f"the model does not know the labels {', '.join(unknown[:5])}: it knows {', '.join(known[:5])}"
