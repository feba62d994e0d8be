"""Names of sets of pictures: `imagenette`, `imagewoof`, `pets`, `cifar10`, `digits`. Knows where they are; source.py reads them.

A name becomes a folder under $ULMPIPE_DATA, or parquet files from the Hugging Face hub through `datasets`; the digits
come with scikit-learn.
"""

import io
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ulmpipe.errors import SourceError

DIGITS = "digits"

# What a name is called on the hub: repository, config, and its splits by our names.
HUB = {
    "imagenette": ("frgfm/imagenette", "160px", {"train": "train", "valid": "validation"}),
    "imagewoof": ("frgfm/imagewoof", "160px", {"train": "train", "valid": "validation"}),
    "pets": ("timm/oxford-iiit-pet", "default", {"train": "train", "valid": "test"}),
    "cifar10": ("uoft-cs/cifar10", "plain_text", {"train": "train", "valid": "test"}),
}
NAMES = (*HUB, DIGITS)


def data_folder(name: str) -> Path | None:
    """Return `$ULMPIPE_DATA/<name>`, or `<name>160`, if it is there and the name can't lead out of it."""
    root = os.environ.get("ULMPIPE_DATA")
    if not root or "/" in name or name.startswith("."):
        return None
    return next((path for end in ("", "160") if (path := Path(root, name + end)).is_dir()), None)


@cache
def digits() -> tuple[list[bytes], NDArray[np.int64]]:
    """Return scikit-learn's handwritten digits as PNG of 8 x 8 pixels, and which they are. Raises `SourceError` without it."""
    from PIL import Image

    try:
        from sklearn.datasets import load_digits
    except ImportError as err:
        raise SourceError(
            "digits come with scikit-learn, which is not installed: pip install 'ulmpipe[vision]'"
        ) from err
    found: Any = load_digits()
    encoded = []
    for values in found.images:  # 0 to 16
        file = io.BytesIO()
        Image.fromarray((values * (255 / 16)).round().astype(np.uint8)).save(file, "PNG")
        encoded.append(file.getvalue())
    return encoded, found.target.astype(np.int64)


def from_hub(name: str, split: str) -> list[Path]:
    """Download a split ("train" or "valid") of a name in `HUB`; the hub keeps a copy of every set as parquet under the revision `~parquet`."""
    import datasets

    repository, config, splits = HUB[name]
    files = f"hf://datasets/{repository}@~parquet/{config}/{splits[split]}/*.parquet"
    try:
        dataset = datasets.load_dataset("parquet", data_files={split: files}, split=split)
    except Exception as err:  # a dozen unrelated classes say "no network", "no such file"
        reason = (str(err).strip() or type(err).__name__).splitlines()[0]
        raise SourceError(
            f"{name} is not under $ULMPIPE_DATA, and the hub did not give it ({reason}): put train.parquet and val.parquet, "
            f"or folders train and val, at $ULMPIPE_DATA/{name}; or train digits, which needs no network"
        ) from err
    return [Path(file["filename"]) for file in dataset.cache_files]  # pyright: ignore[reportAttributeAccessIssue]
