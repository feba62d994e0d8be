"""Which device a model is trained or used on. What a device can compute in is in precision.py."""

import torch

from ..errors import ConfigError


def pick_device(device: str) -> torch.device:
    """`auto` is a GPU where there is one. Raises `ConfigError` for a device that is not here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError:
        picked = None
    if picked is None or picked.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device} is unknown: expected auto, cpu, cuda or cuda:0, cuda:1, ...")
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {device}: there are {torch.cuda.device_count()} CUDA devices here, use --device cpu"
        )
    return picked
