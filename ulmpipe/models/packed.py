"""Weights in a quarter of their space, as the language model in the box is stored: 8-bit rows with a scale each.

    state dict, float32 -> pack -> int8 and float16 -> model.safetensors -> unpack -> state dict, float32

Only for keeping: nothing computes in 8 bits here (`quantize.py` does that). Training goes on from what `unpack` gives.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"  # beside each matrix that was packed
LEVELS = 127  # on each side of zero


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each matrix (n, m) as int8 (n, m) and scale (n,) float32, everything else as float16.

    A row's largest value becomes 127, so that a value is off by half of its row's scale at most.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.ndim != 2:
            packed[name] = tensor.half()
            continue
        scale = tensor.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / LEVELS  # (n,)
        packed[name] = (tensor / scale[:, None]).round().to(torch.int8)
        packed[name + SCALE] = scale.float()
    return packed


def unpack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `pack` packed, in float32; what was not packed stays as it is."""
    return {
        name: tensor.float() * state[name + SCALE][:, None] if name + SCALE in state else tensor
        for name, tensor in state.items()
        if not name.endswith(SCALE)
    }
