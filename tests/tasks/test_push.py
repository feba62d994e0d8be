"""Models go to the hub and come back the same: by processes of their own, against a server that speaks what the hub speaks."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Cli, Ended, check_refused
from hub_server import Hub, own_environment, running_hub
from learnable import Trained

import ulmpipe
from ulmpipe.durable import MANIFEST
from ulmpipe.errors import StoreError
from ulmpipe.tasks.model_folder import FILES, Pretrained
from ulmpipe.tasks.push import make_card, push

ROOT = Path(__file__).parents[2]
NAMES = {*FILES, MANIFEST}
TEXT = "What a superb film! Its plot is charming."


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as server:
        yield server


def run(hub: Hub, home: Path, *args: str | Path, **environment: str) -> Ended:
    """`ulmpipe` in a process of its own, that knows this hub and no other."""
    env = {**own_environment(), **hub.environment(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "ulmpipe", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=home)
    return Ended(done.returncode, done.stdout, done.stderr)


def card_of(text: str) -> tuple[dict[str, Any], str]:
    """What the hub reads of a page, and what people do."""
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_a_classifier_goes_up_and_comes_back_the_same(hub: Hub, trained: Trained, tmp_path: Path):
    hub.asked.clear()
    pushed = run(hub, tmp_path, "push", trained.clf, "me/reviews", "--license", "mit", "--json")
    assert pushed.code == 0, pushed.err
    told = json.loads(pushed.out)
    assert (told["url"], told["private"], hub.private["me/reviews"]) == (f"{hub.url}/me/reviews", True, True)
    files = hub.repositories["me/reviews"]
    assert files.keys() == NAMES | {"README.md"} and files["README.md"].decode() == told["card"]
    assert all(files[name] == (trained.clf / name).read_bytes() for name in NAMES)
    files["pytorch_model.bin"] = b"a pickle"
    files["ulmpipe.py"] = b"code"
    hub.asked.clear()
    comp = run(hub, tmp_path, "predict", "me/reviews", TEXT, "--json", "-q")
    assert comp.code == 0, comp.err
    assert json.loads(comp.out)["probabilities"] == ulmpipe.from_pretrained(trained.clf).predict([TEXT])[0].probabilities  # fmt: skip
    given = {line.rsplit("/", 1)[1] for line in hub.asked if "/resolve/" in line}
    assert given == NAMES  # and nothing else of the repository
    again = run(hub, tmp_path, "predict", "me/reviews", TEXT, "--json", "-q", HF_HUB_OFFLINE="1")
    assert again.out == comp.out  # from the cache
    files["model.safetensors"] = files["model.safetensors"][:-1] + bytes([files["model.safetensors"][-1] ^ 1])
    check_refused(run(hub, tmp_path, "predict", "me/reviews", TEXT), 1, "model.safetensors was altered")


def test_a_language_model_is_a_start_and_python_pushes_too(hub: Hub, trained: Trained, tmp_path: Path):
    code = f"""
