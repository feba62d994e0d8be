"""`--config FILE.toml`: the file's values reach the command, flags win, and whatever is wrong in it is one line with its name."""

import contextlib
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import Cli, check_refused
from learnable import Trained

from ulmpipe import cli as ulmpipe_cli
from ulmpipe.command import with_config_files
from ulmpipe.config import FinetuneConfig, PretrainConfig
from ulmpipe.config_file import MAX_BYTES, command_options, read_toml
from ulmpipe.errors import ConfigError
from vision import __main__ as vision_cli
from vision.config import TransferConfig


def to_toml(options: dict[str, Any]) -> str:
    """Options as a person would write them down: TOML knows no null, what is None is left out."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items() if value is not None)


def commands(app: typer.Typer) -> dict[str, Any]:
    """Every command of an app that does something, by its name; of a group below it `journal search`."""
    found: dict[str, Any] = {}

    def walk(prefix: str, command: Any) -> None:
        for name, below in command.commands.items():
            found[prefix + name] = below
            if hasattr(below, "commands"):
                walk(f"{prefix}{name} ", below)

    walk("", with_config_files(app))
    return found


ULMPIPE, VISION = commands(ulmpipe_cli.app), commands(vision_cli.app)


class Reached(Exception):
    pass


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `finetune` is called with, instead of a training."""
    received: dict[str, Any] = {}

    def run(source: str, out: str | None, **options: Any) -> None:
        received.update(options, source=source, out=out)
        raise Reached

    monkeypatch.setattr("ulmpipe.tasks.finetune.finetune", run)
    return received


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "my.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# ---- what it does ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ULMPIPE, *(f"vision {name}" for name in VISION)])
def test_every_command_has_the_option(name: str):
    found = {**ULMPIPE, **{f"vision {name}": command for name, command in VISION.items()}}[name]
    assert [param.opts for param in found.params].count(["--config"]) == 1


def test_values_reach_the_command_and_flags_win(cli: Cli, given: dict[str, Any], written: Any):
    path = written('rules = "course"\nmax-vocab = 300\nmin_freq = 5\nresume = true\ngradual = false\nlr = 1\nfrom = "some/lm"\nout = "here"\n')  # fmt: skip
    with pytest.raises(Reached):
        cli("finetune", "s", "--config", path, "--min-freq", "2", "--no-resume", "-q")
    ref = {f.name: f.default for f in fields(FinetuneConfig)}
    ref |= {"rules": "course", "max_vocab": 300, "gradual": False, "lr": 1.0, "from_model": "some/lm"}
    assert given == {**ref, "source": "s", "out": "here"}  # min_freq and resume: as the flags say, the defaults


def test_a_flag_that_says_the_default_wins_too(cli: Cli, given: dict[str, Any], written: Any):
    with pytest.raises(Reached):
        cli("finetune", "--min-freq", "2", "s", "--config", written("min_freq = 9\n"))
    assert given["min_freq"] == 2


def test_options_of_the_command_line_alone_can_be_set(cli: Cli, trained: Trained, written: Any):
    ended = cli("predict", trained.clf, "A superb film", "--config", written('json = true\nquiet = true\ndevice = "cpu"'))  # fmt: skip
    assert json.loads(ended.out)["label"] == "pos" and ended.err == ""


def test_commands_below_a_command_have_it(cli: Cli, trained: Trained, written: Any):
    path = written(f'journal = "{trained.folder / "journal.db"}"\n')
    assert cli("journal", "--config", path).out == cli("journal", "--journal", trained.folder / "journal.db").out != ""
    assert "finetune" in cli("journal", "search", "finetune", "--config", path).out


def test_required_options_may_stand_in_the_file(monkeypatch: pytest.MonkeyPatch, written: Any):
    given: dict[str, Any] = {}
    monkeypatch.setattr("vision.train.transfer", lambda *args, **options: given.update(options, args=args))
    monkeypatch.setattr(vision_cli, "_finish_fit", lambda result, json: None)
    monkeypatch.setattr(sys, "argv", ["vision", "transfer", "digits", "--config", str(written('from = "net"\nflip = false\n'))])  # fmt: skip
    with contextlib.suppress(SystemExit):
        vision_cli.main()
    ref = {f.name: f.default for f in fields(TransferConfig)}
    assert given == {**ref, "flip": False, "args": ("digits", "net", None)}


@pytest.mark.parametrize(("command", "folder", "kind"), [("pretrain", "lm", PretrainConfig), ("finetune", "clf", FinetuneConfig)])  # fmt: skip
def test_the_options_of_a_model_are_a_config(trained: Trained, written: Any, command: str, folder: str, kind: Any):
    options = json.loads((trained.folder / folder / "config.json").read_text())["trained"]["options"]
    read = command_options(ULMPIPE[command], written(to_toml(options)))
    assert kind(**{**dict.fromkeys(f.name for f in fields(kind)), **read}) == kind(**options)


