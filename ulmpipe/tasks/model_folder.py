"""Model folders: what a training leaves and what everything else loads. No pickle in it.

    config.json  model.safetensors  vocab.json  manifest.json      and beside them checkpoint-<step>/, metrics.jsonl

`config.json` holds the kind of model, its sizes, its labels, the tokenizer's recipe, and how it was trained.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..durable import (
    MANIFEST,
    a,
    check_files,
    check_keys,
    manifest_kind,
    publishing,
    read_json,
    read_manifest,
    write_bytes,
    write_json,
)
from ..errors import StoreError, VocabMismatchError
from ..hub import download, is_hub_name
from ..journal import JOURNAL_FILE
from ..models import LanguageModel, TextClassifier
from ..models.packed import pack, unpack
from ..text.rules import Rules
from ..text.tokenizer import Tokenizer, TokenizerRecipe
from ..text.vocab import VOCAB_FILE, Vocab
from ..train.phases import LOGS
from ..train.tensorboard import TENSORBOARD_FOLDER

FORMAT_VERSION = 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
FILES = (CONFIG_FILE, WEIGHTS_FILE, VOCAB_FILE)
LANGUAGE_MODEL, CLASSIFIER = "language model", "classifier"  # the kinds a manifest and a config may name
KINDS = {LANGUAGE_MODEL: LanguageModel, CLASSIFIER: TextClassifier}
PARTS = {"kind": str, "settings": dict, "labels": list, "recipe": dict, "vocab_sha256": str, "trained": dict}
MODELS_FOLDER = Path("models")  # where outputs go by default, and where `finetune` looks for a language model
MAX_LAYERS = 100  # of a model that is loaded: each takes memory and time before its weights are looked at
BOX = Path(__file__).parent.parent / "weights"  # language models that come with the package: weights/<lang>-<size>/


@dataclass
class Pretrained:
    """A model with all that belongs to it."""

    kind: str  # LANGUAGE_MODEL or CLASSIFIER
    model: LanguageModel | TextClassifier
    vocab: Vocab
    recipe: dict[str, Any]  # the tokenizer's, as TokenizerRecipe.to_json gives it
    settings: dict[str, Any]  # the arguments the model was built with
    labels: list[str]
    trained: dict[str, Any]  # source, options and results of its training
    folder: str | None = None  # it was loaded from, or its name on the hub
    thresholds: list[float] | None = None  # of several labels a document: the probability from which each is given

    @property
    def multi_label(self) -> bool:
        """Whether a document may have several labels, or none."""
        return self.thresholds is not None

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability of each label: (N, C) logits to (N, C), rows that sum to 1 unless there may be several."""
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)

    def given(self, logits: Tensor) -> Tensor:
        """Which labels a classifier gives, (N, C) bool, by its logits (N, C): the likeliest, or all from their thresholds on."""
        if self.thresholds is None:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).bool()
        thresholds = torch.tensor(self.thresholds, dtype=torch.float64, device=logits.device)
        return self.probabilities(logits).double() >= thresholds

    def save_pretrained(self, folder: Path | str, *, packed: bool = False) -> None:
        """Write the model folder; its files appear together, the manifest last. `packed` as in models/packed.py."""
        folder = Path(folder)
        config = {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "settings": self.settings,
            "labels": self.labels,
            "recipe": self.recipe,
            "vocab_sha256": self.vocab.sha256,
            "trained": self.trained,
        }
        if self.multi_label:
            config |= {"multi_label": True, "thresholds": self.thresholds}
        with publishing(folder, self.kind, FORMAT_VERSION) as stage:
            state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
            write_bytes(stage / WEIGHTS_FILE, save(pack(state) if packed else state))
            self.vocab.save(stage / VOCAB_FILE)
            write_json(stage / CONFIG_FILE, config)

    def push_to_hub(
        self, repo_id: str, *, private: bool = True, license: str | None = None, token: str | None = None
    ) -> str:
        """Write it to the Hugging Face hub, with a page that says what it is; returns the page's address. As `ulmpipe push`."""
        from .push import push

        with TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "model")
            pushed = push(Path(folder) / "model", repo_id, private=private, license=license, token=token)
        assert pushed.url is not None
        return pushed.url

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, device: str = "cpu") -> "Pretrained":
        """Load a model folder, in evaluation mode; of a string also one in the box or on the hub (`named_model`).

        Raises `StoreError` where it is unfinished, damaged or no such folder.
        """
        is_remote = isinstance(folder, str) and is_hub_name(folder)
        name = folder
        folder = named_model(folder) if isinstance(folder, str) else folder
        check_files(folder, read_model_manifest(folder), digests=True)  # of a model of 16 MB in 0.01 s
        config = read_config(folder / CONFIG_FILE)
        vocab = Vocab.load(folder / VOCAB_FILE)
        if vocab.sha256 != config["vocab_sha256"]:
            raise VocabMismatchError(
                f"{folder / VOCAB_FILE} is not the vocabulary this model was trained with: restore it"
            )
        check_sizes(config["kind"], config["settings"], folder / WEIGHTS_FILE)
        model = build_model(config["kind"], config["settings"])
        try:
            model.load_state_dict(unpack(load_file(folder / WEIGHTS_FILE, device="cpu")))
        except (RuntimeError, SafetensorError) as err:
            raise StoreError(f"{folder / WEIGHTS_FILE} does not fit {CONFIG_FILE}: {str(err).splitlines()[0]}") from err
        if len(vocab) != config["settings"]["vocab_size"]:
            raise VocabMismatchError(
                f"{folder}: the vocabulary has {len(vocab)} tokens, the model {config['settings']['vocab_size']}: restore {VOCAB_FILE}"
            )
        model.to(device).eval()
        thresholds = config.get("thresholds") if config.get("multi_label") else None
        if config.get("multi_label") and len(thresholds or []) != len(config["labels"]):
            raise StoreError(f"{folder / CONFIG_FILE} lacks a threshold for each label: restore it from a copy")
        rest = {name: config[name] for name in ("recipe", "settings", "labels", "trained")}
        where = str(name if is_remote else folder)
        return cls(kind=config["kind"], model=model, vocab=vocab, folder=where, thresholds=thresholds, **rest)

    def tokenizer(self, rules: Rules | None = None) -> Tokenizer:
        """The tokenizer it was trained with; `rules` must be given where they were a user's own."""
        return Tokenizer(TokenizerRecipe.from_json(self.recipe, rules=rules))


