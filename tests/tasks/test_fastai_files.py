"""Weights and vocabularies are read, nothing in them is run: the canary of a hostile file never sings."""

import collections
import os
import pickle
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from ulmpipe.errors import SourceError
from ulmpipe.tasks import fastai_files
from ulmpipe.tasks.fastai_files import read_itos, read_weights

WORDS = ["xxunk", "xxpad", "the", "naïve", "▁", "", "\n", "日本", "x" * 300]


class Runs:
    """Runs a command where it is unpickled by a reader that runs what it reads."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that is not there; that it would be, were the hostile value unpickled, is checked first."""
    probe = tmp_path / "probe"
    pickle.loads(pickle.dumps(Runs(probe)))  # noqa: S301
    assert probe.exists()
    return tmp_path / "canary"


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# ---- vocabulary -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_list_of_strings_is_read_in_every_protocol(tmp_path: Path, protocol: int):
    words = [*WORDS, *["xxfake"] * 3, *(f"w{i}" for i in range(1200))]
    assert read_itos(write(tmp_path / "a.pkl", pickle.dumps(words, protocol))) == words


def test_list_written_by_the_slow_pickler_is_read(tmp_path: Path):
    assert read_itos(write(tmp_path / "a.pkl", pickle._dumps(WORDS, 2))) == WORDS  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_not_run(tmp_path: Path, canary: Path, protocol: int):
    for value in (Runs(canary), ["xxunk", Runs(canary)], [["a", [Runs(canary)]]], {"a": Runs(canary)}):
        with pytest.raises(SourceError, match="holds something else .*is not run, expected a list of strings"):
            read_itos(write(tmp_path / "a.pkl", pickle.dumps(value, protocol)))
    assert not canary.exists()


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1}, ("a",), {"a"}, "abc", 3, None, [1], ["a", None], [["a"]], [b"a"], [], collections.Counter("a"),
        collections.deque(["a"]), [Path("a")],
    ],
)  # fmt: skip
def test_any_other_value_is_refused(tmp_path: Path, value: object):
    for protocol in (0, 2, 4):
        with pytest.raises(SourceError, match="expected a list of strings|expected fastai's itos"):
            read_itos(write(tmp_path / "a.pkl", pickle.dumps(value, protocol)))


def test_list_in_itself_is_refused(tmp_path: Path):
    nested: list[Any] = ["a"]
    nested.append(nested)
    with pytest.raises(SourceError, match="holds no list of strings"):
        read_itos(write(tmp_path / "a.pkl", pickle.dumps(nested)))


HUGE = struct.pack("<Q", 1 << 50)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80\x04", b"not a pickle", b"]", b".", b"a.", b"e.", b"](", b"]h\x07a.", b"(l", b"X\x05\x00\x00\x00ab", b"\x94.",
        b"\x8d" + HUGE + b"a.", b"\x96" + HUGE + b"a.", b"]r\xff\xff\xff\x7f", b"V\\ud800x\n.", b"X\x01\x00\x00\x00ae.",
    ],
)  # fmt: skip
def test_damaged_pickles_are_one_line(tmp_path: Path, data: bytes):
    with pytest.raises(SourceError) as refused:
        read_itos(write(tmp_path / "a.pkl", data))
    assert "\n" not in str(refused.value) and "a.pkl" in str(refused.value)


def test_every_cut_of_a_vocabulary_is_refused(tmp_path: Path):
    whole = pickle.dumps(WORDS)
    for end in range(len(whole)):
        with pytest.raises(SourceError):
            read_itos(write(tmp_path / "a.pkl", whole[:end]))


def test_half_a_surrogate_pair_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match="no Unicode text: '.ud800'"):
        read_itos(write(tmp_path / "a.pkl", pickle.dumps(["xxunk", "\ud800"])))


