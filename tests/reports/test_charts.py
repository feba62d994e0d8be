import xml.etree.ElementTree as ET
from typing import Any

import pytest

from ulmpipe.reports import charts
from ulmpipe.train.lr_find import smooth

STEPS = [{"phase": "one", "step": step, "loss": 3.0 - 0.1 * step, "lr": 1e-3 * step, "momentum": 0.8, "at": step} for step in range(1, 9)]  # fmt: skip
EPOCHS = [{"phase": "one", "step": 8, "valid_loss": 2.5, "accuracy": 0.4}]


def row(phase: str, step: int, loss: float | None = 1.0) -> dict[str, Any]:
    return {"phase": phase, "step": step, "loss": loss, "lr": 0.1, "momentum": None}


def test_steps_of_phases_are_counted_on():
    rows = [row("head", 2), row("head", 4), row("all", 1), row("all", 3)]
    assert [(r["phase"], r["at"]) for r in charts.joined_steps(rows)] == [("head", 2), ("head", 4), ("all", 5), ("all", 7)]  # fmt: skip
    assert charts.phase_starts(charts.joined_steps(rows)) == {"head": 0, "all": 4}


def test_of_steps_that_were_done_again_the_later_count():
    """A run was killed after step 6, and went on from a checkpoint of step 3."""
    rows = [row("a", 2, 9.0), row("a", 4, 8.0), row("a", 6, 7.0), row("a", 4, 5.0), row("a", 6, 4.0)]
    assert [(r["step"], r["loss"]) for r in charts.joined_steps(rows)] == [(2, 9.0), (4, 5.0), (6, 4.0)]


def drawn() -> dict[str, str]:
    one = {"a & <b>": (STEPS, EPOCHS)}
    return {
        "one": charts.to_svg(lambda: charts.losses(one), 'loss of "a & <b>"'),
        "two": charts.to_svg(lambda: charts.losses({**one, "other": (STEPS, [])}), "two"),
        "schedule": charts.to_svg(lambda: charts.schedule(STEPS), "rates"),
        "bars": charts.to_svg(lambda: charts.bars([1, 2, 4, 9], [3, 0, 5], "tokens"), "lengths"),
    }


def test_charts_are_svg_in_the_colour_of_the_text_and_the_same_each_time():
    found = drawn()
    for svg in found.values():
        root = ET.fromstring(svg)
        assert root.tag.endswith("svg") and root.get("role") == "img" and root.get("viewBox") and not root.get("width")
        assert charts.INK not in svg and "currentColor" in svg
        assert "<text" in svg, "text is text, and not outlines"
    assert found == drawn()
    assert ET.fromstring(found["one"]).get("aria-label") == 'loss of "a & <b>"'


def axes_of(figure: Any) -> list[Any]:
    return figure.get_axes()


def test_the_chart_shows_the_numbers():
    figure = charts.losses({"run": (STEPS, EPOCHS)})
    loss, accuracy = axes_of(figure)
    training, held_out = loss.get_lines()[:2]
    assert list(training.get_ydata()) == pytest.approx(smooth([r["loss"] for r in STEPS]))
    assert list(held_out.get_xdata()) == [8] and list(held_out.get_ydata()) == [2.5]
    assert list(accuracy.get_lines()[0].get_ydata()) == [0.4]


def test_a_loss_that_is_no_number_is_left_out():
    figure = charts.losses({"run": (charts.joined_steps([row("a", 1, None), row("a", 2, 2.0)]), [])})
    assert list(axes_of(figure)[0].get_lines()[0].get_xdata()) == [2]
