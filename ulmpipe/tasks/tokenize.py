"""`ulmpipe tokenize SOURCE`: text to a token store.

    resolve SOURCE -> plan -> units on workers (text/shards.py) -> vocabulary -> shards -> manifest

Also what `pretrain`, `finetune` and `evaluate` call first, so that a SOURCE means the same everywhere.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import TokenizeConfig
from ..console import log, progress
from ..durable import MANIFEST, check_output, locked, staging
from ..errors import ConfigError, SourceError, StoreError, UlmpipeError
from ..options import make_config
from ..text.cluster import digests_on_cluster
from ..text.done import done_folder, read_done
from ..text.pieces import Quarantined, ReadFunction
from ..text.remote import is_url, is_web
from ..text.rules import Rules
from ..text.shards import Job, UnitRecord, merge_counts, order_labels
from ..text.source import (
    Plan,
    digest,
    file_digest,
)
from ..text.store import FORMAT_VERSION, KIND, TokenStore, is_store
from ..text.tokenizer import MAX_CHUNK, TokenizerRecipe, function_name
from ..text.vocab import VOCAB_FILE, Vocab, build_itos, left_out_words
from .dataset_source import Source, takes_datasets
from .limits import TokenizePlan, check_room, planned
from .publish import clear_away, left_behind, make_manifest, publish
from .source import columns_of, plan_source, source_name
from .units import done_key, going_on, n_workers, number_units, tokenize_units
from .upload import local_folder, manifest_there, upload

N_LEFT_OUT = 50  # words without a place in the vocabulary that the manifest names
MAX_SHOWN = 5  # quarantined inputs that are named on the console; all of them are in the manifest


@dataclass(frozen=True)
class TokenizeResult:
    """What was done; the fields of `tokenize --json`."""

    n_docs: int
    n_tokens: int
    n_bytes: int
    vocab_size: int
    seconds: float
    tokens_per_s: float
    mb_per_s: float
    fallback_fraction: float  # share of the chunks of text that the fast engine left to the reference
    unknown_fraction: float  # share of the tokens that have no id of their own
    n_quarantined: int
    labels: list[str]
    reused: bool
    out: str


@takes_datasets
def tokenize(
    source: Source,
    out: str | Path | None = None,
    *,
    read: ReadFunction | None = None,
    extensions: tuple[str, ...] = (".txt",),
    custom_rules: Rules | None = None,
    **options: Any,
) -> TokenizeResult:
    """Tokenize a SOURCE, which may be a `datasets.Dataset`, into a token store at `out` (default: its name and `.tok`).

    `options` are the fields of `TokenizeConfig`. `read(path) -> str` reads files of another kind, found by `extensions`,
    in a folder; `custom_rules` stand in for a preset. What was tokenized before in the same way is left as it is.
    Both SOURCE and `out` may be URLs; a store for a URL is made in the working directory and copied (upload.py).
    """
    config = make_config(TokenizeConfig, options)
    if read is not None and is_url(str(source)):
        raise ConfigError(f"read= takes paths of this machine, and {source} is a URL: copy it here first")
    plan = plan_source(str(source), config, extensions=extensions)
    folder = _folder(str(source), out)
    given: dict[str, Any] = {"read": read, "custom_rules": custom_rules}
    if out is None or not is_url(str(out)):
        return tokenize_plan(plan, folder, config, **given)
    older = manifest_there(str(out))
    look_first(plan, folder, config, custom_rules=custom_rules)
    recipe, vocab = recipe_and_vocab(config, custom_rules, None)
    fingerprint = store_fingerprint(plan, config, recipe, vocab, None, read=read)
    if older and read is None and custom_rules is None and _is_final(older, fingerprint, force=config.force):
        log(f"{out} holds these tokens already")
        return _result(older, [], seconds=0.0, out=str(out))
    result = tokenize_plan(plan, folder, config, **given, vocab=vocab, fingerprint=fingerprint)
    upload(folder, str(out))
    return replace(result, out=str(out), reused=False)


def _folder(source: str, out: str | Path | None) -> Path:
    """Where a store is made."""
    if out is None:
        return Path(f"{source_name(source)}.tok")
    if is_web(str(out)):
        raise ConfigError(
            f"-o {out} is on the web, where files are read and not written: expected a folder, s3://, gs:// or the like"
        )
    return local_folder(str(out)) if is_url(str(out)) else Path(out)


@takes_datasets
def dry_run(
    source: Source, out: str | Path | None = None, *, extensions: tuple[str, ...] = (".txt",), **options: Any
) -> TokenizePlan:
    """What `tokenize` with the same arguments would read, write and take; nothing is written."""
    config = make_config(TokenizeConfig, options)
    plan = plan_source(str(source), config, extensions=extensions)
    folder = _folder(str(source), out)
    is_there = is_store(folder) if out is None or not is_url(str(out)) else manifest_there(str(out)) is not None
    check_output(folder, expected=KIND, also=left_behind(folder))
    would = planned(plan, folder, n_workers(config, len(plan.units)))
    notes = []
    if is_there:
        notes.append(f"{out or folder} holds tokens already: they stay where texts and settings are the same, else they are replaced")  # fmt: skip
    try:
        check_tables(config, None)
        recipe_and_vocab(config, None, None)
        check_room(plan, folder, force=config.force)
    except UlmpipeError as err:
        notes.append(f"a run would be refused: {err}")
    if out is not None and is_url(str(out)):
        would = replace(would, out=str(out))
        notes.append(f"the store is made in {folder}, which stays, and copied to {out}")
    return replace(would, notes=[*would.notes, *notes])


def tokenize_plan(
    plan: Plan,
    out: Path,
    config: TokenizeConfig,
    *,
    read: ReadFunction | None = None,
    custom_rules: Rules | None = None,
    vocab: Vocab | None = None,
    labels: Sequence[str] | None = None,
    known: Sequence[str] = (),
    fingerprint: str | None = None,
    go_on: bool = True,
) -> TokenizeResult:
    """Tokenize a plan into `out`. A `vocab` and `labels` given are used as they are (a validation set's, a test set's).

    A vocabulary that is made takes the words `known` after those of the texts (`build_itos`). `fingerprint` saves reading all
    files once more, where the caller has it. Without `go_on` nothing is kept of a run that is interrupted.
    """
    look_first(plan, out, config, custom_rules=custom_rules)
    was_store = is_store(out)
    recipe, vocab = recipe_and_vocab(config, custom_rules, vocab)
    fingerprint = fingerprint or store_fingerprint(plan, config, recipe, vocab, labels, read=read, known=known)
    key, same_again = done_key(fingerprint, config), read is None and custom_rules is None
    if same_again and _holds(out, fingerprint, force=config.force):
        log(f"{out} holds these tokens already")
        clear_away(out, done_folder(out, key))
        manifest = TokenStore(out).manifest
        _tell_quarantined([Quarantined(**each) for each in manifest["quarantined"]])
        return _result(manifest, [], seconds=0.0, out=str(out))
    if was_store:
        log(f"{out} holds tokens of other texts or settings: they are replaced when this run is done")
        check_room(plan, out, force=config.force)
    for note in plan.notes:
        log(note)
    begin_s, resumable = time.monotonic(), same_again and go_on
    with locked(out), staging(out) as stage, going_on(out, key, resumable=resumable) as done:
        if same_again and not was_store and _holds(out, fingerprint, force=False):  # another run has just made it
            return _result(TokenStore(out).manifest, [], seconds=0.0, out=str(out))
        before = read_done(done) if resumable else {}
        job = Job(str(stage), recipe, columns_of(config), read, engine=config.engine, verify=config.verify, tables=config.tables)  # fmt: skip
        records = _make_store(plan, out, config, job, done, before, vocab=vocab, labels=labels, known=known, fingerprint=fingerprint)  # fmt: skip
    _report(records)
    fresh = [record for record in records if record.index not in before]
    return _result(TokenStore(out).manifest, fresh, seconds=time.monotonic() - begin_s, out=str(out))


def look_first(plan: Plan, out: Path, config: TokenizeConfig, *, custom_rules: Rules | None = None) -> None:
    """Refuse what can't work, before all files are read for the fingerprint."""
    check_tables(config, custom_rules)
    check_output(out, expected=KIND, also=left_behind(out))
    if not is_store(out):  # one that is there may be the one that is asked for
        check_room(plan, out, force=config.force)


