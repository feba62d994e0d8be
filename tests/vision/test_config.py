"""The configs of the commands of `vision`: valid, described, and in step with the networks."""

from dataclasses import fields
from typing import Any

import pytest

from ulmpipe.options import BOUNDS, flag_name, make_config
from vision import xresnet
from vision.config import ARCHS, FitConfig, ReadConfig, TrainConfig, TransferConfig

KINDS = [ReadConfig, FitConfig, TrainConfig, TransferConfig]


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_valid_and_described(kind: Any):
    assert make_config(kind, {f.name: f.default for f in fields(kind)}) == kind()
    assert all(len(f.metadata["help"]) > 5 and f.metadata["bound"] in {"", *BOUNDS} for f in fields(kind))
    assert len({flag_name(f) for f in fields(kind)}) == len(fields(kind))


def test_the_networks_are_those_that_can_be_built():
    assert tuple(xresnet.ARCHS) == ARCHS
