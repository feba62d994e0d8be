"""`--config FILE.toml`: options of a command line from a file, flat, a name and a value a line.

    rules = "fastai2"
    max-vocab = 30000       # the name of a flag; with underscores it is the name of a field, as config.json has it
    resume = true

Part of the skin (command.py), which gives every command this option. What stands on the command line wins; what is wrong in
the file is told with its name. A file is data: no name in it is looked up anywhere but among the options of its command.
"""

import tomllib
from collections.abc import Container, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from .errors import ConfigError
from .options import wrong_values

# Ten times what all options take. tomllib takes quadratic time for a key of many dots: two seconds at this size.
MAX_BYTES = 16 << 10
MAX_UNKNOWN = 5  # that are named: a file that is none of ours would name thousands
KINDS = {dict: "table", list: "list"}
NOT_IN_A_FILE = ("config", "help", "version", "install_completion", "show_completion")


def add_config_option(command: Any) -> None:
    """Give a command `--config`, and all commands below it; a group without a function of its own has no options to set."""
    if isinstance(command, TyperGroup):
        for below in command.commands.values():
            add_config_option(below)
    if isinstance(command, TyperCommand) or getattr(command, "invoke_without_command", False) and command.params:
        command.params.append(_config_option(command))


def _config_option(command: Any) -> Any:
    """The option itself; typer makes one only of a function's argument."""

    def read(ctx: typer.Context, path: str | None) -> None:
        if path is not None and not ctx.resilient_parsing:  # which a shell that completes a line does
            ctx.default_map = command_options(command, Path(path))

    only = typer.Typer()

    @only.command()
    def holder(
        config: Annotated[
            str | None,
            typer.Option(
                "--config",
                metavar="FILE.toml",
                help="file of options, a name and a value a line; what stands on the command line wins",
                callback=read,
                is_eager=True,  # before the options whose values it gives
                expose_value=False,
            ),
        ] = None,
    ) -> None:
        pass

    return next(param for param in typer.main.get_command(only).params if param.name == "config")


def command_options(command: Any, path: Path) -> dict[str, Any]:
    """Read the options of a command from a TOML file, by the names of its parameters.

    Raises `ConfigError` that names the file, and every unknown name and bad value in it at once.
    """
    by_name = {name: param for param in command.params for name in _names(param)}
    arguments = {param.name for param in command.params if isinstance(param, TyperArgument)}
    kind = getattr(command.callback, "config_kind", None)
    checked = {f.name for f in fields(kind)} if kind else set()
    values = read_toml(path)
    unknown = [key for key in values if key.replace("-", "_") not in by_name]
    wrong = [_unknown(key, list(by_name), arguments) for key in unknown[:MAX_UNKNOWN]]
    wrong += [f"and {len(unknown) - MAX_UNKNOWN} more unknown options"] if len(unknown) > MAX_UNKNOWN else []
    found: dict[str, Any] = {}
    for key, value in values.items():
        if (name := key.replace("-", "_")) not in by_name:
            continue
        if (param := by_name[name]).name in found:
            wrong.append(f"{key!r} is there twice, under another name")
        else:
            found[param.name] = value
            if param.name not in checked and (reason := _bad_type(param, key, value)):
                wrong.append(reason)
    if kind:
        wrong += wrong_values(kind, {name: value for name, value in found.items() if name in checked})
    if wrong:
        raise ConfigError(f"--config {path}: {'; '.join(wrong)}")
    return found


def read_toml(path: Path) -> Mapping[str, Any]:
    """Read a flat TOML file. Raises `ConfigError` where there is none, or something else is in it."""
    if not path.is_file():  # a pipe would be waited for
        raise ConfigError(f"--config {path} {'is no plain file' if path.exists() else 'does not exist'}: expected a TOML file of options")  # fmt: skip
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"--config {path} has more than {MAX_BYTES:,} bytes: expected a TOML file of options")
    try:
        values = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as err:
        raise ConfigError(f"--config {path} is not valid UTF-8, expected a TOML file of options") from err
    except (ValueError, RecursionError) as err:  # of brackets in brackets, or a number of a thousand digits, too
        raise ConfigError(f"--config {path} is no TOML: {err}") from err
    for key, value in values.items():
        if not isinstance(value, str | int | float):
            raise ConfigError(f"--config {path}: {key[:40]!r} is a {KINDS.get(type(value), 'date or time')}, expected a text, a number, true or false")  # fmt: skip
        if isinstance(value, int) and value.bit_length() > 63:  # Python would not even print it
            raise ConfigError(f"--config {path}: {key[:40]!r} is a number of more than 64 bits")
    return values


def _names(param: Any) -> list[str]:
    """The keys by which a parameter may be named in a file: its flags' names, and the keyword's of the Python function."""
    if not isinstance(param, TyperOption) or param.name in NOT_IN_A_FILE:
        return []
    flags = [flag[2:].replace("-", "_") for flag in param.opts if flag.startswith("--")]
    return list(dict.fromkeys([*flags, str(param.name)]))


def _unknown(key: str, known: list[str], arguments: Container[str | None]) -> str:
    shown = key[:40]
    if shown.replace("-", "_") in arguments:
        return f"{shown!r} is no option, give it on the command line"
    nearest = get_close_matches(shown.replace("-", "_"), known, n=1)
    return f"unknown option {shown!r}, " + (
        f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
    )


def _bad_type(param: Any, key: str, value: Any) -> str:
    """Why a value can't be one of an option that no config describes, all of them texts or flags; or an empty string."""
    expected = bool if param.is_flag else str
    return "" if isinstance(value, expected) else f"{key} is {str(value)[:40]!r}, expected {expected.__name__}"
