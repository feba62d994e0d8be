"""Several labels a document: scores agree with scikit-learn's, thresholds with trying all of them."""

from typing import Any

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor, nn
from torch.nn import functional as F

from ulmpipe.train import FixedBatches, Learner
from ulmpipe.train.multi_label import (
    COUNTED,
    answer_counts,
    answer_f1,
    answer_f1_macro,
    answer_f1_micro,
    answer_weights,
    best_thresholds,
    binary_cross_entropy,
    exact_match,
)


@pytest.fixture
def answers() -> tuple[Tensor, Tensor]:
    """Logits and targets of 60 documents and 4 classes, the last of which no document has."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(2, (60, 4), generator=generator).to(torch.int8)
    target[:, 3] = 0
    return torch.randn(60, 4, generator=generator) + target - 0.5, target


def test_loss_is_the_plain_formula(answers: tuple[Tensor, Tensor]):
    pred, target = answers
    p, y = pred.sigmoid(), target.float()
    ref = -(y * p.log() + (1 - y) * (1 - p).log())
    assert binary_cross_entropy(pred, target).item() == pytest.approx(ref.mean().item())
    w = torch.tensor([[1.0, 2.0, 0.5, 1.0], [3.0, 1.0, 0.1, 1.0]])
    weighed = (y * w[1] + (1 - y) * w[0]) * ref
    assert binary_cross_entropy(pred, target, weights=w).item() == pytest.approx(weighed.mean().item())


def test_answers_are_balanced_and_weigh_one_in_the_mean():
    comp = answer_weights(torch.tensor([10, 30, 0, 40]), 40)
    assert comp.T.tolist() == [pytest.approx(w) for w in ([2 / 3, 2], [2, 2 / 3], [1, 1], [1, 1])]
    assert (30 * comp[0, 0] + 10 * comp[1, 0]).item() / 40 == pytest.approx(1)


def test_scores_agree_with_sklearn(answers: tuple[Tensor, Tensor]):
    pred, target = answers
    said, counts = pred >= 0, answer_counts(pred >= 0, target)
    f1: Any = sklearn_metrics.f1_score
    refs = {average: f1(target, said, average=average, zero_division=0) for average in (None, "macro", "micro")}
    assert answer_f1(counts) == pytest.approx(list(refs[None])) and answer_f1(counts)[3] == 0
    assert answer_f1_macro(counts) == pytest.approx(refs["macro"])
    assert answer_f1_micro(counts) == pytest.approx(refs["micro"])
    assert exact_match(pred, target).item() == pytest.approx(sklearn_metrics.accuracy_score(target, said))


def test_scores_of_an_epoch_are_those_of_all_batches(answers: tuple[Tensor, Tensor]):
    _, target = answers
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    batches = FixedBatches(list(zip(x.split(13), target.split(13), strict=True)))
    learn = Learner(nn.Linear(3, 4), batches, batches, loss_fn=binary_cross_entropy, metrics=[exact_match, *COUNTED])
    comp = learn.validate()
    pred = learn.model(x).detach()
    counts = answer_counts(pred >= 0, target)
    assert comp["f1_macro"] == pytest.approx(answer_f1_macro(counts)) and comp["f1_micro"] == pytest.approx(answer_f1_micro(counts))  # fmt: skip
    assert comp["exact_match"] == pytest.approx(exact_match(pred, target).item())
    assert comp["valid_loss"] == pytest.approx(F.binary_cross_entropy_with_logits(pred, target.float()).item())


def test_best_thresholds_are_the_best_of_all(answers: tuple[Tensor, Tensor]):
    pred, target = answers
    p = pred.sigmoid()
    comp = best_thresholds(p, target)
    assert comp[3] == 0.5  # no document has it
    for c in range(3):
        tried = [answer_f1(answer_counts(p[:, c : c + 1] >= t, target[:, c : c + 1]))[0] for t in [*p[:, c].tolist(), comp[c], 0.5]]  # fmt: skip
        assert tried[-2] == max(tried) > 0


@pytest.mark.parametrize(
    ("p", "y", "ref"),
    [
        ([0.9, 0.2, 0.1], [1, 1, 0], 0.15),
        ([0.3, 0.3, 0.3], [1, 0, 0], 0.15),  # all or none: those of equal probability go together
        ([0.8], [1], 0.4),
        ([0.9, 0.4], [1, 0], 0.65),
    ],
)
def test_best_threshold_lies_between_probabilities(p: list[float], y: list[int], ref: float):
    assert best_thresholds(torch.tensor(p)[:, None], torch.tensor(y)[:, None]) == [pytest.approx(ref)]
