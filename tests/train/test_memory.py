"""Freed memory is kept: asked in a process of its own, which must not stay as it leaves it."""

import subprocess
import sys

import pytest

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
import sys, torch
from ulmpipe.train.memory import EVERY_BATCHES, GiveBackMemory, keep_freed_memory
def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
keep_freed_memory()
tensors = [torch.ones(4 << 20) for _ in range(32)]  # 16 MB each
del tensors[:-1]  # the last one lies at the top
held = resident_mb()
trim = GiveBackMemory()
for _ in range(EVERY_BATCHES - 1):
    trim.cleanup_batch(None)
assert resident_mb() > held - 1
trim.cleanup_batch(None)
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
    for _ in range(EVERY_BATCHES):
        GiveBackMemory().cleanup_batch(None)  # pyright: ignore[reportArgumentType]
