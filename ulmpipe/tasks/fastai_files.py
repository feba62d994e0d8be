"""Read fastai's two files, weights (.pth) and vocabulary (.pkl), and run nothing that may be in them.

The only place where a pickle is read. Weights go through `torch.load(weights_only=True)`, which makes tensors and plain
containers. Of a vocabulary the opcodes are followed here one by one, and only those that a list of strings is written
with: what a pickle calls (GLOBAL, REDUCE, BUILD) is no part of it. Names and shapes are models/fastai_names.py's to check.
"""

import re
import tarfile
from pathlib import Path
from pickletools import genops
from typing import Any

import torch

from ..errors import SourceError, UlmpipeError

MAX_VOCAB_BYTES = 64 << 20  # fastai's hold about 1 MB
_OLD_OR_PACKED = {
    ".h5": "is of fastai 0.7, whose vocabulary has other special tokens: take a file of fastai 1 or 2 (wt103-fwd.tgz)",
    ".tgz": "is an archive: unpack it (tar xf), and give the .pth and the .pkl in it",
    ".gz": "is an archive: unpack it (tar xf), and give the .pth and the .pkl in it",
}


class Discarded:
    """Stands in for what `learn.save` keeps of an optimiser beside tensors: it takes any arguments and keeps none."""

    def __new__(cls, *args: object) -> "Discarded":
        """Make one."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Keep nothing."""


# fastai 2's `learn.save` writes its optimiser's settings with these; they are known by name, and never imported.
_OF_OPTIMISERS = (
    "fastcore.foundation.L",
    "numpy.dtype",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
)


# ---- weights --------------------------------------------------------------------------------------------------------


def read_weights(path: Path) -> Any:
    """Read what `learn.save`, `save_encoder` or `torch.save` of a state dict wrote, on the CPU.

    Raises `SourceError` for a file that is absent or damaged, or that holds anything which would have to be run.
    """
    _check_is_file(path)
    if reason := _OLD_OR_PACKED.get(path.suffix.lower()):
        raise SourceError(f"{path} {reason}")
    stand_ins: list[Any] = [(Discarded, name) for name in _OF_OPTIMISERS]
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as err:  # a dozen unrelated classes say that a file is cut short, or is none of torch's
        if found := re.search(r"(?:GLOBAL|Unsupported class|global:?|type) ([A-Za-z_][\w.]+\.\w+)", str(err)):
            raise SourceError(
                f"{path} holds more than weights ({found[1]}), and is not run: give a state dict, as learn.save or "
                f"torch.save(learn.model.state_dict(), FILE) write it"
            ) from err
        if tarfile.is_tarfile(path):
            raise SourceError(f"{path} {_OLD_OR_PACKED['.tgz']}") from err
        raise SourceError(f"{path} is damaged, or no file of weights by torch: fetch or save it again") from err


# ---- vocabulary -----------------------------------------------------------------------------------------------------

_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


def read_itos(path: Path) -> list[str]:
    """Read the pickle of a list of strings. Raises `SourceError` for any other pickle, whatever it holds, and runs nothing."""
    _check_is_file(path)
    if path.stat().st_size > MAX_VOCAB_BYTES:
        raise SourceError(f"{path} has {path.stat().st_size:,} bytes, expected a vocabulary of at most {MAX_VOCAB_BYTES:,}")  # fmt: skip
    try:
        value = _follow(path.read_bytes())
    except UlmpipeError as err:
        raise SourceError(f"{path} {err}, expected a list of strings: write it with pickle.dump(list(vocab), file)") from err  # fmt: skip
    except (ValueError, IndexError, KeyError, AttributeError, TypeError, UnicodeError) as err:
        raise SourceError(f"{path} is damaged, or no pickle: fetch or save it again") from err
    if not isinstance(value, list) or not value or not all(isinstance(token, str) for token in value):
        raise SourceError(f"{path} holds no list of strings, expected fastai's itos: ['xxunk', 'xxpad', ...]")
    if odd := next((token for token in value if not _is_text(token)), None):
        raise SourceError(f"{path} holds a token that is no Unicode text: {odd!r}")
    return value


def _follow(data: bytes) -> Any:
    """What the pickle makes, if it is made of lists and strings alone."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    for opcode, arg, _ in genops(data):
        name = opcode.name
        if name in _STRINGS:
            stack.append(arg)
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in _PUTS:
            memo[arg] = stack[-1]  # pyright: ignore[reportArgumentType]
        elif name in _GETS:
            stack.append(memo[arg])  # pyright: ignore[reportArgumentType]
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif name in ("APPENDS", "LIST"):
            begin = marks.pop()
            items, stack = stack[begin:], stack[:begin]
            if name == "LIST":
                stack.append(items)
            else:
                stack[-1].extend(items)
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            what = f" {' '.join(arg.split()[:2])}" if isinstance(arg, str) else ""
            raise UlmpipeError(f"holds something else ({name}{what[:60]}), and is not run")
    raise ValueError("no STOP")


def _is_text(token: str) -> bool:
    """Whether a token can be written as UTF-8: half a surrogate pair can't."""
    try:
        token.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise SourceError(f"{path} {found}, expected a file of fastai's: check the spelling")
