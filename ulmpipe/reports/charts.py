"""The numbers of a run, drawn: matplotlib's figures as SVG text to stand in a page, light or dark.

Arrays in, text out; reads no file. Text and axes take the colour of the page's text (`INK`), lines have colours that can be read on
white and on black, and are told apart by their dashes too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any

from ..train.lr_find import smooth

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

Row = Mapping[str, Any]
INK = "#010203"  # becomes the colour of the page's text
COLOURS = ("#3b87c8", "#d97b1f", "#4c9f62", "#b565b5", "#9a8332", "#c85a5a")
DASHES = ("-", "--", ":", "-.")


def to_svg(draw: Callable[[], Figure], description: str) -> str:
    """The figure that `draw` makes, as an `<svg>` that fits the width of the page and is read aloud as `description`."""
    from matplotlib import rc_context

    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: Any = {
        **dict.fromkeys(ink, INK),
        "svg.fonttype": "none",
        "text.parse_math": False,
        "svg.hashsalt": description,
        "font.size": 9.0,
    }
    file = io.StringIO()
    with rc_context(style):
        draw().savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    head = f'<svg role="img" aria-label="{escape(description)}" class="chart"'
    return re.sub(r'<svg(?=\s)|(?<=\s)(?:width|height)="[\d.]+pt"', lambda found: head if found[0] == "<svg" else "", svg, count=3)  # fmt: skip


def _figure(n_panels: int, *, height: float = 2.6) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure  # no pyplot: nothing global, no window, safe in a thread

    figure = Figure(figsize=(8, height * n_panels), layout="constrained")
    axes = figure.subplots(n_panels, 1, sharex=True, squeeze=False)[:, 0]
    for axis in axes:
        axis.grid(True, axis="y", color="0.5", alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def joined_steps(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows of steps.jsonl with `at`, the steps of all phases counted on; of steps done twice the later counts."""
    phases: dict[str, dict[int, Row]] = {}
    for row in rows:
        own = phases.setdefault(row["phase"], {})
        for step in [step for step in own if step >= row["step"]]:
            del own[step]
        own[row["step"]] = row
    begin, found = 0, []
    for own in phases.values():
        found += [{**row, "at": begin + step} for step, row in own.items()]
        begin += max(own)
    return found


def phase_starts(steps: Sequence[Row]) -> dict[str, int]:
    """Where each phase begins, in steps of all phases."""
    starts: dict[str, int] = {}
    end = 0
    for row in steps:
        starts.setdefault(row["phase"], end)
        end = row["at"]
    return starts


def losses(runs: Mapping[str, tuple[Sequence[Row], Sequence[Row]]]) -> Figure:
    """The training loss of each step, smoothed, and what was measured after each epoch, of one run or of several.

    `runs`: name -> (rows of steps by `joined_steps`, rows of epochs). Below the losses a panel for accuracy, where it was measured.
    """
    with_accuracy = any("accuracy" in row for _, epochs in runs.values() for row in epochs)
    figure, axes = _figure(1 + with_accuracy)
    one = len(runs) == 1
    colours = cycle(COLOURS)
    for name, (steps, epochs) in runs.items():
        starts = phase_starts(steps)
        colour = next(colours)
        told = [row for row in steps if row["loss"] is not None]
        axes[0].plot([row["at"] for row in told], smooth([row["loss"] for row in told]), color=colour, label="training" if one else f"{name}, training", linewidth=1.2)  # fmt: skip
        if one:
            colour = next(colours)
        at = [starts.get(row["phase"], 0) + row["step"] for row in epochs]
        for axis, key in zip(axes, ("valid_loss", "accuracy"), strict=False):
            values = [_number(row.get(key)) for row in epochs]
            axis.plot(at, values, DASHES[0 if one else 1], color=colour, marker="o", markersize=4, linewidth=1, label="held out" if one else f"{name}, held out")  # fmt: skip
        if one:
            _mark_phases(axes, starts)
    axes[0].set_ylabel("loss")
    if with_accuracy:
        axes[1].set_ylabel("accuracy, held out")
    axes[-1].set_xlabel("training steps")
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def schedule(steps: Sequence[Row]) -> Figure:
    """The learning rate of the last group, and the momentum."""
    figure, axes = _figure(2, height=1.6)
    for axis, key, colour in zip(axes, ("lr", "momentum"), COLOURS, strict=False):
        axis.plot([row["at"] for row in steps], [_number(row.get(key)) for row in steps], color=colour, linewidth=1.4)
        axis.set_ylabel({"lr": "learning rate"}.get(key, key))
    _mark_phases(axes, phase_starts(steps))
    axes[-1].set_xlabel("training steps")
    return figure


def _mark_phases(axes: Sequence[Any], starts: Mapping[str, int]) -> None:
    """A line where a phase begins, and its name above the first panel."""
    for n, (name, start) in enumerate(starts.items()):
        for axis in axes:
            axis.axvline(start, color="0.5", alpha=0.5, linewidth=0.8, zorder=0)
        axes[0].annotate(name, (start, 1.02 + 0.09 * (n % 2)), xycoords=("data", "axes fraction"), fontsize=7, parse_math=False)  # fmt: skip


def bars(edges: Sequence[float], n: Sequence[int], unit: str) -> Figure:
    """A histogram whose bins grow by a factor."""
    figure, (axis,) = _figure(1, height=2.0)
    widths = [right - left for left, right in zip(edges, edges[1:], strict=False)]
    axis.bar(edges[:-1], n, widths, align="edge", color=COLOURS[0], edgecolor="none")
    axis.set_xscale("log")
    axis.set_xlabel(unit)
    axis.set_ylabel("documents")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
