"""`ulmpipe tokenize SOURCE`: text to a token store.

    resolve SOURCE -> plan -> units on workers (text/shards.py) -> vocabulary -> shards -> manifest

Also what `pretrain`, `finetune` and `evaluate` call first, so that a SOURCE means the same everywhere.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import TokenizeConfig
from ..console import log
from ..durable import MANIFEST, STAGING_PREFIX, check_output, describe_file, fsync_folder, locked, staging, write_json
from ..errors import ConfigError, OutputInUseError, SourceError, StoreError, UlmpipeError
from ..options import make_config
from ..text.cluster import digests_on_cluster
from ..text.done import done_folder, read_done
from ..text.named import HUB, PACKAGED, find_split, is_name
from ..text.pieces import FORMATS, Columns, Quarantined, ReadFunction
from ..text.remote import is_url
from ..text.rules import Rules
from ..text.shards import Job, UnitRecord, merge_counts, order_labels
from ..text.source import (
    Plan,
    digest,
    is_saved_dataset,
    join_plans,
    plan_files,
    plan_folder,
    plan_saved_dataset,
    plan_url,
    without_labels,
)
from ..text.store import FORMAT_VERSION, KIND, TokenStore, datasets_files, is_store, shard_name
from ..text.tokenizer import MAX_CHUNK, TokenizerRecipe, function_name
from ..text.vocab import VOCAB_FILE, Vocab, build_itos, left_out_words
from .dataset_source import Source, takes_datasets
from .limits import TokenizePlan, check_room, planned
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
    recipe = TokenizerRecipe(config.lang, custom_rules or config.rules)
    vocab = Vocab.load(Path(config.vocab)) if config.vocab is not None else None
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
    return local_folder(str(out)) if is_url(str(out)) else Path(out)


# ---- SOURCE ---------------------------------------------------------------------------------------------------------


def source_name(source: str) -> str:
    """A short name for a SOURCE: what default outputs are called. `corpus/` -> corpus, `a/b.csv.gz` -> b."""
    if is_name(source) and not Path(source).exists():
        return source.removeprefix("hf:").replace("/", "-").replace(":", "-")
    return Path(source).resolve().name.split(".")[0] or "corpus"


def columns_of(config: TokenizeConfig) -> Columns:
    """The columns that a config names. Raises `ConfigError` for a separator of labels that is none."""
    if config.multi_label and not config.label_separator.strip(" "):
        raise ConfigError(f"--label-separator is {config.label_separator!r}, expected a character such as | or ;")
    return Columns(config.text_column, config.label_column, config.label_separator if config.multi_label else None)


def plan_source(
    source: str,
    config: TokenizeConfig,
    *,
    splits: Sequence[str] = ("train", "unlabelled"),
    extensions: tuple[str, ...] = (".txt",),
) -> Plan:
    """Find what a SOURCE means and plan its reading; `splits` are the parts of a named data set to take.

    Raises `SourceError` that says what was looked for.
    """
    columns = columns_of(config)
    if is_url(source):
        return plan_url(source, columns, extensions=extensions)
    path = Path(source)
    if is_store(path):
        raise SourceError(f"{source} is a token store already, expected texts")
    if path.is_dir() and is_saved_dataset(path):
        return plan_saved_dataset(path, columns)
    if path.is_dir():
        return plan_folder(path, columns, extensions=extensions)
    if path.exists():
        return plan_files([path], columns)
    if is_name(source):
        parts = ("train",) if source.startswith("hf:") else splits  # an hf: name says itself which split it is
        plans = {split: plan_files(files, columns) for split in parts if (files := find_split(source, split))}
        if not plans:
            raise SourceError(f"{source} has no split {' or '.join(parts)}: give a folder or a file")
        return join_plans(*(without_labels(plan) if split == "unlabelled" else plan for split, plan in plans.items()))
    names = ", ".join([*HUB, *PACKAGED, "hf:owner/name"])
    raise SourceError(
        f"{source} does not exist, and is no known name: expected a folder, a file ({' '.join(FORMATS)}), or one of {names}"
    )


# ---- the run --------------------------------------------------------------------------------------------------------


@takes_datasets
def dry_run(
    source: Source, out: str | Path | None = None, *, extensions: tuple[str, ...] = (".txt",), **options: Any
) -> TokenizePlan:
    """What `tokenize` with the same arguments would read, write and take; nothing is written."""
    config = make_config(TokenizeConfig, options)
    plan = plan_source(str(source), config, extensions=extensions)
    folder = _folder(str(source), out)
    check_output(folder, expected=KIND, also=_left_behind(folder))
    would = planned(plan, folder, n_workers(config, len(plan.units)))
    notes = []
    if is_store(folder):
        notes.append(
            f"{folder} holds tokens already: they stay where texts and settings are the same, else they are replaced"
        )
    try:
        check_room(plan, folder, force=config.force)
    except UlmpipeError as err:
        notes.append(f"a run would be refused: {err}")
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
    _check_tables(config, custom_rules)
    check_output(out, expected=KIND, also=_left_behind(out))
    if not (was_store := is_store(out)):
        check_room(plan, out, force=config.force)  # before all files are read for the fingerprint
    recipe = TokenizerRecipe(config.lang, custom_rules or config.rules)
    if vocab is None and config.vocab is not None:
        vocab = Vocab.load(Path(config.vocab))
    n_specials = len(recipe.resolved_rules.specials)
    if vocab is None and config.max_vocab <= n_specials:
        raise ConfigError(f"--max-vocab is {config.max_vocab}, expected more than the {n_specials} special tokens")
    fingerprint = fingerprint or store_fingerprint(plan, config, recipe, vocab, labels, read=read, known=known)
    key, same_again = done_key(fingerprint, config), read is None and custom_rules is None
    if same_again and _holds(out, fingerprint, force=config.force):
        log(f"{out} holds these tokens already")
        _clear_away(out, done_folder(out, key))
        manifest = TokenStore(out).manifest
        _tell_quarantined([Quarantined(**each) for each in manifest["quarantined"]])
        return _result(manifest, [], seconds=0.0, out=str(out))
    if was_store:
        log(f"{out} holds tokens of other texts or settings: they are replaced when this run is done")
        check_room(plan, out, force=config.force)
    if vocab is not None and (missing := set(recipe.resolved_rules.specials) - set(vocab.itos)):
        raise ConfigError(
            f"the vocabulary lacks special tokens of --rules {config.rules}: {', '.join(sorted(missing))}"
        )
    for note in plan.notes:
        log(note)
    begin_s, workers = time.monotonic(), n_workers(config, len(plan.units))
    resumable = same_again and go_on
    with locked(out), staging(out) as stage, going_on(out, key, resumable=resumable) as done:
        if same_again and not was_store and _holds(out, fingerprint, force=False):  # another run has just made it
            return _result(TokenStore(out).manifest, [], seconds=0.0, out=str(out))
        job = Job(str(stage), recipe, columns_of(config), read, engine=config.engine, verify=config.verify, tables=config.tables)  # fmt: skip
        before = read_done(done) if resumable else {}
        records = tokenize_units(plan, before, job, done, workers=workers, timeout_s=config.unit_timeout, scheduler=config.scheduler)  # fmt: skip
        if not any(record.n_docs for record in records):
            reasons = "; ".join(f"{q.source} {q.reason}" for record in records for q in record.quarantined[:1])
            raise SourceError(f"no documents found: {reasons or 'every file is empty'}")
        left_out: list[tuple[str, int]] = []
        if vocab is None:
            counts = merge_counts(done, len(records), min_freq=config.min_freq)
            specials = recipe.resolved_rules.specials
            limits = {"max_vocab": config.max_vocab, "min_freq": config.min_freq}
            vocab = Vocab(build_itos(counts, **limits, specials=specials, known=known))
            left_out = left_out_words(counts, vocab.itos, N_LEFT_OUT)
        vocab.save(stage / VOCAB_FILE)
        label_order = _label_order(records, labels)
        shards = number_units(done, stage, len(records), label_order, job.columns, workers=workers)
        manifest = _make_manifest(
            stage, records, shards, vocab, label_order, recipe, fingerprint, multi_label=config.multi_label
        )
        if left_out:
            manifest["left_out_words"] = left_out
        if config.tables is not None:
            _remember(done, recipe, Path(config.tables))
        _publish(stage, out, manifest)
    _report(records)
    fresh = [record for record in records if record.index not in before]
    return _result(TokenStore(out).manifest, fresh, seconds=time.monotonic() - begin_s, out=str(out))


def _check_tables(config: TokenizeConfig, custom_rules: Rules | None) -> None:
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


def _left_behind(out: Path) -> set[str]:
    """What a run leaves in `out` that was killed while it published."""
    return {VOCAB_FILE, "dataset_info.json", "state.json"} | {path.name for path in out.glob("shard-*.arrow")}


def _clear_away(out: Path, done: Path) -> None:
    """Remove what a run left in a finished store that was killed at its very end, unless another run works there."""
    if done.exists() or any(out.glob(f"{STAGING_PREFIX}*")):
        with suppress(OutputInUseError), locked(out):  # the lock clears staging folders away
            shutil.rmtree(done, ignore_errors=True)


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
    if n_left_out := manifest.get("n_left_out", 0):
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
        "files": digest(plan, digests_on_cluster(plan, config.scheduler) if config.scheduler else None),
        "units": [[(p.name, p.begin, p.end, p.label, p.has_label) for p in unit] for unit in plan.units],
        "recipe": recipe.to_json(),
        "read": read and function_name(read),
        "columns": [config.text_column, config.label_column, *([config.label_separator] if config.multi_label else [])],
        "vocab": vocab.sha256 if vocab else [config.max_vocab, config.min_freq, *known],
        "labels": list(labels) if labels is not None else None,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _make_manifest(
    stage: Path,
    records: list[UnitRecord],
    shards: list[dict[str, Any]],
    vocab: Vocab,
    labels: list[str],
    recipe: TokenizerRecipe,
    fingerprint: str,
    *,
    multi_label: bool,
) -> dict[str, Any]:
    """Write the small files beside the shards and describe all of them."""
    names = [shard_name(shard["index"]) for shard in shards]
    for name, value in datasets_files(names, len(vocab), labels, fingerprint, multi_label=multi_label).items():
        write_json(stage / name, value)
    keep = ("rows", "tokens", "bytes", "sha256")
    files = {name: {key: shard[key] for key in keep} for name, shard in zip(names, shards, strict=True)}
    files |= {name: describe_file(stage / name) for name in (VOCAB_FILE, "dataset_info.json", "state.json")}
    return {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "recipe": recipe.to_json(),
        "labels": labels,
        **({"multi_label": True} if multi_label and labels else {}),
        "n_docs": sum(record.n_docs for record in records),
        "n_tokens": sum(record.n_tokens for record in records),
        "n_unknown": sum(shard["n_unknown"] for shard in shards),
        "n_bytes": sum(record.n_bytes for record in records),
        "n_chunks": sum(record.n_chunks for record in records),
        "n_fallback": sum(record.n_fallback for record in records),
        "vocab_size": len(vocab),
        "vocab_sha256": vocab.sha256,
        "files": files,
        **({"changed": True} if any(record.changed for record in records) else {}),
        **({"n_left_out": n} if (n := sum(record.n_left_out for record in records)) else {}),
        "cut": [source for record in records for source in record.cut],
        "quarantined": [q._asdict() for record in records for q in record.quarantined],
    }


def _remember(done: Path, recipe: TokenizerRecipe, tables: Path) -> None:
    """Add what the units taught the engines to the file of `--tables`."""
    parts = sorted(done.glob("unit-*.tables.arrow"))
    if parts:
        from ..text.warm import merge

        log(f"{tables} remembers {merge(parts, recipe, tables):,} chunks")


def _publish(stage: Path, out: Path, manifest: dict[str, Any]) -> None:
    """Move finished files from the staging folder into place, the manifest last; an older store's files go first."""
    if (out / MANIFEST).exists():
        (out / MANIFEST).unlink()  # from here on the old store is no store any more
        fsync_folder(out)
    for old in out.glob("shard-*.arrow"):
        old.unlink()
    for name in manifest["files"]:
        (stage / name).replace(out / name)
    fsync_folder(out)
    write_json(out / MANIFEST, manifest)


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
