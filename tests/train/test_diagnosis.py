"""What is said of recorded numbers; of trainings that go well nothing, see `test_hooks.py` for real ones."""

import math

import pytest

from ulmpipe.train.diagnosis import STREAK, Finding, looks_off

FINE = {
    "act_mean": 0.0,
    "act_std": 1.0,
    "act_near_zero": 0.5,
    "grad_mean": 0.0,
    "grad_std": 1e-3,
    "grad_near_zero": 0.9,
}
ZEROS = {"act_mean": 0.0, "act_std": 0.0, "act_near_zero": 1.0}
NO_GRADIENT = {"grad_mean": 0.0, "grad_std": 0.0, "grad_near_zero": 1.0}


def row(step: int, *, loss: float | None = 2.0, **layers) -> dict:
    """A line in which the named layers differ from those that are fine: a to d."""
    return {"step": step, "epoch": 0, "loss": loss, "layers": {name: FINE | layers.get(name, {}) for name in "abcd"}}


def rows_of(n: int, **layers) -> list[dict]:
    return [row(100 * i, **layers) for i in range(n)]


def test_nothing_is_said_of_nothing_and_of_what_is_fine():
    assert looks_off([]) == []
    for n in (1, 2, 3, 30):
        assert looks_off(rows_of(n), chance=2.1) == []


def test_dead_layer_is_told_with_the_step_it_began():
    rows = [*rows_of(4), *(row(100 * i, b=ZEROS) for i in range(4, 4 + STREAK))]
    assert looks_off(rows[:-1]) == []
    (comp,) = looks_off(rows)
    assert comp[:2] == ("dead", "b")
    assert comp.sentence.startswith("layer b: 100% of its activations are near zero since step 400: dead")


def test_of_several_dead_layers_the_first_is_named():
    (comp,) = looks_off(rows_of(STREAK, b=ZEROS, c=ZEROS))
    assert comp.layer == "b" and comp.sentence.startswith("layer b (and 1 after it): 100%")


def test_of_several_without_gradient_the_last_is_named():
    (comp,) = looks_off(rows_of(STREAK, a=NO_GRADIENT, b=NO_GRADIENT, c=NO_GRADIENT))
    assert comp[:2] == ("gradient", "c")
    assert comp.sentence.startswith("layer c (and 2 before it): its gradient is exactly 0 since step 0")


def test_no_gradient_anywhere_is_a_loss_of_zero():
    assert looks_off(rows_of(STREAK, a=NO_GRADIENT, b=NO_GRADIENT, c=NO_GRADIENT, d=NO_GRADIENT)) == []


@pytest.mark.parametrize(
    "layer",
    [
        {"act_near_zero": 0.95},  # much dropout, many pads
        {"grad_near_zero": 1.0},  # an embedding: few of its rows have a gradient, but they have
        {"grad_mean": None, "grad_std": None, "grad_near_zero": None},  # overflow in fp16
    ],
)
def test_what_is_no_sign_of_anything(layer: dict):
    assert looks_off(rows_of(30, a=layer), chance=2.1) == []


def test_frozen_layers_have_no_gradient_and_are_not_named():
    rows = rows_of(30)
    for one in rows:
        one["layers"]["a"] = {name: value for name, value in FINE.items() if name.startswith("act")}
    assert looks_off(rows) == []


def test_zeros_that_end_are_forgotten():
    assert looks_off([*rows_of(STREAK, b=ZEROS | NO_GRADIENT), row(500)]) == []


@pytest.mark.parametrize(
    ("growth", "loss", "is_told"), [(200, 9.0, True), (50, 9.0, False), (200, 1.0, False), (200, 2.1, False)]
)
def test_a_gradient_explodes_where_it_grows_and_the_loss_with_it(growth: float, loss: float, is_told: bool):
    rows = [*rows_of(3), *(row(step, loss=loss, b={"grad_std": growth * 1e-3}) for step in (300, 400))]
    assert looks_off(rows[:-1]) == []  # one row is a spike
    comp = looks_off(rows)
    assert [finding.kind for finding in comp] == ["exploding"] * is_told
    assert not is_told or comp[0].sentence.startswith("gradient of b grew 200-fold since step 200, and the loss rose")


def test_an_explosion_is_one_finding_of_the_worst_layer():
    layers = {"b": {"grad_std": 0.5}, "c": {"grad_std": 0.9}, "d": {"grad_std": None}}
    (comp,) = looks_off([row(0), *(row(step, loss=None, **layers) for step in (100, 200))])
    assert comp.sentence.startswith("gradient of c grew 900-fold since step 0 (and those of 1 other layers less)")


def test_a_gradient_that_begins_at_zero_may_grow():
    rows = [row(0, b=NO_GRADIENT), row(100, loss=9.0), row(200, loss=9.0)]
    assert looks_off(rows) == []


def test_loss_above_chance_is_told_after_enough_steps():
    chance = math.log(60_000)
    rows = [row(100 * i, loss=11.2) for i in range(11)]
    assert looks_off(rows, chance=chance, chance_steps=1001) == looks_off(rows) == []
    assert looks_off([*rows[-STREAK + 1 :]], chance=chance) == []  # too few to judge
    (comp,) = looks_off(rows, chance=chance, chance_steps=1000)
    told = "loss 11.2 after 1,000 steps is not below chance (ln 60,000 = 11): --lr is far too high or too low, or the targets do not follow from the inputs"
    assert comp == Finding("chance", "", told)
    assert looks_off([row(100 * i, loss=10.0) for i in range(11)], chance=chance) == []
