"""What the fast engine remembers: each different chunk of text with its ids, and how a new one is worked out.

    scan (scan.py) finds new entries -> chunk rules, on all of them at once -> signatures.py, or spaCy -> token rules

Everything is worked out by the reference tokenizer's own rules and spaCy on a small text, and holds wherever that text
stands, because a rule's scope and boundaries.py say so. Whole documents are engine.py's.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .boundaries import SpecialCases, special_cases, without_special_cases
from .patterns import SEARCHES, UnknownPattern, pattern_of
from .pieces import PAD_BYTES, padded, side_by_side
from .rewrite import Lines, pads_of, rewrite
from .rules import PostRule, PreRule, scope_of
from .scan import (
    AFTER_HEAD,
    BEGIN,
    BEGINS,
    CHUNK,
    END,
    ENDS,
    FLAGS,
    GAP,
    JOINED,
    JOINED_CORE,
    LATE,
    REFUSED,
    REWRITTEN,
    WORD,
    describe_keys,
    join_keys,
    scan,
)
from .signatures import SETTLED, Settled, Signatures
from .table import Memo, find, words_of
from .token_ids import TokenIds
from .tokenizer import Tokenizer

SCRATCH_BYTES = 32_768  # for a gap with the spaces that rules put around it
NO_LINKS = np.zeros((1, 1), np.bool_)


class Unsupported(ValueError):
    """The fast engine can't do this recipe; the reason."""


