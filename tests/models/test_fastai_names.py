"""Each fastai's names become ours, by name and with every shape checked; what does not fit is named."""

import re
from typing import Any

import pytest
import torch
from fastai_states import EMB, HIDDEN, ITOS, KINDS, make_state, ref_logits
from torch import Tensor

from ulmpipe.errors import UlmpipeError
from ulmpipe.models import LanguageModel
from ulmpipe.models.fastai_names import Imported, add_words, from_fastai


def logits_of(imported: Imported, ids: Tensor) -> Tensor:
    model = LanguageModel(len(imported.weights["decoder.bias"]), **imported.sizes)
    model.load_state_dict(imported.weights)
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, len(ITOS), (3, 9))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_logits_are_those_of_a_model_built_plainly(kind: str, n_layers: int, ids: Tensor):
    state = make_state(kind, n_layers=n_layers)
    imported = from_fastai(state)
    torch.testing.assert_close(logits_of(imported, ids), ref_logits(state, ids), rtol=0, atol=1e-5)
    assert imported.sizes == {"emb_size": EMB, "hidden_size": HIDDEN if n_layers > 1 else EMB, "n_layers": n_layers}
    assert imported.has_decoder == (kind != "encoder")


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_the_names_means_nothing(kind: str, ids: Tensor):
    state = make_state(kind)
    turned = dict(reversed(state.items()))
    assert torch.equal(logits_of(from_fastai(turned), ids), logits_of(from_fastai(state), ids))


def test_wrapped_and_half_precision_files_are_taken(ids: Tensor):
    state = make_state("fastai1")
    wrapped = from_fastai({"model": state, "opt": {"state": {}, "param_groups": []}})
    assert torch.equal(logits_of(wrapped, ids), logits_of(from_fastai(state), ids))
    half = from_fastai({name: tensor.half() for name, tensor in state.items()})
    assert {tensor.dtype for tensor in half.weights.values()} == {torch.float32}
    torch.testing.assert_close(logits_of(half, ids), ref_logits(state, ids), rtol=0, atol=1e-2)


def test_raw_weight_is_taken_and_its_dropped_copy_is_not():
    state = make_state("fastai1")
    assert not torch.equal(state["0.rnns.0.module.weight_hh_l0"], state["0.rnns.0.weight_hh_l0_raw"])
    weights = from_fastai(state).weights
    assert torch.equal(weights["encoder.rnns.0.module.weight_hh_l0"], state["0.rnns.0.weight_hh_l0_raw"])


def test_weight_without_dropout_need_not_be_raw():
    state = make_state("fastai2")
    plain = {name.replace("weight_hh_l0_raw", "module.weight_hh_l0"): tensor for name, tensor in state.items()}
    assert all(torch.equal(a, b) for a, b in zip(from_fastai(plain).weights.values(), from_fastai(state).weights.values(), strict=True))  # fmt: skip


def test_added_words_are_the_mean_of_all():
    weights = from_fastai(make_state("fastai1")).weights
    added = add_words(weights, 2)
    table, bias = added["encoder.embedding.weight"], added["decoder.bias"]
    assert table.shape == (len(ITOS) + 2, EMB) and bias.shape == (len(ITOS) + 2,)
    assert torch.equal(table[:-2], weights["encoder.embedding.weight"])
    torch.testing.assert_close(table[-1], weights["encoder.embedding.weight"].mean(0))
    torch.testing.assert_close(bias[-2], weights["decoder.bias"].mean())


# ---- what does not fit ----------------------------------------------------------------------------------------------


def spoiled(**changes: Tensor | None) -> dict[str, Tensor]:
    state = make_state("fastai1") | {name: t for name, t in changes.items() if t is not None}
    return {name: tensor for name, tensor in state.items() if name not in changes or changes[name] is not None}


LAYER = "0.rnns.1.module"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({f"{LAYER}.bias_ih_l0": None}, "0.rnns.1.module.bias_ih_l0 is missing"),
        ({"1.decoder.bias": None}, "1.decoder.bias is missing"),
        ({f"{LAYER}.bias_ih_l0": torch.zeros(41)}, r"0.rnns.1.module.bias_ih_l0 is \(41,\), expected \(40,\)"),
        ({f"{LAYER}.weight_ih_l0": torch.zeros(10, 40)}, r"weight_ih_l0 is \(10, 40\), expected \(40, 10\)"),
        ({"1.decoder.bias": torch.zeros(3)}, r"1.decoder.bias is \(3,\), expected \(15,\)"),
        ({"1.decoder.weight": torch.zeros(15, EMB)}, "1.decoder.weight is not 0.encoder.weight, to which ours is tied"),
        ({"0.attention.weight": torch.zeros(2)}, "0.attention.weight is not expected"),
        ({"0.rnns.007.weight_hh_l0_raw": torch.zeros(2)}, "0.rnns.007.weight_hh_l0_raw is not expected"),
        ({"0.rnns.9.module.bias_ih_l0": torch.zeros(2)}, "0.rnns.9 is there, 0.rnns.3 is missing"),
        ({"1.decoder.bias": torch.full((15,), torch.nan)}, "1.decoder.bias holds numbers that are not finite"),
        ({"1.decoder.bias": torch.zeros(15, dtype=torch.int64)}, "1.decoder.bias is torch.int64"),
        ({"1.decoder.bias": torch.zeros(1).expand(15)}, "the file holds fewer numbers"),
        ({"0.encoder.weight": None, "0.encoder_dp.emb.weight": None, "1.decoder.weight": None}, "expected matrices 0.encoder.weight"),
        ({"0.encoder_with_dropout.embed.weight": torch.zeros(15, EMB)}, "is of fastai 0.7"),
        ({"0.rnns.0.layers.0.linear.weight_raw": torch.zeros(30, 12)}, "is a QRNN"),
        ({f"{LAYER}.weight_ih_l0_reverse": torch.zeros(40, 10)}, "both directions"),
        ({"1.layers.0.weight": torch.zeros(18)}, "is a classifier"),
        ({"0.rnns.0.weight_hh_l0_raw": torch.zeros(30, 10)}, "is a GRU"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(changes: dict[str, Tensor | None], reason: str):
    with pytest.raises(UlmpipeError, match=reason) as refused:
        from_fastai(spoiled(**changes))
    assert "\n" not in str(refused.value)


def test_everything_wrong_is_told_at_once():
    state = spoiled(**{f"{LAYER}.bias_ih_l0": None, "1.decoder.bias": torch.zeros(3), "odd": torch.zeros(1)})
    with pytest.raises(UlmpipeError) as refused:
        from_fastai(state)
    assert all(re.search(word, str(refused.value)) for word in ("odd is not", "bias_ih_l0 is missing", r"\(3,\)"))


@pytest.mark.parametrize("value", [None, [], {}, {"a": 1}, {1: torch.zeros(1)}, torch.zeros(2), {"model": {}}, "x"])
def test_what_is_no_state_dict_is_refused(value: Any):
    with pytest.raises(UlmpipeError, match="expected a state dict|expected tensors by name"):
        from_fastai(value)
