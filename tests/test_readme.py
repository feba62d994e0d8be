"""README says what is so: its tables come from bench/results, its Python example runs, its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ulmpipe.cli import app
from ulmpipe.text.store import TokenStore

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_results():
    check = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "report.py"), "--check"], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stderr
    assert "<!-- bench:train -->\n<!-- end -->" not in README


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tickets").mkdir()
    (tmp_path / "tickets" / "1.md").write_text("See http://example.org NOW")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"(?:^    .*\n|^\n)*^    import ulmpipe\n(?:^    .*\n|^\n)*", README, re.MULTILINE)
    exec("\n".join(line.removeprefix("    ") for line in block.splitlines()), {})
    store = TokenStore("tickets.tok")
    assert store.vocab.decode(store.doc(0).tolist())[1:] == ["xxmaj", "xxunk", "xxurl", "xxup", "xxunk", "xxeos"]


def test_commands_of_the_table_are_those_of_the_command_line():
    told = {*re.findall(r"^\| `ulmpipe (\w+)", README, re.MULTILINE), "demo"}
    assert told == {command.callback.__name__ for command in app.registered_commands if command.callback}
