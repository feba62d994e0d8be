"""Keep freed memory for the next step: a training asks for the same large tensors again and again.

glibc gives every freed block of more than 32 MB back to the system, which hands out zeroed pages again at the next step,
4 KB at a time: on a virtual machine, seconds of a step of a large language model. The arms `ours` and `ours, malloc as it is`
of `bench/train_lm.py` tell. Nothing here decides how much memory is asked for.
"""

import ctypes
import sys
from functools import cache

# malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
TOP_PAD_BYTES = 64 << 20


@cache
def keep_freed_memory() -> bool:
    """Let malloc reuse what was freed, of any size, for the rest of this process; return whether it could be told.

    Every training asks for it (`run_phases`), from Python too: the process keeps its largest size until it ends. Linux
    with glibc only; elsewhere, and for memory of a GPU, whose allocator does the same by itself, nothing happens.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    settings = {
        M_MMAP_MAX: 0,  # no mapping of its own for a large block: it could only be given back
        M_TRIM_THRESHOLD: -1,  # never give back the top
        M_TOP_PAD: TOP_PAD_BYTES,
        M_ARENA_MAX: 1,  # one pool for all threads: what one frees, another can use
    }
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
