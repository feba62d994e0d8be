"""The fast tokenizer (`--engine fast`): the tokens of tokenizer.py, bit for bit, each different chunk worked out once.

    texts -> head rules, on the documents in which a quick look sees work for them
          -> chunks looked up, ids appended (scan.py, chunks.py)
          -> documents that a later document rule changes: the reference tokenizer

A document is given to the reference whole where a rule of scope `document` changes it after others have been at it, and
where it holds something very long. How much that is gets counted.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..lean import import_numba
from .chunks import Chunks, Unsupported
from .pieces import PAD_BYTES, side_by_side
from .rules import PreRule, Scope, scope_of
from .scan import AFTER_HEAD, FLAGS, LATE, N_CHUNKS, N_JOINED, REFUSED, REWRITTEN, STREAK, find_literals, splice
from .tokenizer import Tokenizer, TokenizerRecipe

MAX_BYTES = 256 << 20  # of the table of chunks; past it all of them are forgotten, before the next batch of texts


@dataclass
class Encoded:
    """Documents as ids of the `itos` of the engine that made them: document d has `ids[offsets[d]:offsets[d + 1]]`."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def take(self, docs: NDArray[np.int64]) -> "Encoded":
        """Some of the documents, in any order."""
        lengths = np.diff(self.offsets)[docs]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(self.offsets[docs] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Encoded(self.ids[places], offsets)


def join(first: Encoded, second: Encoded, is_second: NDArray[np.bool_]) -> Encoded:
    """The documents of both, the second's where `is_second` (n_docs,), the first's elsewhere, in order."""
    both = Encoded(
        np.concatenate([first.ids, second.ids]), np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]])
    )
    order = np.where(is_second, len(first.offsets) - 2 + np.cumsum(is_second), np.cumsum(~is_second) - 1)
    return both.take(order)


