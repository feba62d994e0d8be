"""Watch the layers of a network while it trains: activations and gradients on every hundredth step, and what looks off.

    before_batch   forward hooks on the layers, on a watched step only: any other step costs a comparison
    after_backward a line to `layers.jsonl`, and a warning where `diagnosis.py` says that something looks off
    cleanup_fit    `layers.png`, drawn by `plot_layers.py`

A watched step of the tiny language model takes 8 ms and not 5, of larger ones no more than it varies. Nothing of a
training changes: no random number is drawn, no tensor is kept beyond its batch. Nothing is stopped either: that
is `guard.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import console
from .callback import Callback
from .diagnosis import CHANCE_STEPS, COMPARED, Row, looks_off
from .plot_layers import draw_layers, read_rows
from .precision import MixedPrecision

if TYPE_CHECKING:
    from .learner import Learner

NEAR_ZERO = 1e-3  # times the root mean square: of normally distributed numbers 0.08 % are as small
SAMPLE = 1 << 16  # values that are looked at: a deviation to 0.3 %, a share to 0.2 %
LOG_NAME, PLOT_NAME = "layers.jsonl", "layers.png"
NUMBERS = ("mean", "std", "near_zero")  # what `tensor_stats` returns, in that order


@torch.no_grad()
def tensor_stats(*tensors: Tensor) -> Tensor:
    """Return mean, deviation and near-zero share of all values together: (3,) float64, on their device, without waiting.

    tensors: any shapes, any float dtype. Near zero is what is at most `NEAR_ZERO` times the root mean square, so that
    the share does not depend on the scale, and counts what dropout, ReLU and dead layers make; the deviation tells
    the scale. Of more than `SAMPLE` values as many, evenly spaced. One value deviates by 0; of no value, or where one
    is NaN or infinite, there are no numbers: NaN.
    """
    values = _sampled(tensors).double()
    if not len(values):
        return values.new_full((3,), math.nan)
    std, mean = torch.std_mean(values, correction=0)
    rms = (std.square() + mean.square()).sqrt()
    share = (values.abs() <= NEAR_ZERO * rms).double().mean()
    return torch.where(rms.isfinite(), torch.stack([mean, std, share]), math.nan)


def _sampled(tensors: Sequence[Tensor]) -> Tensor:
    """Return at most about `SAMPLE` of all values, as one row, of each tensor its part."""
    stride = max(1, math.ceil(sum(t.numel() for t in tensors) / SAMPLE))
    rows = []
    for tensor in tensors:
        own = stride
        while own > 1 and math.gcd(own, tensor.numel()) > 1:  # else a few of the columns, again and again
            own += 1
        in_memory = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)  # no copy of what is channels-last
        rows.append(tensor.detach().permute(in_memory).reshape(-1)[::own])
    return torch.cat(rows) if rows else torch.zeros(0)


def watched_layers(model: nn.Module) -> dict[str, tuple[nn.Module, list[nn.Parameter]]]:
    """Return the modules that own parameters, first layer first: {name: (module whose output is read, its parameters)}.

    An RNN alone in a module is watched there: dropout of its weights calls torch's function, and not the RNN. A shared
    parameter belongs to its first owner.
    """
    found: dict[str, tuple[nn.Module, list[nn.Parameter]]] = {}
    seen: set[nn.Parameter] = set()
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        parent_name = name.rpartition(".")[0]
        parent = model.get_submodule(parent_name)
        if isinstance(module, nn.RNNBase) and _wraps_one(parent):
            name, module = parent_name, parent
        found[name or type(module).__name__] = module, [param for param in own if param not in seen]
        seen.update(own)
    return found


def _wraps_one(module: nn.Module) -> bool:
    return len(list(module.children())) == 1 and not isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential)


class LayerStats(Callback):
    """Append a line to `folder/layers.jsonl` every `every_steps` training steps, and draw `folder/layers.png` at the end.

    A line has `step epoch loss layers`, `extra` in it, and for each layer mean, deviation and near-zero share of its
    activations (`act_*`, at its first call in the step; none where its output is no tensor, but scores to be computed
    later) and gradients (`grad_*`; none where it is frozen). Warns once of each thing that looks off. Fits that follow
    one another append, a resumed one too. `chance` is the loss of guessing, ln V or ln C; without it the loss is not
    judged.
    """

    order = MixedPrecision.order + 5  # gradients are unscaled, and not yet clipped: GradientClip comes after

    def __init__(
        self,
        folder: Path,
        *,
        every_steps: int = 100,
        chance: float | None = None,
        chance_steps: int = CHANCE_STEPS,
        extra: Mapping[str, object] | None = None,
    ):
        if every_steps < 1:
            raise ValueError(f"every_steps is {every_steps}, expected at least 1")
        self.folder, self.every_steps, self.extra = folder, every_steps, extra or {}
        self.chance, self.chance_steps = chance, chance_steps
        self.rows: list[Row] = []  # the first of this fit, and the last ones
        self._told: set[tuple[str, str]] = set()
        self._layers: dict[str, tuple[nn.Module, list[nn.Parameter]]] = {}  # empty but in a watched step
        self._activations: dict[str, Tensor] = {}  # (3,) each
        self._handles: list[RemovableHandle] = []

    def before_fit(self, learn: Learner) -> None:
        """Begin without rows: steps count from 0 again."""
        self.rows = []

    def before_batch(self, learn: Learner) -> None:
        """On a watched step hook all layers."""
        is_done = bool(self.rows) and self.rows[-1]["step"] == learn.step  # a batch was cancelled: the step is not over
        if not learn.training or learn.step % self.every_steps or is_done:
            return
        self._layers = watched_layers(learn.model)
        for name, (module, _) in self._layers.items():
            self._handles.append(module.register_forward_hook(self._note(name)))

    def _note(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            output = _first_tensor(output)
            if output is not None and name not in self._activations:
                self._activations[name] = tensor_stats(output)

        return hook

    def after_backward(self, learn: Learner) -> None:
        """On a watched step write the line, and warn."""
        if self._layers:
            self._write(self._row(learn))
            self._warn()

    def cleanup_batch(self, learn: Learner) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._layers, self._activations = [], {}, {}

    def cleanup_fit(self, learn: Learner) -> None:
        """Draw all there is, after a fit that failed or went on with an earlier one too; one line would be points."""
        if self.rows:
            try:
                rows = read_rows(self.folder / LOG_NAME)
                if len(rows) > 1:
                    draw_layers(rows, self.folder / PLOT_NAME)
            except Exception as err:  # a picture is not worth the training that it is of
                console.log(f"{self.folder / PLOT_NAME} could not be drawn: {err}")

    def _row(self, learn: Learner) -> Row:
        stats = {(name, "act"): found for name, found in self._activations.items()}
        for name, (_, params) in self._layers.items():
            if grads := [param.grad for param in params if param.grad is not None]:
                stats[name, "grad"] = tensor_stats(*grads)
        loss = learn.loss.detach().double().reshape(1)
        numbers = torch.cat([loss, *stats.values()]).tolist()  # the one wait for the device
        layers: dict[str, dict[str, float | None]] = {name: {} for name in self._layers}
        for n, (name, part) in enumerate(stats):
            told = zip(NUMBERS, numbers[1 + 3 * n : 4 + 3 * n], strict=True)
            layers[name] |= {f"{part}_{number}": _short(value) for number, value in told}
        return {**self.extra, "step": learn.step, "epoch": learn.epoch, "loss": _short(numbers[0]), "layers": layers}

    def _write(self, row: Row) -> None:
        self.rows = [*self.rows[:1], *self.rows[1:][-COMPARED:], row]
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / LOG_NAME, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def _warn(self) -> None:
        for finding in looks_off(self.rows, chance=self.chance, chance_steps=self.chance_steps):
            if finding[:2] not in self._told:
                self._told.add(finding[:2])
                console.log(f"warning: {finding.sentence}")


def _first_tensor(output: Any) -> Tensor | None:
    """Return the first floating tensor of a layer's output, which may be a tuple of tuples."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    if isinstance(output, tuple | list):
        return next((found for part in output if (found := _first_tensor(part)) is not None), None)
    return None


def _short(value: float) -> float | None:
    """Six digits, which is more than a sample is good for; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
