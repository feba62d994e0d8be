"""Logistic regression of sparse features, scaled by how much oftener each comes with a class than without it (NB-SVM).

    x (n, F) sparse, target (n, C) -> log_count_ratios (F, C) -> fit_logistic -> weight (F, C), bias (C,)

Wang and Manning 2012, "Baselines and Bigrams": what counting alone says is where the regression's penalty pulls least. All
documents at once by L-BFGS, so it needs neither a learning rate nor a seed. Knows nothing of words.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

MAX_ITERATIONS = 60
HISTORY = 10  # steps that L-BFGS remembers, of two (F, C) each
SMOOTH = 1.0  # added to every count


def log_count_ratios(presence_t: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The root of the log of (the feature's share in a class / its share in all others), with its sign.

    Each count is one more than found. Wang and Manning take the log itself: on 1,000 reviews of IMDB its root was right on half
    a point more.
    presence_t: (F, n) sparse, 1 where a document has the feature; target: (n, C) 0 to 1; weights: (n,) of the documents.
    Returns (F, C).
    """
    of_class = target * weights[:, None]  # (n, C)
    yes, no = presence_t @ of_class + SMOOTH, presence_t @ (weights[:, None] - of_class) + SMOOTH  # (F, C)
    log_ratios = (yes / yes.sum(dim=0)).log() - (no / no.sum(dim=0)).log()
    return log_ratios.sign() * log_ratios.abs().sqrt()


def fit_logistic(
    x: Tensor,
    target: Tensor,
    weights: Tensor,
    ratios: Tensor,
    *,
    strength: float,
    losses: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Minimise strength * sum(weights * losses) + |u|^2 / 2 over u (F, C) and a bias; the weight is `ratios * u`.

    x: (n, F) sparse CSR float; target: (n, C); weights: (n,); losses: of logits (n, C) and target, (n,). Returns (F, C), (C,).
    """
    x_t = transposed(x)
    u, bias = torch.zeros_like(ratios), ratios.new_zeros(ratios.shape[1])
    total = weights.sum()
    decay = 1 / (strength * total)
    opt = torch.optim.LBFGS([u, bias], max_iter=MAX_ITERATIONS, history_size=HISTORY, tolerance_grad=1e-6, line_search_fn="strong_wolfe")  # fmt: skip

    def loss_and_grad() -> Tensor:
        with torch.enable_grad():
            logits = (x @ (ratios * u) + bias).requires_grad_()  # (n, C)
            loss = (weights * losses(logits, target)).sum() / total
            (grad,) = torch.autograd.grad(loss, logits)
        u.grad, bias.grad = ratios * (x_t @ grad) + decay * u, grad.sum(dim=0)
        return loss.detach() + decay / 2 * u.square().sum()

    opt.step(loss_and_grad)  # pyright: ignore[reportArgumentType]
    return ratios * u, bias


def sparse_rows(offsets: Tensor, columns: Tensor, values: Tensor, *, n_columns: int) -> Tensor:
    """A sparse CSR matrix (n, n_columns): row i has `values[offsets[i]:offsets[i + 1]]`, each in its column."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        size = (len(offsets) - 1, n_columns)
        return torch.sparse_csr_tensor(offsets, columns, values, size=size, check_invariants=False)


def transposed(x: Tensor) -> Tensor:
    """A sparse CSR matrix (n, F) as the CSR matrix (F, n)."""
    by_column = x.to_sparse_csc()
    return sparse_rows(by_column.ccol_indices(), by_column.row_indices(), by_column.values(), n_columns=x.shape[0])