def recipe_and_vocab(
    config: TokenizeConfig, custom_rules: Rules | None, vocab: Vocab | None
) -> tuple[TokenizerRecipe, Vocab | None]:
    """How texts are cut, and the vocabulary to number them with: the one given, that of `--vocab`, or None, to make one.

    Raises `ConfigError` where the two don't go together.
    """
    recipe = TokenizerRecipe(config.lang, custom_rules or config.rules)
    specials = recipe.resolved_rules.specials
    if vocab is None and config.vocab is not None:
        vocab = Vocab.load(Path(config.vocab))
    if vocab is None and config.max_vocab <= len(specials):
        raise ConfigError(f"--max-vocab is {config.max_vocab}, expected more than the {len(specials)} special tokens")
    if vocab is not None and (missing := set(specials) - set(vocab.itos)):
        raise ConfigError(
            f"the vocabulary lacks special tokens of --rules {config.rules}: {', '.join(sorted(missing))}"
        )
    return recipe, vocab


def _make_store(
    plan: Plan,
    out: Path,
    config: TokenizeConfig,
    job: Job,
    done: Path,
    before: Mapping[int, UnitRecord],
    *,
    vocab: Vocab | None,
    labels: Sequence[str] | None,
    known: Sequence[str],
    fingerprint: str,
) -> list[UnitRecord]:
    """Both passes, with the vocabulary between them, and the store in its place; the lock of `out` is held.

    The units in `before` are done, and in the folder `done`. Returns the records of all.
    """
    stage, workers = Path(job.stage), n_workers(config, len(plan.units))
    records = tokenize_units(plan, before, job, done, workers=workers, timeout_s=config.unit_timeout, scheduler=config.scheduler)  # fmt: skip
    if not any(record.n_docs for record in records):
        reasons = "; ".join(f"{q.source} {q.reason}" for record in records for q in record.quarantined[:1])
        raise SourceError(f"no documents found: {reasons or 'every file is empty'}")
    left_out: list[tuple[str, int]] = []
    if vocab is None:
        counts = merge_counts(done, len(records), min_freq=config.min_freq)
        specials = job.recipe.resolved_rules.specials
        vocab = Vocab(build_itos(counts, max_vocab=config.max_vocab, min_freq=config.min_freq, specials=specials, known=known))  # fmt: skip
        left_out = left_out_words(counts, vocab.itos, N_LEFT_OUT)
    vocab.save(stage / VOCAB_FILE)
    label_order = _label_order(records, labels)
    shards = number_units(done, stage, len(records), label_order, job.columns, workers=workers)
    manifest = make_manifest(stage, records, shards, vocab, label_order, job.recipe, fingerprint, multi_label=config.multi_label)  # fmt: skip
    if left_out:
        manifest["left_out_words"] = left_out
    if config.tables is not None:
        _remember(done, job.recipe, Path(config.tables))
    publish(stage, out, manifest)
    return records