class Chunks:
    """Remembers chunks, and works out new ones.

    `reference` makes the reference tokenizer when the first new chunk is met; `tail` are the pre rules that are run on
    chunks and no more on documents, `post` the post rules but for those of scope `document`.
    """

    def __init__(self, reference: Callable[[], Tokenizer], tail: Sequence[PreRule], post: Sequence[PostRule]):
        self.make_reference, self.tail, self.post = reference, tail, post
        self.has_chunk_rules = any(scope_of(rule).sees != "gap" for rule in tail)
        self.repeats = min((scope_of(rule).repeats for rule in tail if scope_of(rule).repeats), default=0)
        self.tokens = TokenIds([rule for rule in post if scope_of(rule).sees == "token"])
        self.counts: Counter[str] = Counter()
        self.scratch = np.zeros(SCRATCH_BYTES + PAD_BYTES, np.uint8)
        self.scratch_words = words_of(self.scratch)
        self.matrix = NO_LINKS  # which ways to end and to begin are linked (boundaries.py)
        self.n_forgotten = -1  # times
        self.forget()

    def forget(self) -> None:
        """Forget every chunk; tokens keep their numbers."""
        self.memo = Memo(1 << 14)
        self.links = np.zeros((0, 2), np.int32)  # of each entry: how it begins, how it ends
        self.n_settled = 0
        self.n_forgotten += 1
        self.__dict__.pop("signatures", None)  # they grow too, and are soon made again

    @property
    def n_bytes(self) -> int:
        """Memory that what can be forgotten takes."""
        signatures = self.__dict__.get("signatures")
        return self.memo.n_bytes + self.links.nbytes + (signatures.cuts.n_bytes if signatures else 0)

    # ---- scanning ---------------------------------------------------------------------------------------------------

    def scan(self, data: NDArray[np.uint8], offsets: NDArray[np.int64], edges: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:  # fmt: skip
        """Ids (n,) of documents, offsets (n_docs + 1,) and notes (n_docs, 4), everything new worked out.

        Document d is `data[offsets[d]:offsets[d + 1]]`; `data` ends in `PAD_BYTES` bytes more. edges (n_docs,): 1, or
        1 + AFTER_HEAD where the head rules are done, or 0 where it is a part of a document.
        """
        n = len(edges)
        out = np.empty(int(offsets[-1] - offsets[0]) // 2 + 4 * n + 64, np.int32)
        out_offsets, notes = np.zeros(n + 1, np.int64), np.zeros((n, 4), np.int32)
        words, done = words_of(data), 0
        while True:
            self._make_room_for_links()
            done = scan(data, words, offsets, edges, done, self.memo.table, self.links, self.matrix, out, out_offsets, notes, self.scratch, self.scratch_words)  # fmt: skip
            if done < n:  # something was full
                size = int(offsets[done + 1] - offsets[done])
                self.memo.make_room(entries=len(self.memo) // 4 + size // 16 + 64, key_bytes=len(self.memo) + size + 64)
                out = np.concatenate([out, np.empty(len(out) // 4 + size, np.int32)])
            elif len(self.memo) > self.n_settled:
                self.settle()
                done = 0
            else:
                return out[: out_offsets[-1]], out_offsets, notes

    def _make_room_for_links(self) -> None:
        n = len(self.memo.table.slot_of)
        if len(self.links) < n:
            self.links = np.concatenate([self.links, np.zeros((n - len(self.links), 2), np.int32)])

    # ---- new entries ------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Work out all new entries; entries that come up on the way are worked out on the way."""
        first, self.n_settled = self.n_settled, len(self.memo)
        entries = np.arange(first, self.n_settled)
        self._make_room_for_links()
        table = self.memo.table
        kinds = (table.slots[table.slot_of[entries], 1] >> np.uint64(60)).astype(np.int64)
        _ = self.signatures  # and with it the reference, the special cases and their matrix
        try:
            for entry in entries[kinds != CHUNK].tolist():
                if self.memo.kind(entry) in (JOINED, JOINED_CORE):
                    self._settle_joined(entry)
                else:
                    self._settle_edge(entry)
            self._settle_chunks(entries[kinds == CHUNK])
        except BaseException:  # a rule failed, someone interrupted: entries without ids must not stay
            self.tokens.forget()
            self.forget()
            raise

    def _settle_chunks(self, entries: NDArray[np.int64]) -> None:
        marks = np.zeros((len(entries), 2), np.int32)
        describe_keys(self.memo.table, entries, marks)
        for k in np.flatnonzero(marks[:, 0] < 0).tolist():
            marks[k, 0] = WORD if re.search(r"\w", self.memo.key(int(entries[k])).decode()) else 0
        flags = marks[:, 0].astype(np.int64)
        if not self.has_chunk_rules or not len(entries):
            self._settle_plain(entries, flags)
            return
        table = self.memo.table
        out = np.empty(int((table.starts[entries + 1] - table.starts[entries]).sum()) + len(entries), np.uint8)
        lines = Lines(out[: join_keys(table, entries, out)].tobytes().decode())
        rewritten = rewrite(self.tail, lines, marks[:, 1])
        flags[rewritten.late] |= LATE
        flags[rewritten.refused] |= REFUSED
        flags[lines.different(rewritten.at_repeats)] |= REWRITTEN
        is_plain = np.ones(len(entries), np.bool_)
        changed = lines.different(rewritten.lines)
        texts = [rewritten.lines[k] for k in changed.tolist()]
        flags[changed] |= np.array([pads_of(text) for text in texts], np.int64)
        is_plain[changed] = [text.strip() == lines[k] for k, text in zip(changed.tolist(), texts, strict=True)]
        self._settle_plain(entries[is_plain], flags[is_plain])  # what the others are made of may be among them
        others = np.flatnonzero(~is_plain)
        cores = [text.strip() for k, text in zip(changed.tolist(), texts, strict=True) if not is_plain[k]]
        self._settle_rewritten(entries[others], cores, flags[others])

    def _settle_plain(self, entries: NDArray[np.int64], flags: NDArray[np.int64]) -> None:
        """Chunks that no rule changes: most by their signature, the others by spaCy."""
        table = self.memo.table
        settled = self.signatures.settle(table, entries) if self.signatures else unsettled(len(entries))
        asked = np.flatnonzero(settled.status != SETTLED)
        links = self.cases.links_of_tokens(table.arena, table.starts[entries], settled.spans, settled.ends)
        links[asked] = self.cases.links_of_texts(
            table.arena, table.starts[entries[asked]], table.starts[entries[asked] + 1]
        )
        self._link(entries, flags, links)
        self.counts["n_new"] += len(entries)
        self.counts["n_asked"] += len(asked)
        self.tokens.give(self.memo, entries, flags, settled)
        for k in np.flatnonzero(settled.status != SETTLED).tolist():
            self.memo.set(int(entries[k]), self._split(self.memo.key(int(entries[k])).decode()), int(flags[k]))

    def _settle_rewritten(self, entries: NDArray[np.int64], cores: list[str], flags: NDArray[np.int64]) -> None:
        """Chunks that the rules change: what they become is scanned as a small document without ends."""
        # Where the rules would change it again (`4444` became `xxrep 4 4`), it is not for the scan, and spaCy splits it.
        # Spaces that they would add once more do no harm where gap rules make all spaces one.
        same = str.split if self._gaps("  ") == " " else str.strip
        lines = Lines.of(cores)
        again = rewrite(self.tail, lines).lines
        is_fixed = np.ones(len(cores), np.bool_)
        for k in lines.different(again).tolist():
            is_fixed[k] = same(cores[k]) == same(again[k])
        is_fixed &= np.array([bool(core) for core in cores], np.bool_)
        fixed = np.flatnonzero(is_fixed)
        joined, offsets = side_by_side([cores[k].encode() for k in fixed])
        ids, id_offsets, notes = self.scan(joined, offsets, np.zeros(len(fixed), np.uint8))
        links = np.zeros((len(cores), 2), np.int32)
        for k in fixed.tolist():  # its first and its last chunk are known by now
            parts = cores[k].split()
            links[k] = self.links[self._entry(parts[0])][0], self.links[self._entry(parts[-1])][1]
        others = np.flatnonzero(~is_fixed)
        joined, offsets = side_by_side([cores[k].encode() for k in others])
        links[others] = self.cases.links_of_texts(joined, offsets[:-1], offsets[1:])
        self._link(entries, flags, links)
        flags[fixed] |= notes[:, FLAGS] & REFUSED
        self.memo.set_all(entries[fixed], ids, id_offsets, flags[fixed])
        for k in others.tolist():
            self.memo.set(int(entries[k]), self._split(cores[k]), int(flags[k]))

    def _split(self, text: str) -> list[int]:
        """Ids of a text that the chunk rules have been run on, by spaCy."""
        return self.tokens.of_split(self.reference.split(self._gaps(text)))

    def _gaps(self, text: str) -> str:
        """Run the gap rules."""
        for rule in self.tail:
            text = rule(text) if scope_of(rule).sees == "gap" else text
        return text

    def _settle_joined(self, entry: int) -> None:
        """Chunks that special cases could join, with the spaces between them: spaCy looks at them together."""
        text = self.memo.key(entry).decode()
        if "\n" in text:  # lines could not hold it
            self.memo.set(entry, [], REFUSED)
            return
        if self.memo.kind(entry) == JOINED:
            text = rewrite(self.tail, Lines.of([text])).lines[0]
        self.memo.set(entry, self._split(text.strip()), REFUSED if pads_of(text) else 0)

    def _settle_edge(self, entry: int) -> None:
        """White space between chunks and at the ends of documents: what the reference makes of it beside a probe."""
        kind, text, probe = self.memo.kind(entry), self.memo.key(entry).decode(), self.probe
        after_head = kind > JOINED or kind == GAP
        n_before, n_after = self._ends[after_head]
        kind -= AFTER_HEAD if kind > JOINED else 0
        if kind == GAP:
            tokens = self._tokens_of_part(probe + text + probe, after_head)[n_before + 1 : -1 - n_after]
        elif kind == BEGIN:
            tokens = self._tokens_of_part(text + probe, after_head)[: -1 - n_after]
        elif kind == END:
            tokens = self._tokens_of_part(probe + text, after_head)[n_before + 1 :]
        else:
            tokens = self.reference_tokens(text, after_head)
        self.memo.set(entry, self.tokens.ids(tokens))

    def _entry(self, chunk: str) -> int:
        """The entry of a chunk that is known."""
        data = padded(chunk.encode())
        return int(
            self.memo.table.entry_of[find(self.memo.table, CHUNK, data, words_of(data), 0, len(data) - PAD_BYTES)]
        )

    def _link(self, entries: NDArray[np.int64], flags: NDArray[np.int64], links: NDArray[np.int32]) -> None:
        """Note how chunks begin and end, as far as special cases care."""
        self._make_room_for_links()
        self.links[entries] = links
        flags[links[:, 0] > 0] |= BEGINS
        flags[links[:, 1] > 0] |= ENDS

    # ---- the reference ----------------------------------------------------------------------------------------------

    @cached_property
    def reference(self) -> Tokenizer:
        """The reference tokenizer. Raises `Unsupported` where chunks can't be remembered at all."""
        reference = self.make_reference()
        from spacy.tokenizer import Tokenizer as SpacyTokenizer  # and not before: see lean.py

        if type(reference.spacy) is not SpacyTokenizer:
            raise Unsupported(
                f"spaCy's tokenizer of this language is {type(reference.spacy).__name__}, which has no rules"
            )
        if not all(pattern_of(getattr(reference.spacy, name)) for name in SEARCHES if getattr(reference.spacy, name)):
            raise Unsupported("the tokenizer searches with functions that are no regular expressions")
        return reference

    @cached_property
    def signatures(self) -> Signatures | None:
        """How most new chunks are settled; None where nothing can be proven of the tokenizer's patterns."""
        self.cases  # noqa: B018
        try:
            return Signatures(self.reference.spacy, self.cases)
        except UnknownPattern:
            return None

    @cached_property
    def cases(self) -> SpecialCases:
        """The tokenizer's special cases."""
        spacy = self.reference.spacy
        try:
            cases = special_cases(spacy, without_special_cases(spacy))
        except ValueError as err:
            raise Unsupported(str(err)) from err
        self.matrix = cases.matrix
        return cases

    def reference_tokens(self, text: str, after_head: bool) -> list[str]:
        """The reference's tokens, but for post rules of scope `document`; `after_head`: the head rules are done."""
        pre = self.tail if after_head else self.reference.rules.pre
        return self.reference.run(text, pre, self.post)

    def _tokens_of_part(self, text: str, after_head: bool) -> list[str]:
        """The same for a part of a document on which no document rule has anything to do."""
        pre = self.tail if after_head else self.reference.rules.pre
        return self.reference.run(text, [rule for rule in pre if scope_of(rule).sees != "document"], self.post)

    @cached_property
    def probe(self) -> str:
        """A letter that nothing changes and nothing joins, to see what the rules do beside it."""
        for probe in "abcdefghjknpqrtuvwxyz":
            [[left, right]] = self.cases.links_of_texts(padded(probe.encode()), np.array([0]), np.array([1])).tolist()
            tokens = self._tokens_of_part(f"{probe} {probe}", False)
            if (
                tokens.count(probe) == 2
                and rewrite(self.tail, Lines.of([probe])).lines[0] == probe
                and not self.matrix[right, left]
            ):
                return probe
        raise Unsupported("its rules change every letter")

    @cached_property
    def _ends(self) -> list[tuple[int, int]]:
        """How many tokens the rules put before and after a document: with the head rules still to do, and done."""
        found = [self._tokens_of_part(self.probe, after_head) for after_head in (False, True)]
        return [(tokens.index(self.probe), tokens[::-1].index(self.probe)) for tokens in found]


def unsettled(n: int) -> Settled:
    """Nothing of n chunks is settled."""
    return Settled(np.full(n, SETTLED + 1, np.uint8), np.zeros((n, 2), np.int64), np.zeros(0, np.int32))
