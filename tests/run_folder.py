"""A run folder as a training leaves it, with names and words that would do harm in a page."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ulmpipe.reports.facts import Facts, Mistake, histogram, judged_by

HOSTILE = "<script>alert(1)</script>\"'&"


def make_run(folder: Path, **others: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    Image.new("RGB", (3, 3)).save(picture, "PNG")
    (folder / "batch.png").write_bytes(picture.getvalue())
    parts: dict[str, Any] = {
        "kind": "classifier",
        "source": HOSTILE,
        "results": {"accuracy": 0.912345},
        "command": f"ulmpipe finetune {HOSTILE}",
        "options": {"seed": 3, "note": HOSTILE},
        "changed": ["seed"],
        "data": {"documents to train on": 12_345},
        "classes": {HOSTILE: {"to train on": 7, "held out": 2}},
        "lengths": histogram(np.array([3, 50, 700]), "tokens"),
        "words": {"most frequent": {HOSTILE: 9, " ": 4}},
        "judged": judged_by(np.array([[5, 2], [1, 4]]), [HOSTILE, "b"]),
        "mistakes": [Mistake(HOSTILE, "b", 0.75, 3.5, [(HOSTILE, 0.5), ("dull", -0.4), ("the", 0.0001)])],
        "pictures": {"batch.png": HOSTILE},
        "timing_s": {"head": 61.0},
        "run": {"number": 4},
    }
    Facts(**{**parts, **others}).save(folder)
    steps = [{"phase": "head", "step": n, "n_steps": 5, "loss": 1 / n, "lr": 0.1, "momentum": 0.8} for n in range(1, 6)]
    (folder / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    (folder / "metrics.jsonl").write_text(
        json.dumps({"phase": "head", "epoch": 0, "step": 5, "valid_loss": 0.4}) + "\n"
    )
    return folder
