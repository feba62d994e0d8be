"""`ulmpipe journal`: the runs that the trainings wrote down, listed, found by words, shown whole, and annotated.

A thin skin over journal.py, and part of the command line (cli.py); writes nothing but notes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from . import journal
from .command import Json, finish

N_LISTED = 20
MAX_NOTE = 40  # characters of a note in a list

app = typer.Typer(rich_markup_mode=None)

File = Annotated[str | None, typer.Option("--journal", help=f"the journal; default: {journal.DEFAULT_JOURNAL}")]
Number = Annotated[int, typer.Argument(metavar="RUN", help="number of a run")]


class Given(NamedTuple):
    """Options that may stand before a sub-command as well as after it."""

    journal: str | None
    json: bool

    def or_else(self, ctx: typer.Context) -> tuple[Path, bool]:
        """The journal's file and whether JSON is asked for, here or before the sub-command."""
        before: Given = ctx.obj
        return Path(self.journal or before.journal or journal.DEFAULT_JOURNAL), self.json or before.json


@app.callback(invoke_without_command=True)
def newest(ctx: typer.Context, *, journal_file: File = None, json: Json = False) -> None:
    """Show the runs that were written down: the newest, those with some words, or one of them."""
    ctx.obj = Given(journal_file, json)
    if ctx.invoked_subcommand is None:
        path, json = ctx.obj.or_else(ctx)
        _finish_list(journal.newest(path, N_LISTED), f"{path} has no runs yet", json)


@app.command()
def search(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help="words that all come in a run, or the beginnings of words")],
    *,
    journal_file: File = None,
    json: Json = False,
) -> None:
    """List the runs in which all these words come: in notes, options, sources, results, errors."""
    path, json = Given(journal_file, json).or_else(ctx)
    _finish_list(journal.search(path, " ".join(words)), f"no run in {path} has all of these words", json)


@app.command()
def show(ctx: typer.Context, run: Number, *, journal_file: File = None, json: Json = False) -> None:
    """Show all that is known of one run."""
    path, json = Given(journal_file, json).or_else(ctx)
    found = journal.find(path, run)
    finish(found, run_lines(found), as_json=json)


@app.command()
def note(
    ctx: typer.Context,
    run: Number,
    text: Annotated[str, typer.Argument(help="a line, added to the notes of the run")],
    *,
    journal_file: File = None,
    json: Json = False,
) -> None:
    """Add a line to the notes of a run."""
    path, json = Given(journal_file, json).or_else(ctx)
    found = journal.add_note(path, run, text)
    finish(found, found["note"].splitlines(), as_json=json)


# ---- what is printed ------------------------------------------------------------------------------------------------


def _finish_list(runs: Sequence[journal.Row], nothing: str, json: bool) -> None:
    finish({"runs": runs}, list_lines(runs) or [nothing], as_json=json)


def list_lines(runs: Sequence[journal.Row]) -> list[str]:
    """A line a run: number, date, task, state, source, the main result, the note."""
    return table(
        [
            (f"{run['id']}", f"{run['date']}"[:16].replace("T", " "), *(f"{run[name]}" for name in ("task", "state")),
             _short(run["source"]), main_result(run["result"]), _short(run["note"]))
            for run in runs
        ]
    )  # fmt: skip


def main_result(result: Any) -> str:
    """The number by which a run is known: a language model's perplexity, else the accuracy, else the loss."""
    if isinstance(result, Mapping):
        for name in ("perplexity", "accuracy", "valid_loss"):
            if result.get(name) is not None:
                return f"{name} {_shown(result[name])}"
    return ""


def run_lines(run: Mapping[str, Any]) -> list[str]:
    """All of a run: a line a column, objects with a line a name below, the curve as a table."""
    lines: list[str] = []
    for name, value in run.items():
        if value is None or value == []:
            continue
        if isinstance(value, Mapping):
            lines += [f"{name}:", *(f"  {key:20} {_shown(one)}" for key, one in value.items() if one is not None)]
        elif isinstance(value, list):
            heads = list(dict.fromkeys(key for row in value for key in row))
            rows = [[_shown(row.get(head, "")) for head in heads] for row in value]
            lines += [f"{name}:", *(f"  {line}" for line in table([heads, *rows]))]
        else:
            lines.append(f"{name + ':':14}{_said(name, value)}")
    return lines


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with their columns one below the other.

    >>> table([("epoch", "loss"), ("0", "4.1")])
    ['epoch  loss', '0      4.1']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{n}}" for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows]


def _said(name: str, value: Any) -> str:
    if name == "tree_clean":
        return "yes" if value else "no: there were changes that no commit has"
    return str(value).replace("\n", "\n" + " " * 14)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if not isinstance(value, float):
        return f"{value}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _short(text: Any) -> str:
    line = " ".join(str(text or "").split())
    return line if len(line) <= MAX_NOTE else line[: MAX_NOTE - 1] + "…"
