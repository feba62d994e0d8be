"""AWD-LSTM and the language model on it (Merity, Keskar and Socher 2017, as fastai's ULMFiT uses it).

    ids (B, T) -> embedding -> LSTM layers -> raw_output (B, T, E) -> output dropout -> tied decoder -> WordScores (B, T, V)

Comes after the batches of `ulmpipe.text`, before `ulmpipe.train`. The model remembers its state from one window of
a stream to the next. It computes no loss and adds no AR/TAR: those are callbacks of `ulmpipe.train`.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .dropout import EmbeddingDropout, RNNDropout, WeightDropout
from .scores import WordScores


class Sizes(TypedDict):
    """The three numbers that fix the shape of an AWD-LSTM, beside its vocabulary."""

    emb_size: int
    hidden_size: int
    n_layers: int


class Dropouts(TypedDict):
    """The five dropout probabilities, each in [0, 1)."""

    output_p: float
    hidden_p: float
    input_p: float
    embed_p: float
    weight_p: float


SIZES: dict[str, Sizes] = {
    "tiny": {"emb_size": 48, "hidden_size": 64, "n_layers": 2},  # for tests and the demo
    "small": {"emb_size": 300, "hidden_size": 300, "n_layers": 2},  # fastai course v3, lesson 12
    "medium": {"emb_size": 400, "hidden_size": 600, "n_layers": 2},  # as much as two cores train in an hour
    "base": {"emb_size": 400, "hidden_size": 1152, "n_layers": 3},  # fastai v1 and v2
}

# fastai 2.8 text/models/awdlstm.py: awd_lstm_lm_config and awd_lstm_clas_config. A drop_mult scales all five.
LM_DROPOUTS: Dropouts = {"output_p": 0.1, "hidden_p": 0.15, "input_p": 0.25, "embed_p": 0.02, "weight_p": 0.2}
CLASSIFIER_DROPOUTS: Dropouts = {"output_p": 0.4, "hidden_p": 0.3, "input_p": 0.4, "embed_p": 0.05, "weight_p": 0.5}


def scaled_dropouts(base: Dropouts, drop_mult: float) -> Dropouts:
    """Return every probability of `base` times `drop_mult`; `ConfigError` where one leaves [0, 1)."""
    largest = max(base["output_p"], base["hidden_p"], base["input_p"], base["embed_p"], base["weight_p"])
    if not 0 <= drop_mult * largest < 1:
        raise ConfigError(
            f"drop_mult is {drop_mult}, expected 0 <= drop_mult < {1 / largest:g}: "
            f"it multiplies dropout probabilities as large as {largest}"
        )
    return Dropouts(
        output_p=base["output_p"] * drop_mult,
        hidden_p=base["hidden_p"] * drop_mult,
        input_p=base["input_p"] * drop_mult,
        embed_p=base["embed_p"] * drop_mult,
        weight_p=base["weight_p"] * drop_mult,
    )


class AWDLSTM(nn.Module):
    """Embedding and a stack of LSTM layers, with dropout of every kind: ids in, one vector per token out.

    The last layer is `emb_size` wide, so that the decoder can share the embedding's weight. The state after one call is
    where the next call starts, without gradient between the two (truncated back-propagation), until `reset()` or
    until the batch size changes. It is no part of `state_dict()`; `carried_state()` saves it for an exact resume.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        emb_size: int,
        hidden_size: int,
        n_layers: int,
        pad_id: int = 1,
        hidden_p: float = 0.15,
        input_p: float = 0.25,
        embed_p: float = 0.02,
        weight_p: float = 0.2,
    ):
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers is {n_layers}, expected at least 1")
        self.emb_size = emb_size
        self.embedding = nn.Embedding(vocab_size, emb_size, padding_idx=pad_id)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        with torch.no_grad():
            self.embedding.weight[pad_id] = 0
        self.embedding_dropout = EmbeddingDropout(embed_p)
        self.input_dropout = RNNDropout(input_p)
        self.hidden_dropout = RNNDropout(hidden_p)
        sizes = [emb_size] + [hidden_size] * (n_layers - 1) + [emb_size]
        self.rnns = nn.ModuleList(
            WeightDropout(nn.LSTM(n_in, n_out, batch_first=True), weight_p)
            for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self._state: list[tuple[Tensor, Tensor]] | None = None  # per layer (h, c), each (1, B, H of that layer)

    def forward(self, ids: Tensor) -> Tensor:
        """Take ids (B, T) int64; return the last layer's output (B, T, E), no dropout on it."""
        before = self._state_for(batch_size=ids.shape[0])
        after = []
        x = self.input_dropout(self.embedding_dropout(self.embedding, ids))  # (B, T, E)
        for n, (rnn, state) in enumerate(zip(self.rnns, before, strict=True)):
            x = self.hidden_dropout(x) if n > 0 else x  # between layers only
            x, (h, c) = rnn(x, _usable_with(x, state))  # (B, T, H), at the last layer (B, T, E)
            after.append((h.detach(), c.detach()))
        self._state = after
        return x

    def reset(self) -> None:
        """Forget the carried state: the next call starts from zeros."""
        self._state = None

    def carried_state(self) -> dict[str, Tensor]:
        """Return the state that the next call starts from, as `{"h0": (1, B, H), "c0": ..., "h1": ...}`; {} if none."""
        carried = {}
        for n, (h, c) in enumerate(self._state or []):
            carried |= {f"h{n}": h, f"c{n}": c}
        return carried

    def load_carried_state(self, carried: Mapping[str, Tensor]) -> None:
        """Take up what `carried_state()` gave, from any device. {} is the same as `reset()`."""
        expected = [f"{name}{n}" for n in range(len(self.rnns)) for name in "hc"]
        if carried and set(carried) != set(expected):
            raise ValueError(f"the carried state has {sorted(carried)}, this model needs {sorted(expected)}")
        layers = range(len(self.rnns)) if carried else ()
        self._state = [(carried[f"h{n}"].detach(), carried[f"c{n}"].detach()) for n in layers] or None

    def _state_for(self, *, batch_size: int) -> list[tuple[Tensor, Tensor]] | list[None]:
        if self._state is None or self._state[0][0].shape[1] != batch_size:
            return [None] * len(self.rnns)
        return self._state


def _usable_with(x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
    """Move a carried state to the device and dtype of x: the model may have moved, or autocast begun, since."""
    if state is None:
        return None
    h, c = (tensor.to(x.device, x.dtype) for tensor in state)
    if h.is_inference() and not torch.is_inference_mode_enabled():
        return h.clone(), c.clone()  # autograd refuses tensors that were made under torch.inference_mode()
    return h, c


class LinearDecoder(nn.Module):
    """Score every word against an output vector. Owns the bias; the weight is the embedding's, given at each call.

    Weight tying (Press and Wolf 2017) so needs no shared parameter: the state dict holds the matrix once, which is
    what safetensors requires, and no copy or move of the model can untie the two.
    """

    def __init__(self, vocab_size: int, *, output_p: float):
        super().__init__()
        self.output_dropout = RNNDropout(output_p)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, output: Tensor, embedding_weight: Tensor) -> WordScores:
        """Take output (B, T, E) and weight (V, E); return the scores (B, T, V), not computed yet, of the dropped output."""
        return WordScores(self.output_dropout(output), embedding_weight, self.bias)


class LMOutput(NamedTuple):
    """What the language model returns: the scores, and the two activations that the regularisers look at."""

    scores: WordScores  # (B, T, V): position t scores the word at t + 1
    raw_output: Tensor  # (B, T, E), before output dropout: TAR (beta) compares its steps
    dropped_output: Tensor  # (B, T, E), after output dropout: AR (alpha) keeps it small

    @property
    def logits(self) -> Tensor:
        """All scores as a tensor (B, T, V): large. `scores.cross_entropy(target)` does without."""
        return self.scores.logits()


class LanguageModel(nn.Module):
    """Predict the next word at every position: AWD-LSTM and a decoder tied to its embedding.

    model = LanguageModel(60_000, **SIZES["base"], **scaled_dropouts(LM_DROPOUTS, 0.5))
    loss = model(ids).scores.cross_entropy(target)

    The row of `pad_id` starts at zero and no lookup trains it, but as a decoder row it gets a gradient like any other
    word. That does no harm: language model windows hold no padding, and a classifier pads after the last real token.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        emb_size: int,
        hidden_size: int,
        n_layers: int,
        pad_id: int = 1,
        output_p: float = 0.1,
        hidden_p: float = 0.15,
        input_p: float = 0.25,
        embed_p: float = 0.02,
        weight_p: float = 0.2,
    ):
        super().__init__()
        self.encoder = AWDLSTM(
            vocab_size,
            emb_size=emb_size,
            hidden_size=hidden_size,
            n_layers=n_layers,
            pad_id=pad_id,
            hidden_p=hidden_p,
            input_p=input_p,
            embed_p=embed_p,
            weight_p=weight_p,
        )
        self.decoder = LinearDecoder(vocab_size, output_p=output_p)

    def forward(self, ids: Tensor) -> LMOutput:
        """Take ids (B, T) int64, the windows that follow those of the call before; return `LMOutput`."""
        raw_output = self.encoder(ids)  # (B, T, E)
        scores = self.decoder(raw_output, self.encoder.embedding.weight)
        return LMOutput(scores, raw_output, scores.output)

    def reset(self) -> None:
        """Forget the carried state: at the start of an epoch and of a validation."""
        self.encoder.reset()

    def carried_state(self) -> dict[str, Tensor]:
        """Return the state that the next call starts from; see `AWDLSTM.carried_state`."""
        return self.encoder.carried_state()

    def load_carried_state(self, carried: Mapping[str, Tensor]) -> None:
        """Take up what `carried_state()` gave."""
        self.encoder.load_carried_state(carried)
