"""The end of `tokenize`: the shards in the staging folder become a token store.

    records of the units, shards, vocabulary -> the small files beside them -> manifest -> all moved into place, the manifest last

After tasks/units.py has made them. What a run leaves that is killed here is known by name, and cleared away by the next.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..durable import MANIFEST, STAGING_PREFIX, describe_file, fsync_folder, locked, write_json
from ..errors import OutputInUseError
from ..text.shards import UnitRecord
from ..text.store import FORMAT_VERSION, KIND, SMALL_FILES, datasets_files, shard_name
from ..text.tokenizer import TokenizerRecipe
from ..text.vocab import Vocab


def make_manifest(
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
    files |= {name: describe_file(stage / name) for name in SMALL_FILES}
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


def publish(stage: Path, out: Path, manifest: dict[str, Any]) -> None:
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


def left_behind(out: Path) -> set[str]:
    """What a run leaves in `out` that was killed while it published."""
    return {*SMALL_FILES, *(path.name for path in out.glob("shard-*.arrow"))}


def clear_away(out: Path, done: Path) -> None:
    """Remove what a run left in a finished store that was killed at its very end, unless another run works there."""
    if done.exists() or any(out.glob(f"{STAGING_PREFIX}*")):
        with suppress(OutputInUseError), locked(out):  # the lock clears staging folders away
            shutil.rmtree(done, ignore_errors=True)
