"""Shell completion as bash asks for it: words and a position in the environment, completions a line each on stdout."""

import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from ulmpipe.config import FinetuneConfig
from ulmpipe.options import flag_name

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "spacy", "numba", "numpy", "pyarrow", "datasets"}
RUN = "import sys; sys.argv[0] = 'ulmpipe'; from ulmpipe.cli import main; main()"


def complete(line: str) -> list[str]:
    """What bash would offer at the end of a line."""
    words = line.split(" ")
    asked = {"_ULMPIPE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", RUN], capture_output=True, text=True, cwd=ROOT, env=asked)  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "ref"),
    [
        ("ulmpipe tok", ["tokenize"]),
        ("ulmpipe tokenize --rules ", ["default", "course", "fastai1", "fastai2"]),
        ("ulmpipe tokenize corpus --rules fast", ["fastai1", "fastai2"]),
        ("ulmpipe finetune x.csv --stage c", ["classifier"]),
        ("ulmpipe pretrain x --size ", ["tiny", "small", "medium", "base"]),
        ("ulmpipe pretrain x --device c", ["cpu", "cuda"]),
        ("ulmpipe evaluate m x --device c", ["cpu", "cuda"]),
        ("ulmpipe predict m --precision ", ["fp32", "bf16"]),
        ("ulmpipe journal s", ["search", "show"]),
        ("ulmpipe tokenize --conf", ["--config"]),
        ("ulmpipe tokenize --config nosuch.toml --rules fastai1 --engine s", ["spacy"]),
        ("ulmpipe tokenize ", []),  # bash offers files then
    ],
)
def test_completions(line: str, ref: list[str]):
    assert complete(line) == ref


def test_every_flag_is_offered():
    found = complete("ulmpipe finetune x --")
    assert {flag_name(f) for f in fields(FinetuneConfig)} <= set(found) and "--no-gradual" in found


def test_nothing_heavy_is_loaded_while_a_line_is_completed():
    code = f"""
import os, sys
os.environ.update(_ULMPIPE_COMPLETE="complete_bash", COMP_WORDS="ulmpipe finetune --rules ", COMP_CWORD="3")
sys.argv = ["ulmpipe"]
from ulmpipe.cli import main
try:
    main()
except SystemExit:
    print("loaded", *({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[0] == "default" and done.stdout.splitlines()[-1] == "loaded"


@pytest.fixture
def bash(tmp_path: Path):
    """Run a script in a bash with a home of its own, where `ulmpipe` is this one."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ulmpipe"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{RUN}\n")
    program.chmod(0o755)

    def run(script: str) -> str:
        env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


ASK = 'COMP_WORDS=(ulmpipe tokenize --rules fa); COMP_CWORD=3; $(complete -p ulmpipe | sed "s/.*-F \\([^ ]*\\) .*/\\1/") ulmpipe fa --rules; echo "${COMPREPLY[@]}"'


def test_the_script_that_is_shown_completes_in_bash(bash):
    assert bash(f'eval "$(ulmpipe --show-completion)"; {ASK}') == "fastai1 fastai2\n"


def test_the_script_that_is_installed_completes_in_bash(bash, tmp_path: Path):
    assert "completion installed in" in bash("ulmpipe --install-completion; true")
    assert bash(f"source ~/.bashrc; {ASK}") == "fastai1 fastai2\n"
