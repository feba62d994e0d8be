"""A SOURCE as a training sees it: token stores, and which of their documents are trained on and which are held out.

Between `tokenize` and the trainings. Token stores that a training makes lie in `tokens/` beside the model folders, named
by what they hold, so that the next training of the same texts finds them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TokenizeConfig, TrainConfig
from ..console import log
from ..errors import ConfigError, SourceError, VocabMismatchError
from ..options import flag_name, pick
from ..text.batches import IntArray
from ..text.labels import is_labelled
from ..text.named import find_split, is_name
from ..text.rules import Rules
from ..text.source import Plan, join_plans, plan_files, without_labels
from ..text.store import TokenStore, is_store
from ..text.tokenizer import TokenizerRecipe
from ..text.vocab import Vocab
from .labels import check_classes, hint_separator, in_proportion, strata
from .source import columns_of, plan_source, source_name
from .tokenize import check_tables, recipe_and_vocab, store_fingerprint, tokenize_plan

DECIDES_IDS = ("lang", "rules", "vocab", "max_vocab", "min_freq")
MAX_HELD_OUT = 2000  # documents: enough to tell a percent from another, few enough to be read after every epoch


@dataclass(frozen=True)
class Corpus:
    """Documents to train on and documents to validate on, of one vocabulary; the two stores may be one."""

    store: TokenStore
    train: IntArray  # (n,) document numbers in `store`
    valid_store: TokenStore
    valid: IntArray  # (n,) document numbers in `valid_store`

    @property
    def fingerprint(self) -> str:
        """Of the tokens trained on, and of those validated on where they are others."""
        other = "" if self.valid_store is self.store else f" and {self.valid_store.fingerprint}"
        return self.store.fingerprint + other

    @property
    def n_quarantined(self) -> int:
        """Inputs that could not be read, in both."""
        stores = [self.store] if self.valid_store is self.store else [self.store, self.valid_store]
        return sum(len(store.manifest["quarantined"]) for store in stores)


def open_corpus(
    source: str,
    config: TrainConfig,
    beside: Path,
    *,
    labelled: bool,
    needs_labels: bool = True,
    unlabelled: str | None = None,
    vocab: Vocab | None = None,
    known: Sequence[str] = (),
    custom_rules: Rules | None = None,
) -> Corpus:
    """Tokenize a SOURCE, or open it if it is a token store, and hold out documents for validation.

    `config` is that of a training, with the tokenize options in it. Validation documents come from `--valid`, else from
    the named data set's own split, else they are drawn by `--seed`, from those with a label where there are some. Labels
    are read if `labelled`; raises `SourceError` where there are none, or they are no classes, unless they are not needed.
    Texts are numbered with `vocab`, or with one of their own that has the words `known` in it too.
    """
    needs_labels = labelled and needs_labels
    tokens = pick(TokenizeConfig, config)
    words: dict[str, Any] = {"vocab": vocab, "known": known, "custom_rules": custom_rules}
    valid_plan = _valid_plan(source, config, tokens)
    store = open_store(source, tokens, beside, labelled=labelled, unlabelled=unlabelled, apart=valid_plan, **words)
    if needs_labels:
        check_labelled(store, source)
        check_several(store, source, multi_label=tokens.multi_label)
        check_classes(store.labels, int(is_labelled(store.doc_labels).sum()), multi_label=store.multi_label)
        hint_separator(store.labels, store.doc_labels)
    if valid_plan is None:
        from_labelled = labelled and (needs_labels or bool(store.labels))
        train, valid = hold_out(store, fraction=config.valid_fraction, seed=config.seed, labelled=from_labelled)
        return Corpus(store, train, store, valid)
    what = f"--valid {config.valid}"
    if isinstance(valid_plan, TokenStore):
        valid_store = valid_plan
        check_same_vocab(valid_store, store.vocab, what)
        if valid_store.fingerprint == store.fingerprint:
            raise ConfigError(f"{what} holds the same tokens as {source}: nothing would be held out")
    else:
        valid_store = numbered_store(
            valid_plan if labelled else without_labels(valid_plan),
            f"{source_name(source)}-valid",
            recipe_options(store.manifest["recipe"], tokens, custom_rules),
            beside,
            vocab=store.vocab,
            labels=store.labels if labelled else None,
            custom_rules=custom_rules,
        )
    if needs_labels:
        _check_valid_labels(valid_store, store.labels, tokens)
        check_several(valid_store, what, multi_label=tokens.multi_label)
    return Corpus(store, np.arange(store.n_docs), valid_store, np.arange(valid_store.n_docs))


def open_store(
    source: str,
    config: TokenizeConfig,
    beside: Path,
    *,
    labelled: bool,
    unlabelled: str | None = None,
    apart: Plan | TokenStore | None = None,
    vocab: Vocab | None = None,
    known: Sequence[str] = (),
    custom_rules: Rules | None = None,
) -> TokenStore:
    """The token store of a SOURCE: itself if it is one, else a new one (or the same as before) in `beside/tokens/`.

    Raises `ConfigError` where a file of it is in `unlabelled` too, or in those of either that are kept `apart` to judge by.
    """
    if is_store(Path(source)):
        if unlabelled is not None:
            raise ConfigError(
                f"{source} is a token store, which --unlabelled can't be added to: give the texts it was made from"
            )
        if ignored := [
            flag_name(f)
            for f in fields(TokenizeConfig)
            if f.name in DECIDES_IDS and getattr(config, f.name) != f.default
        ]:
            raise ConfigError(
                f"{source} is a token store, which {', '.join(ignored)} can't change: tokenize the texts again"
            )
        if known:
            log(
                f"note: {source} is a token store and keeps its own words; texts would get those of the language model too"
            )
        return TokenStore(source)
    plan = plan_source(source, config)
    plan = plan if labelled else without_labels(plan)
    if unlabelled is not None:
        more = plan_source(unlabelled, config)
        _check_apart(more, plan, f"--unlabelled {unlabelled}", f"SOURCE ({source})")
        plan = join_plans(plan, without_labels(more))
    if isinstance(apart, Plan):
        _check_apart(
            apart, plan, "--valid", f"SOURCE ({source})" + (f" or --unlabelled ({unlabelled})" if unlabelled else "")
        )
    words: dict[str, Any] = {"vocab": vocab, "known": known, "custom_rules": custom_rules}
    return numbered_store(plan, source_name(source), config, beside, **words)


def numbered_store(
    plan: Plan,
    name: str,
    config: TokenizeConfig,
    beside: Path,
    *,
    vocab: Vocab | None = None,
    labels: Sequence[str] | None = None,
    known: Sequence[str] = (),
    custom_rules: Rules | None = None,
    go_on: bool = True,
) -> TokenStore:
    """Tokenize a plan into `beside/tokens/<name>-<fingerprint>.tok`, unless it is there; `go_on` as in `tokenize_plan`."""
    check_tables(config, custom_rules)
    recipe, vocab = recipe_and_vocab(config, custom_rules, vocab)
    fingerprint = store_fingerprint(plan, config, recipe, vocab, labels, known=known)
    out = beside / "tokens" / f"{name}-{fingerprint[:8]}.tok"
    given: dict[str, Any] = {"custom_rules": custom_rules, "vocab": vocab, "labels": labels, "known": known}
    tokenize_plan(plan, out, config, **given, fingerprint=fingerprint, go_on=go_on)
    return TokenStore(out)


def recipe_options(recipe: dict[str, Any], config: TokenizeConfig, custom_rules: Rules | None = None) -> TokenizeConfig:
    """`config` with a recipe's language and rules: what goes with a store or model is cut as that was."""
    made = TokenizerRecipe.from_json(recipe, rules=custom_rules)
    return replace(
        config, lang=made.lang, rules=made.rules if isinstance(made.rules, str) else config.rules, vocab=None
    )


