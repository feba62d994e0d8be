"""The vocabulary: which tokens have an id, and which. Built once from counts, then never changed by a lookup.

    counts of all work units -> build_itos -> Vocab -> vocab.json

An id is the token's place in `itos`; special tokens come first, then by falling count, ties by the token itself, so that
neither the order of documents nor the number of workers can change an id.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..durable import read_json, write_json
from ..errors import StoreError
from .rules import BOS, PAD, UNK

FORMAT_VERSION = 1
VOCAB_FILE = "vocab.json"


def build_itos(
    counts: Mapping[str, int], *, max_vocab: int, min_freq: int, specials: Sequence[str], known: Sequence[str] = ()
) -> list[str]:
    """The tokens that get an id, in order: `specials`, those counted `min_freq` times or more, `known`; `max_vocab` in all.

    `known` are the words of a language model to start from: few texts do not hold all that will be read later.

    >>> build_itos({"b": 2, "a": 2, "c": 3, "d": 1}, max_vocab=60000, min_freq=2, specials=["xxunk"])
    ['xxunk', 'c', 'a', 'b']
    """
    special = set(specials)
    frequent = [(-n, token) for token, n in counts.items() if n >= min_freq and token not in special]
    frequent.sort()
    tokens = dict.fromkeys([*specials, *(token for _, token in frequent), *known])
    return list(tokens)[: max(max_vocab, len(specials))]


def left_out_words(counts: Mapping[str, int], itos: Iterable[str], n: int) -> list[tuple[str, int]]:
    """The `n` most frequent tokens that got no id, and how often they come.

    >>> left_out_words({"b": 2, "a": 2, "c": 3, "d": 1}, ["xxunk", "c"], 2)
    [('a', 2), ('b', 2)]
    """
    there = set(itos)
    return sorted(((w, n) for w, n in counts.items() if w not in there), key=lambda each: (-each[1], each[0]))[:n]


class Vocab:
    """Tokens to ids and back. `itos[id]` is a token; a token without an id is `unk_id`."""

    def __init__(self, itos: Iterable[str]):
        self.itos = list(itos)
        self.stoi = {token: i for i, token in enumerate(self.itos)}
        if len(self.stoi) != len(self.itos):
            raise StoreError("the vocabulary holds a token twice")
        if missing := [token for token in (UNK, PAD, BOS) if token not in self.stoi]:
            raise StoreError(f"the vocabulary lacks {', '.join(missing)}: is it one of ulmpipe?")
        self.unk_id, self.pad_id = self.stoi[UNK], self.stoi[PAD]

    def __len__(self) -> int:
        return len(self.itos)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Ids of tokens. A plain `dict.get`: looking up an unknown token adds nothing."""
        get, unk_id = self.stoi.get, self.unk_id
        return [get(token, unk_id) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Tokens of ids."""
        return [self.itos[i] for i in ids]

    @property
    def sha256(self) -> str:
        """Hex digest of the tokens in order: what stores and models compare."""
        return hashlib.sha256(json.dumps(self.itos, ensure_ascii=False).encode("utf-8")).hexdigest()

    def save(self, path: Path) -> None:
        """Write `vocab.json`."""
        write_json(path, {"format_version": FORMAT_VERSION, "itos": self.itos})

    @classmethod
    def load(cls, path: Path) -> "Vocab":
        """Read `vocab.json`, or the one in a folder. Raises `StoreError` for anything else."""
        path = path / VOCAB_FILE if path.is_dir() else path
        value: Any = read_json(path)
        if isinstance(value, dict) and value.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise StoreError(
                f"{path} has format {value['format_version']}, this ulmpipe reads {FORMAT_VERSION}: upgrade"
            )
        itos = value.get("itos") if isinstance(value, dict) else value
        if not isinstance(itos, list) or not all(isinstance(token, str) for token in itos):
            raise StoreError(
                f"{path} holds no list of tokens: expected {{'itos': ['xxunk', ...]}} as ulmpipe writes it"
            )
        return cls(itos)
