"""The errors that a user can cause or meet, and the exit code of each.

    UlmpipeError               1  failed; the message says what was found, what was expected, how to mend it
    |- ConfigError             2  the command line or a combination of options is wrong
    |- SourceError             1  nothing to read, or not what was said
    |- StoreError              1  a token store or model folder is unfinished, truncated, altered, too new
    |- VocabMismatchError      1  ids and model do not belong together
    |- EngineMismatchError     1  the fast tokenizer and the reference differ
    `- OutputInUseError        4  another run writes there now

The base of the import order: every module may import this one, it imports none. Anything else that is
raised is a bug in ulmpipe and keeps its traceback, but `OSError`: a full disk and the like are one line too.
"""

from collections.abc import Sequence

# Exit codes of the command line that do not belong to an error (DESIGN: command line).
DONE, FAILED, USAGE, QUARANTINED, IN_USE = 0, 1, 2, 3, 4
INTERRUPTED, TERMINATED = 130, 143


def some(names: Sequence[str], n: int = 4) -> str:
    """The first of the names that a message is about, and how many more there are.

    >>> some(["a", "b", "c"], 2), some([])
    ('a, b and 1 more', 'nothing')
    """
    return (", ".join(names[:n]) or "nothing") + (f" and {len(names) - n} more" if len(names) > n else "")


class UlmpipeError(Exception):
    """Base of all errors that are shown to the user as one line."""

    exit_code = FAILED


class ConfigError(UlmpipeError):
    """An option or a combination of options makes no sense."""

    exit_code = USAGE


class SourceError(UlmpipeError):
    """A source is missing, empty, or has not the columns it should have."""


class StoreError(UlmpipeError):
    """A token store or a model folder is unfinished, truncated, altered or of a newer format."""


class VocabMismatchError(UlmpipeError):
    """A vocabulary, a store and a model do not belong together."""


class EngineMismatchError(UlmpipeError):
    """The fast tokenizer gave other tokens than the reference: a defect of ulmpipe, and never to be passed over."""


class OutputInUseError(UlmpipeError):
    """Another run holds the lock of the output folder."""

    exit_code = IN_USE
