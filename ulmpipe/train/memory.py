"""Keep freed memory for the next step, and give it back in time where steps are of ever other sizes.

glibc gives every freed block of more than 32 MB back to the system, which hands out zeroed pages again at the next step,
4 KB at a time: on a virtual machine, seconds of a step of a large language model. The arms `ours` and `ours, malloc as it is`
of `bench/train_lm.py` tell. A classifier's batches are never alike, and what one frees has holes where the next does not fit:
`GiveBackMemory` is for them. Nothing here decides how much memory is asked for.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from .callback import Callback

if TYPE_CHECKING:
    from .learner import Learner

# malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
TOP_PAD_BYTES = 64 << 20
REST = 2  # times what a batch needs: with less there is no rest to reuse


@cache
def keep_freed_memory() -> bool:
    """Let malloc reuse what was freed, of any size, for the rest of this process; return whether it could be told.

    Every training asks for it (`run_phases`), from Python too: but for `GiveBackMemory` the process keeps its largest size until
    it ends. Linux with glibc only; elsewhere, and for memory of a GPU, whose allocator does the same by itself, nothing happens.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    settings = {
        M_MMAP_MAX: 0,  # no mapping of its own for a large block: it could only be given back
        M_TRIM_THRESHOLD: -1,  # never give back the top
        M_TOP_PAD: TOP_PAD_BYTES,
        M_ARENA_MAX: 1,  # one pool for all threads: what one frees, another can use
    }
    return all([mallopt(name, value) == 1 for name, value in settings.items()])


class GiveBackMemory(Callback):
    """Give the pages of all freed memory back to the system once they are `REST` times what one batch needs.

    What a batch needs is seen at the first one after each time, which asks for all its pages again. A classifier of 2 x 600 on
    IMDB came to 11.9 GB without this, and to 7.8 GB giving back every 16 batches; of 4,000 of its reviews, 40 batches came to
    3.1 GB so, giving back every sixth one in 0.15 s, and a batch took 3.4 s.
    """

    order = 2000  # last: the others have let go of what they held

    def __init__(self) -> None:
        self.base = 0  # bytes of the process when it had just given back
        self.needed = 0  # bytes that one batch has added to them
        self.is_first = False

    def cleanup_batch(self, learn: Learner) -> None:
        """Look how large the process is, and give back."""
        malloc_trim = _glibc("malloc_trim")
        if malloc_trim is None or learn.device.type != "cpu":
            return
        added = resident_bytes() - self.base
        if self.is_first:
            self.needed, self.is_first = max(self.needed, added), False
        elif added > REST * self.needed:
            malloc_trim(0)
            self.base, self.is_first = resident_bytes(), True


def resident_bytes() -> int:
    """Memory of this process that is there, on Linux."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _glibc(name: str) -> Any:
    """A function of malloc that only Linux with glibc has, None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
