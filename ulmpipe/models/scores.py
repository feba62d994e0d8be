"""Scores of every word of the vocabulary at every position, and their cross entropy, without ever holding them whole.

    output (B, T, E), weight (V, E), bias (V,) -> WordScores -> cross_entropy(target) ()

At B 64, T 72 and V 60,000 the scores are 1.1 GB, and plain PyTorch holds them three times: as they are, as their
logarithmic softmax, and as their gradient. Here a block of positions is scored after another, and what is to be done
with a block, the matrix products of its gradient too, is done while it is there. Comes after `LinearDecoder` of
`awd_lstm.py`; knows nothing of LSTMs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK_BYTES = 128 << 20  # of scores at a time: matrix products reach their full rate, 1/27 of what the plain form holds
CACHE_BYTES = 4 << 20  # of them in float32 at a time, where every one is touched several times


class WordScores:
    """What a decoder gives: the scores are `output @ weight.T + bias`, (B, T, V), computed where they are used."""

    def __init__(self, output: Tensor, weight: Tensor, bias: Tensor):
        self.output, self.weight, self.bias = output, weight, bias
        self._best: Tensor | None = None  # (B, T) int64, once a loss was computed in evaluation

    def logits(self) -> Tensor:
        """Return all scores (B, T, V), held whole."""
        return F.linear(self.output, self.weight, self.bias)

    def cross_entropy(self, target: Tensor) -> Tensor:
        """Return the mean loss () in nats, float32 or wider; target: (B, T) int64. Equal to `F.cross_entropy` of the logits."""
        learns = torch.is_grad_enabled()
        x = self.output.flatten(0, -2)
        loss, best = _LinearCrossEntropy.apply(x, self.weight, self.bias, target.flatten(), learns)
        self._best = None if learns else best.view(target.shape)  # in a validation the accuracy is asked for next
        return loss

    def sampled_cross_entropy(self, target: Tensor, n_words: int) -> Tensor:
        """Return an estimate () of `cross_entropy(target)` from about `n_words` words, for training; target: (B, T) int64.

        Only the words of `sampled_words` are scored. The sum over the vocabulary that a softmax divides by is estimated
        without bias: those that stand for others count for as many (Jean et al. 2015, with strata instead of importance).
        """
        vocab_size = len(self.bias)
        if n_words >= vocab_size:
            return self.cross_entropy(target)
        words, log_weight = sampled_words(target, vocab_size, n_words)
        place = torch.empty(vocab_size, dtype=torch.int64, device=target.device)
        place[words] = torch.arange(len(words), device=target.device)
        sampled = WordScores(self.output, F.embedding(words, self.weight), self.bias[words] + log_weight)
        return sampled.cross_entropy(place[target])

    def argmax(self, dim: int = -1) -> Tensor:
        """Return the word of the highest score at every position, (B, T) int64; `dim` must be the last."""
        if dim not in (-1, self.output.dim() - 1):
            raise ValueError(f"dim is {dim}, expected -1: the best word at every position")
        if self._best is None:
            x, weight, bias = _in_product_dtype(self.output.detach().flatten(0, -2), self.weight, self.bias)
            blocks = [scores.argmax(1) for _, scores in _blocks(x, weight.detach(), bias.detach())]
            self._best = torch.cat(blocks).view(self.output.shape[:-1])
        return self._best

    def cpu(self) -> Tensor:
        """Return all scores (B, T, V) on the CPU, held whole, as a prediction that is kept."""
        return self.logits().cpu()


def sampled_words(target: Tensor, vocab_size: int, n_words: int) -> tuple[Tensor, Tensor]:
    """Choose the words that are scored in a step: which, (K,) int64, and log of how many words each stands for, (K,) float32.

    Every target is one of them, and the `n_words // 2` most frequent words, which a vocabulary has first; each for
    itself. Of all others `n_words - n_words // 2` are drawn, evenly, which stand for those that were not. target: any
    shape, int64.
    """
    is_own = torch.zeros(vocab_size, dtype=torch.bool, device=target.device)
    is_own[: n_words // 2] = True
    is_own[target.flatten()] = True
    own, others = is_own.nonzero()[:, 0], (~is_own).nonzero()[:, 0]
    n_drawn = min(n_words - n_words // 2, len(others))
    drawn = others[torch.randperm(len(others), device=target.device)[:n_drawn]]
    log_weight = torch.zeros(len(own) + n_drawn, device=target.device)
    log_weight[len(own) :] = math.log(len(others) / max(1, n_drawn)) if n_drawn else 0.0
    return torch.cat([own, drawn]), log_weight


class _LinearCrossEntropy(torch.autograd.Function):
    """Cross entropy of a linear layer, whose gradients are computed in the forward pass, for a loss gradient of 1.

    With p = softmax(scores) and y the one-hot target, d loss / d scores = (p - y) / N: all that the gradient's matrix
    products need is there while a block is, so nothing is computed twice. Under autocast the products run in its type,
    while sums are in float32 at least. The division by N waits for the backward pass, where fp16 has its loss scale to
    multiply by: before it, what is small would be lost.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, target: Tensor, learns: bool) -> Any:
        """Take x (N, E), weight (V, E), bias (V,) floating, target (N,) int64.

        Return loss (), and best (N,) int64 where nothing is learned.
        """
        needs_x, needs_weight, needs_bias = (learns and needs for needs in ctx.needs_input_grad[:3])
        wide = torch.promote_types(weight.dtype, torch.float32)
        grad_x = torch.empty_like(x) if needs_x else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=wide)
        best = None if learns else torch.empty_like(target)
        loss = torch.zeros((), dtype=wide, device=x.device)
        x, weight_, bias_ = _in_product_dtype(x, weight, bias)
        with torch.autocast(x.device.type, enabled=False):
            for rows, scores in _blocks(x, weight_, bias_):
                if best is not None:
                    torch.argmax(scores, 1, out=best[rows])
                loss += _softmax_less_target(scores, target[rows], grad_bias)
                if grad_x is not None:
                    grad_x[rows] = scores @ weight_
                if grad_weight is not None:
                    _add_product(grad_weight, scores, x[rows])
        ctx.n, ctx.grads = max(1, len(x)), [grad_x, grad_weight, grad_bias if needs_bias else None]
        if best is not None:
            ctx.mark_non_differentiable(best)
        return loss / ctx.n, best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, grad_best: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scale what the forward pass computed, and hand it over, once."""
        grads, ctx.grads = ctx.grads, None
        if grads is None:
            raise RuntimeError("this loss was back-propagated before: compute it again")
        scale = grad_loss / ctx.n
        return *(grad if grad is None else grad.mul_(scale) for grad in grads), None, None


def _in_product_dtype(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return all three in the type in which matrix products run: autocast's, where it is on."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return x.to(dtype), weight.to(dtype), bias.to(dtype)


def _blocks(x: Tensor, weight: Tensor, bias: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the scores of some rows of x (N, E) after others, each (n, V), all in one buffer: use them, then go on."""
    n_rows = max(1, BLOCK_BYTES // (weight.shape[0] * weight.element_size()))
    n_rows -= n_rows % 64 if n_rows > 64 else 0  # whole tiles of the matrix product
    buffer = weight.new_empty(min(n_rows, len(x)), weight.shape[0])
    for begin in range(0, len(x), n_rows):
        rows = slice(begin, min(begin + n_rows, len(x)))
        yield rows, torch.addmm(bias, x[rows], weight.T, out=buffer[: rows.stop - begin])


def _softmax_less_target(scores: Tensor, target: Tensor, grad_bias: Tensor) -> Tensor:
    """Turn scores (n, V) into softmax(scores) - one_hot(target), in place; return the summed loss ().

    target: (n,) int64. What becomes of the scores is added to grad_bias (V,). log(sum(exp(scores))) is the largest score
    less the logarithm of its probability, which is never so small that digits are lost.
    """
    n_rows = max(1, CACHE_BYTES // (scores.shape[1] * grad_bias.element_size()))
    loss = torch.zeros_like(grad_bias[0])
    for part, places in zip(scores.split(n_rows), target[:, None].split(n_rows), strict=True):
        largest, of_target = part.amax(1), part.gather(1, places)[:, 0]  # (n,)
        p = part if part.dtype == grad_bias.dtype else torch.empty_like(part, dtype=grad_bias.dtype)
        torch.softmax(part, 1, dtype=grad_bias.dtype, out=p)
        loss += (largest.to(p.dtype) - p.amax(1).log() - of_target).sum()
        p.scatter_add_(1, places, p.new_full((1, 1), -1).expand_as(places))
        grad_bias += p.sum(0)
        if p is not part:
            part.copy_(p)
    return loss


def _add_product(total: Tensor, scores: Tensor, x: Tensor) -> None:
    """total (V, E) += scores (n, V) transposed @ x (n, E), in the type of total."""
    if total.dtype == scores.dtype:
        total.addmm_(scores.T, x)
    else:
        total += scores.T @ x
