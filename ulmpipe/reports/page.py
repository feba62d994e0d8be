"""The files of a run folder, or of several, as one HTML page.

    report.json  metrics.jsonl  steps.jsonl  layers.jsonl  *.png -> page.html, charts.py -> report.html

Everything of the page is in it: style, charts as SVG, pictures as data. What files say is escaped, whatever it is.
"""

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ..console import log
from ..durable import CURVE_FILE, MANIFEST, write_bytes
from ..errors import StoreError, UlmpipeError
from ..journal import read_curve
from ..train.hooks import LOG_NAME
from ..train.phases import FACTS_FILE, PAGE_FILE
from ..train.plot_layers import layers_figure, read_rows
from ..train.progress import STEPS_FILE
from . import charts
from .facts import Facts

MAX_PICTURE_BYTES = 20 << 20
LEAST_MARKED = 0.2  # of what the strongest word of a document did
MAX_LAYER_ROWS = 300  # in the chart of layers, evenly spread: more makes a large page, and no clearer one


@dataclass(frozen=True)
class RunFolder:
    """What the files of a run folder say."""

    name: str
    folder: Path
    facts: Facts
    epochs: list[dict[str, Any]]  # rows of metrics.jsonl
    steps: list[dict[str, Any]]  # rows of steps.jsonl, counted on over all phases


def read_run(folder: Path | str) -> RunFolder:
    """Read a run folder. Raises `StoreError` where it has no report.json, or its files say what no training writes."""
    folder = Path(folder)
    facts = Facts.load(folder)
    with _whatever_files_say(folder):
        epochs = [row for row in read_curve([folder / CURVE_FILE]) if {"phase", "step"} <= row.keys()]
        path = folder / STEPS_FILE
        rows = read_rows(path) if path.is_file() else []
        steps = charts.joined_steps([row for row in rows if {"phase", "step", "loss", "lr"} <= row.keys()])
    return RunFolder(_name_of(folder.resolve()), folder, facts, epochs, steps)


def _name_of(folder: Path) -> str:
    """The folder's name, with that of the run that it is a part of: `imdb/lm`."""
    is_part = (folder.parent / FACTS_FILE).exists() or (folder.parent / MANIFEST).exists()
    return f"{folder.parent.name}/{folder.name}" if is_part else folder.name


@contextmanager
def only_noted(folder: Path) -> Iterator[None]:
    """Make one line of the log of whatever goes wrong in the block: a page is not worth the training that it is of."""
    try:
        yield
    except Exception as err:
        log(f"note: {folder / PAGE_FILE} could not be written: {type(err).__name__}: {err}")


def write_report(folder: Path | str) -> Path:
    """Write `report.html` beside the files that it is made of; returns its path."""
    run = read_run(folder)
    path = Path(folder) / PAGE_FILE
    write_bytes(path, one_page(run).encode("utf-8"))
    return path


def one_page(run: RunFolder) -> str:
    """The page of one run. Raises `StoreError` where its files say what no training writes."""
    with _whatever_files_say(run.folder):
        return _one_page(run)


