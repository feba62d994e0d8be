"""Scores of words are gradient x embedding of the log-odds: finite differences agree, pads have none, the model is as it was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ulmpipe.models import SIZES, TextClassifier
from ulmpipe.models.explain import log_odds, log_odds_of_all, own_logits, word_scores

V, C, PAD_ID = 30, 3, 1


@pytest.fixture
def model() -> TextClassifier:
    return TextClassifier(V, C, **SIZES["tiny"], bptt=4).eval()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    ids, lengths = torch.randint(2, V, (3, 11)), torch.tensor([11, 5, 1])
    return ids.where(torch.arange(11) < lengths[:, None], PAD_ID), lengths, torch.tensor([0, 2, 1])


def test_sum_of_scores_is_the_derivative_along_the_embeddings():
    """d/ds log-odds(s * vectors) at s = 1, by central differences in float64."""
    model = TextClassifier(V, C, **SIZES["tiny"], bptt=4).eval().double()
    ids, lengths, classes = batch()
    weight, step = model.encoder.rnn.embedding.weight, 1e-5
    original = weight.detach().clone()

    def odds(scale: float) -> Tensor:
        with torch.no_grad():
            weight.copy_(original * scale)
            return log_odds(model(ids, lengths), classes)

    ref = (odds(1 + step) - odds(1 - step)) / (2 * step)
    odds(1)
    scores = word_scores(model, ids, lengths, classes)
    torch.testing.assert_close(scores.sum(dim=1).double(), ref, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("odds", [log_odds, own_logits])
def test_score_of_a_word_is_the_derivative_along_its_own_vector(odds: Callable[[Tensor, Tensor], Tensor]):
    model = TextClassifier(V, C, **SIZES["tiny"], bptt=4).eval().double()
    ids, lengths, classes = torch.arange(2, 13)[None], torch.tensor([11]), torch.tensor([1])  # each word once
    scores, weight, step = (
        word_scores(model, ids, lengths, classes, odds=odds),
        model.encoder.rnn.embedding.weight,
        1e-5,
    )
    for place in (0, 6, 10):
        row = int(ids[0, place])
        original, found = weight[row].detach().clone(), []
        for scale in (1 + step, 1 - step):
            with torch.no_grad():
                weight[row] = original * scale
                found.append(odds(model(ids, lengths), classes).item())
        with torch.no_grad():
            weight[row] = original
        assert scores[0, place].item() == pytest.approx((found[0] - found[1]) / (2 * step), rel=1e-4, abs=1e-8)


def test_scores_of_pads_are_zero(model: TextClassifier):
    ids, lengths, classes = batch()
    with torch.no_grad():
        model.encoder.rnn.embedding.weight[PAD_ID] = 1.0  # so that a pad would have a score
    scores = word_scores(model, ids, lengths, classes)
    assert scores.shape == ids.shape and scores.dtype == torch.float32
    assert all(row[:n].all() and not row[n:].any() for row, n in zip(scores, lengths.tolist(), strict=True))


def test_scores_do_not_depend_on_neighbours_or_on_the_mode_of_gradients(model: TextClassifier):
    ids, lengths, classes = batch()
    ref = word_scores(model, ids, lengths, classes)
    with torch.no_grad():
        alone = word_scores(model, ids[1:2, :5], lengths[1:2], classes[1:2])
    torch.testing.assert_close(alone[0], ref[1, :5])


def test_nothing_is_left_behind(model: TextClassifier):
    ids, lengths, classes = batch()
    ref = model(ids, lengths)
    word_scores(model, ids, lengths, classes)
    assert torch.equal(model(ids, lengths), ref) and model.encoder.rnn.carried_state() == {}
    assert all(param.grad is None for param in model.parameters())
    with pytest.raises(ValueError, match="training mode"):
        word_scores(model.train(), ids, lengths, classes)


def test_log_odds_are_those_of_the_softmax():
    logits, classes = torch.randn(5, C, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    p = logits.softmax(dim=1).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(log_odds(logits, classes), (p / (1 - p)).log())


def test_log_odds_of_all_classes_are_those_of_each():
    logits = torch.cat([torch.randn(20, 4), 60 * torch.randn(20, 4)])
    ref = torch.stack([log_odds(logits, torch.full((40,), c)) for c in range(4)], dim=1)
    comp = log_odds_of_all(logits)
    assert torch.isfinite(comp).all() and ref.max() > 20  # beyond what 1 - p can tell
    torch.testing.assert_close(comp, ref, rtol=1e-4, atol=1e-4)
