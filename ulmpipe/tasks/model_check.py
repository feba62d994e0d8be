"""Everything that is wrong with a model folder, in plain words, where loading it would stop at the first.

For `doctor`: reads what can be read of a damaged folder (model_folder.py loads whole ones, verify.py says yes or no).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..durable import FILE_NAME, MANIFEST, sha256_of
from ..errors import StoreError, UlmpipeError
from ..models.packed import unpack
from ..text.tokenizer import spacy_version
from ..text.vocab import VOCAB_FILE, Vocab
from .model_folder import CONFIG_FILE, FILES, WEIGHTS_FILE, build_model, read_config, read_model_manifest

MAX_NAMED = 5  # tensors that are named
Found = TypeVar("Found")


@dataclass
class CheckedModel:
    """What could be read of a model folder; None where it could not. `problems` says why."""

    config: dict[str, Any] | None = None
    vocab: Vocab | None = None
    problems: list[str] = field(default_factory=list)

    def attempt(self, read: Callable[[], Found]) -> Found | None:
        """What `read` returns, or None and one more problem."""
        try:
            return read()
        except UlmpipeError as err:
            if str(err) not in self.problems:
                self.problems.append(str(err))
            return None


def check_model(folder: Path) -> CheckedModel:
    """Look at every file and every tensor of a model folder. Raises `StoreError` where there is no such folder, or no model in it."""
    if not folder.is_dir():
        raise StoreError(f"{folder} {'is a file' if folder.exists() else 'does not exist'}, expected a model folder: check the spelling")  # fmt: skip
    if not any((folder / name).exists() for name in (*FILES, MANIFEST)):
        raise StoreError(f"{folder} holds nothing of a model: expected {', '.join(FILES)}")
    checked = CheckedModel()
    manifest = checked.attempt(lambda: read_model_manifest(folder))
    for name in dict.fromkeys([*FILES, *(manifest["files"] if manifest else ())]):
        said = manifest["files"].get(name) if manifest else None
        checked.attempt(lambda name=name, said=said: _check_file(folder, name, said))
    if (folder / CONFIG_FILE).exists():
        checked.config = checked.attempt(lambda: read_config(folder / CONFIG_FILE))
    if (folder / VOCAB_FILE).exists():
        checked.vocab = checked.attempt(lambda: Vocab.load(folder / VOCAB_FILE))
    if (config := checked.config) is not None:
        checked.problems += _compare(folder, config, checked.vocab)
        if (folder / WEIGHTS_FILE).exists():
            checked.problems += _wrong_weights(folder / WEIGHTS_FILE, config, checked)
    return checked


def _check_file(folder: Path, name: str, said: Any) -> None:
    """One file beside what the manifest says of it."""
    if not FILE_NAME.fullmatch(name):
        raise StoreError(f"{folder / MANIFEST} names {name!r}, which is no file of ours: it was altered")
    path = folder / name
    if not path.is_file():
        raise StoreError(f"{path} is missing: make the folder again, or restore it from a copy")
    if not isinstance(said, dict):
        return
    if path.stat().st_size != said.get("bytes"):
        raise StoreError(f"{path} has {path.stat().st_size:,} bytes, expected {said.get('bytes')}: it was truncated or altered")  # fmt: skip
    if sha256_of(path) != said.get("sha256"):
        raise StoreError(f"{path} was altered: its sha256 is not that of {MANIFEST}")


def _compare(folder: Path, config: dict[str, Any], vocab: Vocab | None) -> list[str]:
    """Where the config says something else than the vocabulary, or than this machine has."""
    problems = []
    if vocab is not None and vocab.sha256 != config["vocab_sha256"]:
        problems.append(f"{folder / VOCAB_FILE} is not the vocabulary this model was trained with: restore it")
    if vocab is not None and len(vocab) != config["settings"].get("vocab_size"):
        problems.append(f"{folder / VOCAB_FILE} has {len(vocab):,} tokens, {CONFIG_FILE} says {config['settings'].get('vocab_size')}: restore it")  # fmt: skip
    made_with = config["recipe"].get("spacy")
    if made_with != spacy_version():
        problems.append(f"made with spaCy {made_with}, installed is {spacy_version()}: some texts may be cut in another way")  # fmt: skip
    return problems


def _wrong_weights(path: Path, config: dict[str, Any], checked: CheckedModel) -> list[str]:
    """Tensors that are missing, not expected, misshapen or not finite."""
    with torch.device("meta"):
        model = checked.attempt(lambda: build_model(config["kind"], config["settings"]))
    if model is None:
        return []
    expected: dict[str, torch.Tensor] = model.state_dict()
    try:
        found = unpack(load_file(path, device="cpu"))
    except (SafetensorError, OSError, ValueError) as err:
        return [f"{path} can't be read: {str(err).splitlines()[0]}. Restore it from a copy"]
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} is not expected" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        if found[name].shape != expected[name].shape:
            wrong.append(f"{name} is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}")
        elif not bool(found[name].isfinite().all()):
            wrong.append(f"{name} holds numbers that are not finite: its training diverged, go back to an earlier one")
    more = [f"and {len(wrong) - MAX_NAMED} more tensors"] if len(wrong) > MAX_NAMED else []
    return [f"{path}: {reason}" for reason in (*sorted(wrong)[:MAX_NAMED], *more)]
