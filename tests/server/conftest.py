"""One server for all tests of it, of the tiny classifier."""

from collections.abc import Iterator

import pytest
from learnable import Trained
from serving import Served, serving


@pytest.fixture(scope="session")
def served(trained: Trained) -> Iterator[Served]:
    with serving(trained.clf, "--max-body-kb", "100", "--max-texts", "8", "--max-characters", "20000") as server:
        yield server
