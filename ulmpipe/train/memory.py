"""Keep freed memory for the next step, and give it back in time where steps are of ever other sizes.

glibc gives every freed block of more than 32 MB back to the system, which hands out zeroed pages again at the next step,
4 KB at a time: on a virtual machine, seconds of a step of a large language model. The arms `ours` and `ours, malloc as it is`
of `bench/train_lm.py` tell. A classifier's batches are never alike, and what one frees has holes where the next does not fit:
`GiveBackMemory` is for them. Nothing here decides how much memory is asked for.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from .callback import Callback

if TYPE_CHECKING:
    from .learner import Learner

# malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
TOP_PAD_BYTES = 64 << 20
EVERY_BATCHES = 8


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
    """Give the pages of all freed memory back to the system every `EVERY_BATCHES` batches, training or validation.

    The next batch asks for its own again: the less often, the less of its time.
    """

    order = 2000  # last: the others have let go of what they held

    def __init__(self) -> None:
        self.n_batches = 0

    def cleanup_batch(self, learn: Learner) -> None:
        """Count, and give back."""
        self.n_batches += 1
        is_time = self.n_batches % EVERY_BATCHES == 0 and learn.device.type == "cpu"
        if is_time and (malloc_trim := _glibc("malloc_trim")):
            malloc_trim(0)


def _glibc(name: str) -> Any:
    """A function of malloc that only Linux with glibc has, None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
