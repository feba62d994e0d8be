"""What a person sees while work goes on: log lines and progress bars, all of it on stderr.

A bar where stderr is a terminal and the work takes longer than a moment, a plain line every few seconds where it is not (a log
file, CI); of work within work only the outer one's bar. Results never
come this way: the command line prints them to stdout. Imports only rich, and only when a bar is drawn.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

PLAIN_INTERVAL_S = 10.0
BAR_AFTER_S = 1.0  # what takes less needs no bar
_quiet = False
_n_open = 0  # of progress: a terminal has one bar at a time


def set_quiet(quiet: bool) -> None:
    """Silence `log` and `progress` for the rest of the process (`--quiet`)."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether `set_quiet(True)` holds."""
    return _quiet


def log(message: str) -> None:
    """Write one line to stderr, unless `set_quiet(True)`."""
    if not _quiet:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()


class Bar(Protocol):
    """What `progress` yields."""

    def update(self, done: float, note: str = "") -> None:
        """Set how much is done, in the unit of `total`, and a short note such as `loss 3.21`."""
        ...


@contextmanager
def progress(description: str, total: float) -> Iterator[Bar]:
    """Show progress towards `total` (any unit) while the block runs.

    with progress("tokenize", n_bytes) as bar:
        bar.update(done_bytes, note="1,200 docs, 1.3 MB/s")
    """
    global _n_open
    _n_open += 1
    try:
        if _quiet or _n_open > 1:
            yield _SilentBar()
        elif not sys.stderr.isatty():
            yield _PlainBar(description, total)
        else:
            with _LateBar(description, total) as bar:
                yield bar
    finally:
        _n_open -= 1


class _SilentBar:
    def update(self, done: float, note: str = "") -> None:
        pass


class _PlainBar:
    """One line every `PLAIN_INTERVAL_S` seconds, for logs."""

    def __init__(self, description: str, total: float):
        self.description, self.total = description, total
        self.begin_s = self.last_s = time.monotonic()

    def update(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        if now - self.last_s < PLAIN_INTERVAL_S or not self.total:
            return
        self.last_s = now
        left_s = (now - self.begin_s) * (self.total - done) / max(done, 1e-9)
        log(f"{self.description} {done / self.total:4.0%}  {note}  {left_s:.0f} s left")


class _LateBar(ExitStack):
    """A bar of rich's, drawn from the first update after `BAR_AFTER_S` on."""

    def __init__(self, description: str, total: float):
        super().__init__()
        self.begin_s = time.monotonic()
        self.description, self.total = description, total
        self.bar: Bar | None = None

    def update(self, done: float, note: str = "") -> None:
        if self.bar is None and time.monotonic() - self.begin_s >= BAR_AFTER_S:
            self.bar = self.enter_context(_rich_bar(self.description, self.total))
        if self.bar is not None:
            self.bar.update(done, note)


@contextmanager
def _rich_bar(description: str, total: float) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as rich_progress:
        task = rich_progress.add_task(description, total=total, note="")

        class RichBar:
            def update(self, done: float, note: str = "") -> None:
                rich_progress.update(task, completed=done, note=note)

        yield RichBar()
