"""What every test has: one seeded generator, the real corpora where they are, and hypothesis that draws the same each time."""

import io
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import Cli, Ended
from hypothesis import HealthCheck, settings
from learnable import Trained

settings.register_profile(
    "ulmpipe",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("ulmpipe")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(12)


@pytest.fixture
def data() -> Path:
    """The folder of the real corpora; a test that asks for it is marked `data`."""
    root = os.environ.get("ULMPIPE_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("$ULMPIPE_DATA names no folder of corpora")
    return Path(root)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A folder of labelled texts: 6 positive, 5 negative, one of them empty."""
    folder = tmp_path / "reviews"
    for label, n in (("pos", 6), ("neg", 5)):
        (folder / label).mkdir(parents=True)
        for i in range(n):
            text = f"Review {i}: a {label} FILM, don't\nmiss it" if i else ""
            (folder / label / f"{i}.txt").write_text(text if label == "neg" else text + "!")
    return folder


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """One thread for torch: what these models compute is too small to be shared, and the numbers stay the same anywhere."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Trained:
    """A language model and a classifier of a small learnable corpus, made once."""
    return Trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def undrawn(trained: Trained) -> Iterator[None]:
    """No charts of the trainings of a module that looks at none: they take two thirds of a small training's seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ulmpipe.reports.charts.to_svg", lambda draw, description: "<svg/>")
        patch.setattr("ulmpipe.train.hooks.draw_layers", lambda rows, path: None)
        yield


@pytest.fixture
def own(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the folder of `trained`, to be spoiled."""
    return Path(shutil.copytree(trained.folder, tmp_path / "own"))


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run a command line in this process."""
    from ulmpipe import console
    from ulmpipe.cli import main

    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored in what runs in the background

    def run(*args: str | Path, stdin: bytes = b"") -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["ulmpipe", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        if signal.getsignal(signal.SIGALRM) != handlers[signal.SIGALRM]:  # an interrupt that would be raised again
            signal.setitimer(signal.ITIMER_REAL, 0)
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    yield run
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    console.set_quiet(False)