def with_others(data: NDArray[np.uint8], offsets: NDArray[np.int64], texts: list[bytes], is_other: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:  # fmt: skip
    """Documents with `texts` in the place of those that `is_other` (n_docs,) says."""
    others, other_offsets = side_by_side(texts)
    n_bytes = int(np.diff(offsets)[~is_other].sum() + other_offsets[-1])
    out, out_offsets = np.zeros(n_bytes + PAD_BYTES, np.uint8), np.zeros(len(offsets), np.int64)
    splice(data, offsets, others, other_offsets, is_other, out, out_offsets)
    return out, out_offsets


def split_pre_rules(pre: Sequence[PreRule]) -> tuple[int, bool]:
    """How many of the pre rules are run on whole documents first, and whether on every document.

    On every document, where one among them has to be run to see whether it does anything: a document rule that does not
    say when, or says so by a string with white space after other rules, which may put it together; a rule of scope
    `ends` with other rules after it, which may find what it put there.
    """
    scopes = [scope_of(rule) for rule in pre]
    n_first = next((i for i, scope in enumerate(scopes) if not scope.when), len(scopes))
    n_last = next((i for i, scope in enumerate(scopes[::-1]) if scope.sees != "ends"), len(scopes))

    def is_blind(place: int, scope: Scope) -> bool:
        if scope.sees in ("chunk", "gap"):
            return False
        if scope.sees == "ends":
            return place < len(scopes) - n_last
        spans_gaps = any(character.isspace() for when in scope.when for character in when)
        return not (scope.when or scope.repeats) or (spans_gaps and place >= n_first)

    n = max((place + 1 for place, scope in enumerate(scopes) if is_blind(place, scope)), default=0)
    is_always = n > 0
    while n < len(scopes) and scopes[n].when:
        n += 1
    return n, is_always


class FastTokenizer:
    """Texts to ids and tokens, as `Tokenizer` gives them. Raises `Unsupported` where a recipe can't be done."""

    def __init__(self, recipe: TokenizerRecipe | None = None, *, max_bytes: int = MAX_BYTES):
        import_numba()
        self.recipe = recipe or TokenizerRecipe()
        self.max_bytes = max_bytes
        rules = self.recipe.resolved_rules
        n_head, self.always_head = split_pre_rules(rules.pre)
        self.head, self.tail = rules.pre[:n_head], rules.pre[n_head:]
        n_post = next((i for i, rule in enumerate(rules.post) if scope_of(rule).sees == "document"), len(rules.post))
        self.rest = rules.post[n_post:]
        self.chunks = Chunks(lambda: Tokenizer(self.recipe), self.tail, rules.post[:n_post])
        whens = [when for rule in self.head for when in scope_of(rule).when]
        literals = [when.encode() for when in whens]
        self.literals = np.frombuffer(b"".join(literals), np.uint8)
        self.literal_ends = np.cumsum([0, *map(len, literals)], dtype=np.int64)
        self.is_last = np.zeros(256, np.bool_)
        self.is_last[[literal[-1] for literal in literals]] = True

    def load(self, path: Path) -> "FastTokenizer":
        """Begin with what a file remembers (warm.py). Raises `StoreError`."""
        from .warm import load

        self.reset()
        load(self.chunks, self.recipe, path)
        return self

    @property
    def n_known(self) -> int:
        """How many entries the table has."""
        return len(self.chunks.memo)

    def dump(self, path: Path, *, first: int = 0) -> None:
        """Write what was learned since the table had `first` entries; all of it, if it was forgotten in between."""
        from .warm import dump

        dump(self.chunks, self.recipe, path, first=first if self.chunks.n_forgotten == 0 else 0)

    def reset(self) -> None:
        """Forget everything, the numbers of tokens too."""
        self.chunks = Chunks(lambda: Tokenizer(self.recipe), self.tail, self.chunks.post)

    @property
    def n_bytes(self) -> int:
        """Memory that the tables take, about."""
        return self.chunks.n_bytes + self.chunks.tokens.n_bytes

    @property
    def counts(self) -> Counter[str]:
        """How many chunks there were (n_chunks) and how many spaCy tokenized (n_fallback) where a table could have."""
        return self.chunks.counts

    @property
    def reference(self) -> Tokenizer:
        """The tokenizer whose tokens these are."""
        return self.chunks.reference

    @property
    def n_cut(self) -> int:
        """How many chunks were cut for their length so far."""
        return self.chunks.reference.n_cut if "reference" in vars(self.chunks) else 0

    @property
    def itos(self) -> list[str]:
        """The tokens by their ids; more are added as they are met."""
        return self.chunks.tokens.itos

    def tokenize(self, text: str) -> list[str]:
        """Tokens of one document, special tokens included."""
        return [self.itos[i] for i in self.encode_texts([text]).ids]

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        """Ids of documents. Raises `UnicodeEncodeError` for a lone surrogate."""
        return self.encode_bytes(*side_by_side([text.encode() for text in texts]))

    def encode_bytes(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Encoded:
        """Ids of documents: d is `data[offsets[d]:offsets[d + 1]]`, valid UTF-8; `data` ends in `PAD_BYTES` bytes more."""
        if self.chunks.n_bytes > self.max_bytes:
            self.chunks.forget()
        needs_head = np.full(len(offsets) - 1, self.always_head, np.bool_)
        if self.head and not self.always_head:
            find_literals(data, offsets, self.literals, self.literal_ends, self.is_last, needs_head)
        if needs_head.any():
            texts = [self._run_head(_text(data, offsets, d)).encode() for d in np.flatnonzero(needs_head)]
            data, offsets = with_others(data, offsets, texts, needs_head)
        result = self._encode(data, offsets, needs_head)
        return self._run_rest(result) if self.rest else result

    def _run_head(self, text: str) -> str:
        for rule in self.head:
            when = scope_of(rule).when
            if not when or any(literal in text for literal in when):
                text = rule(text)
        return text

    def _encode(self, data: NDArray[np.uint8], offsets: NDArray[np.int64], after_head: NDArray[np.bool_]) -> Encoded:
        """Ids of documents; `after_head` (n_docs,) says on which the head rules were run."""
        ids, id_offsets, notes = self.chunks.scan(
            data, offsets, np.where(after_head, 1 + AFTER_HEAD, 1).astype(np.uint8)
        )
        is_refused = (notes[:, FLAGS] & REFUSED) != 0
        for d in np.flatnonzero(self._may_be_late(notes) & ~is_refused):
            is_refused[d] = self._is_late(_text(data, offsets, d), after_head[d])
        self.counts["n_chunks"] += int(notes[~is_refused, N_CHUNKS].sum())
        self.counts["n_fallback"] += int(notes[~is_refused, N_JOINED].sum())
        result = Encoded(ids, id_offsets)
        if not is_refused.any():
            return result
        docs: list[list[int]] = []
        for d in np.flatnonzero(is_refused):
            text = _text(data, offsets, d)
            n_chunks = len(text.split())
            self.counts.update(n_chunks=n_chunks, n_fallback=n_chunks)
            docs.append(self.chunks.tokens.ids(self.chunks.reference_tokens(text, after_head[d])))
        return join(result.take(np.flatnonzero(~is_refused)), _encoded(docs), is_refused)

    def _may_be_late(self, notes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """(n_docs,) which documents a document rule of the tail could change.

        It could where a single chunk says so (LATE), or where a word follows itself `repeats` times. All of these words
        but one are whole chunks (rules.Scope), like ones in a row, as scan.py counts them. A rule that cuts words out of
        chunks can make one more at either end, so where one was at work two like chunks are enough.
        """
        late = (notes[:, FLAGS] & LATE) != 0
        if self.chunks.repeats:
            was_rewritten = (notes[:, FLAGS] & REWRITTEN) != 0
            late |= notes[:, STREAK] >= np.where(was_rewritten, 1, max(1, self.chunks.repeats - 2))
        return late

    def _is_late(self, text: str, after_head: bool) -> bool:
        """Whether a document rule of the tail does change this text."""
        self.counts["n_suspects"] += 1
        for rule in self.tail if after_head else (*self.head, *self.tail):
            changed = rule(text)
            if changed != text and scope_of(rule).sees == "document":
                return True
            text = changed
        return False

    def _run_rest(self, result: Encoded) -> Encoded:
        """The post rules of scope `document`, on each document's tokens."""
        docs: list[list[int]] = []
        for begin, end in zip(result.offsets, result.offsets[1:], strict=False):
            tokens = [self.itos[i] for i in result.ids[begin:end]]
            for rule in self.rest:
                tokens = rule(tokens)
            docs.append(self.chunks.tokens.ids(tokens))
        return _encoded(docs)


class ReferenceTokenizer:
    """The reference tokenizer (`--engine spacy`), as an engine."""

    def __init__(self, recipe: TokenizerRecipe | None = None):
        self.recipe = recipe or TokenizerRecipe()
        self.reference = Tokenizer(self.recipe)
        self.reset()

    def reset(self) -> None:
        """Forget the numbers of tokens."""
        self.itos: list[str] = []
        self.number: dict[str, int] = {}
        self.counts: Counter[str] = Counter()

    @property
    def n_bytes(self) -> int:
        """Memory that the tokens take, about."""
        return 200 * len(self.itos)

    n_known = 0

    @property
    def n_cut(self) -> int:
        """How many chunks were cut for their length so far."""
        return self.reference.n_cut

    def dump(self, path: Path, *, first: int = 0) -> None:
        """It remembers nothing."""

    def tokenize(self, text: str) -> list[str]:
        """Tokens of one document, special tokens included."""
        return self.reference.tokenize(text)

    def encode_texts(self, texts: Iterable[str]) -> Encoded:
        """Ids of documents."""
        docs: list[list[int]] = []
        for text in texts:
            n_chunks = len(text.split())
            self.counts.update(n_chunks=n_chunks, n_fallback=n_chunks)
            tokens = self.reference.tokenize(text)
            docs.append([self.number.setdefault(token, len(self.number)) for token in tokens])
        self.itos = list(self.number)
        return _encoded(docs)

    def encode_bytes(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Encoded:
        """Ids of documents; see `FastTokenizer.encode_bytes`."""
        return self.encode_texts(_text(data, offsets, doc) for doc in range(len(offsets) - 1))


Engine = FastTokenizer | ReferenceTokenizer


@lru_cache(maxsize=2)
def usable_engine(recipe: TokenizerRecipe, engine: str, tables: str | None = None) -> tuple[Engine, str]:
    """The engine asked for, or the reference and a note why where the fast one can't do the recipe.

    There is one in each process, and its tables live as long as the process. `tables` are read, if the file is there.
    """
    if engine != "fast":
        return ReferenceTokenizer(recipe), ""
    made = FastTokenizer(recipe)
    try:
        if tables and Path(tables).exists():
            made.load(Path(tables))
        made.encode_texts(["a"])
    except Unsupported as err:
        return ReferenceTokenizer(recipe), f"the reference engine (--engine spacy) runs: {err}"
    return made, ""


def _encoded(docs: list[list[int]]) -> Encoded:
    return Encoded(
        np.array([i for doc in docs for i in doc], np.int32), np.cumsum([0, *map(len, docs)], dtype=np.int64)
    )


def _text(data: NDArray[np.uint8], offsets: NDArray[np.int64], doc: int | np.int64) -> str:
    return data[offsets[doc] : offsets[doc + 1]].tobytes().decode()
