"""Measure several things in turns, so that what else the machine does hits all alike; a peer in another Python among them."""

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from bench.record import ROOT

Found = TypeVar("Found")


class Peer:
    """A script of bench/ in a process of its own, made ready once; each call lets it run once.

    By default fastai's side, for which `python` must have fastai.
    """

    def __init__(self, python: str, *words: str, script: str = "bench/peers_train.py"):
        command = [python, script, *words, "--interactive"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def __call__(self) -> dict[str, Any]:
        """Run once; what it found."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"{' '.join(map(str, self.process.args))} ended with {self.process.wait()}")  # pyright: ignore
        return json.loads(line)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *exc: object) -> None:
        """End it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def in_turns(kinds: Mapping[str, Callable[[], Found]], repeats: int) -> dict[str, list[Found]]:
    """Call each in turn, so many times over; what the calls returned. A first round is for warming up."""
    found: dict[str, list[Found]] = {name: [] for name in kinds}
    for kind in kinds.values():
        kind()
    for _ in range(repeats):
        for name, kind in kinds.items():
            found[name].append(kind())
    return found