def test_huge_vocabulary_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with open(tmp_path / "a.pkl", "wb") as file:
        file.truncate(fastai_files.MAX_VOCAB_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(SourceError, match="has 67,108,865 bytes, expected a vocabulary of at most 67,108,864"):
        read_itos(tmp_path / "a.pkl")


# ---- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict_is_read_in_both_formats(tmp_path: Path, zipped: bool):
    state = {"a": torch.arange(6.0).reshape(2, 3)}
    torch.save({"model": state, "opt": None}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_weights(tmp_path / "a.pth")["model"]["a"], state["a"])


@pytest.mark.parametrize("zipped", [True, False])
def test_code_among_weights_is_not_run(tmp_path: Path, canary: Path, zipped: bool):
    for value in (Runs(canary), {"a": torch.zeros(1), "b": Runs(canary)}, {"model": {"a": torch.zeros(1)}, "opt": Runs(canary)}):  # fmt: skip
        torch.save(value, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(SourceError, match=r"holds more than weights \(posix.system\), and is not run") as refused:
            read_weights(tmp_path / "a.pth")
        assert "\n" not in str(refused.value)
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Runs(canary), 2))
    with pytest.raises(SourceError):
        read_weights(tmp_path / "b.pth")
    assert not canary.exists()


def test_a_whole_model_is_refused_with_what_to_write(tmp_path: Path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(SourceError, match=r"more than weights \(torch.nn.modules.linear.Linear\).* give a state dict"):
        read_weights(tmp_path / "a.pth")


class L:
    """As fastai's own list is pickled: by its name, with a state."""

    def __init__(self, items: list[Any]):
        self.items = items


def test_settings_of_fastais_optimiser_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`learn.save` writes them beside the weights, in classes that are not installed here."""
    import sys
    from types import ModuleType

    import numpy as np

    module: Any = ModuleType("fastcore.foundation")
    module.L = L
    monkeypatch.setattr(L, "__module__", "fastcore.foundation")
    with monkeypatch.context() as there:
        there.setitem(sys.modules, "fastcore", ModuleType("fastcore"))
        there.setitem(sys.modules, "fastcore.foundation", module)
        opt = {"state": [{"step": 3}], "hypers": L([{"lr": np.float64(0.1)}])}
        torch.save({"model": {"a": torch.ones(2)}, "opt": opt}, tmp_path / "a.pth", pickle_protocol=2)
    before = set(torch.serialization.get_safe_globals())
    found = read_weights(tmp_path / "a.pth")
    assert torch.equal(found["model"]["a"], torch.ones(2))
    assert isinstance(found["opt"]["hypers"], fastai_files.Discarded) and not vars(found["opt"]["hypers"])
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("zipped", [True, False])
def test_cut_weights_are_one_line(tmp_path: Path, zipped: bool):
    torch.save({"a": torch.zeros(500)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "a.pth").read_bytes()
    for part in (0, 1, 3, 40, len(whole) // 2, len(whole) - 1):
        with pytest.raises(SourceError, match="is damaged, or no file of weights") as refused:
            read_weights(write(tmp_path / "b.pth", whole[:part]))
        assert "\n" not in str(refused.value)


def test_old_and_packed_files_say_what_to_do(tmp_path: Path):
    with pytest.raises(SourceError, match="is of fastai 0.7, .* take a file of fastai 1 or 2"):
        read_weights(write(tmp_path / "fwd_wt103.h5", b"x"))
    subprocess.run(["tar", "czf", "a.tgz", "--files-from", "/dev/null"], cwd=tmp_path, check=True)
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.tgz").read_bytes())
    for name in ("a.tgz", "b.pth"):
        with pytest.raises(SourceError, match=r"is an archive: unpack it \(tar xf\)"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("read", [read_itos, read_weights])
def test_absent_files_and_folders_are_refused(tmp_path: Path, read: Any):
    with pytest.raises(SourceError, match="does not exist, expected a file"):
        read(tmp_path / "a.pth")
    with pytest.raises(SourceError, match="is a folder, expected a file"):
        read(tmp_path)
