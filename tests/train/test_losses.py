"""Class weights and label smoothing are what their formulas say, and change what is back-propagated, nothing else."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional as F

from ulmpipe.train import FixedBatches, Learner, TrainingLoss, class_weights, weighted_cross_entropy


def test_class_weights_are_balanced_as_sklearn_does_it():
    target = torch.tensor([0] * 70 + [1] * 25 + [2] * 5)
    comp = class_weights(torch.bincount(target))
    ref = compute_class_weight("balanced", classes=np.arange(3), y=target.numpy())
    assert comp.tolist() == pytest.approx(ref.tolist())
    assert comp[target].mean().item() == pytest.approx(1)


def test_class_weights_of_an_absent_class_are_nothing_and_the_mean_stays_one():
    comp = class_weights(torch.tensor([6, 0, 2]))
    assert comp.tolist() == pytest.approx([8 / 12, 0, 2])
    assert (comp * torch.tensor([6, 0, 2])).sum().item() / 8 == pytest.approx(1)


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0)])
def test_weighted_cross_entropy_is_the_plain_formula(eps: float, weights: tuple[float, ...] | None):
    generator = torch.Generator().manual_seed(3)
    pred, target = torch.randn(7, 3, generator=generator), torch.tensor([0, 0, 1, 2, 2, 2, 1])
    w = torch.tensor(weights or (1.0, 1.0, 1.0))
    comp = weighted_cross_entropy(pred, target, weights=w if weights else None, label_smoothing=eps)
    ref = 0.0
    for row, y in zip(pred.log_softmax(-1), target.tolist(), strict=True):
        shares = [(1 - eps) * (c == y) + eps / 3 for c in range(3)]
        ref -= sum(share * w[c].item() * row[c].item() for c, share in enumerate(shares)) / 7
    assert comp.item() == pytest.approx(ref, rel=1e-5)


def test_weighted_cross_entropy_without_options_is_the_plain_one():
    pred, target = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 4
    assert weighted_cross_entropy(pred, target).item() == pytest.approx(F.cross_entropy(pred, target).item())


def test_mean_over_batches_is_that_over_documents():
    pred, target = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0] * 4 + [1] * 4)
    w = torch.tensor([0.2, 1.8])
    halves = [weighted_cross_entropy(p, t, weights=w) for p, t in zip(pred.split(4), target.split(4), strict=True)]
    assert torch.stack(halves).mean().item() == pytest.approx(weighted_cross_entropy(pred, target, weights=w).item())


def test_training_loss_is_learned_from_and_not_shown():
    torch.manual_seed(0)
    x, y = torch.randn(16, 3), torch.randint(2, (16,))
    model = nn.Linear(3, 2)
    before = [p.detach().clone() for p in model.parameters()]
    loss_of = {p: F.cross_entropy(model(x), y).item() for p in ("train_loss", "valid_loss")}
    still = TrainingLoss(lambda pred, target: 0 * pred.sum())
    learn = Learner(model, FixedBatches([(x, y)]), FixedBatches([(x, y)]), loss_fn=F.cross_entropy, callbacks=[still])
    learn.fit(1, lr=0.1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert {name: learn.history[0][name] for name in loss_of} == pytest.approx(loss_of)
