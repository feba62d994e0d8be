"""The int8 copy says almost the same with a quarter of the LSTM's weights, and the model it was made of stays as it was."""

import pytest
import torch
from torch import nn

from ulmpipe.errors import ConfigError
from ulmpipe.models import SIZES, TextClassifier
from ulmpipe.models.inference import classify
from ulmpipe.models.quantize import quantized


@pytest.fixture
def model() -> TextClassifier:
    torch.manual_seed(3)
    return TextClassifier(30, 3, **SIZES["tiny"], bptt=8).eval()


def test_logits_are_near_those_of_float32(model: TextClassifier):
    ids, lengths = torch.randint(2, 30, (6, 40)), torch.tensor([40, 3, 17, 40, 1, 8])
    ref = classify(model, ids, lengths)
    with torch.no_grad():
        forward = quantized(model)(ids, lengths)
    comp = classify(quantized(model), ids, lengths)
    spread = (ref - ref.mean(dim=0)).abs().max().item()
    assert 0 < (comp - ref).abs().max() < 0.2 * spread and (forward - ref).abs().max() < 0.2 * spread


def test_lstm_and_linear_layers_are_int8_and_the_original_is_not(model: TextClassifier):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copy = quantized(model)
    assert not any(isinstance(module, nn.LSTM | nn.Linear) for module in copy.modules()) and not copy.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_is_refused(model: TextClassifier, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="--quantize is for a CPU, this is meta: add --device cpu"):
        quantized(TextClassifier(30, 3, **SIZES["tiny"]).to("meta"))
    monkeypatch.setattr(type(torch.backends.quantized), "engine", "none")
    with pytest.raises(ConfigError, match="no int8 kernels"):
        quantized(model)
