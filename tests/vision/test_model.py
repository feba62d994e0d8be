"""A model folder: what is saved comes back, what was altered is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from colours import noise
from torch import Tensor, nn
from train.toy import same, values_of

from ulmpipe.durable import describe_file
from ulmpipe.errors import StoreError
from vision.augment import crop_resize
from vision.data import Stats
from vision.model import ImageClassifier, carried_body, make_network
from vision.transfer import cut_body

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS: dict[str, Any] = {"arch": "xresnet18", "c_out": 3, "widths": [8, 8, 16, 16], "stem": [4, 8, 8]}


def classifier(seed: int = 0, **options: Any) -> ImageClassifier:
    torch.manual_seed(seed)
    settings = SETTINGS | options
    model = make_network(settings)
    with torch.no_grad():
        model(torch.randn(8, 3, 40, 40))  # statistics of norms are no longer those of a new network
    stats = Stats((100.5, 120.25, 140.125), (40.0, 50.0, 60.0))
    trained = {"source": "toys", "results": {"accuracy": 0.5}}
    return ImageClassifier(model.eval(), settings, ["a", "b", "ß"], 50, 40, stats, True, trained)


def logits(classifier: ImageClassifier) -> Tensor:
    pictures = torch.from_numpy(noise(4, classifier.side))
    augment = classifier.augment()
    with torch.no_grad():
        return classifier.model.eval()(crop_resize(pictures, augment.plain_views(4, classifier.side), augment.size))


@pytest.mark.parametrize("adapted", [False, True])
def test_what_is_saved_comes_back(tmp_path: Path, adapted: bool):
    ref = classifier(adapted=adapted)
    ref.save_pretrained(tmp_path / "net")
    comp = ImageClassifier.from_pretrained(tmp_path / "net")
    assert not comp.model.training
    torch.testing.assert_close(logits(comp), logits(ref), rtol=1e-5, atol=1e-5)  # channels last computes in other order
    assert same(values_of(comp.model), values_of(ref.model))
    for name in ("settings", "classes", "side", "size", "stats", "flip", "trained"):
        assert getattr(comp, name) == getattr(ref, name)


def test_folder_holds_no_pickle(tmp_path: Path):
    classifier().save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "manifest.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == 1
    header = (tmp_path / "model.safetensors").read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


def test_saving_again_replaces_it(tmp_path: Path):
    classifier().save_pretrained(tmp_path)
    ref = classifier(seed=1)
    ref.save_pretrained(tmp_path)
    assert same(values_of(ImageClassifier.from_pretrained(tmp_path).model), values_of(ref.model))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "longer", "garbage"])
def test_damaged_folder_is_refused(tmp_path: Path, name: str, damage: str):
    classifier().save_pretrained(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    path.unlink()
    spoiled = {"empty": b"", "truncated": data[:-9], "longer": data + b"}", "garbage": b"\x91" * len(data)}
    if damage != "missing":
        path.write_bytes(spoiled[damage])
    with pytest.raises(StoreError, match=name.replace(".", r"\.")):
        ImageClassifier.from_pretrained(tmp_path)


def test_a_flipped_bit_is_found(tmp_path: Path):
    classifier().save_pretrained(tmp_path)
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[-5] ^= 64
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(StoreError, match="model.safetensors was altered"):
        ImageClassifier.from_pretrained(tmp_path)


def alter(folder: Path, **changes: Any) -> None:
    """Change the configuration, and the manifest with it, as someone would who means harm."""
    config = json.loads((folder / "config.json").read_text()) | changes
    text = json.dumps({name: value for name, value in config.items() if value is not None})
    (folder / "config.json").write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["config.json"] = describe_file(folder / "config.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"classes": None}, "lacks classes"),
        ({"size": "40"}, "lacks size"),
        ({"mean": 3.0}, "lacks mean"),
        ({"settings": ["xresnet18"]}, "lacks settings"),
        ({"settings": {"arch": "resnet"}}, "make no network"),
        ({"settings": SETTINGS | {"c_out": 4}}, "names 3 classes for a network of 4"),
        ({"settings": SETTINGS | {"adapted": True}}, r"lacks body\.stem"),
    ],
)
def test_altered_configuration_is_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    classifier().save_pretrained(tmp_path)
    alter(tmp_path, **changes)
    with pytest.raises(StoreError, match=message):
        ImageClassifier.from_pretrained(tmp_path)


def test_folder_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match="does not exist, expected an image classifier"):
        ImageClassifier.from_pretrained(tmp_path / "absent")
    (tmp_path / "manifest.json").write_text('{"kind": "token store", "format_version": 1, "files": {}}')
    with pytest.raises(StoreError, match="holds a token store"):
        ImageClassifier.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": "xresnet19"},
        {"arch": ["xresnet18"]},
        {"colour": 1},
        {"c_out": "3"},
        {"c_out": -1},
        {"c_out": 10**13},
        {"widths": [8]},
        {"stem": []},
        {"c_out": -1, "adapted": True},
        {"c_in": 4, "adapted": True},
    ],
)
def test_settings_that_make_no_network_are_refused(changes: dict[str, Any]):
    with pytest.raises(StoreError, match="settings that make no network"):
        make_network(SETTINGS | changes)


def test_settings_need_a_name():
    for settings in ({}, {"c_out": 3}, {"arch": "xresnet18", "adapted": True}):
        with pytest.raises(StoreError, match="settings that make no network"):
            make_network(settings)


@pytest.mark.parametrize("adapted", [False, True])
def test_body_is_carried_over_and_the_head_is_new(adapted: bool):
    before = classifier(adapted=adapted)
    network, settings = carried_body(before, 5)
    trained = before.model
    assert isinstance(trained, nn.Sequential)
    ref = trained.get_submodule("body") if adapted else cut_body(trained)
    assert same(values_of(network.get_submodule("body")), values_of(ref))
    assert network.eval()(torch.randn(2, 3, 40, 40)).shape == (2, 5)
    assert values_of(make_network(settings)).keys() == values_of(network).keys()
    assert before.settings == SETTINGS | {"adapted": adapted}  # as it was
    own = {param.data_ptr() for param in trained.parameters()}
    assert not own & {param.data_ptr() for param in network.parameters()}
