"""Import spaCy and numba without what only their other users need, where nothing else of the process needs it.

`import spacy` imports torch, if it is installed, through thinc, and the code of spaCy's own command line; numba imports
scipy before its first kernel. That is most of the time in which a worker gets ready. A process that only tokenizes says
so once, with `for_tokens_only`.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_for_tokens_only = False


def for_tokens_only() -> None:
    """Let the imports below do the least, in processes of our own that have no other use for spaCy."""
    global _for_tokens_only
    _for_tokens_only = True


def import_spacy() -> ModuleType:
    """The module `spacy`."""
    info: Any = ModuleType("spacy.cli.info")
    info.info = None
    with _instead({"torch": None, "spacy.cli": ModuleType("spacy.cli"), "spacy.cli.info": info}):
        import spacy

    return spacy


def import_numba() -> None:
    """What numba imports before it runs its first kernel."""
    with _instead({"scipy": None}):
        import numba.np.arraymath  # noqa: F401


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
