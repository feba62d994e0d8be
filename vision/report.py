"""What a training of pictures writes down for its report: classes counted, held-out pictures judged, the two grids of pictures.

After train.py has saved the model; the page is made by `ulmpipe.reports`, and `ulmpipe report RUN` makes it again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ulmpipe.console import log
from ulmpipe.journal import Run, written_down
from ulmpipe.reports.facts import Facts, judged_by, run_again
from ulmpipe.reports.page import only_noted, write_report
from ulmpipe.reports.timing import timing
from ulmpipe.train import confusion_matrix

from .data import ImageData, Pictures, Records
from .model import KIND, PLOTS

CAPTIONS = ("what the network sees: training pictures as they come before it", "held-out pictures of the highest loss")


def report_training(
    folder: Path,
    data: ImageData,
    config: Any,
    run: Run,
    *,
    command: Sequence[str],
    source: str,
    results: dict[str, float],
    pred: Tensor,
    target: Tensor,
    read_s: float,
) -> None:
    """Write `report.json` and `report.html` into the folder of a finished model.

    `command` is that of `vision`, as words, and `config` its dataclass of options; pred (N, C) and target (N,) are the scores and classes of the held-out
    pictures; `read_s` is what it took to read and decode. Whatever goes wrong is one line of the log.
    """
    with only_noted(folder):
        confusion = confusion_matrix(pred.argmax(1), target, len(data.classes)).numpy()
        facts = Facts(
            **run_again(["python", "-m", "vision", *command], config),
            kind=KIND,
            source=written_down(source),
            results={name: results[name] for name in ("accuracy", "valid_loss")},
            data={
                "pictures to train on": len(data.train),
                "pictures held out": len(data.valid),
                "pixels a side, as they are kept": data.pictures.side,
                "pictures that could not be decoded": data.n_quarantined,
            },
            classes=_count_classes(data),
            judged=judged_by(confusion, data.classes) if len(target) else None,
            pictures={name: caption for name, caption in zip(PLOTS, CAPTIONS, strict=True) if (folder / name).exists()},
            timing_s=timing([folder], {"reading and decoding": read_s}, run),
            run=run.entry(),
        )
        facts.save(folder)
        log(f"report: {write_report(folder)}")


def _count_classes(data: ImageData) -> dict[str, dict[str, int]]:
    def counts(pictures: Pictures, records: Records) -> list[int]:
        return np.bincount(pictures.labels[records], minlength=len(data.classes)).tolist()

    n_train, n_valid = counts(data.pictures, data.train), counts(data.valid_pictures, data.valid)
    return {name: {"to train on": n_train[i], "held out": n_valid[i]} for i, name in enumerate(data.classes)}
