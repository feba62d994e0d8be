"""A rule with a defect, and rules that have it: in a module of its own, which worker processes can import."""

import os
import signal
import time

from ulmpipe.text.rules import PRESETS, Rules


def fatal(text: str) -> str:
    """Two words end or stop the process that reads them."""
    if "KILL" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "HANG" in text:
        time.sleep(600)
    return text


def fatal_rules() -> Rules:
    default = PRESETS["default"]
    return Rules(pre=(fatal, *default.pre), post=default.post, specials=default.specials)
