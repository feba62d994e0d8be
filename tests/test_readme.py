"""README says what is so: its tables come from bench/results, its Python example runs, its commands exist."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

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
    for page in (README, (ROOT / "bench" / "README.md").read_text()):
        blocks = re.findall(r"<!-- bench:(\w+) -->\n(.*?)<!-- end -->", page, re.DOTALL)
        assert blocks and not [name for name, block in blocks if not block.strip()]


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tickets").mkdir()
    (tmp_path / "tickets" / "1.md").write_text("See http://example.org NOW")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"(?:^    .*\n|^\n)*^    import ulmpipe\n(?:^    .*\n|^\n)*", README, re.MULTILINE)
    exec("\n".join(line.removeprefix("    ") for line in block.splitlines()), {})
    store = TokenStore("tickets.tok")
    assert store.vocab.decode(store.doc(0).tolist())[1:] == ["xxmaj", "xxunk", "xxurl", "xxup", "xxunk", "xxeos"]


def test_picture_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None):
    """With a network of few channels: the example's own takes a minute."""
    from vision import learner, xresnet

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learner, "build", partial(xresnet.build, stem=(8, 8, 8), widths=(8, 16, 16, 32)))
    (block,) = re.findall(
        r"^    from pathlib import Path\n    from vision import (?:.*\n)(?:^    .*\n|^\n)*", README, re.MULTILINE
    )
    names: dict[str, Any] = {}
    exec("\n".join(line.removeprefix("    ") for line in block.splitlines()), names)
    assert names["learn"].history[-1]["accuracy"] > 0.3 and (tmp_path / "models" / "decoded-pictures").is_dir()


def test_commands_of_pictures_are_those_of_the_command_line():
    from vision.__main__ import app as vision_app

    told = set(re.findall(r"^    python -m vision (\w+)", README, re.MULTILINE))
    assert told == {command.callback.__name__ for command in vision_app.registered_commands if command.callback}


def test_commands_of_the_table_are_those_of_the_command_line():
    told = {*re.findall(r"^\| `ulmpipe ([\w-]+)", README, re.MULTILINE), "demo"}
    commands = {command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback}
    assert told == commands | {str(group.name) for group in app.registered_groups}
