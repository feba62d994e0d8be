"""What every command line of ours does: flags from the fields of a config, one JSON object, one line for an error, exit codes.

cli.py, and `vision`, hold the commands; this is the skin around them.
"""

import inspect
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from functools import partial
from typing import Annotated, Any

import typer

from .config_file import add_config_option
from .console import log
from .durable import finite
from .errors import FAILED, QUARANTINED, TERMINATED, UlmpipeError
from .options import flag_name, make_config

# Of this process among those that torchrun started; a scheduler may leave a RANK where there is one process.
RANK = int(os.environ.get("RANK", "0")) if os.environ.get("WORLD_SIZE", "1") != "1" else 0
SWALLOWED_S = 5.0  # after so long an interrupt that had no effect (an import can catch it) is raised again

# Arguments that mean the same in every command.
Model = Annotated[str, typer.Argument(help="a model folder")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress, no log lines")]
DEVICES = ("auto", "cpu", "cuda")


def completes(*values: str) -> Callable[[str], list[str]]:
    """For `autocompletion`: the values that begin with what was typed."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete


Device = Annotated[str, typer.Option(help="auto, cpu or cuda", autocompletion=completes(*DEVICES))]


def with_options(kind: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of a config: its `options` argument becomes one keyword for each field."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]
        flags = [_parameter(field) for field in fields(kind)]
        names = [field.name for field in fields(kind)]

        def run(**given: Any) -> None:
            options = {name: given.pop(name) for name in names}
            make_config(kind, options)  # refused here, before the seconds that a command takes to be imported
            command(**given, options=options)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.config_kind = kind  # type: ignore[attr-defined]  # by which a file of options is checked (config_file.py)
        signature = inspect.Signature([*own, *flags])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return run

    return decorate


def _parameter(field: Any) -> inspect.Parameter:
    flag = flag_name(field)
    choices = field.metadata["choices"]
    help = field.metadata["help"] + (f" ({', '.join(choices)})" if choices else "")
    declared = f"{flag}/--no-{flag[2:]}" if field.type in (bool, bool | None) else flag
    offered = field.metadata["offered"]
    annotation = Annotated[field.type, typer.Option(declared, help=help, autocompletion=completes(*offered) if offered else None)]  # fmt: skip
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)


def with_config_files(app: typer.Typer) -> Any:
    """The command line of an app, each of its commands with `--config`."""
    group = typer.main.get_command(app)
    add_config_option(group)
    return group


def print_json(value: Any) -> None:
    """One JSON object on one line of stdout; JSON knows neither NaN nor infinity, they become null."""
    typer.echo(json.dumps(finite(value), ensure_ascii=False, allow_nan=False))


def finish(result: Any, lines: Any, *, as_json: bool, n_quarantined: int = 0) -> None:
    """Print a result, and end with exit code 3 where inputs were quarantined. Of several processes the first one prints."""
    if RANK > 0:
        pass
    elif as_json:
        print_json(result if isinstance(result, dict) else asdict(result))
    else:
        for line in lines:
            typer.echo(line)
    if n_quarantined:
        were = "input was" if n_quarantined == 1 else "inputs were"
        log(f"{n_quarantined:,} {were} quarantined (left out), the rest was read")
        raise typer.Exit(QUARANTINED)


def _terminate(signum: int, frame: object) -> None:
    raise SystemExit(TERMINATED)


def _interrupt(name: str, signum: int, frame: object) -> None:
    """Ctrl-C outside of a training (which has its own): say so, and ask again later where a library has swallowed it."""
    sys.stderr.write(f"\n{name}: interrupted\n")
    signal.signal(signal.SIGALRM, partial(_interrupt, name))
    signal.setitimer(signal.ITIMER_REAL, SWALLOWED_S)
    raise KeyboardInterrupt


def run(app: Callable[[], None], name: str, resumable: Sequence[str] = ()) -> None:
    """Run a command line; an error that a user can cause becomes one line and an exit code (errors.py).

    `name` begins each line. `resumable` are the commands that take `--resume`. Every command of a Typer app has `--config`.
    """
    if isinstance(app, typer.Typer):
        app = partial(with_config_files(app), prog_name=name)
    signal.signal(signal.SIGTERM, _terminate)  # as Ctrl-C: blocks are left, staging folders removed
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # which a shell sets for a job in the background
        signal.signal(signal.SIGINT, partial(_interrupt, name))
    try:
        app()
    except UlmpipeError as err:
        fail(name, str(err), err.exit_code)
    except OSError as err:  # a full disk, a folder that can't be written
        fail(name, str(err), FAILED)
    except MemoryError as err:
        fail(
            name,
            f"there is not memory enough: {str(err) or 'fewer --workers or a smaller --batch-size may help'}",
            FAILED,
        )
    except BaseException as err:
        if type(err).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            fail(name, "the memory of the GPU is full: a smaller --batch-size, or --size, needs less; what was saved is good", FAILED)  # fmt: skip
        if not (exit_code := getattr(err, "exit_code", None)):
            raise
        fail(name, f"{err}{_how_it_goes_on(err, name, resumable)}", exit_code)


def _how_it_goes_on(err: BaseException, name: str, resumable: Sequence[str]) -> str:
    """What is left after a `train.Interrupted`, and the command line that goes on from there."""
    again = [_start_of(name), shlex.join(sys.argv[1:])]
    if not getattr(err, "resumable", True):
        return f" before a checkpoint was written; begin again with: {' '.join(again)}"
    if sys.argv[1:2] and sys.argv[1] in resumable:
        hint = f"; go on with: {' '.join([*again, *([] if '--resume' in sys.argv else ['--resume'])])}"
    else:
        hint = ""
    return f", a checkpoint was written{hint}"


def _start_of(name: str) -> str:
    """How this command line was started: by torchrun, or by its name."""
    n_here, n_all = os.environ.get("LOCAL_WORLD_SIZE", "1"), os.environ.get("WORLD_SIZE", "1")
    if n_all == "1":
        return name
    return f"torchrun --nproc-per-node {n_here} -m {name}" if n_here == n_all else f"torchrun, as before, -m {name}"


def fail(name: str, message: str, exit_code: int) -> None:
    """One line on stderr, and out."""
    which = f" (process {RANK})" if RANK > 0 else ""
    sys.stderr.write(f"{name}{which}: {' '.join(message.split())}\n")
    sys.exit(exit_code)
