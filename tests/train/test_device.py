"""Devices by name, and one line for one that is not here."""

import pytest
import torch

from ulmpipe.errors import ConfigError
from ulmpipe.train.device import pick_device


def test_pick_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="there are 0 CUDA devices here, use --device cpu"):
        pick_device("cuda:0")


@pytest.mark.parametrize("device", ["gpu", "mps", "meta", "xla", "cuda:x", "cuda:-1", "", "cpu0", "CPU"])
def test_pick_device_knows_cpu_and_cuda_only(device: str):
    with pytest.raises(ConfigError, match=f"^--device {device} is unknown: expected auto, cpu, cuda or cuda:0, cuda:1"):
        pick_device(device)


def test_pick_device_counts_the_cuda_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    for device in ("cuda:2", "cuda:9"):
        with pytest.raises(ConfigError, match=f"--device {device}: there are 2 CUDA devices here"):
            pick_device(device)