def _valid_plan(source: str, config: TrainConfig, tokens: TokenizeConfig) -> Plan | TokenStore | None:
    if config.valid is not None:
        if is_store(Path(config.valid)):
            return TokenStore(config.valid)
        return plan_source(config.valid, tokens, splits=("valid",) if config.valid == source else ("train",))
    if is_name(source) and not Path(source).exists() and (files := find_split(source, "valid")):
        return plan_files(files, columns_of(tokens))
    return None


def _check_apart(plan: Plan, other: Plan, what: str, than: str) -> None:
    """Raise `ConfigError` where two plans have a file in common."""
    there = {Path(path).resolve() for _, path in other.paths}
    if twice := [path for _, path in plan.paths if Path(path).resolve() in there]:
        raise ConfigError(f"{what}: {twice[0]} is part of {than} already: name other texts, or leave the option out")


def _check_valid_labels(store: TokenStore, labels: Sequence[str], config: TokenizeConfig) -> None:
    """Raise `SourceError` where the validation documents have no labels, or others than the training set's."""
    if not is_labelled(store.doc_labels).any():
        raise SourceError(
            f"the validation documents have no labels: expected a column {config.label_column!r}, or folders"
        )
    if store.labels != list(labels):
        raise SourceError(
            f"the validation documents have labels {', '.join(store.labels)}, the training set has "
            f"{', '.join(labels) or 'none'}: give the texts they were made from"
        )


