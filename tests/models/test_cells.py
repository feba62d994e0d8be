"""The written-out cells compute what `nn.LSTM` and `nn.GRU` compute, forwards and backwards."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ulmpipe.models import GRUCell, LSTMCell, Recurrent

B, T, E, H = 3, 7, 5, 6
PAIRS = [pytest.param(LSTMCell, nn.LSTM, id="lstm"), pytest.param(GRUCell, nn.GRU, id="gru")]
NAMES = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]


def same_weights(make_cell: Callable, make_ref: Callable) -> tuple[Recurrent, nn.RNNBase]:
    comp, ref = Recurrent(make_cell(E, H)), make_ref(E, H, batch_first=True)
    comp.cell.load_state_dict({name: ref.state_dict()[f"{name}_l0"] for name in NAMES})
    return comp.double(), ref.double()


def as_tuple(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize(("make_cell", "make_ref"), PAIRS)
def test_forward_equals_torch(make_cell: Callable, make_ref: Callable):
    comp, ref = same_weights(make_cell, make_ref)
    x = torch.randn(B, T, E, dtype=torch.float64)
    comp_out, comp_state = comp(x)
    ref_out, ref_state = ref(x)
    torch.testing.assert_close(comp_out, ref_out)
    for comp_tensor, ref_tensor in zip(comp_state, as_tuple(ref_state), strict=True):
        torch.testing.assert_close(comp_tensor, ref_tensor[0])


@pytest.mark.parametrize(("make_cell", "make_ref"), PAIRS)
def test_gradients_equal_torch(make_cell: Callable, make_ref: Callable):
    comp, ref = same_weights(make_cell, make_ref)
    comp_x = torch.randn(B, T, E, dtype=torch.float64, requires_grad=True)
    ref_x = comp_x.detach().clone().requires_grad_()
    weighting = torch.randn(B, T, H, dtype=torch.float64)
    (comp(comp_x)[0] * weighting).sum().backward()
    (ref(ref_x)[0] * weighting).sum().backward()
    torch.testing.assert_close(comp_x.grad, ref_x.grad)
    for name in NAMES:
        torch.testing.assert_close(getattr(comp.cell, name).grad, getattr(ref, f"{name}_l0").grad)


@pytest.mark.parametrize("make_cell", [LSTMCell, GRUCell])
def test_two_halves_with_the_state_between_equal_the_whole(make_cell: Callable):
    recurrent = Recurrent(make_cell(E, H))
    x = torch.randn(B, T, E)
    ref_out, ref_state = recurrent(x)
    first, state = recurrent(x[:, :4])
    second, comp_state = recurrent(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), ref_out)
    torch.testing.assert_close(comp_state, ref_state)


def test_weights_start_within_the_bound_of_torch():
    cell = LSTMCell(E, 100)
    for name in NAMES:
        assert 0.09 < getattr(cell, name).abs().max() <= 0.1
