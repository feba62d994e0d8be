"""What the words and pairs of words of a document say by themselves: the wide half of a classifier beside the deep one.

    ids (B, L), lengths (B,) -> words without special tokens -> n-grams, each once -> rows of a table, summed -> logits (B, C)

An encoder learns what few labels can teach it; that "waste of" stands in a review is known from the labels alone. Wide and
deep together (Cheng et al. 2016) are better than either. A row of the table holds what its n-gram says for each class and
the square of its length, so that a document's vector has length 1 as in TF-IDF. Words have rows of their own, pairs share
`n_buckets` by their hash. The table is not trained with the network: `tasks/fit_ngrams.py` fits it before.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# A pair of ids a, b has the hash (FIRST a + SECOND b) mod PRIME mod n_buckets (Carter and Wegman 1979)
FIRST, SECOND, PRIME = 1_640_531_527, 1_013_904_223, 2**31 - 1
TINY = 1e-12  # of a squared length: a document without a known n-gram divides by it


def only_words(ids: Tensor, lengths: Tensor, n_specials: int) -> tuple[Tensor, Tensor, Tensor]:
    """Move special tokens, the first `n_specials` ids, behind the words, so that pairs are of words: "not xxmaj Good".

    Unknown words are among them, and pairs go over them too: half a point better on 1,000 reviews than all tokens as they are.

    ids: (B, L) int64, padded at the end; lengths: (B,) int64. Returns ids (B, L), lengths (B,), and where each stood (B, L).
    """
    n_steps = ids.shape[1]
    steps = torch.arange(n_steps, device=ids.device)
    keep = (steps < lengths[:, None]) & (ids >= n_specials)  # (B, L)
    places = torch.where(keep, steps, steps + n_steps).sort(dim=1).values % n_steps
    return ids.gather(1, places), keep.sum(dim=1), places


def ngram_rows(ids: Tensor, vocab_size: int, n_buckets: int) -> Tensor:
    """Rows of the words, then of the pairs that begin at each step: ids (B, L) int64 to (B, 2L - 1)."""
    pairs = (ids[:, :-1] * FIRST + ids[:, 1:] * SECOND) % PRIME % n_buckets + vocab_size  # (B, L - 1)
    return torch.cat([ids, pairs], dim=1)


def is_real(lengths: Tensor, n_steps: int) -> Tensor:
    """Whether each of `ngram_rows` lies within its document: lengths (B,) to (B, 2L - 1) bool."""
    steps = torch.arange(n_steps, device=lengths.device)
    is_word = steps < lengths[:, None]  # (B, L)
    return torch.cat([is_word, is_word[:, 1:]], dim=1)


def distinct_rows(
    ids: Tensor, lengths: Tensor, *, vocab_size: int, n_specials: int, n_buckets: int
) -> tuple[Tensor, Tensor]:
    """Return the rows of each document, sorted (B, 2L - 1), and where one stands for the first time, bool.

    ids: (B, L) int64, padded at the end; lengths: (B,) int64.
    """
    ids, lengths, _ = only_words(ids, lengths, n_specials)
    none = vocab_size + n_buckets  # behind the last row
    rows = ngram_rows(ids, vocab_size, n_buckets).masked_fill(~is_real(lengths, ids.shape[1]), none)
    rows = rows.sort(dim=1).values
    is_first = F.pad(rows[:, 1:] != rows[:, :-1], (1, 0), value=True) & (rows < none)
    return rows.clamp(max=none - 1), is_first


class NGramScores(nn.Module):
    """Score documents by a fitted table, (vocab_size + n_buckets, C + 1); all zeros, and so all scores, until it is fitted."""

    table: Tensor
    bias: Tensor

    def __init__(self, vocab_size: int, n_classes: int, *, n_buckets: int, n_specials: int = 0):
        super().__init__()
        if n_buckets < 1:
            raise ValueError(f"n_buckets is {n_buckets}, expected at least 1")
        self.shape = {"vocab_size": vocab_size, "n_specials": n_specials, "n_buckets": n_buckets}
        self.register_buffer("table", torch.zeros(vocab_size + n_buckets, n_classes + 1))
        self.register_buffer("bias", torch.zeros(n_classes))

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Take ids (B, L) int64, padded at the end, and lengths (B,) int64; return logits (B, C)."""
        rows, is_first = distinct_rows(ids, lengths, **self.shape)
        once = is_first.to(self.table.dtype)  # (B, 2L - 1)
        total = F.embedding_bag(rows, self.table, mode="sum", per_sample_weights=once)  # (B, C + 1)
        return total[:, :-1] * total[:, -1:].clamp(min=TINY).rsqrt() + self.bias

    def word_logits(self, ids: Tensor) -> Tensor:
        """What each word of one document adds to its logits: ids (L,) int64 to (L, C); they sum to the logits less the bias.

        An n-gram counts once however often it comes: its places share it, and the two words of a pair share that.
        """
        words, lengths, places = only_words(ids[None], ids.new_tensor([len(ids)]), self.shape["n_specials"])
        n_words = int(lengths)
        scores = self.table.new_zeros(len(ids), self.table.shape[1] - 1)  # (L, C)
        if n_words == 0:
            return scores
        rows = ngram_rows(words[:, :n_words], self.shape["vocab_size"], self.shape["n_buckets"])[0]  # (2W - 1,)
        distinct, place, n_times = rows.unique(return_inverse=True, return_counts=True)
        picked = self.table[distinct]  # (N, C + 1)
        each = (picked[:, :-1] * picked[:, -1].sum().clamp(min=TINY).rsqrt() / n_times[:, None])[place]  # (2W - 1, C)
        halves = each[n_words:] / 2
        scores[places[0, :n_words]] = each[:n_words] + F.pad(halves, (0, 0, 0, 1)) + F.pad(halves, (0, 0, 1, 0))
        return scores
