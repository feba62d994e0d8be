"""State dicts and vocabularies as each fastai writes them, made by hand, and what such a model answers, computed plainly."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

KINDS = ("fastai2", "fastai1", "course", "course before", "encoder")
SPECIALS = {
    "fastai1": ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxmaj", "xxup", "xxrep", "xxwrep"),
    "fastai2": ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj"),
    "course": ("xxunk", "xxpad", "xxbos", "xxeos", "xxrep", "xxwrep", "xxup", "xxmaj"),
}
ITOS = [*SPECIALS["fastai1"], "the", "film", "was", "good", "xxfake", "xxfake"]
EMB, HIDDEN = 6, 10


def make_state(kind: str, *, vocab_size: int = len(ITOS), emb: int = EMB, hidden: int = HIDDEN, n_layers: int = 3):
    """Random weights under the names of a kind, in the order of its modules."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.4

    embedding = draw(vocab_size, emb)
    name = {"course": "emb"}.get(kind, "encoder")
    state = {f"0.{name}.weight": embedding, f"0.{name}_dp.emb.weight": embedding}
    widths = [emb] + [hidden] * (n_layers - 1) + [emb]
    for n, (n_in, n_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        raw = draw(4 * n_out, n_out)
        state[f"0.rnns.{n}.weight_hh_l0_raw"] = raw
        state[f"0.rnns.{n}.module.weight_ih_l0"] = draw(4 * n_out, n_in)
        if kind != "fastai2":  # a copy, of which a part may have been dropped
            state[f"0.rnns.{n}.module.weight_hh_l0"] = nn.functional.dropout(raw, 0.5)
        state[f"0.rnns.{n}.module.bias_ih_l0"] = draw(4 * n_out)
        state[f"0.rnns.{n}.module.bias_hh_l0"] = draw(4 * n_out)
    state |= {"1.decoder.weight": embedding, "1.decoder.bias": draw(vocab_size)}
    if kind == "encoder":
        state = {name.removeprefix("0."): tensor for name, tensor in state.items() if name.startswith("0.")}
    return state


def ref_logits(state: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """What such a model answers to ids (B, T) in evaluation mode: (B, T, V), by plain layers of torch."""
    named = {name.removeprefix("0.").replace("emb.weight", "encoder.weight"): tensor for name, tensor in state.items()}
    embedding = named["encoder.weight"]
    x = embedding[ids]  # (B, T, E)
    for n in range(sum(name.endswith("_raw") for name in named)):
        hh, ih = named[f"rnns.{n}.weight_hh_l0_raw"], named[f"rnns.{n}.module.weight_ih_l0"]
        rnn = nn.LSTM(ih.shape[1], hh.shape[1], batch_first=True)
        biases = {name: named[f"rnns.{n}.module.{name}"] for name in ("bias_ih_l0", "bias_hh_l0")}
        rnn.load_state_dict({"weight_ih_l0": ih, "weight_hh_l0": hh, **biases})
        x = rnn(x)[0].detach()  # (B, T, H)
    return x @ embedding.T + named.get("1.decoder.bias", torch.zeros(len(embedding)))


def write_pair(folder: Path, state: object, itos: Sequence[str], stem: str = "lstm_fwd", **options: bool) -> tuple[Path, Path]:  # fmt: skip
    """Write WEIGHTS.pth and ITOS.pkl."""
    torch.save(state, folder / f"{stem}.pth", **options)
    (folder / "itos.pkl").write_bytes(pickle.dumps(list(itos)))
    return folder / f"{stem}.pth", folder / "itos.pkl"
