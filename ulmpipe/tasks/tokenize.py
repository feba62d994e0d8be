"""`ulmpipe tokenize SOURCE`: text to a token store.

    resolve SOURCE -> plan -> units on workers (text/shards.py) -> vocabulary -> shards -> manifest

Also what `pretrain`, `finetune` and `evaluate` call first, so that a SOURCE means the same everywhere.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import TokenizeConfig
from ..console import log, progress
from ..durable import MANIFEST, check_output, describe_file, fsync_folder, locked, staging, write_json
from ..errors import ConfigError, SourceError, StoreError
from ..options import make_config
from ..text.named import HUB, PACKAGED, find_split, is_name
from ..text.pieces import FORMATS, Columns, Quarantined, ReadFunction
from ..text.rules import Rules
from ..text.shards import Job, UnitRecord, merge_counts, number_unit, order_labels, run_units, tokenize_unit
from ..text.source import Plan, digest, join_plans, plan_files, plan_folder, without_labels
from ..text.store import FORMAT_VERSION, KIND, TokenStore, datasets_files, is_store, shard_name
from ..text.tokenizer import MAX_CHUNK, TokenizerRecipe, function_name
from ..text.vocab import VOCAB_FILE, Vocab, build_itos

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


def tokenize(
    source: str | Path,
    out: str | Path | None = None,
    *,
    read: ReadFunction | None = None,
    extensions: tuple[str, ...] = (".txt",),
    custom_rules: Rules | None = None,
    **options: Any,
) -> TokenizeResult:
    """Tokenize a SOURCE into a token store at `out` (default: its name and `.tok`).

    `options` are the fields of `TokenizeConfig`. `read(path) -> str` reads files of another kind, found by `extensions`,
    in a folder; `custom_rules` stand in for a preset. What was tokenized before in the same way is left as it is.
    """
    config = make_config(TokenizeConfig, options)
    plan = plan_source(str(source), config, extensions=extensions)
    folder = Path(out) if out is not None else Path(f"{source_name(str(source))}.tok")
    return tokenize_plan(plan, folder, config, read=read, custom_rules=custom_rules)


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
    path = Path(source)
    if is_store(path):
        raise SourceError(f"{source} is a token store already, expected texts")
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
) -> TokenizeResult:
    """Tokenize a plan into `out`. A `vocab` and `labels` given are used as they are (a validation set's, a test set's).

    A vocabulary that is made takes the words `known` after those of the texts (`build_itos`). `fingerprint` saves reading all files once more, where the caller has it.
    """
    if config.tables is not None and custom_rules is not None:
        raise ConfigError(
            "--tables can't be used with rules of your own: nothing in the file would tell that they changed"
        )
    if config.tables is not None and not Path(config.tables).absolute().parent.is_dir():
        raise ConfigError(f"--tables {config.tables}: its folder does not exist: make it first")
    recipe = TokenizerRecipe(config.lang, custom_rules or config.rules)
    if vocab is None and config.vocab is not None:
        vocab = Vocab.load(Path(config.vocab))
    fingerprint = fingerprint or store_fingerprint(plan, config, recipe, vocab, labels, read=read, known=known)
    check_output(out, expected=KIND, also=_left_behind(out))
    if read is None and custom_rules is None and _holds(out, fingerprint):
        log(f"{out} holds these tokens already")
        return _result(TokenStore(out), seconds=0.0, reused=True)
    if is_store(out):
        log(f"{out} holds tokens of other texts or settings: they are replaced")
    if vocab is not None and (missing := set(recipe.resolved_rules.specials) - set(vocab.itos)):
        raise ConfigError(
            f"the vocabulary lacks special tokens of --rules {config.rules}: {', '.join(sorted(missing))}"
        )
    for note in plan.notes:
        log(note)
    begin_s = time.monotonic()
    with locked(out), staging(out) as stage:
        records = _tokenize_units(
            plan,
            Job(
                str(stage),
                recipe,
                columns_of(config),
                read,
                engine=config.engine,
                verify=config.verify,
                tables=config.tables,
            ),
            config,
        )
        if not any(record.n_docs for record in records):
            reasons = "; ".join(f"{q.source} {q.reason}" for record in records for q in record.quarantined[:1])
            raise SourceError(f"no documents found: {reasons or 'every file is empty'}")
        if vocab is None:
            counts = merge_counts(stage, len(records), min_freq=config.min_freq)
            specials = recipe.resolved_rules.specials
            limits = {"max_vocab": config.max_vocab, "min_freq": config.min_freq}
            vocab = Vocab(build_itos(counts, **limits, specials=specials, known=known))
        vocab.save(stage / VOCAB_FILE)
        found = {label for record in records for label in record.labels}
        label_order = order_labels(found) if labels is None else list(labels)
        if unknown := found - set(label_order):
            known = ", ".join(label_order) or "none"
            raise SourceError(
                f"found labels {', '.join(sorted(unknown)[:5])}, which the training set has not: it has {known}. Give those, or leave these documents out"
            )
        shards = _number_units(stage, len(records), label_order, config)
        manifest = _make_manifest(
            stage, records, shards, vocab, label_order, recipe, fingerprint, multi_label=config.multi_label
        )
        if config.tables is not None:
            _remember(stage, recipe, Path(config.tables))
        _publish(stage, out, manifest)
    _report(records)
    return _result(TokenStore(out), seconds=time.monotonic() - begin_s, reused=False)


def _left_behind(out: Path) -> set[str]:
    """What a run leaves in `out` that was killed while it published."""
    return {VOCAB_FILE, "dataset_info.json", "state.json"} | {path.name for path in out.glob("shard-*.arrow")}


def _holds(out: Path, fingerprint: str) -> bool:
    """Whether `out` is a whole store with this fingerprint; a damaged one is to be made again, not to stand in the way."""
    try:
        return is_store(out) and TokenStore(out).fingerprint == fingerprint
    except StoreError as err:
        log(f"{err}: it is made again")
        return False


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
        "files": digest(plan),
        "units": [[(p.name, p.begin, p.end, p.label, p.has_label) for p in unit] for unit in plan.units],
        "recipe": recipe.to_json(),
        "read": read and function_name(read),
        "columns": [config.text_column, config.label_column, *([config.label_separator] if config.multi_label else [])],
        "vocab": vocab.sha256 if vocab else [config.max_vocab, config.min_freq, *known],
        "labels": list(labels) if labels is not None else None,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def n_workers(config: TokenizeConfig, n_units: int) -> int:
    """Processes to use: `--workers`, or as many as processors, and never more than there are units."""
    import joblib

    return max(1, min(config.workers or joblib.cpu_count(), n_units))


def _tokenize_units(plan: Plan, job: Job, config: TokenizeConfig) -> list[UnitRecord]:
    """Pass 1, with progress; the records in the order of the units."""
    records: list[UnitRecord | None] = [None] * len(plan.units)
    calls = ((index, unit, job) for index, unit in enumerate(plan.units))
    begin_s, done_bytes, n_docs, n_bytes = time.monotonic(), 0, 0, 0
    with progress("tokenize", plan.n_bytes) as bar:
        for record in run_units(tokenize_unit, calls, workers=n_workers(config, len(plan.units))):
            records[record.index] = record
            done_bytes += sum(piece.n_bytes for piece in plan.units[record.index])
            n_docs, n_bytes = n_docs + record.n_docs, n_bytes + record.n_bytes
            mb_per_s = n_bytes / 1e6 / (time.monotonic() - begin_s)
            bar.update(done_bytes, note=f"{n_docs:,} docs  {mb_per_s:.2f} MB/s")
    return [record for record in records if record is not None]


def _number_units(stage: Path, n_units: int, labels: list[str], config: TokenizeConfig) -> list[dict[str, Any]]:
    """Pass 2; what the manifest says of each shard, in order."""
    calls = ((index, str(stage), str(stage / VOCAB_FILE), labels, columns_of(config)) for index in range(n_units))
    shards = run_units(number_unit, calls, workers=n_workers(config, n_units))
    return sorted(shards, key=lambda shard: shard["index"])


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
        "cut": [source for record in records for source in record.cut],
        "quarantined": [q._asdict() for record in records for q in record.quarantined],
    }


def _remember(stage: Path, recipe: TokenizerRecipe, tables: Path) -> None:
    """Add what the units taught the engines to the file of `--tables`."""
    parts = sorted(stage.glob("unit-*.tables.arrow"))
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
    quarantined: list[Quarantined] = [q for record in records for q in record.quarantined]
    for q in quarantined[:MAX_SHOWN]:
        log(f"quarantined {q.source}: {q.reason} (at {q.offset})")
    if len(quarantined) > MAX_SHOWN:
        log(f"quarantined {len(quarantined) - MAX_SHOWN} more; {MANIFEST} lists them all")


def _result(store: TokenStore, *, seconds: float, reused: bool) -> TokenizeResult:
    manifest = store.manifest
    per_s = 1 / seconds if seconds else 0.0
    return TokenizeResult(
        n_docs=store.n_docs,
        n_tokens=store.n_tokens,
        n_bytes=manifest["n_bytes"],
        vocab_size=manifest["vocab_size"],
        seconds=round(seconds, 3),
        tokens_per_s=round(store.n_tokens * per_s, 1),
        mb_per_s=round(manifest["n_bytes"] / 1e6 * per_s, 3),
        fallback_fraction=round(manifest["n_fallback"] / max(manifest["n_chunks"], 1), 6),
        unknown_fraction=round(manifest["n_unknown"] / max(store.n_tokens, 1), 6),
        n_quarantined=len(manifest["quarantined"]),
        labels=store.labels,
        reused=reused,
        out=str(store.folder),
    )
