"""Freed memory is kept: asked in a process of its own, which must not stay as it leaves it."""

import subprocess
import sys

import pytest

from ulmpipe.train.memory import keep_freed_memory

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


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_a_large_tensor_is_made_in_the_memory_of_the_last_one():
    assert faults("keep") < faults("leave") / 4


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory.__wrapped__() is False
