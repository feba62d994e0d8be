"""What fastai calls the weights of an AWD-LSTM, and what we call them: a state dict of theirs becomes one of ours.

    fastai 1 and 2    0.encoder.weight  0.rnns.N.weight_hh_l0_raw  0.rnns.N.module.weight_ih_l0 ...  1.decoder.bias
    lesson 12         0.emb.weight, later on; 0.encoder.weight before
    save_encoder      the same without the leading 0., and no decoder

By name and never by position; every tensor's shape is checked. Order of the gates, and the two biases of a layer, are
torch's in both. Reads no file (tasks/fastai_files.py) and knows no words.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UlmpipeError, some
from .awd_lstm import LanguageModel, Sizes
from .transfer import BIAS_KEY, EMBEDDING_KEY

RAW = "_raw"  # the weight before dropout: the truth where a dropped copy lies beside it
_LAYER = r"(?:0\.)?rnns\.(0|[1-9]\d?)"
_OURS = tuple(
    (re.compile(theirs), ours)
    for theirs, ours in (
        (r"(?:0\.)?(?:encoder|emb)\.weight", EMBEDDING_KEY),
        (r"(?:0\.)?(?:encoder_dp|emb_dp)\.emb\.weight", EMBEDDING_KEY),  # the same tensor again
        (r"1\.decoder\.weight", EMBEDDING_KEY),  # and again: tied
        (r"1\.decoder\.bias", BIAS_KEY),
        (rf"{_LAYER}\.weight_hh_l0{RAW}", r"encoder.rnns.\1.module.weight_hh_l0"),
        (rf"{_LAYER}\.module\.((?:weight|bias)_[ih]h_l0)", r"encoder.rnns.\1.module.\2"),
    )
)
# Files that are something else, told by a key.
_OTHERS = (
    (r".*encoder_with_dropout\.", "is of fastai 0.7, whose vocabulary has other special tokens: take a file of fastai 1 or 2 (wt103-fwd.tgz)"),
    (r".*rnns\.\d+\.(?:\w+\.)*(?:layers\.\d+\.)?linear\.", "is a QRNN: only LSTMs can be imported"),
    (r".*_reverse(?:_raw)?$", "reads in both directions at once: only one-way LSTMs can be imported"),
    (r"0\.module\.|1\.layers\.", "is a classifier: give the language model it was made from, or what save_encoder wrote"),
)  # fmt: skip


class Imported(NamedTuple):
    """Weights under our names, float32, and what was read from them."""

    weights: dict[str, Tensor]
    sizes: Sizes
    has_decoder: bool  # False for what `save_encoder` wrote: the decoder's bias is zero then


def from_fastai(state: Any) -> Imported:
    """Rename the state dict of a fastai language model or encoder, maybe in `{"model": ..., "opt": ...}`.

    Raises `UlmpipeError` that names what is missing, not expected or misshapen, or says what the file is instead.
    """
    state = _state_dict(state)
    has_decoder = any(name.startswith(("0.", "1.")) for name in state)
    sources, wrong = _by_our_names(state)
    expected, sizes = _expected({ours: tensors[0][1] for ours, tensors in sources.items()})
    if not has_decoder:
        sources[BIAS_KEY] = [("", torch.zeros(expected[BIAS_KEY]))]
    weights: dict[str, Tensor] = {}
    for ours, shape in expected.items():
        if ours not in sources:
            wrong.append(f"{fastai_name(ours, has_decoder=has_decoder)} is missing")
            continue
        for theirs, tensor in sources[ours]:
            if tensor.shape != shape:
                wrong.append(f"{theirs} is {tuple(tensor.shape)}, expected {tuple(shape)}")
            elif not bool(tensor.isfinite().all()):
                wrong.append(f"{theirs} holds numbers that are not finite")
            elif not torch.equal(tensor, sources[ours][0][1]):
                wrong.append(f"{theirs} is not {sources[ours][0][0]}, to which ours is tied")
        weights[ours] = sources[ours][0][1].to(torch.float32).contiguous()
    if wrong:
        raise UlmpipeError(f"the weights are no AWD-LSTM of fastai: {some(wrong)}")
    return Imported(weights, sizes, has_decoder)


def add_words(weights: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """Weights of our language model with `n` more words behind the others, each the mean of all: (V, ...) to (V + n, ...)."""
    added = dict(weights)
    for name in (EMBEDDING_KEY, BIAS_KEY):
        mean = weights[name].mean(dim=0, dtype=torch.float64, keepdim=True).to(weights[name].dtype)
        added[name] = torch.cat([weights[name], *[mean] * n])
    return added


def fastai_name(ours: str, *, has_decoder: bool) -> str:
    """What fastai 1 and 2 call one of our weights; in an encoder without the leading `0.`."""
    if ours == BIAS_KEY:
        return "1.decoder.bias"
    if ours == EMBEDDING_KEY:
        name = "encoder.weight"
    else:
        name = ours.removeprefix("encoder.").replace("module.weight_hh_l0", f"weight_hh_l0{RAW}")
    return f"0.{name}" if has_decoder else name


def _state_dict(state: Any) -> dict[str, Tensor]:
    """The tensors by name. Raises `UlmpipeError` for anything else, and for models that are no AWD-LSTM."""
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]
    if not isinstance(state, Mapping) or not state:
        raise UlmpipeError(f"the weights are {_kind(state)}, expected a state dict: tensors by name")
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UlmpipeError(f"the weights hold {str(name)[:60]!r}: {_kind(tensor)}, expected tensors by name")
        found[name] = tensor
    for pattern, reason in _OTHERS:
        if name := next((name for name in found if re.match(pattern, name)), None):
            raise UlmpipeError(f"the model {reason} (it has {name})")
    for name, tensor in found.items():
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            raise UlmpipeError(f"{name} is {tensor.dtype}, {tensor.layout}: expected a dense tensor of floats")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UlmpipeError(f"{name} is {tuple(tensor.shape)}, and the file holds fewer numbers: it was altered")
        if re.fullmatch(rf"{_LAYER}\..*weight_hh_l0.*", name) and tensor.shape[:1] == (3 * tensor.shape[-1],):
            raise UlmpipeError(f"the model is a GRU: only LSTMs can be imported ({name} is {tuple(tensor.shape)})")
    return found


def _by_our_names(state: Mapping[str, Tensor]) -> tuple[dict[str, list[tuple[str, Tensor]]], list[str]]:
    """For each of our names what the file has for it, theirs and the tensor; and what it has that we do not know."""
    sources: dict[str, list[tuple[str, Tensor]]] = {}
    unknown: list[str] = []
    for theirs, tensor in state.items():
        for pattern, ours in _OURS:
            if found := pattern.fullmatch(theirs):
                sources.setdefault(found.expand(ours), []).append((theirs, tensor))
                break
        else:
            unknown.append(f"{theirs} is not expected")
    for ours, tensors in sources.items():
        if raw := [source for source in tensors if source[0].endswith(RAW)]:
            sources[ours] = raw
    return sources, unknown


def _expected(found: Mapping[str, Tensor]) -> tuple[dict[str, torch.Size], Sizes]:
    """The shapes of all our weights, in a model of the sizes that the weights have."""
    layers = {int(name.split(".")[2]) for name in found if name.startswith("encoder.rnns.")}
    embedding, first = found.get(EMBEDDING_KEY), found.get("encoder.rnns.0.module.weight_hh_l0")
    if embedding is None or first is None or embedding.dim() != 2 or first.dim() != 2:
        raise UlmpipeError(
            "the weights are no AWD-LSTM of fastai: expected matrices 0.encoder.weight and 0.rnns.0.weight_hh_l0_raw, "
            f"found {some([f'{name} {tuple(tensor.shape)}' for name, tensor in found.items()] or ['neither'])}"
        )
    if gaps := set(range(max(layers))) - layers:
        raise UlmpipeError(f"the weights are no AWD-LSTM of fastai: 0.rnns.{max(layers)} is there, 0.rnns.{min(gaps)} is missing")  # fmt: skip
    vocab_size, emb_size = embedding.shape
    sizes = Sizes(emb_size=emb_size, hidden_size=first.shape[1], n_layers=max(layers) + 1)
    if 0 in embedding.shape or 0 in first.shape:
        raise UlmpipeError(f"the weights are empty: {tuple(embedding.shape)} and {tuple(first.shape)}")
    with torch.device("meta"):
        model = LanguageModel(vocab_size, **sizes, pad_id=0)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}, sizes


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" if value is not None else "nothing"
