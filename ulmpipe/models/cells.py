"""LSTM and GRU written out from their equations: the reference that `nn.LSTM` and `nn.GRU` are tested against.

Read this to know what the fast kernels compute. The models themselves run `nn.LSTM` (see `awd_lstm.py`): a Python
loop over time is several times slower. No dropout here, one direction, one layer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = tuple[Tensor, ...]  # (h, c) of an LSTM, (h,) of a GRU; each (B, H). The first one is the output


class GatedCell(nn.Module):
    """Hold the weights of one step, under PyTorch's names and in its order: the gates are stacked along dim 0.

    A subclass says how many gates and states it has, and computes one step:
    `forward(x (B, E), state) -> new state`, all floating tensors of one dtype.
    """

    n_gates: int
    n_states: int

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        bound, n_rows = hidden_size**-0.5, self.n_gates * hidden_size
        self.hidden_size = hidden_size
        self.weight_ih = nn.Parameter(torch.empty(n_rows, input_size).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(n_rows, hidden_size).uniform_(-bound, bound))
        self.bias_ih = nn.Parameter(torch.empty(n_rows).uniform_(-bound, bound))
        self.bias_hh = nn.Parameter(torch.empty(n_rows).uniform_(-bound, bound))

    def zero_state(self, batch_size: int) -> State:
        """Return the state before the first step: `n_states` zero tensors (B, H), dtype and device of the weights."""
        return tuple(self.weight_hh.new_zeros(batch_size, self.hidden_size) for _ in range(self.n_states))


class LSTMCell(GatedCell):
    """One step of a long short-term memory (Hochreiter and Schmidhuber 1997, with a forget gate)."""

    n_gates, n_states = 4, 2

    def forward(self, x: Tensor, state: State) -> State:
        """Take x (B, E) and state (h, c), each (B, H); return the new (h, c)."""
        h, c = state
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)  # (B, 4H)
        i, f, g, o = gates.chunk(4, dim=1)  # input, forget, candidate, output; each (B, H)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRUCell(GatedCell):
    """One step of a gated recurrent unit (Cho et al. 2014, in the variant of cuDNN and `nn.GRU`)."""

    n_gates, n_states = 3, 1

    def forward(self, x: Tensor, state: State) -> State:
        """Take x (B, E) and state (h,), (B, H); return the new (h,)."""
        (h,) = state
        x_r, x_z, x_n = F.linear(x, self.weight_ih, self.bias_ih).chunk(3, dim=1)  # reset, update, new; each (B, H)
        h_r, h_z, h_n = F.linear(h, self.weight_hh, self.bias_hh).chunk(3, dim=1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        # The reset gate acts after the matrix product, not before it as in the paper: that is what cuDNN computes.
        n = (x_n + r * h_n).tanh()
        return ((1 - z) * n + z * h,)


class Recurrent(nn.Module):
    """Run a cell over time: what `nn.LSTM(batch_first=True)` does for one layer.

    lstm = Recurrent(LSTMCell(300, 1152))
    out, (h, c) = lstm(x)
    """

    def __init__(self, cell: GatedCell):
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Take x (B, T, E) and the state before it, zeros where None; return out (B, T, H) and the state after it."""
        now: State = self.cell.zero_state(x.shape[0]) if state is None else state
        outputs = []
        for x_t in x.unbind(dim=1):  # (B, E)
            now = self.cell(x_t, now)
            outputs.append(now[0])
        return torch.stack(outputs, dim=1), now  # (B, T, H)
