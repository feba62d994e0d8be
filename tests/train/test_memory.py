"""Freed memory is kept: asked in a process of its own, which must not stay as it leaves it."""

import subprocess
import sys
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from ulmpipe.train import Learner
from ulmpipe.train.memory import EVERY_BATCHES, GiveBackMemory, keep_freed_memory

FAULTS = """
import resource, sys, torch
from ulmpipe.train.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.ones(16 << 20)  # 64 MB
begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


HELD = """
import os, torch
from types import SimpleNamespace
from ulmpipe.train.memory import EVERY_BATCHES, GiveBackMemory, keep_freed_memory
def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
keep_freed_memory()
tensors = [torch.ones(4 << 20) for _ in range(32)]  # 16 MB each
del tensors[:-1]  # the last one lies at the top
held = resident_mb()
trim, learn = GiveBackMemory(), SimpleNamespace(device=torch.device('cpu'))
for _ in range(EVERY_BATCHES - 1):
    trim.cleanup_batch(learn)
assert resident_mb() > held - 1
trim.cleanup_batch(learn)
print(held - resident_mb())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_below_what_is_in_use_is_given_back_in_time():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 300


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_a_large_tensor_is_made_in_the_memory_of_the_last_one():
    assert faults("keep") < faults("leave") / 4


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory.__wrapped__() is False
    monkeypatch.setattr("ulmpipe.train.memory.ctypes.CDLL", lambda _: pytest.fail("a library was loaded"))
    trim, learn = GiveBackMemory(), cast(Learner, SimpleNamespace(device=torch.device("cpu")))
    for _ in range(EVERY_BATCHES):
        trim.cleanup_batch(learn)
