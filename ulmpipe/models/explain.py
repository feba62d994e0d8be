"""Which words made the classifier say so: gradient x embedding of each token.

    ids (B, L), lengths (B,), classes (B,) -> log-odds of the class -> gradient at the word vectors -> scores (B, L)

A score is the change of the log-odds, to first order, that the token's vector brings, against a vector of zeros: positive
where the word speaks for the class (Denil, Demiraj and de Freitas 2014, "Extraction of salient sentences"). What the
n-grams at a word add to the logits is added, half of a pair to each of its words. Needs one
backward pass, and changes nothing in the model. Does not know words.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .heads import TextClassifier
from .ngrams import NGramScores


def word_scores(
    model: TextClassifier,
    ids: Tensor,
    lengths: Tensor,
    classes: Tensor,
    *,
    odds: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Score each token for the class of its document.

    ids: (B, L) int64, padded at the end; lengths: (B,) int64; classes: (B,) int64, the class to explain. Returns (B, L)
    float32, zero at pads. The model must be in evaluation mode. Documents are read in one piece, not in windows of bptt:
    the gradient reaches back to the first word, and memory grows with B * L. `odds` makes the log-odds (B,) of logits
    (B, C) and classes: `log_odds`, or `own_logits` of a model that gives several labels.
    """
    if model.training:
        raise ValueError("the model is in training mode, expected evaluation mode: call model.eval()")
    taken: list[Tensor] = []

    def take(embedding: nn.Module, given: tuple[Tensor, ...], vectors: Tensor) -> Tensor:
        taken.append(vectors.detach().requires_grad_())
        return taken[-1]

    hook = model.encoder.rnn.embedding.register_forward_hook(take)
    try:
        # cuDNN has no backward pass of an LSTM in evaluation mode.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            model.encoder.rnn.reset()
            logits = model.joined(model.head(model.encoder.rnn(ids), lengths), ids, lengths)  # (B, C)
            found = (odds or log_odds)(logits, classes)  # (B,)
            gradient, by_logit = torch.autograd.grad(found.sum(), [*taken, logits])  # (B, L, E), (B, C)
    finally:
        hook.remove()
        model.encoder.rnn.reset()
    scores = (gradient * taken[0].detach()).sum(dim=-1)  # (B, L)
    if model.ngrams is not None:
        scores = scores + _ngram_scores(model.ngrams, ids, lengths, by_logit)
    is_pad = torch.arange(ids.shape[1], device=ids.device) >= lengths[:, None]  # (B, L)
    return scores.masked_fill(is_pad, 0).float()


def _ngram_scores(ngrams: NGramScores, ids: Tensor, lengths: Tensor, by_logit: Tensor) -> Tensor:
    """What the n-grams at each word do for the log-odds, (B, L); by_logit: (B, C), their gradient at the logits."""
    scores = by_logit.new_zeros(ids.shape)  # (B, L)
    for row, n_words in enumerate(lengths.tolist()):
        scores[row, :n_words] = ngrams.word_logits(ids[row, :n_words]) @ by_logit[row]
    return scores


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """Log of p / (1 - p) of a class, p its softmax: logits (B, C) and classes (B,) int64 to (B,).

    Unlike p itself it does not level off where the model is sure, so the words that made it sure still count.
    """
    own = logits.gather(1, classes[:, None])  # (B, 1)
    others = logits.scatter(1, classes[:, None], float("-inf"))  # (B, C)
    return own[:, 0] - others.logsumexp(dim=1)  # (B,)


def log_odds_of_all(logits: Tensor) -> Tensor:
    """`log_odds` of every class: logits (B, C) to (B, C)."""
    log_p = logits.log_softmax(dim=1)
    odds = log_p - torch.log1p(-log_p.exp())
    likeliest = logits.argmax(dim=1)  # where 1 - p may round to 0; of the others it is 1 / C at least
    return odds.scatter(1, likeliest[:, None], log_odds(logits, likeliest)[:, None])


def own_logits(logits: Tensor, classes: Tensor) -> Tensor:
    """Log of p / (1 - p) of a class that is a question of its own, p its sigmoid: logits (B, C) and classes (B,) to (B,)."""
    return logits.gather(1, classes[:, None])[:, 0]
