"""The regression is scikit-learn's, where all ratios are one; the ratios are those of counting."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ulmpipe.train.logistic import fit_logistic, log_count_ratios, sparse_rows, transposed


def sparse(dense: np.ndarray) -> Tensor:
    rows = [np.flatnonzero(row) for row in dense]
    offsets = np.cumsum([0, *map(len, rows)])
    return sparse_rows(
        torch.from_numpy(offsets),
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(dense[dense != 0]),
        n_columns=dense.shape[1],
    )


def losses(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, reduction="none")


@pytest.mark.parametrize("strength", [0.5, 20.0])
def test_three_classes_are_those_of_scikit_learn(rng: np.random.Generator, strength: float):
    linear_model = pytest.importorskip("sklearn.linear_model", reason="pip install 'ulmpipe[demo]'")
    x = (rng.random((80, 7)) * (rng.random((80, 7)) < 0.4)).astype(np.float32)
    labels = rng.integers(0, 3, 80)
    weights = rng.uniform(0.5, 3, 80).astype(np.float32)
    ref = linear_model.LogisticRegression(C=strength, tol=1e-9, max_iter=2000).fit(x, labels, sample_weight=weights)
    target = F.one_hot(torch.from_numpy(labels)).float()
    weight, bias = fit_logistic(
        sparse(x), target, torch.from_numpy(weights), torch.ones(7, 3), strength=strength, losses=losses
    )
    comp = (torch.from_numpy(x) @ weight + bias).softmax(dim=1).numpy()
    np.testing.assert_allclose(comp, ref.predict_proba(x), rtol=0, atol=2e-3)


def test_ratios_are_those_of_counting():
    presence = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 0], [0, 1, 1]], np.float32)
    target = F.one_hot(torch.tensor([0, 0, 1, 1])).float()
    comp = log_count_ratios(transposed(sparse(presence)), target, torch.tensor([1.0, 1, 1, 2]))
    # One more than the documents of class 0 and of class 1, whose last one counts twice.
    yes, no = np.array([3, 2, 2]), np.array([1, 4, 3])
    ref = np.log(yes / yes.sum()) - np.log(no / no.sum())
    ref = np.sign(ref) * np.sqrt(np.abs(ref))
    np.testing.assert_allclose(comp.numpy(), np.stack([ref, -ref], axis=1), rtol=1e-4)


def test_transposed_is_the_transpose(rng: np.random.Generator):
    dense = (rng.random((9, 5)) * (rng.random((9, 5)) < 0.3)).astype(np.float32)
    comp = transposed(sparse(dense))
    assert comp.layout == torch.sparse_csr and np.array_equal(comp.to_dense().numpy(), dense.T)


def test_a_feature_with_a_ratio_of_zero_has_no_weight(rng: np.random.Generator):
    x = sparse((rng.random((20, 4)) < 0.5).astype(np.float32))
    target = F.one_hot(torch.arange(20) % 2).float()
    weight, _ = fit_logistic(x, target, torch.ones(20), torch.tensor([[0.0, 0], [1, -1], [2, -2], [0, 0]]), strength=10.0, losses=losses)  # fmt: skip
    assert (weight[[0, 3]] == 0).all() and (weight[[1, 2]] != 0).all()