def check_same_vocab(store: TokenStore, vocab: Vocab, what: str) -> None:
    """Raise `VocabMismatchError` unless a store was numbered with `vocab`."""
    if store.manifest["vocab_sha256"] != vocab.sha256:
        raise VocabMismatchError(
            f"{what} was numbered with another vocabulary ({store.manifest['vocab_size']:,} tokens, expected the one with "
            f"{len(vocab):,}): tokenize it again with --vocab"
        )


def check_labelled(store: TokenStore, what: str) -> None:
    """Raise `SourceError` where no document of a store has a label."""
    if not is_labelled(store.doc_labels).any():
        raise SourceError(f"{what} has no labels: expected a column of labels (--label-column), or a folder for each")


def check_several(store: TokenStore, what: str, *, multi_label: bool) -> None:
    """Raise `ConfigError` unless the documents of a store have one label each, or several, as is asked for."""
    if store.labels and store.multi_label != multi_label:
        found, mend = ("several labels", "add") if store.multi_label else ("one label", "tokenize it again with")
        raise ConfigError(f"{what} is a token store with {found} a document: {mend} --multi-label")


def check_same_recipe(store: TokenStore, recipe: dict[str, Any], what: str) -> None:
    """Raise `ConfigError` unless a store's texts were cut as those that a language model learned from."""
    own = store.manifest["recipe"]
    others = [f"--{name} {own[name]}, not {recipe[name]}" for name in ("lang", "rules") if own[name] != recipe[name]]
    if others or own.get("specials") != recipe.get("specials"):
        raise ConfigError(
            f"{what} was cut with {' and '.join(others) or 'other special tokens'}, as its language model's texts were: "
            "give the options that the language model was made with"
        )


def hold_out(store: TokenStore, *, fraction: float, seed: int, labelled: bool) -> tuple[IntArray, IntArray]:
    """Split documents by chance into (train, valid), numbers in the store, int64; a pure function of it and the seed.

    With `labelled` the valid ones are drawn from those that have a label, each class by its share of them, and none of a
    class of one. Raises `SourceError` where there are too few.
    """
    candidates = np.flatnonzero(is_labelled(store.doc_labels)) if labelled else np.arange(store.n_docs)
    classes = strata(store.doc_labels[candidates]) if labelled else np.zeros(len(candidates), np.int64)
    n_valid = min(MAX_HELD_OUT, max(1, round(fraction * len(candidates))))
    _, which_class, n_of_class = np.unique(classes, return_inverse=True, return_counts=True)
    several = n_of_class[which_class] > 1  # (n,)
    if several.sum() <= n_valid:
        few = "" if len(candidates) <= n_valid else f", only {several.sum()} have a label that another has too"
        raise SourceError(
            f"{len(candidates)} documents are too few to hold out {n_valid}{few}: give more, or --valid SOURCE"
        )
    valid = in_proportion(candidates[several], classes[several], n_valid, seed)
    return np.setdiff1d(np.arange(store.n_docs), valid), valid


def count_words(corpus: Corpus) -> Counter[str]:
    """How often each word of the vocabulary comes in what is trained on; special tokens, and words that never come, left out."""
    vocab: Vocab = corpus.store.vocab
    counts = np.zeros(len(vocab), np.int64)
    for ids in ids_of(corpus.store, corpus.train):
        counts += np.bincount(ids, minlength=len(vocab))
    special = set(corpus.store.manifest["recipe"].get("specials", ()))
    return Counter({vocab.itos[i]: int(counts[i]) for i in np.flatnonzero(counts) if vocab.itos[i] not in special})


def ids_of(store: TokenStore, docs: IntArray) -> Iterator[Any]:
    """The ids of some documents, a record batch at a time: one array each."""
    wanted = np.zeros(store.n_docs, bool)
    wanted[docs] = True
    begin = 0
    for segment in store.segments:
        n = len(segment.offsets) - 1
        lengths = np.diff(segment.offsets)
        ids = segment.ids[segment.offsets[0] : segment.offsets[-1]]
        yield ids[np.repeat(wanted[begin : begin + n], lengths)]
        begin += n
