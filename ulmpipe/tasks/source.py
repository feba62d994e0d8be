"""What a SOURCE means, in every command: a folder, a file, a URL, what `datasets` has saved, or a name -> a `Plan` of its reading.

The front of text/source.py, which plans each of these. A token store is no texts: who takes one looks for it before.
"""

from collections.abc import Sequence
from pathlib import Path

from ..config import TokenizeConfig
from ..errors import ConfigError, SourceError
from ..text.named import HUB, PACKAGED, find_split, is_name
from ..text.pieces import FORMATS, Columns
from ..text.remote import is_url, without_query
from ..text.source import (
    Plan,
    is_saved_dataset,
    join_plans,
    plan_files,
    plan_folder,
    plan_saved_dataset,
    plan_url,
    without_labels,
)
from ..text.store import is_store


def source_name(source: str) -> str:
    """A short name for a SOURCE: what default outputs are called. `tickets.2024/` -> tickets.2024, `a/b.csv.gz` -> b."""
    if is_name(source) and not Path(source).exists():
        return source.removeprefix("hf:").replace("/", "-").replace(":", "-")
    path = Path(without_query(source)).resolve()
    return (path.name if path.is_dir() else path.name.split(".")[0]) or "corpus"


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