def check_tables(config: TokenizeConfig, custom_rules: Rules | None) -> None:
    """Raise `ConfigError` for a file of `--tables` that can't be written, or with rules that it knows nothing of."""
    if config.tables is not None and custom_rules is not None:
        raise ConfigError(
            "--tables can't be used with rules of your own: nothing in the file would tell that they changed"
        )
    if config.tables is not None and not Path(config.tables).absolute().parent.is_dir():
        raise ConfigError(f"--tables {config.tables}: its folder does not exist: make it first")


def _label_order(records: Sequence[UnitRecord], labels: Sequence[str] | None) -> list[str]:
    """The labels that were found in their order, or those given. Raises `SourceError` where others were found."""
    found = {label for record in records for label in record.labels}
    if labels is None:
        return order_labels(found)
    if unknown := sorted(found - set(labels)):
        raise SourceError(
            f"found labels {', '.join(unknown[:5])}, which the training set has not: it has {', '.join(labels) or 'none'}. Give those, or leave these documents out"
        )
    return list(labels)


def _holds(out: Path, fingerprint: str, *, force: bool) -> bool:
    """Whether `out` is a whole store with this fingerprint.

    A damaged one, or one of which a file changed as it was read, is to be made again; with `force` also one without
    documents that killed or stopped their worker, which else is told of.
    """
    try:
        if not is_store(out) or (manifest := TokenStore(out).manifest)["fingerprint"] != fingerprint:
            return False
    except StoreError as err:
        log(f"{err}: it is made again")
        return False
    if not force and (n_left_out := manifest.get("n_left_out", 0)):
        log(f"{out} was made without {n_left_out:,} documents that killed or stopped their worker, {MANIFEST} names them: --force makes it again")  # fmt: skip
    return _is_final(manifest, fingerprint, force=force)


