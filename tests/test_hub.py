"""Names of the hub; what goes over the network is tried in tests/tasks/test_push.py, with models."""

from pathlib import Path

import pytest

from ulmpipe.errors import ConfigError
from ulmpipe.hub import check_names, is_hub_name


@pytest.mark.parametrize(
    ("given", "ref"),
    [("owner/name", True), ("o-1/n.b_2", True), ("name", False), ("a/b/c", False), ("/a/b", False), ("../b", False), ("a/.b", False), ("a/", False), ("hf:a/b", False), ("a b/c", False), ("a/b\n", False)],
)  # fmt: skip
def test_names_of_the_hub(given: str, ref: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name(given) is ref


def test_a_folder_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("owner/name")
    (tmp_path / "owner").mkdir()
    assert not is_hub_name("owner/name")


def test_a_repository_has_an_owner():
    check_names("owner/name", "apache-2.0")
    with pytest.raises(ConfigError, match="expected owner/name"):
        check_names("name", None)
    with pytest.raises(ConfigError, match="--license is 'Mine'"):
        check_names("owner/name", "Mine")
