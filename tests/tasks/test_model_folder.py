"""What was saved is what is loaded; a folder that is not whole, or not ours, is refused with one line."""

import json
import os
from pathlib import Path

import pytest
import torch
from learnable import Trained
from safetensors.torch import load_file

from ulmpipe.config import TokenizeConfig
from ulmpipe.durable import MANIFEST, describe_file
from ulmpipe.errors import ConfigError, StoreError, VocabMismatchError
from ulmpipe.models import SIZES, LanguageModel
from ulmpipe.tasks.corpus import recipe_options
from ulmpipe.tasks.model_folder import (
    CLASSIFIER,
    CONFIG_FILE,
    LANGUAGE_MODEL,
    WEIGHTS_FILE,
    Pretrained,
    boxed_language_model,
    build_model,
    newest_language_model,
    read_model_manifest,
)
from ulmpipe.tasks.verify import verify
from ulmpipe.text.rules import Rules

FILES = [CONFIG_FILE, WEIGHTS_FILE, "vocab.json"]


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        return model(ids, torch.tensor([6, 4])) if hasattr(model, "head") else model(ids).logits


def sign_again(folder: Path) -> None:
    """Make a spoiled folder's manifest fit its files, so that only what is in them is wrong."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {name: describe_file(folder / name) for name in manifest["files"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["lm", "clf"])
def test_saved_and_loaded_model_gives_the_same_numbers(trained: Trained, tmp_path: Path, name: str):
    ref = Pretrained.from_pretrained(trained.folder / name)
    ref.save_pretrained(tmp_path / "copy")
    comp = Pretrained.from_pretrained(tmp_path / "copy")
    assert not comp.model.training and (comp.kind, comp.labels) == (ref.kind, ref.labels)
    assert torch.equal(logits_of(comp.model), logits_of(ref.model))
    assert (tmp_path / "copy" / WEIGHTS_FILE).read_bytes() == (trained.folder / name / WEIGHTS_FILE).read_bytes()


def test_model_fresh_from_training_gives_the_numbers_of_the_saved_one(tmp_path: Path, trained: Trained):
    ref = Pretrained.from_pretrained(trained.lm)
    torch.manual_seed(5)
    model = LanguageModel(**ref.settings, output_p=0.4, weight_p=0.5).eval()
    Pretrained(LANGUAGE_MODEL, model, ref.vocab, ref.recipe, ref.settings, [], {}).save_pretrained(tmp_path)
    assert torch.equal(logits_of(Pretrained.from_pretrained(tmp_path).model), logits_of(model))


def test_folder_holds_what_it_should(trained: Trained):
    assert {path.name for path in trained.lm.iterdir()} - {".lock"} == {
        *FILES,
        "layers.jsonl",
        MANIFEST,
        "metrics.jsonl",
        "steps.jsonl",
        "report.json",
        "report.html",
        "checkpoint-40",
    }
    assert read_model_manifest(trained.lm)["kind"] == LANGUAGE_MODEL
    assert read_model_manifest(trained.clf)["kind"] == CLASSIFIER
    config = json.loads((trained.clf / CONFIG_FILE).read_text())
    assert config["kind"] == CLASSIFIER and config["labels"] == ["neg", "pos"]
    assert config["trained"]["options"]["batch_size"] == 16


def test_all_files_of_a_model_are_as_readable_as_its_config(trained: Trained):
    modes = {(trained.clf / name).stat().st_mode for name in (*FILES, MANIFEST)}
    assert len(modes) == 1


def test_no_pickle_is_written(trained: Trained):
    files = [path for path in trained.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {
        ".json",
        ".jsonl",
        ".safetensors",
        ".arrow",
        ".csv",
        ".db",
        ".png",
        ".html",
        "",
    }
    for path in files:
        if path.suffix == ".safetensors":
            assert load_file(path)
        else:
            assert path.read_bytes()[:2] not in (b"PK", *(bytes([0x80, protocol]) for protocol in range(2, 6))), path


# ---- folders that are not whole --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(own: Path, name: str):
    (own / "clf" / name).unlink()
    with pytest.raises(StoreError, match=f"{name} is missing"):
        Pretrained.from_pretrained(own / "clf")


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_named(own: Path, name: str):
    path = own / "clf" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=rf"{name} has [\d,]+ bytes, expected [\d,]+: it was truncated or altered"):
        Pretrained.from_pretrained(own / "clf")


def test_an_altered_byte_of_the_weights_is_found_as_they_are_loaded(own: Path):
    data = bytearray((own / "clf/model.safetensors").read_bytes())
    data[-100] ^= 1
    (own / "clf/model.safetensors").write_bytes(data)
    with pytest.raises(StoreError, match="model.safetensors was altered: its sha256 is not that of manifest.json"):
        Pretrained.from_pretrained(own / "clf")


def test_weights_of_another_shape_are_refused(own: Path):
    config = json.loads((own / "clf" / CONFIG_FILE).read_text())
    config["settings"]["hidden_size"] += 1
    (own / "clf" / CONFIG_FILE).write_text(json.dumps(config))
    sign_again(own / "clf")
    with pytest.raises(StoreError, match="model.safetensors does not fit config.json"):
        Pretrained.from_pretrained(own / "clf")


@pytest.mark.parametrize("data", [b"", b"x" * 40, b"\xff" * 8 + b"{}"])
def test_weights_that_are_none_are_refused(own: Path, data: bytes):
    (own / "lm" / WEIGHTS_FILE).write_bytes(data)
    sign_again(own / "lm")
    with pytest.raises(StoreError, match="model.safetensors does not fit"):
        Pretrained.from_pretrained(own / "lm")


def test_vocabulary_of_another_model_is_refused(own: Path):
    vocab = json.loads((own / "lm/vocab.json").read_text())
    vocab["itos"][-1] = "zebra"
    (own / "lm/vocab.json").write_text(json.dumps(vocab))
    sign_again(own / "lm")
    with pytest.raises(VocabMismatchError, match="is not the vocabulary this model was trained with: restore it"):
        Pretrained.from_pretrained(own / "lm")


@pytest.mark.parametrize("key", ["kind", "settings", "labels", "recipe", "vocab_sha256", "trained"])
def test_config_that_lacks_a_part_is_refused(own: Path, key: str):
    config = json.loads((own / "clf" / CONFIG_FILE).read_text())
    del config[key]
    (own / "clf" / CONFIG_FILE).write_text(json.dumps(config))
    sign_again(own / "clf")
    with pytest.raises(StoreError, match=f"config.json lacks {key}"):
        Pretrained.from_pretrained(own / "clf")


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ({"format_version": 2}, r"written by a newer ulmpipe \(format 2, this one reads 1\): upgrade"),
        ({"kind": "token store"}, "holds a token store, expected a model folder"),
        ({"files": {"../x": {"bytes": 1, "sha256": ""}}}, "which is no file of ours"),
        ({"files": None}, "was altered"),
        ({"format_version": "1"}, "was altered"),
    ],
)
def test_altered_manifest_is_refused(own: Path, manifest: dict, reason: str):
    found = json.loads((own / "lm" / MANIFEST).read_text())
    (own / "lm" / MANIFEST).write_text(json.dumps(found | manifest))
    with pytest.raises(StoreError, match=reason):
        Pretrained.from_pretrained(own / "lm")


def test_unfinished_folder_is_refused(own: Path):
    (own / "lm" / MANIFEST).unlink()
    with pytest.raises(
        StoreError, match="has no manifest.json: it is no model folder, or the run that made it did not finish"
    ):
        Pretrained.from_pretrained(own / "lm")


def test_save_that_fails_leaves_the_old_model(own: Path, monkeypatch: pytest.MonkeyPatch):
    model = Pretrained.from_pretrained(own / "lm")
    ref = {path.name: path.read_bytes() for path in (own / "lm").iterdir() if path.is_file()}
    model.trained = {"loss": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        model.save_pretrained(own / "lm")
    assert {path.name: path.read_bytes() for path in (own / "lm").iterdir() if path.is_file()} == ref


def test_unknown_kind_and_settings_are_refused():
    with pytest.raises(StoreError, match="says kind 'regressor', expected one of language model, classifier"):
        build_model("regressor", {})
    with pytest.raises(StoreError, match="settings that make no language model"):
        build_model(LANGUAGE_MODEL, {"vocab_size": 9, **SIZES["tiny"], "n_heads": 3})


# ---- which one ------------------------------------------------------------------------------------------------------


def test_newest_language_model_is_the_newest_finished_one(own: Path, tmp_path: Path):
    models = tmp_path / "models"
    for name, source, time in (("old", "lm", 1), ("new", "lm", 2), ("unfinished", "lm", 3), ("clf", "clf", 4)):
        Pretrained.from_pretrained(own / source).save_pretrained(models / name)
        os.utime(models / name / CONFIG_FILE, (time, time))
    (models / "unfinished" / MANIFEST).unlink()
    (models / "broken").mkdir()
    (models / "broken" / CONFIG_FILE).write_text("[")
    assert newest_language_model(models) == models / "new"


def test_newest_language_model_of_nothing_is_none(tmp_path: Path):
    assert newest_language_model(tmp_path) is None
    assert newest_language_model(tmp_path / "absent") is None


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_newest_language_model_passes_by_what_is_no_config(tmp_path: Path, content: str):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / CONFIG_FILE).write_text(content)
    (tmp_path / "x" / MANIFEST).write_text("{}")
    assert newest_language_model(tmp_path) is None


# ---- what belongs to it ---------------------------------------------------------------------------------------------


def test_recipe_goes_with_the_model(trained: Trained):
    model = Pretrained.from_pretrained(trained.lm)
    assert model.tokenizer().tokenize("A film!")[0] == "xxbos"
    model.recipe = model.recipe | {"lang": "xx", "rules": "course"}
    comp = recipe_options(model.recipe, TokenizeConfig(lang="de", workers=1))
    assert (comp.lang, comp.rules, comp.workers) == ("xx", "course", 1)


def test_custom_rules_must_be_given_again(trained: Trained):
    model = Pretrained.from_pretrained(trained.lm)
    model.recipe = model.recipe | {"rules": "custom", "custom": ["builtins.str.lower"]}
    with pytest.raises(ConfigError, match=r"rules of your own \(builtins.str.lower\)"):
        model.tokenizer()
    assert model.tokenizer(Rules(pre=(str.lower,), post=())).tokenize("A") == ["a"]


# ---- the box ---------------------------------------------------------------------------------------------------------


def test_packed_model_is_small_and_scores_alike(trained: Trained, tmp_path: Path):
    ref = Pretrained.from_pretrained(trained.lm)
    ref.save_pretrained(tmp_path / "lm", packed=True)
    comp = Pretrained.from_pretrained(tmp_path / "lm")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (trained.lm, tmp_path / "lm")]
    ids = torch.arange(2, 12)[None]
    assert sizes[1] < 0.4 * sizes[0]
    torch.testing.assert_close(comp.model(ids).logits, ref.model(ids).logits, atol=0.05, rtol=0)


def test_english_model_in_the_box_is_whole_small_and_has_a_card():
    folder = boxed_language_model("en")
    assert folder is not None and folder.name == "en-small" and verify(folder).kind == LANGUAGE_MODEL
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 20_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("Data", "Perplexity", "bench/train_en_small.py"))
    assert boxed_language_model("fr") is None
