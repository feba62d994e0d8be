"""Options: every wrong one is named at once, with what was expected."""

from dataclasses import fields
from typing import Any

import pytest

from ulmpipe.config import FinetuneConfig, PretrainConfig, ReadConfig, TokenizeConfig, TrainConfig
from ulmpipe.errors import ConfigError
from ulmpipe.options import as_flags, flag_name, make_config, pick

KINDS = [ReadConfig, TokenizeConfig, TrainConfig, PretrainConfig, FinetuneConfig]


def bounded(bound: str) -> set[str]:
    return {f.name for f in fields(FinetuneConfig) if f.metadata["bound"] == bound}


POSITIVE, NOT_NEGATIVE = bounded("more than 0"), bounded("0 or more")


@pytest.mark.parametrize("name", sorted(POSITIVE))
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_that_must_be_more_than_nothing(name: str, value: int):
    with pytest.raises(ConfigError, match=rf"^--{name.replace('_', '-')} is {value}, expected more than 0$"):
        make_config(FinetuneConfig, {name: value})


@pytest.mark.parametrize("name", sorted(NOT_NEGATIVE))
def test_numbers_that_may_be_nothing(name: str):
    assert getattr(make_config(FinetuneConfig, {name: 0}), name) == 0
    with pytest.raises(ConfigError, match=rf"^--{name.replace('_', '-')} is -1, expected 0 or more$"):
        make_config(FinetuneConfig, {name: -1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", sorted(POSITIVE | NOT_NEGATIVE | {"valid_fraction"}))
def test_numbers_are_finite_and_whole_where_they_count(name: str, value: float):
    type = next(f.type for f in fields(FinetuneConfig) if f.name == name)
    expected = "a finite number" if type in (float, float | None) else getattr(type, "__name__", str(type))
    with pytest.raises(ConfigError) as caught:
        make_config(FinetuneConfig, {name: value})
    assert str(caught.value) == f"--{name.replace('_', '-')} is {value}, expected {expected}"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"epochs": 1.5}, "--epochs is 1.5, expected int | None"),
        ({"batch_size": "64"}, "--batch-size is '64', expected int"),
        ({"batch_size": None}, "--batch-size is None, expected int"),
        ({"max_steps": "9"}, "--max-steps is '9', expected int | None"),
        ({"lr": "fast"}, "--lr is 'fast', expected float | None"),
        ({"drop_mult": "0.3"}, "--drop-mult is '0.3', expected float"),
        ({"text_column": 3}, "--text-column is 3, expected str"),
        ({"vocab": 3}, "--vocab is 3, expected str | None"),
        ({"resume": 1}, "--resume is 1, expected bool"),
        ({"rules": None}, "--rules is None, expected str"),
    ],
)
def test_values_of_the_wrong_type_are_refused(options: dict[str, Any], reason: str):
    with pytest.raises(ConfigError) as caught:
        make_config(FinetuneConfig, options)
    assert str(caught.value) == reason


def test_whole_numbers_are_numbers():
    assert make_config(FinetuneConfig, {"lr": 1, "drop_mult": 0}) == FinetuneConfig(lr=1, drop_mult=0)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5])
def test_valid_fraction_is_a_fraction(value: float):
    with pytest.raises(ConfigError, match=f"--valid-fraction is {value}, expected between 0 and 1"):
        make_config(TrainConfig, {"valid_fraction": value})


@pytest.mark.parametrize("f", [f for f in fields(FinetuneConfig) if f.metadata["choices"]], ids=lambda f: f.name)
def test_choices_are_listed(f: Any):
    with pytest.raises(ConfigError, match=f"{flag_name(f)} is 'x', expected one of {', '.join(f.metadata['choices'])}"):
        make_config(FinetuneConfig, {f.name: "x"})


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        make_config(TokenizeConfig, {"min_frq": 1, "zzz": 2, "rules": "corse", "workers": -1})
    message = str(caught.value)
    assert "unknown option 'min_frq', did you mean 'min_freq'?" in message
    assert "unknown option 'zzz', known: text_column, " in message
    assert "--rules is 'corse'" in message and "--workers is -1" in message and "\n" not in message


@pytest.mark.parametrize(
    ("options", "reasons"),
    [
        ({"multi_label": True, "label_smoothing": 0.1}, ["--label-smoothing is for one label a document"]),
        ({"tune_thresholds": True, "folds": 3, "valid": "v.csv"}, ["add --multi-label", "expected no --valid"]),
        ({"stage": "lm", "folds": 3, "n_labels": 9}, ["--folds, --n-labels with --stage lm, which trains no classifier"]),
        ({"stage": "lm", "multi_label": True, "tune_thresholds": True}, ["--tune-thresholds with --stage lm"]),
        ({"stage": "classifier", "lm_epochs": 0}, ["--lm-epochs with --stage classifier, which trains no language model"]),
        ({"stage": "classifier", "from_model": "none"}, ["--stage classifier needs a tuned language model"]),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_named_at_once(options: dict[str, Any], reasons: list[str]):
    with pytest.raises(ConfigError) as caught:
        make_config(FinetuneConfig, options)
    said = str(caught.value).split("; ")
    assert len(said) == len(reasons) and all(reason in one for one, reason in zip(said, reasons, strict=True))


def test_options_that_may_be_absent_are_none():
    comp = make_config(FinetuneConfig, {"n_labels": None, "lr": None, "max_steps": None, "vocab": None})
    assert comp == FinetuneConfig()


def test_flag_names():
    by_name = {f.name: flag_name(f) for f in fields(FinetuneConfig)}
    assert by_name["batch_size"] == "--batch-size" and by_name["from_model"] == "--from"


def test_pick_takes_the_part_of_a_larger_config():
    comp = pick(TokenizeConfig, FinetuneConfig(rules="course", workers=3, batch_size=9))
    assert comp == TokenizeConfig(rules="course", workers=3)


def test_options_as_flags_can_be_typed():
    given = {"from_model": "my models/lm", "report": False, "multi_label": True, "lr": 1e-3, "max_steps": None}
    assert as_flags(FinetuneConfig, given) == [
        "--from",
        "'my models/lm'",
        "--no-report",
        "--multi-label",
        "--lr",
        "0.001",
    ]


@pytest.mark.parametrize(("name", "expected"), [("batch_size", "int"), ("epochs", "int | None"), ("lr", "float | None"), ("drop_mult", "float")])  # fmt: skip
def test_true_is_no_number(name: str, expected: str):
    with pytest.raises(ConfigError) as caught:
        make_config(FinetuneConfig, {name: True})
    assert str(caught.value) == f"{flag_name(FinetuneConfig.__dataclass_fields__[name])} is True, expected {expected}"


def test_a_long_value_is_shown_in_part():
    with pytest.raises(ConfigError) as caught:
        make_config(FinetuneConfig, {"rules": "x" * 5000})
    assert len(str(caught.value)) < 200
