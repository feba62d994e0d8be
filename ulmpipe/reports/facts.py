"""What a run knows of itself, beside its logs: `report.json` in its folder.

A training writes it when all else is done; `page.py` makes a page of it, at once or years later. Every value is a number, a word, or
a list or mapping of such.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..durable import FILE_NAME, check_keys, read_json, write_json
from ..errors import StoreError
from ..journal import written_down
from ..options import as_flags
from ..train.phases import FACTS_FILE

FORGOTTEN = ("resume", "note")  # options that do not begin a run again
N_BINS = 24  # of a histogram
MAX_CLASSES = 20  # in a table of all against all
N_CONFUSED = 20  # pairs that are named


@dataclass(frozen=True)
class Judged:
    """What a classifier made of documents, or pictures, that it did not learn from."""

    n: int
    labels: list[str]
    scores: list[dict[str, float]]  # of each label: precision, recall, f1, n; 0 to 1, and how many there are
    # Rows are the truth, columns the prediction; None of many labels, or of several a document.
    confusion: list[list[int]] | None
    # (is, was taken for, how often), the most frequent first.
    confused: list[tuple[str, str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Mistake:
    """A document that the model is wrong about, as it read it."""

    label: str
    said: str
    probability: float  # of what it said
    loss: float
    # Tokens, each with its share of what spoke for `said`, negative against it; some in the middle may be left out.
    words: list[tuple[str, float]]


@dataclass(frozen=True)
class Facts:
    """The parts of a report; what a run has not is empty."""

    kind: str  # of the model: `manifest_kind` of its folder
    source: str
    results: dict[str, float | None]  # what was reached, the first ones being the most telling
    command: str  # that begins the same run again
    options: dict[str, Any]
    changed: list[str] = field(default_factory=list)  # those options that are not the default
    data: dict[str, float | int | str] = field(default_factory=dict)  # how many of what
    classes: dict[str, dict[str, int]] = field(default_factory=dict)  # label -> part -> documents
    lengths: dict[str, Any] = field(default_factory=dict)  # `histogram`, and its unit
    words: dict[str, dict[str, int]] = field(default_factory=dict)  # heading -> word -> how often
    judged: Judged | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    of_losses: str = ""  # what to know of the curves
    pictures: dict[str, str] = field(default_factory=dict)  # PNG in the run's folder -> what it shows
    timing_s: dict[str, float] = field(default_factory=dict)  # stage -> seconds
    run: dict[str, Any] = field(default_factory=dict)  # the journal's entry

    def save(self, folder: Path) -> None:
        """Write `report.json`."""
        write_json(folder / FACTS_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Facts":
        """Read `report.json`. Raises `StoreError` where it is not there, or not one of ours."""
        path = folder / FACTS_FILE
        if not path.is_file():
            raise StoreError(f"{folder} has no {FACTS_FILE}: a training of this version writes it when it is done")
        value = read_json(path)
        check_keys(value, {"kind": str, "source": str, "results": dict, "command": str, "options": dict}, path)
        known = {f.name for f in fields(cls)}
        try:
            value = {name: part for name, part in value.items() if name in known}
            judged = value.pop("judged", None)
            mistakes = [Mistake(**mistake) for mistake in value.pop("mistakes", [])]
            facts = cls(**value, judged=judged and Judged(**judged), mistakes=mistakes)
        except (TypeError, AttributeError) as err:
            raise StoreError(f"{path} is no report of ours: {err}") from err
        for name in facts.pictures:
            if not FILE_NAME.fullmatch(name):
                raise StoreError(f"{path} names {name!r}, which is no file of ours")
        return facts


def run_again(command: Sequence[str], config: Any) -> dict[str, Any]:
    """The parts of `Facts` that begin a run again: the words of its command, and its dataclass of options."""
    options = {name: written_down(value) for name, value in asdict(config).items() if name not in FORGOTTEN}
    changed = changed_options(options, type(config))
    flags = as_flags(type(config), {name: options[name] for name in changed})
    words = [written_down(word) for word in command]
    again = " ".join([*map(shlex.quote, words), *flags])
    if dataset := next((word for word in words if word.startswith("datasets.Dataset(")), ""):  # which no shell has
        given = [
            f"{name}={value!r}"
            for name, value in {"out": words[-1], **{name: options[name] for name in changed}}.items()
        ]
        again = f"ulmpipe.{words[1]}(dataset, {', '.join(given)})  # in Python, with {dataset}"
    return {"command": again, "options": options, "changed": changed}


def histogram(values: NDArray[Any], unit: str) -> dict[str, Any]:
    """How many of `values` (n,) lie between `edges`, which grow by a factor, and their quartiles.

    >>> histogram(np.array([1, 2, 2, 900]), "tokens")["n"][:3]
    [1, 2, 0]
    """
    values = np.maximum(values, 1)
    lowest, highest = (int(values.min()), int(values.max()) + 1) if len(values) else (1, 2)
    edges = np.unique(np.geomspace(lowest, highest, N_BINS + 1).round().astype(int))
    n, _ = np.histogram(values, edges)
    quartiles = np.quantile(values, (0.25, 0.5, 0.75, 1.0), method="higher") if len(values) else [0] * 4
    return {"unit": unit, "edges": edges.tolist(), "n": n.tolist(), "quartiles": [int(q) for q in quartiles]}


def judged_by(confusion: NDArray[np.int64], labels: Sequence[str]) -> Judged:
    """The scores of each class from the confusion matrix (C, C): rows are the truth."""
    hits, said, there = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    scores = _scores(hits, said, there)
    wrong = confusion - np.diag(hits)
    order = np.argsort(-wrong, axis=None, kind="stable")[:N_CONFUSED]
    pairs = [(int(i) // len(labels), int(i) % len(labels)) for i in order]
    confused = [(labels[t], labels[p], int(wrong[t, p])) for t, p in pairs if wrong[t, p]]
    table = confusion.tolist() if len(labels) <= MAX_CLASSES else None
    return Judged(int(confusion.sum()), list(labels), scores, table, confused)


def judged_by_answers(counts: NDArray[np.int64], n: int, labels: Sequence[str]) -> Judged:
    """The same of several labels a document, of which `n` were judged: counts (3, C) are hits, said, there."""
    return Judged(n, list(labels), _scores(*counts), None)


def _scores(hits: NDArray[np.int64], said: NDArray[np.int64], there: NDArray[np.int64]) -> list[dict[str, float]]:
    """Precision, recall and F1 of each class, 0 where there is none to judge by."""

    def share(part: float, whole: float) -> float:
        return float(part / whole) if whole else 0.0

    return [
        {"precision": share(h, s), "recall": share(h, t), "f1": share(2 * h, s + t), "n": int(t)}
        for h, s, t in zip(hits, said, there, strict=True)
    ]


def changed_options(options: Mapping[str, Any], kind: type) -> list[str]:
    """The options that are not what the dataclass `kind` has by default."""
    default = {f.name: f.default for f in fields(kind)}
    return [name for name, value in options.items() if name in default and value != default[name]]
