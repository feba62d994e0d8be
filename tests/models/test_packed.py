"""Packed weights take a quarter, are off by half a step at most, and what was never packed is untouched."""

import pytest
import torch

from ulmpipe.models import LM_DROPOUTS, SIZES, LanguageModel
from ulmpipe.models.packed import LEVELS, pack, unpack


def test_each_value_is_off_by_half_a_step_of_its_row_at_most():
    torch.manual_seed(0)
    weight = torch.randn(50, 30) * torch.logspace(-6, 3, 50)[:, None]
    comp = unpack(pack({"w": weight}))["w"]
    step = weight.abs().amax(1, keepdim=True) / LEVELS
    assert comp.dtype == torch.float32 and ((comp - weight).abs() <= 0.5001 * step).all()


def test_rows_of_zeros_stay_zeros():
    assert not unpack(pack({"w": torch.zeros(3, 4)}))["w"].any()


def test_vectors_are_kept_in_half_precision():
    bias = torch.linspace(-3, 3, 11)
    assert pack({"b": bias})["b"].dtype == torch.float16
    torch.testing.assert_close(unpack(pack({"b": bias}))["b"].float(), bias, rtol=1e-3, atol=0)


def test_what_was_never_packed_stays_as_it_is():
    state = LanguageModel(20, **SIZES["tiny"], **LM_DROPOUTS).state_dict()
    assert all(comp is state[name] for name, comp in unpack(state).items())


def test_a_packed_model_takes_a_quarter_and_scores_alike():
    torch.manual_seed(0)
    model, other = (LanguageModel(500, **SIZES["tiny"], **LM_DROPOUTS).eval() for _ in range(2))
    packed = pack(model.state_dict())
    other.load_state_dict(unpack(packed))
    n_bytes = [sum(t.numel() * t.element_size() for t in state.values()) for state in (model.state_dict(), packed)]
    ids = torch.randint(2, 500, (2, 9))
    assert n_bytes[1] < 0.3 * n_bytes[0]
    assert other(ids).logits.detach().numpy() == pytest.approx(model(ids).logits.detach().numpy(), abs=2e-3)
