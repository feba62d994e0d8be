"""`info` says what a bug report needs."""

import json

from ulmpipe import __version__
from ulmpipe.machine import PACKAGES, info


def test_info_is_json_and_complete():
    found = json.loads(json.dumps(info()))
    assert found["ulmpipe"] == __version__ and found["cores"] >= 1 and found["torch_threads"] >= 1
    assert set(found["packages"]) == set(PACKAGES) and all(found["packages"].values())