import ulmpipe
print(ulmpipe.Pretrained.from_pretrained({str(trained.lm)!r}).push_to_hub("me/lm", private=False))
print(ulmpipe.from_pretrained({str(trained.clf)!r}, quantize=True, device="cpu").push_to_hub("me/clf", license="mit"))
"""
    env = {**own_environment(), **hub.environment(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.stdout == f"{hub.url}/me/lm\n{hub.url}/me/clf\n", done.stderr
    assert (hub.private["me/lm"], hub.private["me/clf"]) == (False, True)
    assert hub.repositories["me/clf"]["model.safetensors"] == (trained.clf / "model.safetensors").read_bytes()
    assert hub.repositories["me/lm"]["model.safetensors"] == (trained.lm / "model.safetensors").read_bytes()
    args = ("finetune", trained.train, "-o", "out", "--stage", "lm", "--from", "me/lm", "--max-steps", "1", "--lm-epochs", "0", "--workers", "1", "--batch-size", "8", "--bptt", "20", "--json", "-q")  # fmt: skip
    ended = run(hub, tmp_path, *args)
    assert json.loads(ended.out)["started_from"] == "me/lm", ended.err


def test_a_hub_that_refuses_is_one_line(hub: Hub, trained: Trained, tmp_path: Path):
    ended = run(hub, tmp_path, "push", trained.clf, "me/refused", HF_TOKEN="hf_wrong")
    check_refused(ended, 1, "the hub did not take me/refused (")
    assert "set HF_TOKEN" in ended.err and "me/refused" not in hub.repositories
    ended = run(hub, tmp_path, "push", trained.clf, "me/reviews", HF_ENDPOINT="http://127.0.0.1:9")
    check_refused(ended, 1, "see to the network")
    ended = run(hub, tmp_path, "predict", "me/nosuch", "x")
    check_refused(ended, 1, "me/nosuch is no folder here, and the hub did not give it (")
    ended = run(hub, tmp_path, "predict", "me/nosuch", "x", HF_HUB_OFFLINE="1")
    check_refused(ended, 1, "put one (config.json, model.safetensors, vocab.json, manifest.json) at me/nosuch/")


def test_a_repository_without_a_model_is_refused(hub: Hub, tmp_path: Path):
    hub.repositories["me/other"], hub.private["me/other"] = {"pytorch_model.bin": b"a pickle"}, False
    ended = run(hub, tmp_path, "predict", "me/other", "x")
    check_refused(ended, 1, "me/other on the hub has no config.json, ")


def test_a_dry_run_prints_the_page_and_asks_nothing(hub: Hub, trained: Trained, tmp_path: Path):
    hub.asked.clear()
    ended = run(hub, tmp_path, "push", trained.clf, "me/dry", "--dry-run", "--public")
    assert ended.code == 0 and hub.asked == [] and "me/dry" not in hub.repositories
    assert ended.out == push(trained.clf, "me/dry", dry_run=True).card
    assert "not written, this is a dry run" in ended.err


# ---- what is refused before -----------------------------------------------------------------------------------------


def test_what_can_not_be_pushed_is_refused(cli: Cli, own: Path):
    check_refused(cli("push", own / "clf", "reviews"), 2, "'reviews' is no name of a repository on the hub: expected owner/name")  # fmt: skip
    check_refused(cli("push", own / "clf", "a/../b"), 2, "expected owner/name")
    check_refused(cli("push", own / "clf", "a/b", "--license", "My own\nlicense"), 2, "expected a name of the hub's")
    check_refused(cli("push", own / "nosuch", "a/b"), 1, "does not exist, expected a model folder")
    weights = own / "clf/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + bytes([weights.read_bytes()[-1] ^ 1]))
    check_refused(cli("push", own / "clf", "a/b"), 1, "model.safetensors was altered")


def test_without_the_library_one_line_says_what_to_install(cli: Cli, trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # fmt: skip
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    check_refused(cli("push", trained.clf, "a/b"), 1, "pip install 'ulmpipe[hub]'")
    check_refused(cli("predict", "a/b", "x"), 1, "pip install 'ulmpipe[hub]'")


def test_a_name_beside_other_models_is_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A misspelled `models/reviews` is not asked of the hub, nor is a path that is no string."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # it would say so
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for given in ("models/reviws", "./a/b", "a/b/c", "reviews", Path("owner/name")):
        with pytest.raises(StoreError, match="does not exist, expected a model folder"):
            Pretrained.from_pretrained(given)


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_page_says_what_the_config_says(trained: Trained):
    front, body = card_of(push(trained.clf, "me/reviews", license="apache-2.0", dry_run=True).card)
    results = json.loads((trained.clf / "config.json").read_text())["trained"]["results"]
    assert (front["library_name"], front["license"], front["language"]) == ("ulmpipe", "apache-2.0", "en")
    assert front["pipeline_tag"] == "text-classification" and front["metrics"] == ["accuracy", "f1"]
    (measured,) = front["model-index"][0]["results"]
    assert measured["metrics"][0] == {"type": "accuracy", "value": round(results["accuracy"], 4)}
    assert measured["dataset"]["name"] == "train"
    assert f"| accuracy | {results['accuracy']:.4g} |" in body and "- `neg`\n- `pos`" in body
    assert (
        'ulmpipe.from_pretrained("me/reviews")' in body and str(trained.folder) not in body
    )  # paths are nobody's business
    assert f"| labelled documents | {trained.finetuned.n_labels} |" in body and "| `--classifier-lr` | `0.01` |" in body


def test_the_page_of_a_language_model(trained: Trained):
    front, body = card_of(push(trained.lm, "me/lm", dry_run=True).card)
    assert front["metrics"] == ["perplexity"] and "license" not in front and "model-index" not in front
    assert "ulmpipe finetune reviews.csv --from me/lm" in body and "Labels" not in body
    assert f"| perplexity | {trained.pretrained.perplexity:.4g} |" in body


def test_the_page_says_how_many_documents_judged(trained: Trained):
    config = json.loads((trained.clf / "config.json").read_text())
    assert config["trained"]["n_valid"] == 20
    config["trained"]["results"]["accuracy"] = 0.9
    assert "held out of the training (20 documents, standard error 0.067):" in make_card(config, "me/reviews")
    del config["trained"]["n_valid"]  # as older models have none
    assert "held out of the training:" in make_card(config, "me/reviews")


def test_what_is_in_a_config_is_no_markup(trained: Trained):
    config = json.loads((trained.clf / "config.json").read_text())
    config["labels"] = ["a`b\n---\nlicense: mit", "<script>|x"]
    config["trained"]["source"] = 'x"\n---\nlicense: mit'
    front, body = card_of(make_card(config, "me/x"))
    assert "license" not in front and front["model-index"][0]["results"][0]["dataset"]["name"].startswith('x"')
    assert "- `a'b --- license: mit`\n- `<script>\\|x`" in body


def test_the_page_of_several_labels_names_thresholds(trained: Trained):
    config = json.loads((trained.clf / "config.json").read_text()) | {"multi_label": True, "thresholds": [0.25, 0.5]}
    config["trained"]["results"] = {"exact_match": 0.5, "f1_macro": 0.625, "valid_loss": 0.1}
    front, body = card_of(make_card(config, "me/x"))
    assert "| `neg` | 0.250 |" in body and front["metrics"] == ["exact_match", "f1"]


# ---- a model that stays loaded --------------------------------------------------------------------------------------


def test_a_predictor_writes_its_model(trained: Trained, tmp_path: Path):
    predictor = ulmpipe.from_pretrained(trained.clf, quantize=True, device="cpu")
    predictor.save_pretrained(tmp_path / "again")
    assert all((tmp_path / "again" / name).read_bytes() == (trained.clf / name).read_bytes() for name in FILES)
    assert ulmpipe.from_pretrained(tmp_path / "again").predict([TEXT]) == ulmpipe.from_pretrained(trained.clf).predict([TEXT])  # fmt: skip
