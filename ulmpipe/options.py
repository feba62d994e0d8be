"""Options: the fields of a frozen dataclass, each a flag, a keyword of a Python function, and what is saved.

config.py, and `vision`, hold the dataclasses; here is how a field is described, checked and named. Knows no command.
"""

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from .errors import ConfigError

Config = TypeVar("Config")

MAX_SHOWN = 60  # characters of a wrong value

# What may be expected of a number; the words stand in the message.
BOUNDS: dict[str, Callable[[float], bool]] = {
    "more than 0": lambda value: value > 0,
    "2 or more": lambda value: value >= 2,
    "0 or more": lambda value: value >= 0,
    "0 to 65535": lambda value: 0 <= value <= 65535,
    "0 to 1": lambda value: 0 <= value <= 1,
    "from 0 to below 1": lambda value: 0 <= value < 1,
    "between 0 and 1": lambda value: 0 < value < 1,
}


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    flag: str = "",
    bound: str = "",
    offered: tuple[str, ...] = (),
) -> Any:
    """A field with the help text of its flag; `flag` where the flag's name is not the field's, `bound` one of `BOUNDS`.

    `offered` is what a shell completes where there are no `choices`: other values may be given too.
    """
    about = {"help": help, "choices": choices, "flag": flag, "bound": bound, "offered": choices or offered}
    return field(default=default, metadata=about)


def make_config(kind: type[Config], options: Mapping[str, Any]) -> Config:
    """Build a config from options by name. Raises `ConfigError` listing every unknown name and every bad value at once."""
    if wrong := wrong_values(kind, options):
        raise ConfigError("; ".join(wrong))
    return kind(**options)


def wrong_values(kind: type, options: Mapping[str, Any]) -> list[str]:
    """Every unknown name and every bad value among options by name; whether they go together is not looked at."""
    known = {f.name: f for f in fields(kind)}
    wrong = [_unknown(name, known) for name in options if name not in known]
    return wrong + [reason for name, value in options.items() if name in known and (reason := _bad_value(known[name], value))]  # fmt: skip


def _unknown(name: str, known: Mapping[str, Field[Any]]) -> str:
    nearest = get_close_matches(name, known, n=1)
    return f"unknown option {name!r}" + (
        f", did you mean {nearest[0]!r}?" if nearest else f", known: {', '.join(known)}"
    )


def _bad_value(option: Field[Any], value: Any) -> str:
    """Why a value can't be, or an empty string."""
    flag = flag_name(option)
    is_type = isinstance(value, option.type) or (isinstance(value, int) and option.type in (float, float | None))  # pyright: ignore[reportArgumentType]
    if not is_type or (isinstance(value, bool) and option.type not in (bool, bool | None)):  # True is an int in Python
        return f"{flag} is {repr(value)[:MAX_SHOWN]}, expected {getattr(option.type, '__name__', option.type)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{flag} is {value}, expected a finite number"
    if value is None:
        return ""
    if choices := option.metadata["choices"]:
        return "" if value in choices else f"{flag} is {repr(value)[:MAX_SHOWN]}, expected one of {', '.join(choices)}"
    bound = option.metadata["bound"]
    if bound and not BOUNDS[bound](value):
        return f"{flag} is {value}, expected {bound}"
    return ""


def flag_name(option: Field[Any]) -> str:
    """`--batch-size` for the field `batch_size`."""
    return "--" + (option.metadata["flag"] or option.name).replace("_", "-")


def as_flags(kind: type, options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line, quoted for a shell: those of a bool by its name, or its `--no-` name."""
    by_name = {f.name: f for f in fields(kind)}
    words: list[str] = []
    for name, value in options.items():
        flag = flag_name(by_name[name])
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None:
            words += [flag, shlex.quote(str(value))]
    return words


def pick(kind: type[Config], config: Any) -> Config:
    """The part of a larger config that belongs to `kind`: the tokenize options of a finetune config, for instance."""
    values = asdict(config)
    return kind(**{f.name: values[f.name] for f in fields(kind)})  # pyright: ignore[reportArgumentType]
