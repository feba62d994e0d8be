"""What a person sees goes to stderr, and nothing at all when asked to be quiet."""

import sys
from collections.abc import Iterator

import pytest

from ulmpipe import console
from ulmpipe.console import PLAIN_INTERVAL_S, log, progress, set_quiet


class Clock:
    """Stands in for `time`; moves when told."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


@pytest.fixture
def quiet() -> Iterator[None]:
    set_quiet(True)
    yield
    set_quiet(False)


def test_log_writes_one_line_to_stderr_only(capsys: pytest.CaptureFixture[str]):
    log("tokenized é")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "tokenized é\n")


def test_quiet_silences_log_and_progress(capsys: pytest.CaptureFixture[str], clock: Clock, quiet: None):
    log("nothing")
    with progress("tokenize", 10) as bar:
        clock.now_s += 10 * PLAIN_INTERVAL_S
        bar.update(5, "note")
    assert capsys.readouterr() == ("", "")


def test_plain_progress_writes_a_line_every_interval(capsys: pytest.CaptureFixture[str], clock: Clock):
    with progress("tokenize", 200) as bar:
        for done in (10, 20, 50):
            clock.now_s += 0.6 * PLAIN_INTERVAL_S
            bar.update(done, f"{done} docs")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "tokenize  10%  20 docs  108 s left\n"  # at 12 s, of 20 in 200


def test_plain_progress_of_nothing_is_silent(capsys: pytest.CaptureFixture[str], clock: Clock):
    with progress("tokenize", 0) as bar:
        clock.now_s += 10 * PLAIN_INTERVAL_S
        bar.update(0)
    assert capsys.readouterr() == ("", "")


def test_plain_progress_before_anything_is_done(capsys: pytest.CaptureFixture[str], clock: Clock):
    with progress("tokenize", 10) as bar:
        clock.now_s += 2 * PLAIN_INTERVAL_S
        bar.update(0)
    assert capsys.readouterr().err.startswith("tokenize   0%")


def test_terminal_progress_draws_a_bar_on_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(console, "BAR_AFTER_S", 0.0)
    with progress("tokenize", 10) as bar:
        bar.update(10, "1,200 docs")
    out, err = capsys.readouterr()
    assert out == ""
    assert "tokenize" in err and "100%" in err and "1,200 docs" in err


def test_what_is_done_in_a_moment_has_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, clock: Clock
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("verify", 10) as bar:
        clock.now_s += 0.5 * console.BAR_AFTER_S
        bar.update(10)
    assert capsys.readouterr() == ("", "")


def test_work_within_work_has_no_bar_of_its_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """A terminal shows one at a time: rich raises an error for a second."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(console, "BAR_AFTER_S", 0.0)
    with progress("outer", 10) as outer:
        outer.update(1)
        with progress("inner", 10) as inner:
            inner.update(5)
        outer.update(10)
    err = capsys.readouterr().err
    assert "outer" in err and "inner" not in err
    with progress("next", 10) as bar:
        bar.update(10)
    assert "next" in capsys.readouterr().err


def test_progress_lets_errors_through():
    with pytest.raises(ZeroDivisionError), progress("tokenize", 10):
        _ = 1 / 0
