"""The picture of recorded layers: all of them, over all fits, also where numbers are missing."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ulmpipe.train.plot_layers import PANELS, draw_layers, layers_figure, read_rows, split_fits, starts_of


def row(step: int, n_layers: int = 4, **extra) -> dict:
    layer = {"act_std": 0.1 + step, "act_near_zero": 0.01, "grad_std": 1e-3}
    return {**extra, "step": step, "epoch": 0, "loss": 1.0, "layers": {f"layer.{n}": layer for n in range(n_layers)}}


def test_fits_are_split_by_name_or_by_a_step_0():
    rows = [row(0, phase="a"), row(100, phase="a"), row(0, phase="b"), row(0, phase="b"), row(50, phase="b")]
    fits = split_fits(rows)
    assert [[row["step"] for row in fit] for fit in fits] == [[0, 100], [0], [0, 50]]
    assert starts_of(fits) == [0, 200, 201]
    assert split_fits([]) == starts_of([]) == []


def test_steps_that_a_resumed_run_did_again_count_once():
    rows = [*(row(step) for step in (0, 100, 200, 300)), *(row(step) for step in (200, 300, 400))]
    (fit,) = split_fits(rows)
    assert [row["step"] for row in fit] == [0, 100, 200, 300, 400] and fit[2] is rows[4]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path):
    path = tmp_path / "layers.jsonl"
    path.write_text(json.dumps(row(0)) + "\n" + json.dumps(row(100))[:50], encoding="utf-8")
    assert read_rows(path) == [row(0)]


@pytest.mark.parametrize("n_layers", [1, 4, 30, 107])
def test_every_layer_has_a_line_in_every_panel(n_layers: int):
    rows = [row(100 * i, n_layers) for i in range(5)]
    figure = layers_figure(rows)
    assert [axis.get_yscale() for axis in figure.axes] == ["log", "linear", "log"]
    for axis, (key, _) in zip(figure.axes, PANELS, strict=True):
        lines = axis.get_lines()[:n_layers]
        assert len({(str(line.get_color()), line.get_linestyle()) for line in lines}) == n_layers
        assert np.asarray(lines[0].get_ydata())[:5].tolist() == [row["layers"]["layer.0"][key] for row in rows]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [f"layer.{n}" for n in range(n_layers)] if n_layers <= 30 else 20 <= len(names) <= 30


def test_gaps_where_there_is_no_number_and_between_fits(tmp_path: Path):
    rows = [row(0, phase="a$b$"), row(100, phase="a$b$"), row(0, phase="two"), row(100, phase="two")]
    rows[1]["layers"] = {"layer.0": {"act_std": 0.0, "act_near_zero": None}, "new": {"act_std": None}}
    deviations, shares, gradients = (axis.get_lines()[0] for axis in layers_figure(rows).axes)
    assert deviations.get_xdata() == pytest.approx([0, 100, math.nan, 200, 300, math.nan], nan_ok=True)
    assert deviations.get_ydata() == pytest.approx([0.1, *[math.nan] * 2, 0.1, 100.1, math.nan], nan_ok=True)
    assert shares.get_ydata() == pytest.approx([0.01, *[math.nan] * 2, 0.01, 0.01, math.nan], nan_ok=True)
    assert gradients.get_ydata() == pytest.approx([1e-3, *[math.nan] * 2, 1e-3, 1e-3, math.nan], nan_ok=True)
    draw_layers(rows, tmp_path / "layers.png")
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_hardly_anything_is_drawn(tmp_path: Path):
    for rows in ([], [row(0, 0)], [row(0, 1)], [row(0) | {"layers": {"dead": {"act_std": 0.0}}}]):
        draw_layers(rows, tmp_path / "layers.png")
    assert (tmp_path / "layers.png").stat().st_size > 1000
