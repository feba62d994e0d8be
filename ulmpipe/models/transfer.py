"""What one model hands on to the next: weights matched by word, encoders, and the groups that are unfrozen in turn.

    language model of corpus A -> `transfer_language_model` -> of corpus B -> `load_encoder` -> classifier

Works on state dicts and lists of words (`itos`) in memory. Reads no file, trains nothing, and takes only the keys
of this package's own models.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import UlmpipeError, VocabMismatchError, some
from .awd_lstm import AWDLSTM, LanguageModel
from .heads import TextClassifier

PAD = "xxpad"  # the padding token of every vocabulary of this project, and of fastai's
EMBEDDING_KEY, BIAS_KEY = "encoder.embedding.weight", "decoder.bias"


def match_embeddings(weight: Tensor, old_itos: Sequence[str], new_itos: Sequence[str]) -> tuple[Tensor, float]:
    """Carry an embedding over to another vocabulary.

    weight: (V_old, E) floating. A word in both keeps its row, a new word gets the mean row of the old words, `xxpad` is
    zero and counts nowhere. Returns (V_new, E) in the same dtype, and the share of new words found in the old ones.
    """
    _check_rows("the old embedding", weight, old_itos)
    rows = _old_rows(old_itos, new_itos).to(weight.device)
    new_weight = _pick_or_mean(weight, rows, old_itos)
    is_word = torch.tensor([word != PAD for word in new_itos], device=weight.device)
    new_weight[~is_word] = 0
    n_mapped = int((is_word & (rows >= 0)).sum())
    return new_weight, n_mapped / max(1, int(is_word.sum()))


def match_bias(bias: Tensor, old_itos: Sequence[str], new_itos: Sequence[str]) -> Tensor:
    """Carry the decoder's bias over: (V_old,) to (V_new,). A new word gets the mean of the old words."""
    _check_rows("the old decoder bias", bias, old_itos)
    return _pick_or_mean(bias, _old_rows(old_itos, new_itos).to(bias.device), old_itos)


def transfer_language_model(
    model: LanguageModel, state_dict: Mapping[str, Tensor], old_itos: Sequence[str], new_itos: Sequence[str]
) -> float:
    """Load the weights of a language model with another vocabulary into `model`; return the share of words mapped.

    state_dict is that of the old `LanguageModel`, with the words `old_itos`; `model` was made for `new_itos` and is
    changed in place. Raises `VocabMismatchError` where words and rows differ in number, `UlmpipeError` where the
    sizes differ.
    """
    _check_rows("the new model", model.decoder.bias, new_itos)
    _check_keys(state_dict, [EMBEDDING_KEY, BIAS_KEY])
    weight, share_mapped = match_embeddings(state_dict[EMBEDDING_KEY], old_itos, new_itos)
    bias = match_bias(state_dict[BIAS_KEY], old_itos, new_itos)
    _load(model, {**state_dict, EMBEDDING_KEY: weight, BIAS_KEY: bias})
    model.reset()
    return share_mapped


def load_encoder(classifier: TextClassifier, lm_state_dict: Mapping[str, Tensor]) -> None:
    """Copy the encoder of a language model with the same vocabulary into `classifier`, in place; the head stays.

    Raises `VocabMismatchError` where the vocabularies differ in size, `UlmpipeError` where another key is missing
    or misshapen.
    """
    _check_keys(lm_state_dict, [EMBEDDING_KEY])
    rnn = classifier.encoder.rnn
    n_found, n_expected = lm_state_dict[EMBEDDING_KEY].shape[0], rnn.embedding.num_embeddings
    if n_found != n_expected:
        raise VocabMismatchError(
            f"the language model knows {n_found} words, the classifier {n_expected}: "
            f"make the classifier with the vocabulary of the language model"
        )
    prefix = "encoder."
    _load(rnn, {key.removeprefix(prefix): lm_state_dict[key] for key in lm_state_dict if key.startswith(prefix)})
    rnn.reset()


def language_model_groups(model: LanguageModel) -> list[list[nn.Parameter]]:
    """Group the parameters for gradual unfreezing: [first LSTM], ..., [last LSTM], [embedding and decoder].

    The order of the fastai course: the last group learns first, and what is new here is the words.
    """
    words = [*model.encoder.embedding.parameters(), *model.decoder.parameters()]
    return [*_layers(model.encoder), words]


def classifier_groups(model: TextClassifier) -> list[list[nn.Parameter]]:
    """Group the parameters for gradual unfreezing: [embedding], [first LSTM], ..., [last LSTM], [head]."""
    rnn = model.encoder.rnn
    return [list(rnn.embedding.parameters()), *_layers(rnn), list(model.head.parameters())]


def _layers(rnn: AWDLSTM) -> list[list[nn.Parameter]]:
    return [list(layer.parameters()) for layer in rnn.rnns]


def _old_rows(old_itos: Sequence[str], new_itos: Sequence[str]) -> Tensor:
    """Return for each new word its old id, -1 where it has none: (V_new,) int64."""
    old_stoi = {word: n for n, word in enumerate(old_itos)}
    return torch.tensor([old_stoi.get(word, -1) for word in new_itos], dtype=torch.int64)


def _pick_or_mean(table: Tensor, rows: Tensor, old_itos: Sequence[str]) -> Tensor:
    """Return table[rows], and where a row is -1 the mean over the old words. table: (V_old, ...), rows: (V_new,)."""
    is_word = torch.tensor([word != PAD for word in old_itos], device=table.device)
    mean = table[is_word].mean(dim=0, dtype=torch.float64).to(table.dtype)  # a long sum in half precision goes astray
    picked = table[rows.clamp(min=0)]  # a copy, (V_new, ...)
    picked[rows < 0] = mean
    return picked


def _check_rows(what: str, table: Tensor, itos: Sequence[str]) -> None:
    if len(itos) != table.shape[0]:
        raise VocabMismatchError(
            f"{what} has {table.shape[0]} rows but the vocabulary has {len(itos)} words: "
            f"use the vocab.json that was saved with these weights"
        )


def _check_keys(found: Mapping[str, Tensor], expected: Sequence[str]) -> None:
    if missing := [key for key in expected if key not in found]:
        raise UlmpipeError(
            f"the weights lack {some(missing)} and hold {some(sorted(found))}: "
            f"expected those of a language model made by ulmpipe"
        )


def _load(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the module after a check of every name and shape, so that a failure changes nothing."""
    expected = module.state_dict()
    wrong = [f"{key} is missing" for key in expected if key not in weights]
    wrong += [f"{key} is not expected" for key in weights if key not in expected]
    wrong += [
        f"{key} is {tuple(weights[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    if wrong:
        raise UlmpipeError(
            f"the weights have {_sizes(weights)}, the model {_sizes(expected)} ({some(wrong)}): "
            f"make the model with the sizes of the weights, or choose weights of its size"
        )
    module.load_state_dict(dict(weights))


def _sizes(weights: Mapping[str, Tensor]) -> str:
    """Name the sizes behind an encoder's weights: "emb_size 400, hidden_size 1152, n_layers 3"."""
    emb_size = next(weights[key].shape[1] for key in weights if key.endswith("embedding.weight"))
    hidden_sizes = [weights[key].shape[1] for key in sorted(weights) if key.endswith("weight_hh_l0")]
    return f"emb_size {emb_size}, hidden_size {(hidden_sizes or [0])[0]}, n_layers {len(hidden_sizes)}"
