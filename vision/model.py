"""A network with all that belongs to it, and the folder that it is kept in. No pickle in it.

config.json  model.safetensors  manifest.json      and beside them checkpoint-<step>/, metrics.jsonl, pictures as PNG
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ulmpipe.durable import MANIFEST, check_files, check_keys, publishing, read_json, read_manifest, write_json
from ulmpipe.errors import StoreError
from ulmpipe.hub import CARD_FILE, check_names, download, is_hub_name, upload

from .augment import Augment
from .card import make_card
from .data import Stats
from .transfer import adapt, load_weights, save_weights
from .xresnet import build

KIND, FORMAT_VERSION = "image classifier", 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
FILES = (CONFIG_FILE, WEIGHTS_FILE, MANIFEST)
PARTS = {"settings": dict, "classes": list, "side": int, "size": int, "mean": list, "std": list, "trained": dict}
PLOTS = ("batch.png", "top_losses.png")


@dataclass
class ImageClassifier:
    """A trained network, its classes, and how a picture is brought before it."""

    model: nn.Module
    settings: dict[str, Any]  # arguments of `make_network`
    classes: list[str]
    side: int  # pixels a picture is decoded to
    size: int  # pixels the network sees
    stats: Stats
    flip: bool  # whether it was trained on mirrored pictures too
    trained: dict[str, Any]  # source, options and results of its training

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the model folder; its files appear together, the manifest last."""
        config = {
            "format_version": FORMAT_VERSION,
            "settings": self.settings,
            "classes": self.classes,
            "side": self.side,
            "size": self.size,
            "mean": list(self.stats.mean),
            "std": list(self.stats.std),
            "flip": self.flip,
            "trained": self.trained,
        }
        with publishing(Path(folder), KIND, FORMAT_VERSION) as stage:
            save_weights(self.model, stage / WEIGHTS_FILE)
            write_json(stage / CONFIG_FILE, config)

    def push_to_hub(
        self, repo_id: str, *, private: bool = True, license: str | None = None, token: str | None = None
    ) -> str:
        """Write it to the Hugging Face hub, with a page that says what it is (card.py); returns the page's address.

        `private` is heeded where the repository is made. Raises `UlmpipeError` where the hub refuses.
        """
        check_names(repo_id, license)
        with TemporaryDirectory() as scratch:
            self.save_pretrained(folder := Path(scratch) / "model")
            card = make_card(read_json(folder / CONFIG_FILE), repo_id, license=license)
            files = {name: folder / name for name in FILES}
            return upload(repo_id, {**files, CARD_FILE: card.encode()}, private=private, message="A model of vision", token=token)  # fmt: skip

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, device: str | torch.device = "cpu") -> "ImageClassifier":
        """Load a model folder, in evaluation mode; of a string also one on the hub (`model_path`).

        Raises `StoreError` where it is unfinished, damaged or no such folder.
        """
        folder = model_path(folder)
        check_files(folder, read_manifest(folder, KIND, FORMAT_VERSION), digests=True)  # a flipped bit predicts NaN
        config = read_json(folder / CONFIG_FILE)
        check_keys(config, PARTS, folder / CONFIG_FILE)
        model = make_network(config["settings"])
        if config["settings"].get("c_out") != len(config["classes"]):
            raise StoreError(f"{folder / CONFIG_FILE} names {len(config['classes'])} classes for a network of {config['settings'].get('c_out')}: it was altered")  # fmt: skip
        load_weights(model, folder / WEIGHTS_FILE)
        model = model.to(device=device, memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
        stats = Stats(tuple(config["mean"]), tuple(config["std"]))
        rest = {name: config[name] for name in ("settings", "classes", "side", "size", "trained")}
        return cls(model=model, stats=stats, flip=bool(config.get("flip")), **rest)

    def augment(self) -> Augment:
        """The callback that brings pictures before this network as in its training."""
        return Augment(self.size, mean=self.stats.mean, std=self.stats.std, flip=self.flip)


def model_path(given: Path | str) -> Path:
    """The folder that a user names; of `owner/name`, where there is no such folder, what the hub has of it."""
    return download(given, FILES) if isinstance(given, str) and is_hub_name(given) else Path(given)


def make_network(settings: Mapping[str, Any]) -> nn.Sequential:
    """Build a network with fresh weights: `arch`, `c_out`; with `adapted` a body with a transferred head.

    Raises `StoreError` for settings that make none.
    """
    options = dict(settings)
    try:
        arch, adapted = options.pop("arch"), options.pop("adapted", False)
        if not adapted:
            return build(arch, **options)
        c_out = options.pop("c_out")
        return adapt(build(arch, **options), c_out)
    except (LookupError, TypeError, ValueError, RuntimeError) as err:
        raise StoreError(f"{CONFIG_FILE} has settings that make no network: {err!r}") from err


def carried_body(model: ImageClassifier, c_out: int) -> tuple[nn.Sequential, dict[str, Any]]:
    """Return the trained body under a new head for `c_out` classes, and the settings of that network."""
    settings = {**model.settings, "c_out": c_out, "adapted": True}
    network = make_network(settings)
    trained: nn.Module = model.model
    body = trained.get_submodule("body") if model.settings.get("adapted") else trained
    own: dict[str, Tensor] = network.get_submodule("body").state_dict()
    found = body.state_dict()
    network.get_submodule("body").load_state_dict({name: found[name] for name in own})
    return network, settings
