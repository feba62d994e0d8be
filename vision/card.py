"""The page of a network on the Hugging Face hub, README.md: what its `config.json` knows, told to people (card.md).

Beside model.py, which pushes it. Knows nothing of the network itself.
"""

from pathlib import Path
from typing import Any

from ulmpipe.hub import render_card

from .source import source_name

TOLD = ("epochs", "head_epochs", "batch_size", "lr", "head_lr", "layer_factor", "mixup", "smooth", "flip", "min_scale", "weight_decay", "precision", "first_size", "seed")  # fmt: skip


def make_card(config: dict[str, Any], repo_id: str, *, license: str | None = None) -> str:
    """The page of a model, from its `config.json`. Paths of the machine it was made on are not told."""
    trained = config["trained"]
    found = {name: value for name, value in trained.get("results", {}).items() if isinstance(value, int | float)}
    options = trained.get("options", {})
    return render_card(
        Path(__file__).with_suffix(".md"),
        repo_id=repo_id,
        license=license,
        name=repo_id.split("/")[1],
        arch=str(config["settings"].get("arch")),
        source=source_name(str(trained.get("source", "pictures"))),
        size=config["size"],
        accuracy=found.get("accuracy"),
        results={name: found[name] for name in ("accuracy", "f1_macro", "valid_loss") if name in found},
        options={name: options[name] for name in TOLD if options.get(name) is not None},
        classes=config["classes"],
    )
