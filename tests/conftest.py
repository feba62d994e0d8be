"""What every test has: one seeded generator, the real corpora where they are, and hypothesis that draws the same each time."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ulmpipe",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("ulmpipe")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(12)


@pytest.fixture
def data() -> Path:
    """The folder of the real corpora; a test that asks for it is marked `data`."""
    root = os.environ.get("ULMPIPE_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("$ULMPIPE_DATA names no folder of corpora")
    return Path(root)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A folder of labelled texts: 6 positive, 5 negative, one of them empty."""
    folder = tmp_path / "reviews"
    for label, n in (("pos", 6), ("neg", 5)):
        (folder / label).mkdir(parents=True)
        for i in range(n):
            text = f"Review {i}: a {label} FILM, don't\nmiss it" if i else ""
            (folder / label / f"{i}.txt").write_text(text if label == "neg" else text + "!")
    return folder
