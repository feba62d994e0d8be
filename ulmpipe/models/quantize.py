"""A classifier with its LSTM and linear weights in int8: a quarter of their memory, and sooner on most processors.

Dynamic quantization: weights are rounded once, one scale a matrix; activations in each call, by the range of that batch. So
a prediction depends, in its third digit or so, on the texts it is made with. For a CPU, and for prediction only.
"""

import warnings

import torch
from torch import nn

from ..errors import ConfigError
from .heads import TextClassifier


def quantized(model: TextClassifier) -> TextClassifier:
    """Return a copy that computes in int8, in evaluation mode; embedding and normalisation stay float32.

    Raises `ConfigError` on a GPU, and where PyTorch was built without int8 kernels.
    """
    if (device := next(model.parameters()).device).type != "cpu":
        raise ConfigError(f"--quantize is for a CPU, this is {device}: add --device cpu")
    if torch.backends.quantized.engine == "none":
        raise ConfigError("--quantize: this PyTorch has no int8 kernels: leave it out")
    with warnings.catch_warnings():
        # PyTorch points to torchao instead, which has no int8 LSTM and would be a new dependency: so as long as it is there.
        warnings.filterwarnings("ignore", message="torch.ao.quantization is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="torch.quantize_per_tensor, ", category=UserWarning)
        return torch.ao.quantization.quantize_dynamic(model.eval(), {nn.LSTM, nn.Linear}, dtype=torch.qint8)
