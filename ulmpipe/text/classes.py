"""Classes of characters: which ones a tokenizer's patterns can't tell apart, where they stand.

alternatives (patterns.py) -> sets of characters -> classes -> under a mask, classes that merge (signatures.py)
"""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .patterns import Alternative, alternatives

MAX_KEYS = 64  # bits of a mask
N_CODE_POINTS = 0x110000
MASK_MIX = 0x9E3779B9


class Classes:
    """Which characters a tokenizer's patterns tell apart, as far as characters were seen.

    A character's class is its row of memberships in all sets. A mask says of which needed sets a character is near;
    under it only alternatives count whose need is there, and classes merge.
    """

    def __init__(self, patterns: list[re.Pattern[str]]):
        """Raises `UnknownPattern`."""
        known = [alternative for pattern in patterns for alternative in alternatives(pattern)]
        self.sets = sorted(frozenset().union(*(a.sets for a in known)))
        self.place = {a_set: i for i, a_set in enumerate(self.sets)}
        self.holds = [re.compile(source, flags).fullmatch for source, flags in self.sets]
        self.keys: list[tuple[str, int]] = []
        self.reach: list[int] = []  # of each key: characters that a match around it can look at
        self.letters: list[int] = []  # of each key: letters in a row that a match around it can look at
        self.live = [(self._key(a), np.array([self.place[a_set] for a_set in a.sets], int)) for a in known]
        self.n_letters = max((a.n_letters for a, (key, _) in zip(known, self.live, strict=True) if key < 0), default=0)
        self.key_columns = np.array([self.place[key] for key in self.keys], int)
        self.rows: list[NDArray[np.bool_]] = []  # of each class
        self.number: dict[bytes, int] = {}
        self.character: list[str] = []  # one of each class
        self.class_of = np.full(N_CODE_POINTS, -1, np.int16)
        self.masks: list[
            tuple[int, NDArray[Any], dict[bytes, int], list[int]]
        ] = []  # mask, its sets, what they tell apart
        self.classify(range(128))
        self.add_masks([0])

    def _key(self, alternative: Alternative) -> int:
        """The bit of the mask without which an alternative can't match; -1: it always counts."""
        if not alternative.is_narrow and alternative.n_letters == 0:
            return -1
        # A need without letters: a digit, an apostrophe. Of several the one that stands last in Unicode is the rarest.
        plain = [need for need in sorted(alternative.needs) if not re.search(r"[^\W\d_]", need[0].replace("\\", ""))]
        if not plain or (plain[-1] not in self.keys and len(self.keys) == MAX_KEYS):
            return -1
        if plain[-1] not in self.keys:
            self.keys.append(plain[-1])
            self.reach.append(0)
            self.letters.append(0)
        key = self.keys.index(plain[-1])
        self.reach[key] = max(self.reach[key], alternative.n_characters)
        self.letters[key] = max(self.letters[key], alternative.n_letters)
        return key

    def classify(self, code_points: Iterable[int]) -> None:
        """Give new characters their class."""
        for code_point in code_points:
            row = np.array([holds(chr(code_point)) is not None for holds in self.holds], np.bool_)
            if row.tobytes() not in self.number:
                self.number[row.tobytes()] = len(self.rows)
                self.rows.append(row)
                self.character.append(chr(code_point))
            self.class_of[code_point] = self.number[row.tobytes()]
        self._merge()

    def add_masks(self, masks: Iterable[int]) -> None:
        """Merge the classes under new masks."""
        for mask in masks:
            live = [places for key, places in self.live if key < 0 or mask >> key & 1]
            self.masks.append((mask, np.unique(np.concatenate([*live, self.key_columns])), {}, []))
        self._merge()

    def _merge(self) -> None:
        """Make the arrays: under each mask, the first class that each class can't be told from."""
        for _, columns, first, merged in self.masks:
            for number in range(len(merged), len(self.rows)):
                merged.append(first.setdefault(self.rows[number][columns].tobytes(), number))
        members = np.array(self.rows)
        bits = np.uint64(1) << np.arange(len(self.keys), dtype=np.uint64)
        self.key_bits = (members[:, self.key_columns] * bits).sum(axis=1, dtype=np.uint64)
        self.merged = np.array([merged for *_, merged in self.masks], np.int16)
        self.is_letter = np.array([character.isalpha() for character in self.character])
        size = 4 << len(self.masks).bit_length()
        self.mask_slots, self.mask_rows = np.zeros(size, np.uint64), np.zeros(size, np.int64)
        for row, (mask, *_) in enumerate(self.masks[1:], 1):
            at = (mask * MASK_MIX >> 20) % size
            while self.mask_slots[at]:
                at = (at + 1) % size
            self.mask_slots[at], self.mask_rows[at] = mask, row

    def text(self, classes: Iterable[int]) -> str:
        """A text of these classes."""
        return "".join(self.character[c] for c in classes)
