"""The configs of the commands: one place for defaults, each valid, described and frozen."""

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from ulmpipe import config
from ulmpipe.config import (
    DoctorConfig,
    FinetuneConfig,
    HeldOutConfig,
    ImportConfig,
    PretrainConfig,
    ReadConfig,
    ServeConfig,
    TokenizeConfig,
    TrainConfig,
)
from ulmpipe.options import BOUNDS, flag_name, make_config

KINDS = [
    HeldOutConfig,
    ReadConfig,
    TokenizeConfig,
    TrainConfig,
    PretrainConfig,
    FinetuneConfig,
    ImportConfig,
    DoctorConfig,
    ServeConfig,
]


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_valid_and_described(kind: Any):
    assert make_config(kind, {f.name: f.default for f in fields(kind)}) == kind()
    assert all(len(f.metadata["help"]) > 10 for f in fields(kind))
    assert len({flag_name(f) for f in fields(kind)}) == len(fields(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_configs_are_frozen(kind: Any):
    with pytest.raises(FrozenInstanceError):
        kind().workers = 3


def test_bounds_and_choices_are_known():
    for f in (f for kind in KINDS for f in fields(kind)):
        assert not f.metadata["choices"] or f.default in f.metadata["choices"]
        assert f.metadata["bound"] in {"", *BOUNDS}


def test_no_other_default_stands_in_the_module():
    made = [kind for kind in vars(config).values() if isinstance(kind, type) and kind.__module__ == config.__name__]
    assert set(made) == set(KINDS)
