"""The table that `make faults` ends with, and writes to bench/results/faults.json: faults tried, and survived.

Survived is a fault after which the next run ended in the same bytes, or which was refused in one line: nothing was lost.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import ALL, write_corpus

from bench import record

FAULT = "fault"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store, to be copied before it is spoiled."""
    from ulmpipe.config import TokenizeConfig
    from ulmpipe.tasks.tokenize import tokenize_plan
    from ulmpipe.text.source import plan_folder

    folder = tmp_path_factory.mktemp("store")
    corpus = write_corpus(folder / "texts", n_files=12, n_words=40)
    tokenize_plan(plan_folder(corpus, unit_bytes=1 << 20), folder / "out", TokenizeConfig(workers=1))
    return folder / "out"


@pytest.fixture
def survived(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Write down that a fault of this kind was tried, and that nothing was lost by it: `survived("SIGKILL of a worker")`."""

    def write_down(kind: str, n: int = 1) -> None:
        record_property(FAULT, (kind, n))

    return write_down


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, from the reports of all processes of pytest."""
    tried: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name == FAULT:
                    tried[value[0]] += value[1]
                    held[value[0]] += value[1]
            if outcome == "failed" and "tests/faults" in getattr(report, "nodeid", ""):
                tried[report.nodeid.split("::")[-1].split("[")[0]] += 1
    if not tried:
        return
    terminalreporter.write_sep("-", "faults")
    for kind, n in tried.items():
        terminalreporter.write_line(f"{kind:<60}{n:>8,} tried{held[kind]:>8,} survived")
    terminalreporter.write_line(f"{'in all':<60}{tried.total():>8,} tried{held.total():>8,} survived")
    config = terminalreporter.config
    is_whole = config.args == ["tests/faults"] and not config.option.keyword  # and not a part that somebody looks at
    if ALL and is_whole and "failed" not in terminalreporter.stats:
        record.write("faults", {"tried": dict(tried), "survived": dict(held)})
