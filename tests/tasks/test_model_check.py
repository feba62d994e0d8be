"""Everything that is wrong with a model folder is told, and what can be read is read."""

import json
from pathlib import Path

import pytest
import torch
from learnable import Trained
from safetensors.torch import load_file, save_file

from ulmpipe.durable import MANIFEST
from ulmpipe.errors import StoreError
from ulmpipe.tasks.model_check import check_model

BIAS = "decoder.bias"


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace, add or (None) take out tensors; the manifest goes, so that only the weights are wrong."""
    state = load_file(folder / "model.safetensors") | {name: t for name, t in changes.items() if t is not None}
    save_file({n: t for n, t in state.items() if n not in changes or changes[n] is not None}, folder / "model.safetensors")  # fmt: skip


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def said(folder: Path) -> str:
    return "\n".join(check_model(folder).problems)


@pytest.mark.parametrize("name", ["lm", "clf"])
def test_whole_folder_has_no_problems(trained: Trained, name: str):
    checked = check_model(trained.folder / name)
    assert checked.problems == [] and checked.config and checked.vocab


def test_all_that_is_missing_is_told(own: Path):
    for name in (MANIFEST, "vocab.json", "model.safetensors"):
        (own / "lm" / name).unlink()
    checked = check_model(own / "lm")
    assert len(checked.problems) == 3 and checked.config and checked.vocab is None
    assert all(word in said(own / "lm") for word in ("has no manifest.json", "vocab.json is missing", "model.safetensors is missing"))  # fmt: skip


def test_cut_and_altered_files_are_told_together(own: Path):
    data = (own / "lm/model.safetensors").read_bytes()
    (own / "lm/model.safetensors").write_bytes(data[:-100])
    text = (own / "lm/config.json").read_text()
    (own / "lm/config.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    found = said(own / "lm")
    assert "model.safetensors has" in found and "it was truncated or altered" in found
    assert "config.json was altered: its sha256" in found and "model.safetensors can't be read" in found


def test_every_wrong_tensor_is_named(own: Path):
    state = load_file(own / "lm/model.safetensors")
    (own / "lm" / MANIFEST).unlink()
    layer = "encoder.rnns.0.module"
    change_weights(own / "lm", **{
        BIAS: state[BIAS][:-1], f"{layer}.bias_ih_l0": None, "odd": torch.zeros(1),
        f"{layer}.bias_hh_l0": torch.full_like(state[f"{layer}.bias_hh_l0"], torch.nan),
    })  # fmt: skip
    found = said(own / "lm")
    assert f"{BIAS} is ({len(state[BIAS]) - 1},), expected ({len(state[BIAS])},)" in found
    assert f"{layer}.bias_ih_l0 is missing" in found and "odd is not expected" in found
    assert f"{layer}.bias_hh_l0 holds numbers that are not finite" in found


def test_many_wrong_tensors_are_counted(own: Path):
    save_file({"odd": torch.zeros(1)}, own / "lm/model.safetensors")
    assert "and 6 more tensors" in said(own / "lm")


def test_vocabulary_of_another_model_is_told(own: Path):
    value = json.loads((own / "lm/vocab.json").read_text())
    value["itos"].append("more")
    (own / "lm/vocab.json").write_text(json.dumps(value))
    found = said(own / "lm")
    assert "is not the vocabulary this model was trained with" in found
    assert f"has {len(value['itos'])} tokens, config.json says {len(value['itos']) - 1}" in found


def test_other_spacy_and_impossible_settings_are_told(own: Path):
    recipe = json.loads((own / "lm/config.json").read_text())["recipe"]
    change_config(own / "lm", recipe=recipe | {"spacy": "2.1"}, settings={"vocab_size": 51, "emb_size": 4})
    found = said(own / "lm")
    assert "made with spaCy 2.1, installed is" in found and "settings that make no language model" in found


def test_damaged_config_is_told(own: Path):
    (own / "lm/config.json").write_text('{"kind": 3}')
    assert "config.json lacks kind, settings" in said(own / "lm") and check_model(own / "lm").config is None
    change_config(own / "lm", recipe={})
    assert check_model(own / "lm").config is None


def test_what_is_no_model_folder_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match="does not exist, expected a model folder"):
        check_model(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file, expected a model folder"):
        check_model(tmp_path / "file")
    with pytest.raises(StoreError, match="holds nothing of a model"):
        check_model(tmp_path)
