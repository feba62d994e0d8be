"""Import spaCy and numba without what only their other users need, where nothing else of the process needs it.

`import spacy` imports torch, if it is installed, through thinc, and the code of spaCy's own command line; numba imports
scipy before its first kernel. That is most of the time in which a worker gets ready. A process that only tokenizes says
so once, with `for_tokens_only`.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

from .console import log

_for_tokens_only = False


def for_tokens_only() -> None:
    """Let the imports below do the least, in processes of our own that have no other use for spaCy."""
    global _for_tokens_only
    _for_tokens_only = True


def is_for_tokens_only() -> bool:
    """Whether this process has said so; its workers then may too."""
    return _for_tokens_only


def import_spacy() -> ModuleType:
    """The module `spacy`."""
    info: Any = ModuleType("spacy.cli.info")
    info.info = None
    with _instead({"torch": None, "spacy.cli": ModuleType("spacy.cli"), "spacy.cli.info": info}):
        import spacy

    return spacy


def prepare_to_predict(*, with_spacy: bool) -> None:
    """Import what a process needs that only predicts: spaCy before torch, which it does without then, and torch."""
    for_tokens_only()
    if with_spacy:
        import_spacy()
    with _instead({}):
        import torch  # noqa: F401


def import_numba() -> None:
    """What numba imports before it runs its first kernel; and see `_mend_cache`."""
    with _instead({"scipy": None}):
        import numba.np.arraymath  # noqa: F401
    _mend_cache()


@lru_cache(maxsize=1)
def _mend_cache() -> None:
    """Let a damaged file in numba's cache be made again, where numba fails, and say when kernels are compiled.

    A crash or a full disk leaves such files, and every later run would end with an EOFError.
    """
    from numba.core.caching import FunctionCache

    load = FunctionCache.load_overload

    def load_or_none(cache: Any, *args: Any) -> Any:
        if not cache._py_func.__module__.startswith("ulmpipe."):
            return load(cache, *args)
        try:
            found = load(cache, *args)
        except Exception:  # whatever unpickling half a file may raise
            cache.flush()
            found = None
        if found is None:
            _say_that_it_compiles()
        return found

    FunctionCache.load_overload = load_or_none  # pyright: ignore[reportAttributeAccessIssue]


@lru_cache(maxsize=1)
def _say_that_it_compiles() -> None:
    log("compiling kernels, once on this machine: half a minute")


@contextmanager
def _instead(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """Have these modules imported in the place of the real ones, unless those are there; None: as if not installed."""
    names = [name for name in modules if _for_tokens_only and name not in sys.modules]
    was_on = gc.isenabled()
    gc.disable()  # an import makes much that stays: looking for garbage in it is a third of its time
    sys.modules.update({name: modules[name] for name in names})  # pyright: ignore[reportArgumentType, reportCallIssue]
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        if was_on:
            gc.enable()
