"""The skin of the command lines: flags from fields, one JSON object, one line and an exit code for an error."""

import json
import math
import subprocess
import sys
from dataclasses import dataclass

import pytest
import typer
from typer.testing import CliRunner

from ulmpipe import command
from ulmpipe.errors import ConfigError, UlmpipeError
from ulmpipe.options import option


@dataclass(frozen=True)
class Options:
    n_things: int = option(3, "how many things there are")
    from_where: str | None = option(None, "where they come from", flag="from", choices=("here", "there"))
    loud: bool = option(False, "say it loudly")


def make_app(received: list[dict]) -> typer.Typer:
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @command.with_options(Options)
    def go(place: str, *, options: dict) -> None:
        """Go somewhere."""
        received.append({"place": place, **options})

    return app


def test_fields_become_flags():
    received: list[dict] = []
    app = make_app(received)
    assert CliRunner().invoke(app, ["a", "--n-things", "5", "--from", "here", "--loud"]).exit_code == 0
    assert CliRunner().invoke(app, ["b"]).exit_code == 0
    assert received == [
        {"place": "a", "n_things": 5, "from_where": "here", "loud": True},
        {"place": "b", "n_things": 3, "from_where": None, "loud": False},
    ]
    help = CliRunner().invoke(app, ["--help"]).stdout
    assert "how many things there are" in help and "(here, there)" in " ".join(help.split()) and "--no-loud" in help


def test_json_is_one_line_without_nan(capsys: pytest.CaptureFixture[str]):
    command.print_json({"a": math.nan, "b": math.inf, "c": 1.5, "d": "ü"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": None, "b": None, "c": 1.5, "d": "ü"} and out.count("\n") == 1 and "ü" in out


@pytest.mark.parametrize(
    ("error", "code"), [(UlmpipeError("two\nlines"), 1), (ConfigError("wrong"), 2), (OSError("disk full"), 1)]
)
def test_an_error_of_a_user_is_one_line(error: Exception, code: int, capsys: pytest.CaptureFixture[str]):
    def app() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        command.run(app, "prog")
    assert caught.value.code == code
    assert capsys.readouterr().err == f"prog: {' '.join(str(error).split())}\n"


def test_a_bug_keeps_its_traceback():
    def app() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command.run(app, "prog")


@pytest.mark.parametrize(("args", "hint"), [("train x", "; go on with: prog train x --resume"), ("show x", "")])
def test_an_interrupted_training_says_how_it_goes_on(args: str, hint: str):
    code = f"""
import signal, sys
from ulmpipe import command
from ulmpipe.train import Interrupted
sys.argv = ["prog", *{args.split()!r}]
def app():
    raise Interrupted(signal.SIGTERM)
command.run(app, "prog", resumable=("train",))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, f"prog: stopped by SIGTERM, a checkpoint was written{hint}\n")


@pytest.mark.parametrize(("name", "told"), [("OutOfMemoryError", "the memory of the GPU is full: a smaller --batch-size"), ("MemoryError", "there is not memory enough: fewer --workers")])  # fmt: skip
def test_memory_that_is_full_is_one_line(name: str, told: str, capsys: pytest.CaptureFixture[str]):
    error: type[BaseException] = MemoryError if name == "MemoryError" else type(name, (RuntimeError,), {})

    def app() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        command.run(app, "name")
    err = capsys.readouterr().err
    assert ended.value.code == 1 and err.startswith(f"name: {told}") and err.count("\n") == 1
