"""What onnxruntime computes from an exported file is what PyTorch computes, for any batch; and the file says how to use it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Cli, check_refused
from learnable import Trained, make_docs

from ulmpipe.errors import ConfigError, UlmpipeError
from ulmpipe.models import TextClassifier
from ulmpipe.tasks.export import OPSET, export, in_onnx_order
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.predict import from_pretrained
from ulmpipe.text.padding import pad_documents
from ulmpipe.text.vocab import Vocab

onnx = pytest.importorskip("onnx", reason="pip install 'ulmpipe[onnx]'")
ort = pytest.importorskip("onnxruntime", reason="pip install 'ulmpipe[onnx]'")


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(export(trained.clf, tmp_path_factory.mktemp("onnx") / "clf.onnx").out)


@pytest.fixture(scope="module")
def model(trained: Trained) -> Pretrained:
    return Pretrained.from_pretrained(trained.clf)


def run(path: Path, ids: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits", "probabilities"], {"ids": ids, "lengths": lengths})


@pytest.mark.parametrize("lengths", [[1], [0], [5, 3, 0], [20, 20], [150, 1, 64, 149, 2, 30, 71, 9]])
def test_onnxruntime_gives_the_numbers_of_pytorch(exported: Path, model: Pretrained, lengths: list[int]):
    """Padded, and longer than the 20 steps of a chunk in training."""
    rng = np.random.default_rng(len(lengths))
    docs = [rng.integers(2, len(model.vocab), n).tolist() for n in lengths]
    ids, n_tokens = pad_documents(docs, pad_id=model.vocab.pad_id, max_tokens=1000)
    with torch.no_grad():
        ref = model.model(torch.from_numpy(ids), torch.from_numpy(n_tokens))
    logits, probabilities = run(exported, ids, n_tokens)
    np.testing.assert_allclose(logits, ref.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probabilities, ref.softmax(dim=-1).numpy(), rtol=0, atol=1e-5)


def test_file_and_its_vocabulary_are_enough_to_predict(exported: Path, trained: Trained):
    """As another program would: tokens by the recipe, ids by the vocabulary, labels of the metadata."""
    about = {p.key: json.loads(p.value) for p in onnx.load(exported).metadata_props}
    vocab = Vocab.load(exported.with_suffix(".vocab.json"))
    predictor = from_pretrained(trained.clf)
    assert (about["labels"], about["vocab_sha256"]) == (["neg", "pos"], vocab.sha256)
    assert about["recipe"] == predictor.pretrained.recipe
    texts = [text for text, _ in make_docs(6, seed=4)]
    tokenizer = predictor.pretrained.tokenizer()
    docs = [vocab.encode(tokenizer.tokenize(text)) for text in texts]
    padded = pad_documents(docs, pad_id=about["pad_id"], max_tokens=about["max_tokens"])
    _, probabilities = run(exported, *padded)
    for prediction, row in zip(predictor.predict(texts), probabilities, strict=True):
        assert [prediction.probabilities[label] for label in about["labels"]] == pytest.approx(row.tolist(), abs=1e-5)


def test_axes_are_free_and_no_dropout_is_left(exported: Path):
    graph = onnx.load(exported).graph
    shapes = {value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.output)}  # fmt: skip
    assert shapes == {"ids": ["B", "L"], "lengths": ["B"], "logits": ["B", 2], "probabilities": ["B", 2]}
    assert "Dropout" not in {node.op_type for node in graph.node}


def test_model_of_several_labels_has_sigmoids_and_its_thresholds(model: Pretrained, tmp_path: Path):
    replace(model, thresholds=[0.3, 0.6]).save_pretrained(tmp_path / "clf")
    path = Path(export(tmp_path / "clf").out)
    logits, probabilities = run(path, np.array([[2, 5, 9]]), np.array([3]))
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-5, atol=1e-6)
    about = {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}
    assert about["thresholds"] == [0.3, 0.6]


def test_gates_are_put_in_the_order_of_onnx():
    assert in_onnx_order(torch.arange(8)).tolist() == [0, 1, 6, 7, 2, 3, 4, 5]


def test_default_output_lies_beside_the_model(own: Path):
    result = export(f"{own / 'clf'}/")
    assert (result.out, result.vocab) == (str(own / "clf.onnx"), str(own / "clf.vocab.json"))
    assert Path(result.out).stat().st_size == pytest.approx(result.mb * 1e6, abs=1e3)
    assert isinstance(Pretrained.from_pretrained(own / "clf").model, TextClassifier)


def test_a_model_of_the_hub_is_not_hidden_by_its_export(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A folder called `me` would make of me/reviews a path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ulmpipe.tasks.model_folder.download", lambda name, files: trained.clf)
    assert export("me/reviews").out == "reviews.onnx" and not Path("me").exists()


def test_older_export_is_replaced_and_no_other_file(trained: Trained, tmp_path: Path):
    out = tmp_path / "new.csv"
    out.write_text("text,label\nfine,1\n")
    with pytest.raises(
        UlmpipeError, match=r"the output .*new.csv holds something else than an export: choose another -o"
    ):
        export(trained.clf, out)
    assert out.read_text().startswith("text,label") and [p.name for p in tmp_path.iterdir()] == ["new.csv"]
    vocab = tmp_path / "a.vocab.json"
    vocab.write_text("[]")
    with pytest.raises(UlmpipeError, match=r"a.vocab.json is there without its model"):
        export(trained.clf, tmp_path / "a.onnx")
    assert vocab.read_text() == "[]"
    export(trained.clf, tmp_path / "b.onnx")
    export(trained.clf, tmp_path / "b.onnx")


def test_command_says_what_it_wrote(cli: Cli, trained: Trained, tmp_path: Path):
    ended = cli("export", trained.clf, "-o", tmp_path / "new" / "m.onnx", "--json")
    assert ended.code == 0 and json.loads(ended.out)["opset"] == OPSET
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"m.onnx", "m.vocab.json"}


def test_what_cannot_be_exported_is_refused(cli: Cli, trained: Trained):
    with pytest.raises(UlmpipeError, match="export takes a classifier, and .* is a language model: finetune"):
        export(trained.lm)
    with pytest.raises(ConfigError, match="--format coreml is unknown: expected onnx"):
        export(trained.clf, format="coreml")
    check_refused(cli("export", trained.clf, "--format", "torchscript"), 2, "--format torchscript is unknown")


def test_missing_package_is_named_by_its_extra(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UlmpipeError, match=r"export needs the package onnx: pip install 'ulmpipe\[onnx\]'"):
        export(trained.clf, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