def read_model_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a finished model folder, of either kind."""
    has_manifest = (folder / MANIFEST).exists()
    kind = manifest_kind(folder) if has_manifest else "model folder"
    if has_manifest and kind not in KINDS:
        raise StoreError(f"{folder} holds {a(kind)}, expected a model folder of texts")
    return read_manifest(folder, kind, FORMAT_VERSION)


def read_config(path: Path) -> dict[str, Any]:
    """Read a `config.json`. Raises `StoreError` where a part is missing, or is what no training writes."""
    config = read_json(path)
    check_keys(config, PARTS, path)
    check_keys(config["recipe"], {"lang": str, "rules": str}, path)
    labels, settings = config["labels"], config["settings"]
    numbers = {
        name: (int, float) if name.endswith("_p") else (int,) for name in settings
    }  # probabilities, and how many
    wrong = [name for name, n in settings.items() if type(n) not in numbers[name] or not 0 <= n < 1 << 31]
    wrong += [
        name
        for name in ("pad_id", "n_specials")
        if not wrong and settings.get(name, 0) >= settings.get("vocab_size", 0)
    ]
    if config["kind"] == CLASSIFIER:
        check_keys(config["trained"], {"max_tokens": int}, path)
        is_wrong = config["trained"]["max_tokens"] < 1, settings.get("n_classes") != len(labels)
        wrong += [name for name, each in zip(("max_tokens", "labels"), is_wrong, strict=True) if each]
    if len({label for label in labels if isinstance(label, str)}) < len(labels):
        wrong.append("labels")
    if wrong:
        raise StoreError(
            f"{path} has {', '.join(dict.fromkeys(wrong))} that no training writes: restore it from a copy"
        )
    return config


def check_sizes(kind: str, settings: Mapping[str, Any], weights: Path) -> None:
    """Raise `StoreError` for a model of more numbers than its weights file has bytes, before memory is taken for it."""
    with torch.device("meta"):
        n_numbers = sum(tensor.numel() for tensor in build_model(kind, settings).state_dict().values())
    n_bytes = weights.stat().st_size
    if n_numbers > n_bytes:
        raise StoreError(f"{weights} does not fit {CONFIG_FILE}: {n_bytes:,} bytes can't hold {n_numbers:,} numbers, one of the two was altered")  # fmt: skip


def build_model(kind: str, settings: Mapping[str, Any]) -> LanguageModel | TextClassifier:
    """Build a model of a kind, with fresh weights. Raises `StoreError` for a kind or settings we do not know."""
    if kind not in KINDS:
        raise StoreError(f"{CONFIG_FILE} says kind {kind!r}, expected one of {', '.join(KINDS)}")
    if isinstance(n_layers := settings.get("n_layers"), int) and n_layers > MAX_LAYERS:
        raise StoreError(f"{CONFIG_FILE} has n_layers {n_layers}, expected {MAX_LAYERS} at most: it was altered")
    try:
        return KINDS[kind](**settings)
    except (TypeError, ValueError, RuntimeError) as err:  # RuntimeError: more memory than there is
        raise StoreError(f"{CONFIG_FILE} has settings that make no {kind}: {err}") from err


def left_behind(out: Path) -> tuple[str, ...]:
    """What a training leaves in `out` that was killed; files of a model only where a checkpoint tells that they are ours.

    And the journal of outputs right below `out`.
    """
    return (
        *LOGS,
        TENSORBOARD_FOLDER,
        JOURNAL_FILE,
        *(FILES if any(out.glob(f"checkpoint-*/{MANIFEST}")) else ()),
    )


def boxed_language_model(lang: str) -> Path | None:
    """The language model in the box for a language, or None."""
    return next((path.parent for path in sorted(BOX.glob(f"{lang}-*/{MANIFEST}"))), None)


def named_model(given: str) -> Path:
    """The folder that a user names: one of theirs, one in the box by its name alone, such as `en-small`, or `owner/name`.

    The last is a repository of the Hugging Face hub, whose files of these names are brought here; see `is_hub_name`.
    """
    if is_hub_name(given):
        return download(given, (*FILES, MANIFEST))
    boxed = BOX / given
    return boxed if not Path(given).exists() and (boxed / MANIFEST).exists() else Path(given)


def newest_language_model(folder: Path = MODELS_FOLDER) -> Path | None:
    """The newest finished language model right below a folder that reads forward, or None."""
    found: list[tuple[float, Path]] = []
    for config in folder.glob(f"*/{CONFIG_FILE}"):
        with contextlib.suppress(StoreError, OSError):
            check_keys(value := read_json(config), PARTS, config)
            forward = not value["trained"].get("backward")
            if forward and (config.parent / MANIFEST).exists() and value["kind"] == LANGUAGE_MODEL:
                found.append((config.stat().st_mtime, config.parent))
    return max(found)[1] if found else None
