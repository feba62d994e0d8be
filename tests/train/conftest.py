import contextlib

import pytest

import ulmpipe.train.precision as precision


@pytest.fixture
def scaler_alone(monkeypatch):
    """Let fp16 run on a CPU without autocast: the scaler does what it does, the arithmetic is float32."""
    monkeypatch.setattr(precision, "check_precision", lambda precision, device: None)
    monkeypatch.setattr(precision.torch, "autocast", lambda *_, **__: contextlib.nullcontext())
