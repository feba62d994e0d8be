"""The dropouts of AWD-LSTM (Merity, Keskar and Socher 2017, section 4): on activations, on words, on recurrent weights.

Parts of `awd_lstm.py`. Each one is off in evaluation and at p = 0, where it hands its input through untouched, and
each mask has mean 1, so nothing is rescaled when it is off. Random numbers come from torch's global generator.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def checked_p(name: str, p: float) -> float:
    """Return p where 0 <= p < 1, raise `ValueError` otherwise. `name` is the option to name in the message."""
    if not 0 <= p < 1:
        raise ValueError(f"{name} is {p}, expected a share to drop of 0 <= {name} < 1")
    return p


def dropout_mask(x: Tensor, size: Sequence[int], p: float) -> Tensor:
    """Draw a mask of shape `size`: 0 with probability p, else 1 / (1 - p), so that its mean is 1.

    x gives dtype and device only. An axis of length 1 in `size` shares one draw along that axis of x.
    """
    checked_p("p", p)
    return x.new_empty(tuple(size)).bernoulli_(1 - p).div_(1 - p)


class RNNDropout(nn.Module):
    """Drop the same features at every time step of a document (Gal and Ghahramani 2016)."""

    def __init__(self, p: float):
        super().__init__()
        self.p = checked_p("p", p)

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (B, T, E), any floating dtype."""
        if not self.training or self.p == 0:
            return x
        return x * dropout_mask(x, (x.shape[0], 1, x.shape[2]), self.p)  # (B, 1, E), shared over T

    def extra_repr(self) -> str:
        """Show p in the printed model."""
        return f"p={self.p}"


class EmbeddingDropout(nn.Module):
    """Drop whole words: a row of the embedding is zero wherever the word stands in the batch.

    Owns no weight. The embedding comes with each call, so that it is in the model, and in its state dict, once.
    """

    def __init__(self, embed_p: float):
        super().__init__()
        self.embed_p = checked_p("embed_p", embed_p)

    def forward(self, embedding: nn.Embedding, ids: Tensor) -> Tensor:
        """Take ids (B, T) int64; return their vectors (B, T, E), in the dtype of the embedding."""
        vectors = embedding(ids)  # (B, T, E)
        if not self.training or self.embed_p == 0:
            return vectors
        # Scaling the looked-up rows equals dropping rows of the (V, E) matrix, without a copy of it: at V = 60,000
        # and E = 400 that is 96 MB a batch, and as much again for its gradient.
        mask = dropout_mask(embedding.weight, (embedding.num_embeddings, 1), self.embed_p)  # (V, 1)
        return vectors * mask[ids]  # (B, T, 1) broadcast over E

    def extra_repr(self) -> str:
        """Show p in the printed model."""
        return f"embed_p={self.embed_p}"


class WeightDropout(nn.Module):
    """Run an LSTM with a part of its hidden-to-hidden weights dropped (DropConnect, Wan et al. 2013).

    `module.weight_hh_l0` stays the leaf parameter that the optimiser sees. Training draws one mask per call, for all
    its time steps; the dropped matrix is an argument of torch's LSTM function and is never set on the module.
    """

    def __init__(self, module: nn.LSTM, weight_p: float):
        super().__init__()
        one_way = module.num_layers == 1 and not module.bidirectional and not module.proj_size
        if not (one_way and module.batch_first and module.bias):
            raise ValueError(f"WeightDropout takes a one-layer, one-way, batch_first nn.LSTM with bias, not {module}")
        self.module = module
        self.weight_p = checked_p("weight_p", weight_p)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run over x (B, T, E) from state (h, c), each (1, B, H), zeros where None.

        Return out (B, T, H) and the new state, as `nn.LSTM` does.
        """
        if not self.training or self.weight_p == 0:
            return self.module(x, state)
        if state is None:
            zeros = x.new_zeros(1, x.shape[0], self.module.hidden_size)  # (1, B, H)
            state = zeros, zeros
        weight_ih, weight_hh, bias_ih, bias_hh = self.module.all_weights[0]  # (4H, E), (4H, H), (4H,), (4H,)
        dropped = F.dropout(weight_hh, self.weight_p)  # scaled by 1 / (1 - p)
        weights = [weight_ih, dropped, bias_ih, bias_hh]
        if x.is_cuda:
            weights = side_by_side(weights)
        # The arguments of nn.LSTM.forward: has_biases, num_layers, dropout, train, bidirectional, batch_first.
        out, h, c = torch.lstm(x, state, weights, True, 1, 0.0, True, False, True)
        return out, (h, c)

    def extra_repr(self) -> str:
        """Show p in the printed model."""
        return f"weight_p={self.weight_p}"


def side_by_side(weights: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors of one dtype into one buffer, in order; return views of it in their shapes.

    The layout cuDNN wants for the weights of an LSTM. Given another it makes this same copy itself, and warns.
    """
    buffer = torch.cat([weight.flatten() for weight in weights])
    pieces = buffer.split([weight.numel() for weight in weights])
    return [piece.view_as(weight) for piece, weight in zip(pieces, weights, strict=True)]
