"""Networks go to the hub and come back; their page says what config.json says, and what they were trained with is a config."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hub_server import own_environment, running_hub
from shapes import TrainedNetwork

from ulmpipe.command import with_config_files
from ulmpipe.config_file import command_options
from vision.__main__ import app
from vision.card import make_card
from vision.config import TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]

CODE = """
import sys
from functools import partial
from vision import model, xresnet
from vision.model import ImageClassifier
model.build = partial(xresnet.build, stem=(8, 8, 8), widths=(8, 16, 16, 32))  # as use_small_networks
print(ImageClassifier.from_pretrained(sys.argv[1]).push_to_hub("me/net", license="mit", private=False))
again = ImageClassifier.from_pretrained("me/net")
again.save_pretrained("again")
"""


def test_a_network_goes_up_and_comes_back_the_same(network: TrainedNetwork, tmp_path: Path):
    with running_hub() as hub:
        env = {**own_environment(), **hub.environment(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", CODE, str(network.net)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.stdout == f"{hub.url}/me/net\n", done.stderr
        assert hub.repositories["me/net"].keys() == {"config.json", "model.safetensors", "manifest.json", "README.md"}
        assert hub.private["me/net"] is False
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (network.net / name).read_bytes()


def test_the_page_says_what_the_config_says(network: TrainedNetwork):
    config = json.loads((network.net / "config.json").read_text())
    _, front, body = make_card(config, "me/net", license="mit").split("---\n", 2)
    told = yaml.safe_load(front)
    assert (told["pipeline_tag"], told["license"]) == ("image-classification", "mit")
    accuracy = config["trained"]["results"]["accuracy"]
    assert told["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": round(accuracy, 4)}]
    assert f"| accuracy | {accuracy:.4g} |" in body and all(f"- `{name}`" in body for name in config["classes"])
    assert str(network.folder) not in body and "| `--epochs` |" in body


def test_the_options_of_a_network_are_a_config(network: TrainedNetwork, tmp_path: Path):
    options = json.loads((network.net / "config.json").read_text())["trained"]["options"]
    path = tmp_path / "again.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items() if value is not None))
    commands = with_config_files(app).commands
    read = command_options(commands["train"], path)
    assert read == {name: value for name, value in options.items() if value is not None}
    assert set(read) <= {f.name for f in fields(TrainConfig)}
