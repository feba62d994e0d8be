"""A network trained on a small set of pictures, made once. No __init__.py stands here: this folder is not `vision`."""

from collections.abc import Iterator

import pytest
from shapes import TrainedNetwork, use_small_networks


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """Networks of few channels."""
    use_small_networks(monkeypatch)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[TrainedNetwork]:
    """The trained network; what loads it asks for `small` too."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_small_networks(monkeypatch)
        yield TrainedNetwork(tmp_path_factory.mktemp("vision"))
