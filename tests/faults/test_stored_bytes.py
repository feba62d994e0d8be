"""Every truncation and many flipped bits of what is stored: refused, or found by `verify`, and never a crash of the process."""

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from learnable import Trained
from runs import ALL, some

from ulmpipe.durable import MANIFEST
from ulmpipe.errors import StoreError, UlmpipeError
from ulmpipe.tasks.verify import verify
from ulmpipe.text.store import TokenStore
from ulmpipe.train.checkpoint import latest_checkpoint


@pytest.fixture
def spoiled(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "out"))


def read_all(folder: Path) -> tuple[int, int, int]:
    """What a training reads of a store: the numbers of its words, tokens and labels."""
    opened = TokenStore(folder)
    return len(opened.vocab), sum(len(opened.doc(n)) for n in range(len(opened))), len(opened.doc_labels)


@pytest.mark.parametrize("name", ["shard-00000.arrow", "vocab.json"])
def test_every_truncation_is_refused(spoiled: Path, name: str, survived: Callable[..., None]):
    whole = (spoiled / name).read_bytes()
    lengths = some(len(whole), 0) or random.Random(0).sample(range(len(whole)), 200)
    for length in lengths:
        (spoiled / name).write_bytes(whole[:length])
        with pytest.raises(StoreError, match=f"{name} has {length:,} bytes, expected {len(whole):,}"):
            TokenStore(spoiled)
    survived(f"a truncated {name}", len(lengths))


def flipped_bits(whole: bytes, places: Sequence[int]) -> Iterator[bytearray]:
    """The bytes with one bit flipped, for each of some numbers of bits."""
    for place in places:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        yield flipped


@pytest.mark.parametrize("name", ["shard-00000.arrow", "vocab.json"])
def test_flipped_bits_are_found(spoiled: Path, name: str, survived: Callable[..., None]):
    whole, manifest = (spoiled / name).read_bytes(), TokenStore(spoiled).manifest
    assert read_all(spoiled) == (manifest["vocab_size"], manifest["n_tokens"], manifest["n_docs"])
    places = random.Random(1).sample(range(8 * len(whole)), len(some(1000, 60)))
    for flipped in flipped_bits(whole, places):
        (spoiled / name).write_bytes(flipped)
        with pytest.raises(UlmpipeError):
            verify(spoiled)
        with contextlib.suppress(UlmpipeError):
            read_all(spoiled)
    survived(f"a flipped bit in {name}", len(places))


def test_flipped_bits_of_a_manifest_crash_nothing(spoiled: Path, survived: Callable[..., None]):
    """It has no digest of itself: what it says wrongly is refused, or is of no consequence."""
    whole = (spoiled / MANIFEST).read_bytes()
    places = range(8 * len(whole)) if ALL else random.Random(1).sample(range(8 * len(whole)), 200)
    for flipped in flipped_bits(whole, places):
        (spoiled / MANIFEST).write_bytes(flipped)
        for use in (read_all, verify):
            with contextlib.suppress(UlmpipeError):
                use(spoiled)
    survived("a flipped bit in manifest.json", len(places))


def test_a_checkpoint_that_is_cut_or_altered_is_passed_by(
    trained: Trained, tmp_path: Path, survived: Callable[..., None]
):
    (checkpoint,) = trained.lm.glob("checkpoint-*")
    rng, n = random.Random(2), len(some(1000, 60))
    files = sorted(path.name for path in checkpoint.iterdir() if path.name != "manifest.json")
    spoiled = Path(shutil.copytree(checkpoint, tmp_path / "lm" / checkpoint.name))
    assert latest_checkpoint(tmp_path / "lm") == spoiled
    for number in range(n):
        name = files[number % len(files)]
        whole = (checkpoint / name).read_bytes()
        if number % 2:
            altered = bytearray(whole)
            altered[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        else:
            altered = whole[: rng.randrange(len(whole))]
        (spoiled / name).write_bytes(altered)
        assert latest_checkpoint(tmp_path / "lm") is None
        (spoiled / name).write_bytes(whole)
    assert latest_checkpoint(tmp_path / "lm") == spoiled
    survived("a checkpoint that was cut or altered", n)
