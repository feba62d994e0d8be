"""The spaCy component: what `predict` says stands in `doc.cats`, and a saved pipeline has its model in it."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import spacy
from learnable import Trained, make_docs
from spacy.language import Language

import ulmpipe
import ulmpipe.spacy_component  # noqa: F401 - which its entry point does where it is installed
from ulmpipe.errors import ConfigError, StoreError, UlmpipeError
from ulmpipe.tasks.model_folder import FILES
from ulmpipe.tasks.predict import Predictor

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[1]
TEXTS = [text for text, _ in make_docs(30, seed=21)] + ["", "<br />SHOUTED :-)", "été 日本"]


def pipeline(model: Path | str, **config: object) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("ulmpipe_classifier", config={"model": str(model), **config})
    return nlp


def test_documents_get_the_probabilities_that_predict_gives(trained: Trained):
    nlp, ref = pipeline(trained.clf), ulmpipe.from_pretrained(trained.clf)
    for text in TEXTS[:5]:
        doc = nlp(text)
        assert doc.cats == ref.predict([text])[0].probabilities and [token.text for token in doc] == [token.text for token in spacy.blank("en")(text)]  # fmt: skip


def test_categories_of_other_components_stay(trained: Trained):
    nlp = pipeline(trained.clf)
    doc = nlp.make_doc(TEXTS[0])
    doc.cats["language:en"] = 1.0
    assert nlp(doc).cats.keys() == {"language:en", "neg", "pos"}


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_batches_say_the_same_in_the_same_order(trained: Trained, batch_size: int):
    docs = list(pipeline(trained.clf).pipe(TEXTS, batch_size=batch_size))
    ref = ulmpipe.from_pretrained(trained.clf).predict(TEXTS)
    assert [doc.text for doc in docs] == TEXTS
    assert all(doc.cats == pytest.approx(p.probabilities, abs=1e-5) for doc, p in zip(docs, ref, strict=True))


def test_documents_are_predicted_together(trained: Trained, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    predict = Predictor.predict

    def counted(self: Predictor, texts: list[str]) -> list[ulmpipe.Prediction]:
        sizes.append(len(texts))
        return predict(self, texts)

    monkeypatch.setattr(Predictor, "predict", counted)
    assert len(list(pipeline(trained.clf).pipe(TEXTS, batch_size=10))) == 33 and sizes == [10, 10, 10, 3]


def test_a_saved_pipeline_needs_no_other_folder(own: Path, tmp_path: Path):
    nlp = pipeline(own / "clf")
    nlp.to_disk(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved/ulmpipe_classifier/model").iterdir()} == {*FILES, "manifest.json"}
    ref = [doc.cats for doc in nlp.pipe(TEXTS)]
    shutil.rmtree(own)
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    again = spacy.load(tmp_path / "moved")
    assert [doc.cats for doc in again.pipe(TEXTS)] == ref
    component: Any = again.get_pipe("ulmpipe_classifier")
    assert component.labels == ("neg", "pos")
    again.to_disk(tmp_path / "twice")
    assert spacy.load(tmp_path / "twice")(TEXTS[0]).cats == ref[0]


def test_options_reach_the_predictor(trained: Trained):
    component: Any = pipeline(trained.clf, quantize=True, device="cpu").get_pipe("ulmpipe_classifier")
    assert component.predictor.quantize is True
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        pipeline(trained.clf, precision="fp16")("x")


def test_a_model_that_is_none_is_one_line(trained: Trained, tmp_path: Path):
    with pytest.raises(StoreError, match="nosuch does not exist, expected a model folder: check the spelling"):
        pipeline(tmp_path / "nosuch")("a text")
    with pytest.raises(UlmpipeError, match="predict needs a classifier, and this is a language model"):
        pipeline(trained.lm)("a text")
    nlp = spacy.blank("en")
    nlp.add_pipe("ulmpipe_classifier")
    with pytest.raises(ConfigError, match="ulmpipe_classifier has no model"):
        nlp("a text")


def test_spacy_finds_it_without_an_import(trained: Trained, tmp_path: Path):
    """By the entry point of pyproject.toml, as a distribution that is installed has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [f"{name} = {value}" for name, value in project["entry-points"]["spacy_factories"].items()]
    info = tmp_path / "found-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: found\nVersion: 1\n")
    (info / "entry_points.txt").write_text("\n".join(["[spacy_factories]", *lines]))
    code = f"import spacy; nlp = spacy.blank('en'); nlp.add_pipe('ulmpipe_classifier', config={{'model': {str(trained.clf)!r}}}); print(nlp('What a superb film!').cats)"
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    ref = ulmpipe.from_pretrained(trained.clf).predict(["What a superb film!"])[0].probabilities
    assert done.stdout == f"{ref}\n", done.stderr
