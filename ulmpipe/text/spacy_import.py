"""Import spaCy without torch, where nothing else of the process needs it.

`import spacy` imports torch, if it is installed, through thinc: two of three seconds in every worker. A process that
only tokenizes says so once, with `leave_torch_out`.
"""

import sys
from types import ModuleType

_without_torch = False


def leave_torch_out() -> None:
    """Let `import_spacy` keep torch out of this process: for processes of our own, which have no other use for spaCy."""
    global _without_torch
    _without_torch = True


def import_spacy() -> ModuleType:
    """The module `spacy`."""
    blocked = _without_torch and not {"spacy", "thinc", "torch"} & set(sys.modules)
    if blocked:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]  # an import of it fails, as if not installed
    try:
        import spacy
    finally:
        if blocked:
            del sys.modules["torch"]
    return spacy
