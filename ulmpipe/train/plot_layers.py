"""Draw `layers.png`: what `hooks.py` has recorded of each layer, over the steps of all fits of a training.

Reads `layers.jsonl`, writes a picture. Draws with matplotlib, which is imported only then.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .diagnosis import DEAD_SHARE, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (
    ("act_std", "deviation of the activations"),
    ("act_near_zero", "activations near zero"),
    ("grad_std", "deviation of the gradients"),
)
STYLES = ("-", "--", ":", "-.")  # neighbours, of almost one colour, are told apart by these
LISTED = 30  # layers in the legend
FEW = 100  # rows, of which each point is marked
GAP = math.nan  # a point that is not drawn


def read_rows(path: Path) -> list[Row]:
    """Return the lines of a `layers.jsonl`, without one that was cut off when a run was killed."""
    return list(_rows_in(path))


def _rows_in(path: Path) -> Iterator[Row]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def split_fits(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows of each fit. Of steps that a killed run had done, and a resumed one did again, the later count."""
    fits: list[list[Row]] = []
    for row in rows:
        if not fits or row["step"] == 0 or name_of_fit(fits[-1][-1]) != name_of_fit(row):
            fits.append([row])
            continue
        while len(fits[-1]) > 1 and fits[-1][-1]["step"] >= row["step"]:
            fits[-1].pop()
        fits[-1].append(row)
    return fits


def name_of_fit(row: Row) -> str:
    """Return what the row's `extra` said, such as the phase's name."""
    return " ".join(str(row[name]) for name in row if name not in ("step", "epoch", "loss", "layers"))


def starts_of(fits: Sequence[Sequence[Row]]) -> list[int]:
    """Return how many steps to add to those of each fit, so that it begins where the one before it ended."""
    starts, begin = [], 0
    for fit in fits:
        starts.append(begin)
        steps = [row["step"] for row in fit]
        begin += steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 1)
    return starts


def layers_figure(rows: Sequence[Row]) -> Figure:
    """Draw three panels, a line a layer: the first layers dark, the last ones light. A new fit begins at a grey line."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure  # no pyplot: nothing global, no window, safe in a thread

    fits = split_fits(rows)
    starts = starts_of(fits)
    names = list(dict.fromkeys(name for row in rows for name in row["layers"]))
    colours = [colormaps["viridis"](0.9 * n / max(1, len(names) - 1)) for n in range(len(names))]  # told apart by all
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes: Any = figure.subplots(len(PANELS), 1, sharex=True, height_ratios=(3, 2, 3))
    marker = "." if len(rows) <= FEW else ""
    for axis, (key, title) in zip(axes, PANELS, strict=True):
        for n, name in enumerate(names):
            steps, values = _line(fits, starts, name, key)
            axis.plot(
                steps, values, STYLES[n % len(STYLES)], color=colours[n], linewidth=1.4, marker=marker, markersize=3
            )
        _dress(axis, title, is_share=key == "act_near_zero")
        for start in starts[1:]:
            axis.axvline(start, color="0.5", alpha=0.5, linewidth=0.8, zorder=0)
    for start, fit in zip(starts, fits, strict=True):
        axes[0].annotate(
            name_of_fit(fit[0]), (start, 1.01), xycoords=("data", "axes fraction"), fontsize=7, color="0.5",
            rotation=20 if len(fits) > 4 else 0, parse_math=False,
        )  # fmt: skip
    axes[-1].set_xlabel("training steps")
    every = max(1, -(-len(names) // LISTED))
    lines = axes[0].get_lines()[: len(names) : every]
    figure.legend(lines, names[::every], loc="outside right upper", fontsize=7, handlelength=3.5, frameon=False)
    return figure


def draw_layers(rows: Sequence[Row], path: Path) -> None:
    """Write the picture of `layers_figure`."""
    layers_figure(rows).savefig(path, dpi=110)


def _line(fits: Sequence[Sequence[Row]], starts: Sequence[int], name: str, key: str) -> tuple[list[float], list[float]]:
    """The points of a layer, with a gap where there is no number, where it is 0 on a log axis, and between fits."""
    steps: list[float] = []
    values: list[float] = []
    for start, fit in zip(starts, fits, strict=True):
        for row in fit:
            value = row["layers"].get(name, {}).get(key)
            steps.append(start + row["step"])
            values.append(GAP if value is None or (value <= 0 and key != "act_near_zero") else value)
        steps.append(GAP)
        values.append(GAP)
    return steps, values


def _dress(axis: Any, title: str, *, is_share: bool) -> None:
    axis.set_ylabel(title, fontsize=9)
    axis.grid(True, axis="y", color="0.5", alpha=0.25, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    if is_share:
        axis.set_ylim(-0.03, 1.03)
        axis.axhline(DEAD_SHARE, color="0.6", linewidth=0.8, zorder=0)
        axis.text(
            1,
            DEAD_SHARE,
            "dead above",
            transform=axis.get_yaxis_transform(),
            fontsize=7,
            color="0.5",
            ha="right",
            va="top",
        )
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    else:
        axis.set_yscale("log")
