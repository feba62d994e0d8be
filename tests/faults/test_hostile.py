"""Files that were made to do harm: nothing in them is run, and no file outside of their folder is read or written."""

import contextlib
import copy
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from learnable import write_csv
from runs import ALL, say_so

from ulmpipe.durable import MANIFEST, read_json
from ulmpipe.errors import StoreError, UlmpipeError
from ulmpipe.tasks.model_check import check_model
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.predict import from_pretrained
from ulmpipe.tasks.tokenize import tokenize
from ulmpipe.tasks.verify import verify
from ulmpipe.text.store import TokenStore
from ulmpipe.train.checkpoint import latest_checkpoint


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("folder", ["lm", "clf"])
def test_a_pickle_for_weights_is_not_run(own: Path, folder: str, protocol: int, survived: Callable[..., None]):
    canary = own / "canary"
    (own / folder / "model.safetensors").write_bytes(pickle.dumps(Canary(canary), protocol))
    say_so(own / folder, "model.safetensors")
    for use in (Pretrained.from_pretrained, from_pretrained, verify):
        with pytest.raises(UlmpipeError):
            use(own / folder)
    assert not canary.exists()
    survived("a pickle in the place of weights")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json"])
def test_a_pickle_in_a_checkpoint_is_not_run(own: Path, name: str, survived: Callable[..., None]):
    from ulmpipe.tasks.pretrain import pretrain

    canary = own / "canary"
    (checkpoint,) = (own / "lm").glob("checkpoint-*")
    (own / "lm" / MANIFEST).unlink()  # a training to be resumed
    torch.save({"a": Canary(canary)}, checkpoint / name)
    say_so(checkpoint, name)
    options = read_json(own / "lm/config.json")["trained"]["options"]
    with pytest.raises(UlmpipeError):
        pretrain(own / "train.csv", own / "lm", **{**options, "resume": True})
    assert not canary.exists() and latest_checkpoint(own / "lm") is not None  # its digests are right
    survived("a pickle in a checkpoint")


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "", "..", "a\0b", "shard-00000.arrow/../../secret"]
)
def test_names_that_lead_out_of_the_folder_are_refused(own: Path, name: str, survived: Callable[..., None]):
    store = min((own / "tokens").glob("train-*"))
    for folder, opened in ((own / "lm", Pretrained.from_pretrained), (store, TokenStore)):
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["files"][name] = {"bytes": 1, "sha256": "0"}
        (folder / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(StoreError, match="no file of ours"):
            opened(folder)
    survived("a manifest that names files elsewhere")


@pytest.mark.parametrize("label", ["../../escaped", "/tmp/escaped", "con", "a\nb", "$(touch escaped)", "%s%n", ""])
def test_labels_are_data_and_never_paths(tmp_path: Path, label: str, survived: Callable[..., None]):
    folder = tmp_path / "below/here"
    folder.mkdir(parents=True)
    source = write_csv(folder / "a.csv", [("one text", label), ("another", "plain")])
    tokenize(source, folder / "out", workers=1)
    assert set(TokenStore(folder / "out").labels) == {label, "plain"} - {""}
    below = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert below <= {"a.csv", ".lock", "vocab.json", "manifest.json", "dataset_info.json", "state.json", "shard-00000.arrow"}  # fmt: skip
    survived("labels made to be paths or commands")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"kind": NaN}',
        '{"kind": Infinity}',
        '{"a": ' * 5000,
        "9" * 5000,
        '"\\ud800"',
        "{}",
        "[]",
        "null",
    ],
)
@pytest.mark.parametrize("name", ["manifest.json", "vocab.json", "config.json"])
def test_json_made_to_do_harm_is_one_line(own: Path, name: str, text: str, survived: Callable[..., None]):
    (own / "lm" / name).write_text(text)
    if name != MANIFEST:
        say_so(own / "lm", name)
    with pytest.raises(UlmpipeError):
        Pretrained.from_pretrained(own / "lm")
    survived("JSON made to do harm")


def test_a_huge_json_is_not_read(own: Path, survived: Callable[..., None]):
    with open(own / "lm/config.json", "wb") as file:
        file.truncate(65 << 20)
    say_so(own / "lm", "config.json")
    with pytest.raises(StoreError, match="expected at most"):
        Pretrained.from_pretrained(own / "lm")
    survived("a huge JSON file")


@pytest.mark.parametrize(
    "others",
    [
        {"vocab_size": 10**12},
        {"n_layers": -1},
        {"n_layers": 10**9},
        {"hidden_size": "x"},
        {"emb_size": None},
        {"vocab_size": 20_000, "emb_size": 20_000},
    ],
)
def test_sizes_that_can_not_be_are_refused(own: Path, others: dict[str, Any], survived: Callable[..., None]):
    config = json.loads((own / "lm/config.json").read_text())
    config["settings"] |= others
    (own / "lm/config.json").write_text(json.dumps(config))
    say_so(own / "lm", "config.json")
    for use in (Pretrained.from_pretrained, verify):
        with pytest.raises(UlmpipeError):
            use(own / "lm")
    assert check_model(own / "lm").problems
    survived("a model of absurd sizes")


NONSENSE = (None, 3, -1, 1.5, "x", [], {}, [[]], True, 10**20, "\ud800")


def parts_of(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of a JSON value, those of `options`, which nothing but a report reads, left out."""
    if at:
        yield at
    each = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in each:
        if key != "options":
            yield from parts_of(part, (*at, key))


def test_a_config_with_another_part_is_one_line_or_works(own: Path, survived: Callable[..., None]):
    """Each part of a classifier's config.json in turn is something else, or is missing."""
    whole = json.loads((own / "clf/config.json").read_text())
    places = [(at, part) for at in parts_of(whole) for part in (*NONSENSE, ...)]
    for at, part in places if ALL else random.Random(0).sample(places, 60):
        config = copy.deepcopy(whole)
        holder = reduce(lambda value, key: value[key], at[:-1], config)
        if part is ...:
            del holder[at[-1]]
        else:
            holder[at[-1]] = part
        (own / "clf/config.json").write_text(json.dumps(config))
        say_so(own / "clf", "config.json")
        with contextlib.suppress(UlmpipeError):
            from_pretrained(own / "clf").predict(["a superb plot"])
        check_model(own / "clf")
        survived("a config.json with another part")


def test_a_folder_copied_elsewhere_needs_no_other_file(own: Path, tmp_path: Path, survived: Callable[..., None]):
    shutil.move(own / "clf", tmp_path / "moved")
    shutil.rmtree(own)
    assert from_pretrained(tmp_path / "moved").predict(["a superb plot"])
    survived("a model folder that was moved")