def _one_page(run: RunFolder) -> str:
    drawn = {"losses": "", "schedule": "", "lengths": "", "layers": ""}
    if run.steps or run.epochs:
        drawn["losses"] = charts.to_svg(lambda: charts.losses({run.name: (run.steps, run.epochs)}), f"{run.name}: loss over training steps")  # fmt: skip
    if run.steps:
        drawn["schedule"] = charts.to_svg(lambda: charts.schedule(run.steps), f"{run.name}: learning rate and momentum over training steps")  # fmt: skip
    if found := run.facts.lengths:
        drawn["lengths"] = charts.to_svg(lambda: charts.bars(found["edges"], found["n"], found["unit"]), f"{run.name}: documents by length")  # fmt: skip
    rows = read_rows(run.folder / LOG_NAME) if (run.folder / LOG_NAME).is_file() else []
    if len(rows) > 1:
        rows = rows[:: -(-len(rows) // MAX_LAYER_ROWS)]
        drawn["layers"] = charts.to_svg(lambda: layers_figure(rows), f"{run.name}: activations and gradients of each layer")  # fmt: skip
    pictures = {_as_data(run.folder / name): caption for name, caption in run.facts.pictures.items()}
    return _render("run", run=run, facts=run.facts, charts=drawn, pictures=pictures)


def compare_page(runs: Sequence[RunFolder]) -> str:
    """The page of several runs: what was reached, which options were others, and their curves over one another."""
    with _whatever_files_say(runs[0].folder.parent):
        return _compare_page(runs)


def _compare_page(runs: Sequence[RunFolder]) -> str:
    names = _apart(runs)
    curves = {name: (run.steps, run.epochs) for name, run in zip(names, runs, strict=True)}
    drawn = charts.to_svg(lambda: charts.losses(curves), "losses of all runs over training steps")
    results = list(dict.fromkeys(key for run in runs for key in run.facts.results))
    options = list(dict.fromkeys(key for run in runs for key in run.facts.options))
    others = [key for key in options if len({repr(run.facts.options.get(key)) for run in runs}) > 1]
    return _render("compare", runs=dict(zip(names, runs, strict=True)), results=results, others=others, chart=drawn)


def _apart(runs: Sequence[RunFolder]) -> list[str]:
    """Names that are different: by the folder alone where that is enough, else by its path."""
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.folder) for run in runs]


def _as_data(path: Path) -> str:
    """A PNG of ours as a `data:` address. Raises `StoreError` where it is none."""
    try:
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise StoreError(f"{path} has {path.stat().st_size:,} bytes, expected {MAX_PICTURE_BYTES:,} at most")
        data = path.read_bytes()
    except OSError as err:
        raise StoreError(f"{path} can't be read, which the report shows: {err}") from err
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise StoreError(f"{path} is no PNG")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _render(which: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    environment.filters |= {"number": number, "duration": duration, "words": shown_words, "word": shown_word}
    environment.globals |= {"zip": zip}
    return environment.get_template("page.html").render(which=which, **values)


@contextmanager
def _whatever_files_say(folder: Path) -> Iterator[None]:
    """Raise `StoreError` where what was read is not what a training writes."""
    from jinja2 import TemplateError

    try:
        yield
    except (TemplateError, LookupError, TypeError, ValueError, AttributeError) as err:
        raise StoreError(
            f"{folder} has a report.json, or curves, that no training writes ({err!r}): restore them"
        ) from err


# ---- how values are written -----------------------------------------------------------------------------------------


def number(value: object) -> str:
    """A value as a person reads it.

    >>> [number(v) for v in (12500, 0.9237, 1e-4, 3.0, True, None, "x")]
    ['12,500', '0.9237', '0.0001', '3', 'yes', '–', 'x']
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def duration(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> [duration(s) for s in (0.26, 42.0, 187.0, 7300.0)]
    ['0.3 s', '42 s', '3 min 7 s', '2 h 1 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def shown_word(word: str) -> str:
    """A token as it can be seen: white space and control characters as Python writes them."""
    return word if word.strip() and word.isprintable() else repr(word)


def shown_words(words: Sequence[tuple[str, float]]) -> Any:
    """The words of a mistake, those that mattered marked: for what the model said, or against it, and how much."""
    from markupsafe import Markup

    most = max((abs(share) for _, share in words), default=0.0) or 1.0
    parts = []
    for word, share in words:
        strength = abs(share) / most
        if strength < LEAST_MARKED:
            parts.append(escape(word))
            continue
        side = "for" if share > 0 else "against"
        parts.append(f'<mark class="{side}" style="--strength:{strength:.2f}" title="{share:+.1%} {side} it">{escape(word)}</mark>')  # fmt: skip
    return Markup(" ".join(parts))


def check_runs(folders: Sequence[str | Path]) -> list[RunFolder]:
    """Read all run folders. Raises `UlmpipeError` that names every one that has no report."""
    runs, wrong = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UlmpipeError as err:
            wrong.append(str(err))
    if wrong:
        raise UlmpipeError("; ".join(wrong))
    return runs
