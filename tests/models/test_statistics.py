"""What can only be said of many draws: dropout keeps the mean, a new model guesses, one batch can be learned by heart.

Each bound is derived from a standard error, or from what the model is; all is seeded, so nothing here fails by chance.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ulmpipe.models import (
    CLASSIFIER_DROPOUTS,
    LM_DROPOUTS,
    SIZES,
    EmbeddingDropout,
    LanguageModel,
    RNNDropout,
    TextClassifier,
    WeightDropout,
    scaled_dropouts,
)

SEEDS = range(5)
TINY = SIZES["tiny"]
WITHIN = 5  # standard errors: a right mean of this many is further off once in 1.7 million draws


def rnn_masks(p: float) -> Tensor:
    """Independent draws of an RNNDropout: (B, E), one time step of each document."""
    return RNNDropout(p)(torch.ones(64, 3, 400))[:, 0]


def embedding_masks(p: float) -> Tensor:
    """Independent draws of an EmbeddingDropout: (1, V, 1), a word each."""
    embedding = nn.Embedding.from_pretrained(torch.ones(20_000, 1))
    return EmbeddingDropout(p)(embedding, torch.arange(20_000)[None])


@pytest.mark.parametrize("p", [0.02, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("draw", [rnn_masks, embedding_masks])
def test_masks_average_one(draw: Callable[[float], Tensor], p: float):
    """A value is 1 / (1 - p) with probability 1 - p, else 0: its variance is p / (1 - p)."""
    means = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        mask = draw(p).double()
        standard_error = math.sqrt(p / (1 - p) / mask.numel())
        assert abs(mask.mean().item() - 1) < WITHIN * standard_error
        means.append(mask.mean().item())
    assert len(set(means)) == len(SEEDS)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.75])
def test_dropped_weights_average_the_weights(monkeypatch: pytest.MonkeyPatch, p: float):
    """Of the matrix that the LSTM really runs with: it is what `torch.lstm` is given."""
    used: list[Tensor] = []
    run = torch.lstm

    def spy(x: Tensor, state: tuple[Tensor, Tensor], weights: list[Tensor], *options: object) -> object:
        used.append(weights[1].detach().double())
        return run(x, state, weights, *options)  # pyright: ignore[reportCallIssue, reportArgumentType]

    monkeypatch.setattr(torch, "lstm", spy)
    rnn = WeightDropout(nn.LSTM(2, 100, batch_first=True), p)
    raw = rnn.module.all_weights[0][1]
    nn.init.ones_(raw)
    for seed in SEEDS:
        torch.manual_seed(seed)
        rnn(torch.zeros(1, 1, 2))
        standard_error = math.sqrt(p / (1 - p) / raw.numel())
        assert abs(used[-1].mean().item() - 1) < WITHIN * standard_error
    assert len(used) == len(SEEDS) and not torch.equal(used[0], used[1])


@pytest.mark.parametrize("vocab_size", [10, 1000, 20_000])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_language_model_guesses(vocab_size: int, seed: int):
    """Its loss is ln V, and a little more.

    Scores that deviate by s over the words have log(sum(exp)) = ln V + mean + s^2 / 2, all but exactly where s is small;
    the score of a random target lies by s around their mean, the average of n by s / sqrt(n). s is 0.01 to 0.04 here:
    the square root of 48 features, times 0.058 of the embedding's deviation, times some 0.06 of the LSTM's output.
    """
    torch.manual_seed(seed)
    model = LanguageModel(vocab_size, **TINY, **scaled_dropouts(LM_DROPOUTS, 1.0)).train(seed % 2 == 0)
    ids, target = torch.randint(vocab_size, (2, 8, 20))
    with torch.no_grad():
        logits = model(ids).logits.flatten(0, 1).double()
        excess = F.cross_entropy(logits, target.flatten()).item() - math.log(vocab_size)
    s = logits.std(dim=1).mean().item()
    assert 0.005 < s < 0.1
    assert abs(excess - s**2 / 2) < WITHIN * s / math.sqrt(len(logits)) + s**3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_classifier_guesses(seed: int):
    """Its last layer draws weights within 1 / sqrt(50) for 50 inputs: scores deviate by some 0.5, which costs s^2 / 2."""
    torch.manual_seed(seed)
    model = TextClassifier(100, 4, **TINY, **scaled_dropouts(CLASSIFIER_DROPOUTS, 1.0))
    target = torch.arange(4).repeat(32)
    loss = F.cross_entropy(model(torch.randint(2, 100, (128, 12)), torch.full((128,), 12)), target)
    assert math.log(4) < loss.item() < math.log(4) + 0.3


def learned_by_heart(model: nn.Module, loss_of: Callable[[], Tensor], n_steps: int) -> float:
    """Return the loss after so many steps on one batch."""
    opt = torch.optim.Adam(model.parameters(), lr=1e-2)
    loss = torch.tensor(math.inf)
    for _ in range(n_steps):
        opt.zero_grad()
        loss = loss_of()
        loss.backward()
        opt.step()
    return loss.item()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_language_model_learns_one_batch_by_heart(seed: int):
    """Words are random: nothing but memory helps, and 3 windows of 12 are within a tiny model's."""
    torch.manual_seed(seed)
    model = LanguageModel(30, **TINY, **scaled_dropouts(LM_DROPOUTS, 0.0))
    windows = torch.randint(2, 30, (3, 13))
    windows[:, 0] = torch.arange(2, 5)  # the first word says which window it is: without, the second is a guess
    ids, target = windows[:, :-1], windows[:, 1:]

    def loss() -> Tensor:
        model.reset()
        return F.cross_entropy(model(ids).logits.flatten(0, 1), target.flatten())

    assert loss().item() == pytest.approx(math.log(30), abs=0.1)
    assert learned_by_heart(model, loss, 350) < 0.05  # 250 are enough on some processors, which round in another way


@pytest.mark.parametrize("seed", SEEDS)
def test_a_classifier_learns_one_batch_by_heart(seed: int):
    """Of documents of different lengths, with labels that have nothing to do with them."""
    torch.manual_seed(seed)
    model = TextClassifier(30, 3, **TINY, bptt=8, **scaled_dropouts(CLASSIFIER_DROPOUTS, 0.0), head_p=0.0)
    ids, lengths = torch.randint(2, 30, (12, 15)), torch.randint(4, 16, (12,))
    target = torch.randint(3, (12,))
    assert learned_by_heart(model, lambda: F.cross_entropy(model(ids, lengths), target), 60) < 0.02
