"""Small models and data that the tests of `ulmpipe.train` share; all seeded."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ulmpipe.train import Callback, FixedBatches, GradientClip, Learner, ResetState, RNNRegularizer

VOCAB = 11
N_BATCHES = 6


def regression(n_batches: int = 4, seed: int = 0) -> FixedBatches:
    """Batches (x, y) of a linear task: x (8, 3), y (8, 1)."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.tensor([[1.0], [-2.0], [0.5]])
    xs = [torch.randn(8, 3, generator=generator) for _ in range(n_batches)]
    return FixedBatches([(x, x @ w) for x in xs])


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def regressor(*, n_batches: int = 4, valid: bool = True, callbacks: tuple[Callback, ...] = (), **options) -> Learner:
    valid_dl = regression(2, seed=9) if valid else None
    return Learner(mlp(), regression(n_batches), valid_dl, loss_fn=F.mse_loss, callbacks=callbacks, **options)


class Windows:
    """Batches (ids, next ids) of (2, 5) int64, other ones in every epoch."""

    def __init__(self, n_batches: int):
        self.n_batches = n_batches

    def __len__(self) -> int:
        return self.n_batches

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        ids = torch.randint(VOCAB, (self.n_batches, 2, 6), generator=torch.Generator().manual_seed(epoch))
        for window in ids[start:]:
            yield window[:, :-1], window[:, 1:]


class ToyLM(nn.Module):
    """A language model with dropout, a carried state and tied weights, with the interface of AWD-LSTM."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 8)
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.decoder = nn.Linear(8, VOCAB)
        self.decoder.weight = self.emb.weight
        self.hidden: tuple[Tensor, Tensor] | None = None
        self.n_resets = 0

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raw, hidden = self.rnn(self.drop(self.emb(ids)), self.hidden)
        self.hidden = (hidden[0].detach(), hidden[1].detach())
        dropped = self.drop(raw)
        return self.decoder(dropped), raw, dropped

    def reset(self) -> None:
        self.hidden = None
        self.n_resets += 1

    def carried_state(self) -> dict[str, Tensor]:
        return {} if self.hidden is None else {"h": self.hidden[0], "c": self.hidden[1]}

    def load_carried_state(self, carried: Mapping[str, Tensor]) -> None:
        self.hidden = (carried["h"], carried["c"]) if carried else None


def lm_loss(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def language_learner(*callbacks: Callback, n_batches: int = N_BATCHES, seed: int = 0) -> Learner:
    """With the callbacks that a language model is trained with, unless others are given."""
    torch.manual_seed(seed)
    callbacks = callbacks or (RNNRegularizer(), ResetState(), GradientClip(0.5))
    return Learner(ToyLM(), Windows(n_batches), Windows(2), loss_fn=lm_loss, callbacks=callbacks)


def sgd(groups: list[dict[str, Any]]) -> torch.optim.SGD:
    return torch.optim.SGD(groups)


def values_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Raise(Callback):
    """Raise an exception at the given batch (training batches counted from 0) of an event."""

    order = 5

    def __init__(self, event: str, exception: BaseException, *, at_step: int = 0):
        def hook(learn: Learner) -> None:
            if learn.step == at_step:
                raise exception

        setattr(self, event, hook)


def grad_norm(model: nn.Module) -> Tensor:
    return nn.utils.get_total_norm([param.grad for param in model.parameters() if param.grad is not None])
