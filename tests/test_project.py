"""What holds for the project as a whole: imports run down, nothing heavy or dangerous is loaded, nothing goes untested."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
ULMPIPE, VISION = (sorted((ROOT / package).rglob("*.py")) for package in ("ulmpipe", "vision"))
SOURCES = [*ULMPIPE, *VISION]
# The one file that reads what may hold code, fastai's weights: with `weights_only=True`, and its test says that nothing runs.
READS_FASTAI = "ulmpipe/tasks/fastai_files.py"
HEAVY = ("torch", "spacy", "numba", "pyarrow", "datasets")

# What each part of ulmpipe may import of the others.
BASE = {"errors", "durable", "console", "lean"}
MAY_IMPORT = {
    "errors": set(),
    "durable": {"errors"},
    "console": set(),
    "hub": {"errors", "console"},
    "lean": {"console"},
    "machine": set(),
    "journal": {"errors", "console", "durable", "machine"},
    "journal_cli": {"journal", "command"},
    "options": {"errors"},
    "config_file": {"errors", "options"},
    "command": {"errors", "console", "durable", "options", "config_file"},
    "config": {"errors", "options"},
    "models": BASE,
    "train": BASE,
    "text": BASE,
    "reports": {*BASE, "journal", "options", "train"},
    "server": {"reports"},  # its marks.css
    "tasks": {*BASE, "hub", "journal", "options", "config", "models", "train", "text", "reports", "server"},
    "shown": {"tasks"},  # for their types, and which words of a prediction are the strongest
    "cli": {*BASE, "command", "config", "shown", "tasks", "train", "machine", "journal_cli"},
    "spacy_component": {"errors", "tasks"},
    "__main__": {"cli"},
    "__init__": set(),
}
# The same within vision.
VISION_MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"config", "data", "train", "evaluate"},
    "kernels": set(),
    "decode": set(),
    "named": set(),
    "source": {"named"},
    "config": set(),
    "xresnet": set(),
    "mixup": set(),
    "transfer": set(),
    "augment": {"kernels"},
    "store": {"source", "decode"},
    "data": {"source", "store"},
    "learner": {"data", "augment", "mixup", "xresnet"},
    "plot": {"data", "augment"},
    "card": {"source"},
    "model": {"card", "data", "augment", "transfer", "xresnet"},
    "report": {"data", "model"},
    "train": {"config", "named", "source", "data", "learner", "model", "plot", "transfer", "report"},
    "evaluate": {"config", "source", "store", "data", "augment", "model"},
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[1].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, anywhere in it; `ulmpipe` with its module."""
    package = list(path.relative_to(ROOT).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def inner_imports(path: Path, package: str) -> set[str]:
    """The parts of a package that a file imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith(f"{package}.")}


@pytest.mark.parametrize("path", ULMPIPE, ids=name_of)
def test_imports_run_down(path: Path):
    own = part_of(path)
    allowed = MAY_IMPORT[own] | {own, "__version__"}
    assert inner_imports(path, "ulmpipe") <= allowed


@pytest.mark.parametrize("path", VISION, ids=name_of)
def test_imports_of_vision_run_down(path: Path):
    """And of `ulmpipe` it takes what is below the tasks and knows no text."""
    own = part_of(path)
    assert inner_imports(path, "vision") <= {own, *VISION_MAY_IMPORT[own]}
    assert inner_imports(path, "ulmpipe") <= {
        *BASE,
        "hub",
        "journal",
        "options",
        "train",
        "reports",
        *(["command"] if own == "__main__" else []),
    }


@pytest.mark.parametrize("path", ULMPIPE, ids=name_of)
def test_vision_is_never_imported(path: Path):
    assert not {name for name in imported(path) if name.split(".")[0] == "vision"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_that_runs_code_from_data(path: Path):
    names = {name.split(".")[0] for name in imported(path)} & {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if name_of(path) == READS_FASTAI:
        loads = [
            node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
        ]
        assert [ast.unparse(k) for k in loads[0].keywords if k.arg == "weights_only"] == ["weights_only=True"]
        calls.remove("torch.load")  # one call of it
    wrong = {"eval", "exec", "compile", "torch.load", "torch.save", "joblib.dump", "joblib.load", "os.system"}
    assert not names and not wrong & set(calls)
    assert not [keyword for keyword in ast.walk(tree) if isinstance(keyword, ast.keyword) and keyword.arg == "shell"]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module_has_a_docstring_and_a_test(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if path.name.startswith("__"):
        return
    package, *parts = path.relative_to(ROOT).parent.parts
    folder = ROOT.joinpath("tests", *([package] if package == "vision" else []), *parts)
    assert (folder / f"test_{path.name}").exists()


@pytest.mark.parametrize("package", ["ulmpipe/models", "ulmpipe/train", "ulmpipe/reports", "ulmpipe/server", "vision"])
def test_a_package_names_all_that_is_in_it(package: str):
    told = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = {path.stem for path in (ROOT / package).glob("*.py") if not path.name.startswith("__")}
    assert not {name for name in modules if not re.search(rf"\b{name}(\.py|`)", told)}


def test_the_map_of_readme_names_all_there_is():
    told = (ROOT / "README.md").read_text(encoding="utf-8").split("## The code, in reading order")[1].split("\n## ")[0]
    assert not {path.name for path in SOURCES if not path.name.startswith("__") and path.name not in told}


@pytest.mark.parametrize(
    "code",
    [
        "import ulmpipe",
        "import sys; sys.argv = ['ulmpipe', '--help']; from ulmpipe.cli import app; app(standalone_mode=False)",
        "import contextlib, sys; sys.argv = 'ulmpipe finetune x --folds 3 --valid y'.split(); from ulmpipe.cli import main\nwith contextlib.suppress(SystemExit): main()",
        "import vision",
        "import ulmpipe.server.page",
        "import sys; sys.argv = ['vision', '--help']; from vision.__main__ import app; app(standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_loaded_at_once(code: str):
    code += f"\nimport sys; print('loaded', *(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1].split() == ["loaded"]


def test_names_of_the_package_can_all_be_had():
    import ulmpipe

    assert all(callable(getattr(ulmpipe, name)) or name == "PRESETS" for name in ulmpipe.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = ulmpipe.nosuch


# ---- packaging ------------------------------------------------------------------------------------------------------


def dependencies() -> dict[str, str]:
    """Name and version of every installed distribution that the project needs, with the extras demo, dev and vision."""
    found: dict[str, str] = {}
    todo: list[tuple[str, frozenset[str]]] = [("ulmpipe", frozenset({"demo", "dev", "vision"}))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for line in requires(name) or []:
            wanted = Requirement(line)
            if (
                wanted.name == "pip"
            ):  # sqlite-utils asks for it: any will do, and one is there wherever this is installed
                continue
            if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            try:
                installed = distribution(wanted.name)
            except PackageNotFoundError:
                continue
            found[re.sub(r"[-_.]+", "-", wanted.name).lower()] = installed.version
            todo.append((wanted.name, frozenset(wanted.extras)))
    return found


def test_constraints_pin_every_dependency():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==\S+( ;.*)?", pin) for pin in pins)
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (pin.split("==") for pin in pins)}
    installed = {name: version.split("+")[0] for name, version in dependencies().items()}
    assert len(installed) > 40 and {name: pinned.get(name) for name in installed} == installed


def test_version_is_one():
    from ulmpipe import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__ == distribution("ulmpipe").version
