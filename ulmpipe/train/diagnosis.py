"""What the numbers of watched layers say: a dead layer, an exploding gradient, a loss that is no better than guessing.

Pure functions on the rows that `hooks.py` records. They look at no tensor, and warn nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

Row = Mapping[str, Any]  # a line of layers.jsonl: step, epoch, loss, layers {name: {act_mean, ..., grad_near_zero}}
Layer = Mapping[str, "float | None"]  # None: no finite number

# None of this may be seen in a training that goes well.
DEAD_SHARE = 0.98  # dropout and ReLU make half of the values zero, pads or black pixels most of them, but not so many
STREAK = 5  # watched steps in a row: a batch norm that begins at 0 gives zeros on the first step, and recovers
GROWTH = 100.0  # trainings that went well, from noise to fitted, stayed below 20
COMPARED = 22  # watched steps that are looked at: a gradient on two of them, and on those before
LOSS_RISE = 0.1  # of the first loss: gradients may grow where the loss falls, or jitter where it is all but 0
CHANCE_STEPS = 500  # at a warming-up learning rate word frequencies are learned within 100
CHANCE_SHARE = 0.99  # of the loss of guessing: what did not get below this has learned nothing


class Finding(NamedTuple):
    """Something that looks off; the same `kind` and `layer` again is the same finding."""

    kind: str  # dead, gradient, exploding or chance
    layer: str  # "" where it is the whole network
    sentence: str


def looks_off(rows: Sequence[Row], *, chance: float | None = None, chance_steps: int = CHANCE_STEPS) -> list[Finding]:
    """Return what looks off at the last of the watched steps of one fit; [] where all is well.

    Dead activations: a layer's output is near zero in `DEAD_SHARE` of its values, `STREAK` watched steps in a row.
    No gradient: it is exactly 0 for as long, while other layers have one. Exploding gradient: on two watched steps in a
    row above `GROWTH` times the median of those before, and the loss has risen too. Chance: after `chance_steps` the loss,
    averaged over `STREAK` watched steps, is not below the loss of guessing, `chance`.
    """
    if not rows:
        return []
    found = [*_dead(rows), *_without_gradient(rows), *_exploding(rows)]
    recent = [_loss(row) for row in rows[-STREAK:]]
    step = rows[-1]["step"]
    if chance is not None and step >= chance_steps and len(recent) == STREAK and fmean(recent) > CHANCE_SHARE * chance:
        told = (
            f"loss {fmean(recent):.3g} after {step:,} steps is not below chance (ln {math.exp(chance):,.0f} = {chance:.3g}): "
            "--lr is far too high or too low, or the targets do not follow from the inputs"
        )
        found.append(Finding("chance", "", told))
    return found


def _dead(rows: Sequence[Row]) -> list[Finding]:
    def is_dead(layer: Layer) -> bool:
        return (layer.get("act_near_zero") or 0.0) >= DEAD_SHARE

    names = _lasting(rows, is_dead)
    if not names:
        return []
    # What comes after a layer of zeros may be zero because of it: the first one is to blame.
    share, since = rows[-1]["layers"][names[0]]["act_near_zero"], _since(rows, names[0], is_dead)
    told = f"{_and_others(names, 'after')}: {share:.0%} of its activations are near zero since step {since:,}"
    return [Finding("dead", names[0], f"{told}: dead; a lower --lr may help")]


def _without_gradient(rows: Sequence[Row]) -> list[Finding]:
    def is_zero(layer: Layer) -> bool:
        return layer.get("grad_mean") == 0 == layer.get("grad_std")

    names = _lasting(rows, is_zero)
    if not names or all(is_zero(layer) for layer in rows[-1]["layers"].values() if "grad_std" in layer):
        return []  # none at all: the loss is 0
    # What comes before a layer that hands no gradient on has none because of it: the last one is to blame.
    names = names[::-1]
    since = _since(rows, names[0], is_zero)
    told = f"{_and_others(names, 'before')}: its gradient is exactly 0 since step {since:,}"
    return [Finding("gradient", names[0], f"{told}: dead, or cut off from the loss; a lower --lr may help")]


def _exploding(rows: Sequence[Row]) -> list[Finding]:
    if len(rows) < 3:
        return []
    *before, last, now = rows[-COMPARED:]
    if not min(_loss(last), _loss(now)) > median(map(_loss, before)) + LOSS_RISE * abs(_loss(rows[0])):
        return []
    growth = {}
    for name in now["layers"]:
        past = [norm for row in before if (norm := _grad_rms(row, name))]  # without zeros and overflows
        if past:
            growth[name] = min(_grad_rms(last, name), _grad_rms(now, name)) / median(past)
    names = sorted((name for name in growth if growth[name] > GROWTH), key=lambda name: -growth[name])
    if not names:
        return []
    others = f" (and those of {len(names) - 1} other layers less)" if len(names) > 1 else ""
    told = f"gradient of {names[0]} grew {growth[names[0]]:,.0f}-fold since step {before[-1]['step']:,}{others}, and the loss rose"
    return [Finding("exploding", "", f"{told}: a lower --lr, or clipping, may help")]


def _lasting(rows: Sequence[Row], is_off: Callable[[Layer], bool]) -> list[str]:
    """Names of the layers that are off on the last `STREAK` rows, first layer first."""
    last = rows[-STREAK:] if len(rows) >= STREAK else []
    return [name for name in rows[-1]["layers"] if last and all(is_off(row["layers"].get(name, {})) for row in last)]


def _since(rows: Sequence[Row], name: str, is_off: Callable[[Layer], bool]) -> int:
    """The step from which on a layer, off on the last row, has been off."""
    since = rows[-1]["step"]
    for row in reversed(rows):
        if not is_off(row["layers"].get(name, {})):
            break
        since = row["step"]
    return since


def _and_others(names: Sequence[str], where: str) -> str:
    others = f" (and {len(names) - 1} {where} it)" if len(names) > 1 else ""
    return f"layer {names[0]}{others}"


def _loss(row: Row) -> float:
    return math.inf if row["loss"] is None else row["loss"]


def _grad_rms(row: Row, name: str) -> float:
    layer = row["layers"].get(name, {})
    return math.hypot(layer.get("grad_mean") or 0.0, layer.get("grad_std") or 0.0)
