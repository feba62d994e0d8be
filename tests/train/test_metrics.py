import math
from functools import partial

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import nn
from torch.nn import functional as F

from ulmpipe.train import (
    FixedBatches,
    Learner,
    accuracy,
    confusion_matrix,
    f1_macro,
    f1_scores,
    perplexity,
    probabilities,
)
from ulmpipe.train.metrics import Metrics, WeightedMean, counted_f1_macro, finite_row


@pytest.fixture
def labels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(4, (200,), generator=generator), torch.randint(4, (200,), generator=generator)


def test_accuracy_takes_any_leading_dimensions():
    pred = torch.tensor([[[0.1, 0.9], [0.8, 0.2]], [[0.3, 0.7], [0.6, 0.4]]])
    assert accuracy(pred, torch.tensor([[1, 0], [0, 0]])).item() == 0.75
    assert accuracy(pred.view(4, 2), torch.tensor([1, 0, 0, 0])).item() == 0.75


def test_confusion_and_f1_agree_with_sklearn(labels):
    pred_ids, target_ids = labels
    comp = confusion_matrix(pred_ids, target_ids, 4)
    ref = sklearn_metrics.confusion_matrix(target_ids, pred_ids)
    assert comp.dtype == torch.int64 and comp.tolist() == ref.tolist()
    assert f1_scores(comp) == pytest.approx(sklearn_metrics.f1_score(target_ids, pred_ids, average=None))  # type: ignore[arg-type]
    assert f1_macro(comp) == pytest.approx(sklearn_metrics.f1_score(target_ids, pred_ids, average="macro"))


def test_f1_of_an_absent_class_is_zero():
    comp = confusion_matrix(torch.tensor([0, 0]), torch.tensor([0, 1]), 3)
    assert comp.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert f1_scores(comp) == pytest.approx([2 / 3, 0, 0])
    assert confusion_matrix(torch.tensor([], dtype=torch.long), torch.tensor([], dtype=torch.long), 2).sum() == 0


def test_perplexity_of_a_uniform_guess_is_the_vocabulary_size():
    assert perplexity(math.log(50.0)) == pytest.approx(50)
    assert perplexity(1e4) == math.inf


def test_weighted_mean():
    mean = WeightedMean()
    assert math.isnan(mean.mean())
    mean.add(torch.tensor(1.0), 3)
    mean.add(torch.tensor(5.0), 1)
    assert mean.mean() == 2.0


def test_history_is_weighted_by_targets():
    torch.manual_seed(0)
    batches = [(torch.randn(n, 3), torch.randint(2, (n,))) for n in (8, 8, 3)]
    learn = Learner(
        nn.Linear(3, 2), FixedBatches(batches), FixedBatches(batches), loss_fn=F.cross_entropy, metrics=[accuracy]
    )
    learn.fit(1, lr=0.0)
    pred = learn.model(torch.cat([x for x, _ in batches])).detach()
    target = torch.cat([y for _, y in batches])
    row = learn.history[0]
    assert row["train_loss"] == pytest.approx(F.cross_entropy(pred, target).item())
    assert row["valid_loss"] == pytest.approx(row["train_loss"])
    assert row["accuracy"] == pytest.approx(accuracy(pred, target).item())
    assert list(row) == ["epoch", "step", "train_loss", "valid_loss", "accuracy", "seconds", "targets_per_s"]
    assert row["seconds"] > 0 and row["targets_per_s"] > 0


def test_f1_is_that_of_all_batches_and_no_mean_over_them():
    torch.manual_seed(0)
    batches = [(torch.randn(n, 3), torch.randint(3, (n,))) for n in (8, 5, 2)]
    learn = Learner(nn.Linear(3, 3), FixedBatches(batches), FixedBatches(batches), loss_fn=F.cross_entropy, metrics=[counted_f1_macro(3), accuracy])  # fmt: skip
    learn.fit(2, lr=0.0)
    pred, target = learn.predict(FixedBatches(batches))
    ref = sklearn_metrics.f1_score(target, pred.argmax(-1), average="macro")
    assert [row["f1_macro"] for row in learn.history] == pytest.approx([ref, ref])
    assert list(learn.history[0])[3:6] == ["valid_loss", "accuracy", "f1_macro"]


def test_finite_row():
    assert finite_row({"a": 1.0, "b": math.nan, "c": math.inf}) == {"a": 1.0, "b": None, "c": None}


def test_probabilities_are_those_that_the_loss_stands_for():
    scores, target = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    for loss_fn in (F.cross_entropy, partial(F.cross_entropy, label_smoothing=0.1), nn.CrossEntropyLoss()):
        assert torch.equal(probabilities(scores, loss_fn), scores.softmax(dim=-1))
    p = probabilities(scores, F.cross_entropy)
    torch.testing.assert_close(F.nll_loss(p.log(), target), F.cross_entropy(scores, target))
    p = probabilities(scores, F.binary_cross_entropy_with_logits)
    torch.testing.assert_close(F.binary_cross_entropy(p, p), F.binary_cross_entropy_with_logits(scores, p))
    with pytest.raises(ValueError, match="what mse_loss takes scores for is not known"):
        probabilities(scores, F.mse_loss)


def test_two_metrics_of_one_name_are_refused():
    with pytest.raises(ValueError, match="several metrics are called accuracy: give each a __name__ of its own"):
        Metrics([accuracy, accuracy])
