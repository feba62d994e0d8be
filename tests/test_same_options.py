"""What the command line can say, Python can: every flag is an argument of the function of the command's name, in both packages."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from typing import Any

import pytest
import typer
from typer.core import TyperArgument

from ulmpipe import cli as ulmpipe_cli
from ulmpipe import journal
from ulmpipe.config_file import NOT_IN_A_FILE
from ulmpipe.errors import ConfigError
from ulmpipe.options import flag_name
from ulmpipe.tasks import tokenize as tokenize_task
from vision import __main__ as vision_cli

# Of the skin: how results are shown. A function returns them, and `console.set_quiet` silences it.
OF_THE_SKIN = {"json", "quiet", *NOT_IN_A_FILE}
# Functions whose name is not that of their command.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "journal": journal.newest, "journal search": journal.search, "journal show": journal.find, "journal note": journal.add_note,
}  # fmt: skip
VISION = {"train": "train", "transfer": "train", "evaluate": "evaluate", "predict": "evaluate"}  # the module of each
# Parameters of a command that its function calls something else.
CALLED = {"journal_file": "path", "run": "number", "images": "paths"}


def all_commands() -> dict[str, tuple[Any, Callable[..., Any]]]:
    """Every command of both packages by its name, and its function."""
    found: dict[str, tuple[Any, Callable[..., Any]]] = {}
    commands: dict[str, Any] = dict(typer.main.get_command(ulmpipe_cli.app).commands)  # type: ignore[attr-defined]
    commands |= {f"journal {name}": below for name, below in commands["journal"].commands.items()}
    for name, command in commands.items():
        own = name.replace("-", "_")
        module = next((m for n, m in _MODULES.items() if n == own), None)
        found[name] = (command, FUNCTIONS.get(name) or getattr(import_module(f"ulmpipe.{module}"), own))
    for name, command in typer.main.get_command(vision_cli.app).commands.items():  # type: ignore[attr-defined]
        found[f"vision {name}"] = (command, getattr(import_module(f"vision.{VISION[name]}"), name))
    return found


_MODULES: dict[str, str] = import_module("ulmpipe")._MODULES
COMMANDS = all_commands()
WITH_CONFIG = [name for name, (command, _) in COMMANDS.items() if hasattr(command.callback, "config_kind")]


def test_no_command_is_left_out():
    assert len(COMMANDS) >= 21 and {"tokenize", "push", "journal note", "vision transfer"} <= set(COMMANDS)
    assert set(WITH_CONFIG) >= {"tokenize", "pretrain", "finetune", "evaluate", "doctor", "import-fastai", "vision train", "vision transfer", "vision evaluate"}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_an_argument(name: str):
    command, function = COMMANDS[name]
    kind = getattr(command.callback, "config_kind", None)
    of_config = {f.name for f in fields(kind)} if kind else set()
    takes = inspect.signature(function).parameters
    asked = {CALLED.get(param.name, param.name) for param in command.params} - OF_THE_SKIN
    if name == "tokenize":  # a plan is another result: of a function of its own, with the same arguments
        asked.remove("dry_run")
        assert {"source", "out", "options"} <= inspect.signature(tokenize_task.dry_run).parameters.keys()
    assert asked - of_config <= takes.keys(), "and the function calls it the same"
    assert not of_config or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_defaults_are_the_same(name: str):
    command, function = COMMANDS[name]
    takes = inspect.signature(function).parameters
    for param in command.params:
        said = takes.get(param.name)
        if isinstance(param, TyperArgument) or said is None or said.default is inspect.Parameter.empty:
            continue
        assert param.default == said.default, param.name


@pytest.mark.parametrize("name", WITH_CONFIG)
def test_every_field_is_looked_at_by_the_function(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    """A value that no option can have is refused by the option's flag, before the function does anything else."""
    monkeypatch.chdir(tmp_path)
    command, function = COMMANDS[name]
    needs = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]  # fmt: skip
    for field in fields(command.callback.config_kind):
        with pytest.raises(ConfigError, match=f"^{flag_name(field)} is <object"):
            function(*["nosuch" for _ in needs], **{field.name: object()})
    with pytest.raises(ConfigError, match="^unknown option 'no_such_option'"):
        function(*["nosuch" for _ in needs], no_such_option=1)
    assert not list(tmp_path.iterdir())