def _is_final(manifest: dict[str, Any], fingerprint: str, *, force: bool) -> bool:
    """Whether a whole store needs not be made again for this fingerprint."""
    if manifest["fingerprint"] != fingerprint or manifest.get("changed", False):
        return False
    return not (force and manifest.get("n_left_out", 0))


def store_fingerprint(
    plan: Plan,
    config: TokenizeConfig,
    recipe: TokenizerRecipe,
    vocab: Vocab | None,
    labels: Sequence[str] | None,
    *,
    read: ReadFunction | None = None,
    known: Sequence[str] = (),
) -> str:
    """Hex sha256 over everything that decides a store's bytes: the files' contents, the recipe, the options."""
    decides = {
        "format": FORMAT_VERSION,
        "files": digest(plan, digests_on_cluster(plan, config.scheduler) if config.scheduler else _digests(plan)),
        "units": [[(p.name, p.begin, p.end, p.label, p.has_label) for p in unit] for unit in plan.units],
        "recipe": recipe.to_json(),
        "read": read and function_name(read),
        "columns": [config.text_column, config.label_column, *([config.label_separator] if config.multi_label else [])],
        "vocab": vocab.sha256 if vocab else [config.max_vocab, config.min_freq, *known],
        "labels": list(labels) if labels is not None else None,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _digests(plan: Plan) -> Iterator[bytes]:
    """`file_digest` of all files of a plan, with progress."""
    n_read = 0
    with progress("looking at the files", plan.n_bytes) as bar:

        def tell(n_bytes: int) -> None:
            nonlocal n_read
            n_read += n_bytes
            bar.update(min(n_read, plan.n_bytes))  # which of a table is an estimate

        for _, path in plan.paths:
            yield file_digest(path, tell)


def _remember(done: Path, recipe: TokenizerRecipe, tables: Path) -> None:
    """Add what the units taught the engines to the file of `--tables`."""
    parts = sorted(done.glob("unit-*.tables.arrow"))
    if parts:
        from ..text.warm import merge

        log(f"{tables} remembers {merge(parts, recipe, tables):,} chunks")


def _report(records: list[UnitRecord]) -> None:
    """Say what is worth knowing of the run."""
    for note in sorted({note for record in records for note in record.notes}):
        log(note)
    if cut := [source for record in records for source in record.cut]:
        shown = ", ".join(cut[:MAX_SHOWN]) + (" ..." if len(cut) > MAX_SHOWN else "")
        log(f"cut runs of more than {MAX_CHUNK:,} characters without a space in {len(cut)} documents: {shown}")
    _tell_quarantined([q for record in records for q in record.quarantined])


def _tell_quarantined(quarantined: Sequence[Quarantined]) -> None:
    for q in quarantined[:MAX_SHOWN]:
        log(f"quarantined {q.source}: {q.reason} (at {q.offset})")
    if len(quarantined) > MAX_SHOWN:
        log(f"quarantined {len(quarantined) - MAX_SHOWN} more; {MANIFEST} lists them all")


def _result(manifest: dict[str, Any], fresh: Sequence[UnitRecord], *, seconds: float, out: str) -> TokenizeResult:
    """What a store holds, and how fast the `fresh` units of this run were; of none the store was there already."""
    per_s = 1 / seconds if seconds else 0.0
    return TokenizeResult(
        n_docs=manifest["n_docs"],
        n_tokens=manifest["n_tokens"],
        n_bytes=manifest["n_bytes"],
        vocab_size=manifest["vocab_size"],
        seconds=round(seconds, 3),
        tokens_per_s=round(sum(record.n_tokens for record in fresh) * per_s, 1),
        mb_per_s=round(sum(record.n_bytes for record in fresh) / 1e6 * per_s, 3),
        fallback_fraction=round(manifest["n_fallback"] / max(manifest["n_chunks"], 1), 6),
        unknown_fraction=round(manifest["n_unknown"] / max(manifest["n_tokens"], 1), 6),
        n_quarantined=len(manifest["quarantined"]),
        labels=manifest["labels"],
        reused=seconds == 0,
        out=out,
    )
