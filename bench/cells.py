"""The goal of this script is to answer lesson 12's question: an LSTM as one's own loop, scripted, compiled, or `nn.LSTM`?

    python bench/cells.py [--device cpu|cuda] [--repeats 7] [--shapes 64x70x300x300 ...]     -> bench/results/cells.json

`ulmpipe.models.cells.Recurrent` as it stands, through torch.jit and torch.compile, beside `nn.LSTM` and `nn.GRU`, in turns,
at the lesson's shape and at that of the second layer of `--size base`: forward alone (no gradient), and forward and backward.
First it asserts that all give the same outputs and gradients. A result is kept for each device. Needs a C++ compiler.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import torch
from torch import Tensor, nn

from bench import record
from bench.turns import in_turns
from ulmpipe.models.cells import GatedCell, GRUCell, LSTMCell, Recurrent

SHAPES = ("64x70x300x300", "64x72x1152x1152")  # B x T x E x H
CELLS: dict[str, tuple[type[GatedCell], type[nn.LSTM] | type[nn.GRU]]] = {
    "LSTM": (LSTMCell, nn.LSTM),
    "GRU": (GRUCell, nn.GRU),
}
MAX_COMPILE_S = 180  # longer, and only one step is compiled, not the loop
KERNELS = ("aten::mkldnn_rnn_layer", "aten::_cudnn_rnn", "aten::_thnn_fused", "aten::addmm", "aten::linear")

Run = Callable[[Tensor], tuple[Tensor, Any]]


class TooLong(BaseException):
    """A compilation took more than `MAX_COMPILE_S`; no `Exception`, so that the compiler does not take it for its own."""


class Bench:
    """One kind of cell at one shape on one device: the ways to run it, which have their weights in common."""

    def __init__(self, kind: str, shape: str, device: str):
        n_batch, n_steps, n_in, n_hidden = map(int, shape.split("x"))
        torch.manual_seed(0)
        cell, library = CELLS[kind]
        self.device = torch.device(device)
        self.own = Recurrent(cell(n_in, n_hidden)).to(self.device)
        self.library = library(n_in, n_hidden, batch_first=True).to(self.device)
        for name, param in self.own.cell.named_parameters():
            self.library.get_parameter(f"{name}_l0").data.copy_(param.data)
        self.x = torch.randn(n_batch, n_steps, n_in, device=self.device, requires_grad=True)
        self.grad = torch.randn(n_batch, n_steps, n_hidden, device=self.device)
        self.notes: dict[str, Any] = {}
        self.ways: dict[str, Run] = {
            "own loop": self.own,
            "scripted": self.scripted(),
            "compiled": self.compiled(),
            f"nn.{kind}": self.library,
        }

    # ---- the ways to run it ----

    def scripted(self) -> Run:
        """Through torch.jit.script, or torch.jit.trace where that can't take it."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            begin_s = time.perf_counter()
            try:
                made, by = torch.jit.script(self.own), "torch.jit.script"
            except Exception as err:  # of several kinds, none of them public
                self.notes["torch.jit.script fails"] = str(err).strip().splitlines()[0]
                begin_s = time.perf_counter()
                made, by = torch.jit.trace(self.own, (self.x,), check_trace=False), "torch.jit.trace"
        said = dict.fromkeys(str(warning.message) for warning in caught)
        self.notes |= {"scripted by": by, "scripted_s": round(time.perf_counter() - begin_s, 2), "warnings": list(said)}
        return made  # pyright: ignore[reportReturnType]

    def compiled(self) -> Run:
        """Through torch.compile: the loop, or one step of it where the loop takes too long."""
        for what in ("the loop", "one step"):
            torch.compiler.reset()
            made = torch.compile(self.own, dynamic=False) if what == "the loop" else self.step_compiled()
            signal.signal(signal.SIGALRM, too_long)
            seconds = {}
            try:
                for name, run in (("forward", self.forward), ("forward and backward", self.backward)):
                    signal.alarm(MAX_COMPILE_S if what == "the loop" else 0)
                    begin_s = time.perf_counter()
                    run(made)
                    seconds[name] = round(time.perf_counter() - begin_s, 1)
            except TooLong:
                self.notes["compiling the loop"] = f"took more than {MAX_COMPILE_S} s, given up"
                continue
            finally:
                signal.alarm(0)
            self.notes |= {"compiled": what, "compile_s": seconds}
            break
        return made  # pyright: ignore[reportPossiblyUnboundVariable]

    def step_compiled(self) -> Recurrent:
        """The same loop in Python, with the same weights, over a compiled step."""
        loop = Recurrent(self.own.cell)
        step = torch.compile(self.own.cell, dynamic=False)

        def forward(x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
            now, outputs = self.own.cell.zero_state(x.shape[0]) if state is None else state, []
            for x_t in x.unbind(dim=1):
                now = step(x_t, now)
                outputs.append(now[0])
            return torch.stack(outputs, dim=1), now

        loop.forward = forward
        return loop

    # ---- what is run ----

    def forward(self, way: Run) -> float:
        """Milliseconds of a forward pass without gradient."""
        with torch.no_grad():
            return self.timed(lambda: way(self.x))

    def backward(self, way: Run) -> float:
        """Milliseconds of a forward and a backward pass, to the input and to all weights."""
        self.forget_gradients()
        return self.timed(lambda: way(self.x)[0].backward(self.grad))

    def timed(self, run: Callable[[], Any]) -> float:
        """Milliseconds, the device waited for."""
        self.wait()
        begin_s = time.perf_counter()
        run()
        self.wait()
        return 1e3 * (time.perf_counter() - begin_s)

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def forget_gradients(self) -> None:
        """Begin without any, so that none is added to."""
        for tensor in (self.x, *self.own.parameters(), *self.library.parameters()):
            tensor.grad = None

    def values(self, way: Run) -> dict[str, Tensor]:
        """Outputs, state and gradients of a way."""
        self.forget_gradients()
        out, state = way(self.x)
        out.backward(self.grad)
        with torch.no_grad():
            alone, _ = way(self.x)
        states = state if isinstance(state, tuple) else (state,)
        values = {"out": out, "out without gradient": alone, "gradient of x": self.x.grad}
        values |= {f"state {n}": s.reshape(s.shape[-2:]) for n, s in enumerate(states)}
        for name, param in self.own.cell.named_parameters():
            grad = self.library.get_parameter(f"{name}_l0").grad if way is self.library else param.grad
            values[f"gradient of {name}"] = grad
        assert all(value is not None for value in values.values())
        return {name: value.detach().clone() for name, value in values.items() if value is not None}

    def assert_equal(self, tolerance: float = 1e-4) -> float:
        """All ways give what the own loop gives; the largest difference, as a share of the largest value."""
        expected, worst = self.values(self.own), 0.0
        for name, way in self.ways.items():
            for what, value in self.values(way).items():
                assert value.shape == expected[what].shape, (name, what)
                share = float((value - expected[what]).abs().max() / expected[what].abs().max())
                assert share < tolerance, (name, what, share)
                worst = max(worst, share)
        return worst

    def kernels(self, way: Run, *, gradient: bool) -> list[str]:
        """Which of PyTorch's recurrent kernels, or matrix products, a way runs in its forward pass."""
        with torch.profiler.profile() as found, nullcontext() if gradient else torch.no_grad():
            way(self.x)
        return sorted({event.key for event in found.key_averages() if event.key.startswith(KERNELS)})

    def measure(self, repeats: int) -> dict[str, Any]:
        """Both passes of all ways."""
        worst = self.assert_equal()
        library = list(self.ways)[-1]
        self.notes[f"{library} runs"] = {
            "forward": self.kernels(self.library, gradient=False),
            "forward and backward": self.kernels(self.library, gradient=True),
        }
        found: dict[str, Any] = {}
        for name, run in (("forward", self.forward), ("forward and backward", self.backward)):
            turns = in_turns({way: lambda way=way, run=run: run(self.ways[way]) for way in self.ways}, 1 + repeats)
            found[name] = {way: record.summary(spent[1:]) for way, spent in turns.items()}  # jit warms up twice
        return {"largest_difference": worst, **self.notes, "ms": found}


def too_long(*_: Any) -> None:
    """End a compilation."""
    raise TooLong


def main() -> None:
    """Measure, and write down with the machine it was measured on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="BxTxExH")
    args = parser.parse_args()
    record.where()
    torch.backends.cudnn.allow_tf32 = False  # all in the same numbers
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # nothing is compiled yet
        found = {shape: {kind: Bench(kind, shape, args.device).measure(args.repeats) for kind in CELLS} for shape in args.shapes}  # fmt: skip
    record.update("cells", args.device, {"repeats": args.repeats, "shapes": found})


if __name__ == "__main__":
    main()