# ---- what is wrong --------------------------------------------------------------------------------------------------


WRONG: list[tuple[str, str]] = [
    ("min_frq = 2", "unknown option 'min_frq', did you mean 'min_freq'?"),
    ("zzzzz = 2", "unknown option 'zzzzz', known: out, "),
    ('source = "a.csv"', "'source' is no option, give it on the command line"),
    ('config = "other.toml"', "unknown option 'config'"),
    ("help = true", "unknown option 'help'"),
    ("min_freq = 1\nmin-freq = 2", "'min-freq' is there twice"),
    ('from = "a"\nfrom_model = "b"', "'from_model' is there twice"),
    ('batch_size = "64"', "--batch-size is '64', expected int"),
    ("batch_size = 6.5", "--batch-size is 6.5, expected int"),
    ("batch_size = true", "--batch-size is True, expected int"),
    ("batch_size = 0", "--batch-size is 0, expected more than 0"),
    ("lr = nan", "--lr is nan, expected a finite number"),
    ("lr = true", "--lr is True, expected float | None"),
    ("resume = 1", "--resume is 1, expected bool"),
    ('rules = "corse"', "--rules is 'corse', expected one of default, course"),
    ("text_column = 3", "--text-column is 3, expected str"),
    ("out = 3", "out is '3', expected str"),
    ('json = "yes"', "json is 'yes', expected bool"),
    ("[tokenize]\nmin_freq = 2", "'tokenize' is a table, expected a text"),
    ("rules.name = 1", "'rules' is a table"),
    ("rules = ['course']", "'rules' is a list"),
    ("seed = 1979-05-27", "'seed' is a date or time"),
    ("seed = " + "0x" + "f" * 5000, "'seed' is a number of more than 64 bits"),
    ("seed = " + "9" * 5000, "is no TOML"),
    ("seed = ", "is no TOML: Invalid value (at end of document)"),
    ("seed = 1\nseed = 2", "is no TOML: Cannot overwrite a value"),
    ("x = " + "[" * 5000, "is no TOML"),
    ("x = " + "{a=" * 3000, "is no TOML"),
    ("a" + ".a" * 8000 + " = 1", "'a' is a table"),
    ("\ufffe = \0", "is no TOML"),
    ("".join(f"x{n} = 1\n" for n in range(1500)), "and 1495 more unknown options"),
    ("note = '" + "x" * MAX_BYTES + "'", f"has more than {MAX_BYTES:,} bytes"),
]


@pytest.mark.parametrize(("text", "reason"), WRONG, ids=[text[:20] for text, _ in WRONG])
def test_a_hostile_config_file_is_one_line(cli: Cli, given: dict[str, Any], written: Any, text: str, reason: str):
    ended = cli("finetune", "s", "--config", written(text))
    check_refused(ended, 2, reason)
    assert "my.toml" in ended.err and given == {} and len(ended.err) < 6000


def test_all_mistakes_of_a_file_are_named_at_once(written: Any):
    with pytest.raises(ConfigError) as caught:
        command_options(ULMPIPE["tokenize"], written("min_frq = 1\nworkers = -1\nverify = 2\nout = 1"))
    assert all(reason in str(caught.value) for reason in ("'min_frq'", "--workers is -1", "--verify is 2", "out is '1'"))  # fmt: skip


def test_options_that_do_not_go_together_are_told_when_all_are_known(cli: Cli, given: dict[str, Any], written: Any):
    path = written("multi_label = true\nlabel_smoothing = 0.1\n")
    check_refused(cli("finetune", "s", "--config", path), 2, "--label-smoothing is for one label a document")
    with pytest.raises(Reached):
        cli("finetune", "s", "--config", path, "--label-smoothing", "0")
    assert given["multi_label"] is True and given["label_smoothing"] == 0


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"note = '\xe9'"])
def test_bytes_that_are_no_text_are_refused(written: Any, content: bytes):
    with pytest.raises(ConfigError, match="my.toml is not valid UTF-8"):
        read_toml(written(content))


def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path: Path):
    import os

    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ConfigError, match="pipe.toml is no plain file"):
        read_toml(tmp_path / "pipe.toml")
    with pytest.raises(ConfigError, match="is no plain file"):
        read_toml(Path("/dev/zero"))
    with pytest.raises(ConfigError, match="nosuch.toml does not exist"):
        read_toml(tmp_path / "nosuch.toml")
