"""Damaged stores whose manifest agrees with the damage: refused in one line, or read within bounds; never a crash.
And awkward texts, which the fast engine has to read as the reference does.

All is drawn by a seed, so that what was found once is tried again; texts that were found are in `test_traps`, too.
"""

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import spacy
from fuzz import texts
from runs import say_so, some

from ulmpipe.errors import UlmpipeError
from ulmpipe.text.batches import ClassifierBatches, Docs, LMBatches
from ulmpipe.text.engine import FastTokenizer
from ulmpipe.text.rules import PRESETS
from ulmpipe.text.store import TokenStore
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe

SHARD = "shard-00000.arrow"


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: a bit, a number at its place, a stretch that is doubled, removed or moved."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, n = rng.randrange(len(found)), rng.choice((1, 4, 8, 64))
        how = rng.randrange(5)
        if how == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            number = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 31, len(found)))
            at -= at % 4
            found[at : at + 4] = number.to_bytes(4, "little")
        elif how == 2:
            found[at:at] = found[at : at + n]
        elif how == 3:
            del found[at : at + n]
        else:
            to = rng.randrange(len(found))
            found[to : to + n] = found[at : at + n]
    return bytes(found)


def use(folder: Path) -> None:
    """All that a training does with a store: every id is read by the kernels."""
    opened = TokenStore(folder)
    docs = Docs.from_store(opened)
    for inputs, targets in LMBatches(docs, batch_size=2, bptt=7, shuffle=True).batches(0):
        assert int(inputs.max()) < len(opened.vocab) and int(targets.min()) >= 0
    batches = ClassifierBatches(docs, np.arange(len(opened)), batch_size=4, pad_id=1, max_tokens=50, shuffle=True)
    for ids, lengths, _ in batches.batches(0):
        assert int(ids.max()) < len(opened.vocab) and int(lengths.max()) <= 50


@pytest.mark.parametrize("seed", range(4))
def test_mutated_shards_do_no_harm(store: Path, tmp_path: Path, seed: int, survived: Callable[..., None]):
    folder = Path(shutil.copytree(store, tmp_path / "out"))
    whole, rng = (store / SHARD).read_bytes(), random.Random(seed)
    n = len(some(2500, 50))
    for _ in range(n):
        (folder / SHARD).write_bytes(mutate(whole, rng))
        say_so(folder, SHARD)
        with contextlib.suppress(UlmpipeError):
            use(folder)
    survived("a shard that was altered together with its manifest", n)


@pytest.mark.parametrize("preset", PRESETS)
def test_awkward_texts_have_the_tokens_of_the_reference(preset: str, survived: Callable[..., None]):
    recipe = TokenizerRecipe("en", preset)
    engine, tokenizer = FastTokenizer(recipe), Tokenizer(recipe)
    special_cases = list(spacy.blank("en").tokenizer.rules)  # pyright: ignore[reportFunctionMemberAccess]
    docs = texts(len(some(20_000, 100)), special_cases, ("faults", preset))
    found = engine.encode_texts(docs)
    for doc, begin, end in zip(docs, found.offsets, found.offsets[1:], strict=False):
        assert [engine.itos[i] for i in found.ids[begin:end]] == tokenizer.tokenize(doc), repr(doc)
    survived("a text made to be awkward", len(docs))
